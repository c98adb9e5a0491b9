"""Weights in the precision that they are multiplied in, beside those that are learnt.

In bfloat16 a CPU would turn every weight of a torso into that precision again for each batch, and
so would every worker, however small the batch. Here they are turned once, after each optimiser
step::

    weights (float32) --refresh--> copies (bfloat16) --forward, backward--> gradients (bfloat16)
        ^                                                                        |
        '------------------- optimiser step, in float32 -------------------------'

What is computed is what autocast computes, bit for bit.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from actor_mimic.networks.layered import LayeredNetwork
from actor_mimic.networks.torsos import HiddenLayers, Torso

Network = TypeVar("Network", bound=nn.Module)


class WorkingCopy(Generic[Network]):
    """A network to call in the place of one that is learnt; they share all that stays in float32.

    Args:
        network: already on its device, with the precision of its torsos set. In float32, and on a
            GPU, which has no such trouble, it is its own working copy.

    Attributes:
        network: what to call, and to differentiate.
    """

    def __init__(self, network: Network) -> None:
        self._low: dict[Tensor, nn.Parameter] = {
            weight: nn.Parameter(weight.detach().to(torch.bfloat16), weight.requires_grad)
            for weight in _low_weights(network)
        }
        shared = {id(p): p for p in (*network.parameters(), *network.buffers())}
        shared |= {id(weight): low for weight, low in self._low.items()}
        self.network = copy.deepcopy(network, shared) if self._low else network

    def of(self, parameters: Iterable[Tensor]) -> list[Tensor]:
        """What stands in for parameters; those that it does not have stand for themselves."""
        return [self._low.get(parameter, parameter) for parameter in parameters]

    @torch.no_grad()
    def refresh(self) -> None:
        """Takes over the weights, after they have changed."""
        for weight, low in self._low.items():
            low.copy_(weight)


def lower(network: nn.Module) -> None:
    """The same without a copy: the weights of a network that is not learnt any more are changed.

    Args:
        network: as of a `WorkingCopy`; in float32, and on a GPU, it stays as it is.
    """
    for weight in _low_weights(network):
        weight.data = weight.data.to(torch.bfloat16)


def _low_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """Those that a CPU multiplies in bfloat16: of convolutions and linear layers on images."""
    for part in network.modules():
        if not isinstance(part, Torso | HiddenLayers | LayeredNetwork):
            continue
        # Vectors stay in float32.
        if part.precision == torch.float32 or len(part.spec.obs_shape) == 1:
            continue
        for layer in part.layers.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                yield from (p for p in layer.parameters() if p.device.type == "cpu")
