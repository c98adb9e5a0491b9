"""The one place where a loss becomes an optimiser step, and how an optimiser is put away."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.errors import DataError, DivergenceError
from actor_mimic.networks.working_copy import WorkingCopy


def gradient_step(
    losses: Callable[[slice], tuple[Float[Tensor, " rows"], dict[str, Tensor]]],
    num_rows: int,
    optimizer: torch.optim.Optimizer,
    workers: Workers,
    *,
    max_norm: float,
    working: WorkingCopy[Any] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Forward, the mean over examples, backward, clip, step.

    Every worker takes its rows forward and backward on the same weights; their gradients are
    added in a fixed order::

        rows    0 .. 63 | 64 .. 127
        worker     0    |     1          losses(slice) -> sum / 128 -> gradient
                    gradient 0 + gradient 1 -> clip -> step

    Args:
        losses: for a slice of the batch, one loss per example, and whatever else is to be known
            of each example; called from several threads.
        num_rows: examples in the batch.
        optimizer: over every parameter that the losses reach.
        workers: who computes.
        max_norm: the gradient is scaled down to this norm if it is longer; 0 leaves it as it is.
        working: what the losses call in the place of the network, if it is not the network.

    Returns:
        The mean loss, and the rest for the whole batch, in the order of its rows; detached.

    Raises:
        DivergenceError: if the loss or a gradient is not finite; no parameter has changed then.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    weights = parameters if working is None else working.of(parameters)

    def part(rows: slice) -> tuple[Tensor, Sequence[Tensor | None], dict[str, Tensor]]:
        values, columns = losses(rows)
        loss = values.sum() / num_rows
        # Not `backward`: it would add into the one `.grad` from several threads.
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return loss.detach(), gradients, columns

    parts = workers.map(part, num_rows)
    for parameter, *gradients in zip(parameters, *(part[1] for part in parts), strict=True):
        _set_gradient(parameter, gradients)
    loss = torch.stack([part[0] for part in parts]).sum()
    columns = {name: torch.cat([part[2][name] for part in parts]) for name in parts[0][2]}
    reached = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in reached if p.grad is not None])
    # Both, in one look: an infinite Huber loss has a finite gradient.
    if not torch.isfinite(norm + loss):
        raise DivergenceError(
            f"not finite: loss {float(loss):g}, gradient norm {float(norm):g}; stopped "
            "before the optimiser step. Try a lower learning rate, or look at the rewards and the "
            "teachers' scores."
        )
    if 0.0 < max_norm < norm:
        torch.nn.utils.clip_grads_with_norm_(reached, max_norm, norm)
    optimizer.step()
    if working is not None:
        working.refresh()
    return loss, columns


def _set_gradient(parameter: Tensor, gradients: Sequence[Tensor | None]) -> None:
    """The sum in float32, laid out as the parameter is; None if no part reached it."""
    reached = [gradient for gradient in gradients if gradient is not None]
    if not reached:
        parameter.grad = None
        return
    if parameter.grad is None:
        # Convolutions of images that lie channels last give gradients that do too, and a fused
        # optimiser walks through memory without looking at strides.
        parameter.grad = torch.empty_like(parameter, memory_format=torch.contiguous_format)
    # Into memory that is kept: it is still in the cache from the last step, and a CUDA graph
    # overwrites what it returned.
    parameter.grad.copy_(reached[0])
    for gradient in reached[1:]:
        parameter.grad += gradient


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
