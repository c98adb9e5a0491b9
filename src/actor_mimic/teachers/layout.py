"""What every kind of foreign file is turned into, and the pieces that their layouts share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from actor_mimic.errors import DataError
from actor_mimic.networks.layered import Layer, LayeredSpec

# Kernels and strides of Mnih et al. (2015). The strides are nowhere in a file of weights, so
# a network is taken for this one by its kernels.
NATURE_KERNELS = ((8, 4), (4, 2), (3, 1))


@dataclass(frozen=True)
class Imported:
    """A foreign network as one of ours.

    Attributes:
        layout: what it was recognised as: ``sb3-dqn``, ``cleanrl-c51``, ...
        spec: what it is made of.
        tensors: its weights, by the names of a `LayeredNetwork`.
    """

    layout: str
    spec: LayeredSpec
    tensors: dict[str, Tensor]


def refuse_actions(source: str, found: int | float, actions: Sequence[str]) -> NoReturn:
    """An agent has as many actions as the task, or is another game's.

    Raises:
        DataError: always.
    """
    raise DataError(
        f"{source}: expected an agent for the task's {len(actions)} actions, got one for "
        f"{found:g}; the task's are {', '.join(actions)}"
    )


class Parts:
    """Takes tensors out of a state dict one after the other; what is left over is unknown.

    Args:
        tensors: by their foreign names.
        source: of them, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self._left = dict(tensors)
        self._source = source
        self.layers: list[Layer] = []
        self.taken: dict[str, Tensor] = {}

    def has(self, prefix: str) -> bool:
        """Whether a name that starts with this is left."""
        return any(name.startswith(prefix) for name in self._left)

    def indices(self, prefix: str) -> list[int]:
        """The numbers that follow a prefix in the names that are left, in order."""
        found = (re.match(rf"{re.escape(prefix)}([0-9]{{1,4}})\.", name) for name in self._left)
        return sorted({int(match[1]) for match in found if match})

    def drop(self, *prefixes: str) -> None:
        """Leaves out what plays no part in acting: target networks, critics."""
        self._left = {n: t for n, t in self._left.items() if not n.startswith(prefixes)}

    def take(self, name: str, ndim: int) -> Tensor:
        """One tensor of so many axes, as float32.

        Raises:
            DataError: if it is not there, or of another kind.
        """
        tensor = self._left.pop(name, None)
        if tensor is None:
            raise DataError(f"{self._source}: expected the tensor {name}, which is not there")
        if tensor.ndim != ndim or tensor.numel() == 0 or not tensor.is_floating_point():
            raise DataError(
                f"{self._source}: expected {name} with {ndim} axes of floats, got "
                f"{tuple(tensor.shape)} of {tensor.dtype}"
            )
        return tensor.float()

    def add(self, name: str, layer: Layer, activation: str | None) -> None:
        """Takes a layer with weight and bias, and puts an activation behind it."""
        at = f"layers.{len(self.layers)}"
        self._move(name, at, 4 if layer.kind == "conv" else 2)
        self.layers.append(layer)
        if activation is not None:
            self.layers.append(Layer(activation))

    def add_linear(self, name: str, activation: str) -> None:
        """Takes a hidden layer of any width."""
        self.add(name, Layer("linear", self._rows(f"{name}.weight")), activation)

    def add_nature(self, names: Sequence[str]) -> None:
        """Takes the three convolutions of Mnih et al. (2015), of any widths, and flattens.

        Raises:
            DataError: if the kernels are others: then so may be the strides.
        """
        for name, (kernel, stride) in zip(names, NATURE_KERNELS, strict=True):
            shape = self._shape(f"{name}.weight")
            if shape[2:] != (kernel, kernel):
                raise DataError(
                    f"{self._source}: expected {name} with a kernel of {kernel} x {kernel}, as in "
                    f"the Nature CNN, got a weight of shape {shape}"
                )
            self.add(name, Layer("conv", shape[0], kernel, stride), "relu")
        self.layers.append(Layer("flatten"))

    def add_residual_stage(self, name: str) -> None:
        """Takes one stage of an Impala network."""
        at = f"layers.{len(self.layers)}"
        self.layers.append(Layer("residual_stage", self._rows(f"{name}.conv.weight")))
        self._move(f"{name}.conv", f"{at}.conv", 4)
        for block in range(2):
            for conv in range(2):
                theirs = f"{name}.res_block{block}.conv{conv}"
                self._move(theirs, f"{at}.block{block}.conv{conv}", 4)

    def finish(self) -> None:
        """Makes sure that nothing is left.

        Raises:
            DataError: naming what is.
        """
        if self._left:
            raise DataError(
                f"{self._source}: expected an agent with its library's own layers, got others "
                f"beside them: {', '.join(sorted(self._left))[:300]}"
            )

    def _move(self, theirs: str, ours: str, ndim: int) -> None:
        for part, axes in (("weight", ndim), ("bias", 1)):
            self.taken[f"{ours}.{part}"] = self.take(f"{theirs}.{part}", axes)

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._left[name].shape) if name in self._left else ()

    def _rows(self, name: str) -> int:
        shape = self._shape(name)
        return shape[0] if shape else 0


def by_action(head: Tensor, num_actions: int) -> Tensor:
    """Rows sorted by bin, then action, as rows sorted by action, then bin."""
    return torch.cat(list(head.unflatten(0, (-1, num_actions)).unbind(1)))
