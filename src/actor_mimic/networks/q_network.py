"""A torso with one linear output layer: experts, transfer networks, the inside of students."""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from actor_mimic.networks.torsos import Torso, TorsoSpec


class Output(NamedTuple):
    """What every network of this library returns."""

    scores: Float[Tensor, "batch actions"]  # Q-values or logits
    features: Float[Tensor, "batch features"]  # last hidden layer, after its ReLU


class QNetwork(nn.Module):
    """One score per action of one task, and the features they were read from.

    With several quantiles the output layer gives those of each action's return, equal shares of
    probability apart, and the score is their mean (Dabney et al. 2018, arXiv:1710.10044). They
    are learnt in ascending order; nothing here keeps them so.

    The output layer always runs in float32: in bfloat16 the values 8.98, 9.00 and 9.02 are one
    number, and the greedy action with them.

    Args:
        spec: the torso.
        num_outputs: actions of the task (expert) or slots of the alphabet (student).
        num_quantiles: of each action's return; 1 is an ordinary Q-network. The output layer has
            the rows of one action side by side, lowest quantile first.
        generator: where the initial weights come from; None leaves all of them on the ``meta``
            device, without memory, for weights that are to be loaded.

    Raises:
        ValueError: if there is not at least one quantile.
    """

    def __init__(
        self,
        spec: TorsoSpec,
        num_outputs: int,
        *,
        generator: torch.Generator | None,
        num_quantiles: int = 1,
    ) -> None:
        super().__init__()
        if num_quantiles < 1:
            raise ValueError(f"num_quantiles must be at least 1, got {num_quantiles}")
        self.num_outputs = num_outputs
        self.num_quantiles = num_quantiles
        with torch.device("meta"):
            self.torso = Torso(spec)
            self.head = nn.Linear(self.torso.num_features, num_outputs * num_quantiles)
        if generator is not None:
            initialise(self, generator)

    def forward(self, obs: Shaped[Tensor, "batch ..."]) -> Output:
        """Scores and features of raw observations."""
        features = self.torso(obs)
        return Output(self._read(features).mean(dim=2), features)

    def quantiles(
        self, obs: Shaped[Tensor, "batch ..."]
    ) -> Float[Tensor, "batch actions quantiles"]:
        """Quantiles of the return of each action."""
        return self._read(self.torso(obs))

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to build the same network; stored in checkpoints."""
        return {
            "torso": self.torso.spec.to_json(),
            "num_outputs": self.num_outputs,
            "num_quantiles": self.num_quantiles,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "QNetwork":
        """A network of the recorded shape, without memory for its weights."""
        return QNetwork(
            TorsoSpec.from_json(data["torso"]),
            int(data["num_outputs"]),
            # Descriptions from before there were quantiles do not mention them.
            num_quantiles=int(data.get("num_quantiles", 1)),
            generator=None,
        )

    def _read(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch actions quantiles"]:
        return self.head(features).unflatten(1, (self.num_outputs, self.num_quantiles))


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's own default for convolutions and linear layers, from a generator of ours.

    Weights and biases are uniform in +-1/sqrt(fan_in), which is also what Torch7 and therefore
    the paper's networks used; normalisation layers start with scale 1 and shift 0.

    Args:
        module: built on the ``meta`` device: it gets its memory here. Built elsewhere, its layers
            would already have drawn their weights from the global generator.
        generator: of the CPU, where the weights come to lie.

    Raises:
        TypeError: if a layer of another kind has parameters.
    """
    module.to_empty(device="cpu")
    for buffer in module.buffers():
        buffer.zero_()
    for layer in module.modules():
        if isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            layer.reset_parameters()
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            layer.weight.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=generator)
        elif list(layer.parameters(recurse=False)):
            raise TypeError(f"no initial weights are defined for {type(layer).__name__}")
