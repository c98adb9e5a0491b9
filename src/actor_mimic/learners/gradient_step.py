"""The one place where a loss becomes an optimiser step, and how an optimiser is put away."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from actor_mimic.errors import DataError, DivergenceError


def gradient_step(
    loss: Float[Tensor, ""], optimizer: torch.optim.Optimizer, *, max_norm: float
) -> None:
    """Backward, clip, step.

    Args:
        loss: a scalar; its graph is consumed.
        optimizer: over every parameter that the loss reaches.
        max_norm: the gradient is scaled down to this norm if it is longer; 0 leaves it as it is.

    Raises:
        DivergenceError: if the loss or a gradient is not finite; no parameter has changed then.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
    # Both, in one look: an infinite Huber loss has a finite gradient.
    if not torch.isfinite(norm + loss.detach()):
        raise DivergenceError(
            f"not finite: loss {float(loss.detach()):g}, gradient norm {float(norm):g}; stopped "
            "before the optimiser step. Try a lower learning rate, or look at the rewards and the "
            "teachers' scores."
        )
    optimizer.step()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The moments and counters of an optimiser, named ``PARAMETER.NAME``.

    Its hyper-parameters are not among them: they come from the configuration.
    """
    return {
        f"{parameter}.{name}": value
        for parameter, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave.

    Raises:
        DataError: if a tensor belongs to no parameter of this optimiser, or has another shape;
            nothing has changed then.
    """
    # In the order in which PyTorch numbers them.
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if not number.isdecimal() or int(number) >= len(parameters):
            raise DataError(
                f"the optimiser has {len(parameters)} parameters, the checkpoint has state for "
                f"{key!r}"
            )
        expected = tuple(parameters[int(number)].shape)
        if value.ndim and tuple(value.shape) != expected:
            raise DataError(
                f"optimiser state {key!r}: expected shape {expected}, found {tuple(value.shape)}"
            )
        # The optimiser works in place, and must not do so in the caller's tensors.
        state.setdefault(int(number), {})[name] = value.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
