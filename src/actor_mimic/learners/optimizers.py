"""The optimisers: Adam, the centred RMSProp of Mnih et al. (2015), Actor-Mimic's own Adam."""

# The operations on whole lists of tensors, which PyTorch's own optimisers are made of, have a
# leading underscore there.
# pyright: reportPrivateImportUsage=false

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

Group = Mapping[str, Any]
Tensors = list[torch.Tensor]


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float,
    adam_epsilon: float,
    rmsprop_decay: float,
    rmsprop_epsilon: float,
) -> torch.optim.Optimizer:
    """An optimiser by its name in the settings.

    Args:
        name: ``adam`` or ``rmsprop``.
        parameters: already on their device.
        learning_rate: of either.
        adam_epsilon: added to the root of Adam's squared gradients.
        rmsprop_decay: see `CentredRMSProp`.
        rmsprop_epsilon: see `CentredRMSProp`.

    Raises:
        ValueError: if there is no optimiser of that name.
    """
    match name:
        case "adam":
            # One kernel for all parameters; on a CPU the default takes several times as long.
            return torch.optim.Adam(parameters, lr=learning_rate, eps=adam_epsilon, fused=True)
        case "rmsprop":
            return CentredRMSProp(
                parameters,
                learning_rate=learning_rate,
                decay=rmsprop_decay,
                epsilon=rmsprop_epsilon,
            )
        case _:
            raise ValueError(f"unknown optimizer {name!r}")


class _OfAverages(torch.optim.Optimizer):
    """What both of the optimisers below begin with.

    ::

        mean        <- decay mean        + (1 - decay) gradient
        mean_square <- decay mean_square + (1 - decay) gradient^2

    Both are zero before the first step.

    Args:
        parameters: to be optimised.
        learning_rate: positive.
        decay: of both averages, at least 0 and below 1.
        epsilon: positive, in squared units of the gradient.

    Raises:
        ValueError: if one of these is out of its range.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        decay: float,
        epsilon: float,
    ) -> None:
        if not (learning_rate > 0.0 and 0.0 <= decay < 1.0 and epsilon > 0.0):
            raise ValueError(
                f"expected learning_rate > 0, 0 <= decay < 1 and epsilon > 0, got {learning_rate}, "
                f"{decay} and {epsilon}"
            )
        defaults = {"lr": learning_rate, "decay": decay, "epsilon": epsilon}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride]  (there is no loss to return)
        self, closure: Callable[[], float] | None = None
    ) -> None:
        """One step with the gradients that the parameters have; those without stay.

        Args:
            closure: PyTorch's interface has it; must be None.
        """
        assert closure is None, "no loss is evaluated here"
        for group in self.param_groups:
            parameters: Tensors = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters if p.grad is not None]
            means, mean_squares = self._averages(parameters)
            share = 1.0 - group["decay"]
            torch._foreach_lerp_(means, gradients, share)
            torch._foreach_mul_(mean_squares, group["decay"])
            torch._foreach_addcmul_(mean_squares, gradients, gradients, value=share)
            self._move(group, parameters, means, mean_squares)

    def _averages(self, parameters: Iterable[torch.Tensor]) -> tuple[Tensors, Tensors]:
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["mean"] = torch.zeros_like(parameter)
                state["mean_square"] = torch.zeros_like(parameter)
        return [state["mean"] for state in states], [state["mean_square"] for state in states]

    @abstractmethod
    def _move(self, group: Group, parameters: Tensors, means: Tensors, squares: Tensors) -> None:
        """Changes the parameters of a group; the averages are those of this step already."""


class CentredRMSProp(_OfAverages):
    """Steps along the gradient, divided by its recent standard deviation.

    ::

        parameter <- parameter - learning_rate gradient / sqrt(mean_square - mean^2 + epsilon)

    Source: the code released with Mnih et al. (2015), whose "gradient momentum" and "squared
    gradient momentum" are the decay of the two averages: no velocity is kept. PyTorch's own
    ``RMSprop(centered=True)`` adds epsilon after the root, where 0.01 is another size altogether.
    Deviation: rounding may take the variance below zero, where it counts as zero.

    Args:
        parameters, learning_rate: as for both.
        decay: of both averages. With two different ones the variance could be truly negative.
        epsilon: the smallest variance to divide by. A loss that is a mean over B examples has
            gradients B times smaller than their sum, and makes the same steps with epsilon / B^2.
    """

    def _move(self, group: Group, parameters: Tensors, means: Tensors, squares: Tensors) -> None:
        deviations = torch._foreach_addcmul(squares, means, means, value=-1.0)
        torch._foreach_clamp_min_(deviations, 0.0)
        torch._foreach_add_(deviations, group["epsilon"])
        torch._foreach_sqrt_(deviations)
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_addcdiv_(parameters, gradients, deviations, value=-group["lr"])


class AuthorsAdam(_OfAverages):
    """The Adam of the code released with Actor-Mimic, which is not that of Kingma and Ba.

    ::

        parameter <- parameter - learning_rate c mean / sqrt(mean_square + epsilon)
        c          = sqrt(1 - decay) / (1 - decay)

    The correction c is what Kingma and Ba have for the first step only; here it stays, 4.47 with a
    decay of 0.95, so that later steps are that much longer. Epsilon stands inside the root, where
    0.01 makes the steps of small gradients proportional to them.

    Source: the code released with Parisotto, Ba and Salakhutdinov (2016), with these defaults and
    a learning rate of 2.5e-4. No deviation.

    Args:
        parameters, learning_rate, decay: as for both.
        epsilon: as for both; the gradient is there a sum over examples.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        decay: float = 0.95,
        epsilon: float = 0.01,
    ) -> None:
        super().__init__(parameters, learning_rate=learning_rate, decay=decay, epsilon=epsilon)

    def _move(self, group: Group, parameters: Tensors, means: Tensors, squares: Tensors) -> None:
        roots = torch._foreach_add(squares, group["epsilon"])
        torch._foreach_sqrt_(roots)
        share = 1.0 - group["decay"]
        length = group["lr"] * share**0.5 / share
        torch._foreach_addcdiv_(parameters, means, roots, value=-length)
