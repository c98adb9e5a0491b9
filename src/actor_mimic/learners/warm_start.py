"""How a transfer network starts from the weights of a student or of a single expert.

Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, on transfer: the student without its
output layer becomes the first weights of an ordinary DQN on the new game, and every layer is
trained on. The authors' code keeps the output layer as well, so that policy logits serve as the
first Q-values; ``head="copy"`` does that, by the names of the actions instead of their positions.
Where the two networks differ in their quantiles, it is the mean that is copied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from actor_mimic.errors import ConfigError, DataError, did_you_mean
from actor_mimic.networks.q_network import QNetwork

HEADS = ("fresh", "copy")
STUDENT_PREFIX = "network."  # a student keeps its Q-network under this name
BACKGROUND = "torso.background"
HEAD_PREFIX = "head."


@dataclass(frozen=True)
class TensorOrigin:
    """Where the first values of one tensor of the new network come from.

    Attributes:
        name: of the tensor, in the new network.
        origin: ``copied`` whole, ``rows`` (of a head: gathered by action name) or ``fresh``.
        rows: how many entries of the first axis have values from the source.
    """

    name: str
    origin: Literal["copied", "rows", "fresh"]
    rows: int


@torch.no_grad()
def warm_start(
    target: QNetwork,
    source_tensors: Mapping[str, Tensor],
    *,
    source_outputs: Sequence[str],
    target_actions: Sequence[str],
    head: str,
    source_quantiles: int = 1,
) -> list[TensorOrigin]:
    """Put the weights of a trained network into a new one; nothing is frozen.

    Args:
        target: freshly initialised; it keeps its own values wherever none are copied.
        source_tensors: of a student (``network.torso...``, ``network.head...``) or of an expert
            (``torso...``, ``head...``), on any device.
        source_outputs: what each output of the source means: the alphabet of a student, the
            task's action names of an expert.
        target_actions: action names of the new task, in its own order.
        head: ``fresh`` leaves the output layer as initialised; ``copy`` gathers the rows of the
            actions that both networks have, and leaves the others as initialised. If the source has
            another number of quantiles, every quantile starts from the mean of the source's: the
            scores are the source's then, whatever the numbers.
        source_quantiles: of each output of the source; 1 if it is a student.

    Returns:
        One entry for every tensor of the target, in its own order.

    Raises:
        DataError: if the source has other tensors, shapes or types than a network with the
            target's torso and these outputs; nothing has changed then.
        ConfigError: if ``head`` is unknown, or ``copy`` finds no action that both have.
        ValueError: if an action is named twice, or the names do not fit the target's outputs.
    """
    if head not in HEADS:
        raise ConfigError(
            f"unknown head {head!r}, expected {' or '.join(HEADS)}{did_you_mean(head, HEADS)}"
        )
    _check_names(target, source_outputs, target_actions)
    # The background is the new game's own, and a student has several.
    source = _without_background(_without_student_prefix(source_tensors))
    own = target.state_dict()
    _check_tensors(source, _without_background(own), len(source_outputs) * source_quantiles)

    pairs = []
    if head == "copy":
        pairs = _shared_actions(source_outputs, target_actions)
    origins = []
    for name, tensor in own.items():
        if name == BACKGROUND:
            origins.append(TensorOrigin(name, "fresh", 0))
            continue
        if not name.startswith(HEAD_PREFIX):
            tensor.copy_(source[name])
            origins.append(TensorOrigin(name, "copied", len(tensor)))
            continue
        rows = tensor.unflatten(0, (target.num_outputs, target.num_quantiles))
        source_rows = source[name].unflatten(0, (len(source_outputs), source_quantiles))
        if source_quantiles != target.num_quantiles:
            source_rows = source_rows.mean(dim=1, keepdim=True)
        for target_row, source_row in pairs:
            rows[target_row] = source_rows[source_row]
        copied = len(pairs) * target.num_quantiles
        origins.append(TensorOrigin(name, "rows" if pairs else "fresh", copied))
    return origins


@torch.no_grad()
def warm_start_convolutions(
    target: QNetwork, convolutions: Mapping[str, Tensor]
) -> list[TensorOrigin]:
    """Put convolutions that tasks have shared into a new network, whose other layers stay fresh.

    Args:
        target: freshly initialised.
        convolutions: named as those of the target (``torso...``), on any device.

    Returns:
        One entry for every tensor of the target, in its own order.

    Raises:
        DataError: if one of them is not among the target's; nothing has changed then.
    """
    own = target.state_dict()
    _check_tensors(convolutions, {n: t for n, t in own.items() if n in convolutions}, 0)
    origins = []
    for name, tensor in own.items():
        if name in convolutions:
            tensor.copy_(convolutions[name])
            origins.append(TensorOrigin(name, "copied", len(tensor)))
        else:
            origins.append(TensorOrigin(name, "fresh", 0))
    return origins


def _check_names(
    target: QNetwork, source_outputs: Sequence[str], target_actions: Sequence[str]
) -> None:
    for names in (source_outputs, target_actions):
        if len(set(names)) != len(names):
            raise ValueError(f"every output needs a name of its own, got {tuple(names)}")
    if len(target_actions) != target.num_outputs:
        raise ValueError(
            f"the target has {target.num_outputs} outputs, got {len(target_actions)} action names"
        )


def _shared_actions(
    source_outputs: Sequence[str], target_actions: Sequence[str]
) -> list[tuple[int, int]]:
    rows = {action: row for row, action in enumerate(source_outputs)}
    pairs = [(row, rows[action]) for row, action in enumerate(target_actions) if action in rows]
    if not pairs:
        raise ConfigError(
            "head = 'copy' needs an action that both networks have; the source has "
            f"{', '.join(source_outputs)}, the new task {', '.join(target_actions)}. "
            "Choose head = 'fresh'."
        )
    return pairs


def _without_student_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # All or none: a mixture is no network of ours, and the check of the names reports it.
    if all(name.startswith(STUDENT_PREFIX) for name in tensors):
        return {name.removeprefix(STUDENT_PREFIX): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _without_background(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != BACKGROUND}


def _check_tensors(
    source: Mapping[str, Tensor], own: Mapping[str, Tensor], num_outputs: int
) -> None:
    expected = {name: _describe(tensor, tensor.shape) for name, tensor in own.items()}
    for name, tensor in own.items():
        if name.startswith(HEAD_PREFIX):
            expected[name] = _describe(tensor, (num_outputs, *tensor.shape[1:]))
    found = {name: _describe(tensor, tensor.shape) for name, tensor in source.items()}
    names = [*expected, *(name for name in found if name not in expected)]
    rows = [
        (name, expected.get(name, "-"), found.get(name, "-"))
        for name in names
        if expected.get(name) != found.get(name)
    ]
    if not rows:
        return
    rows.insert(0, ("tensor", "expected", "found"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = "\n".join(
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    raise DataError(f"the source network does not fit the new one; nothing was loaded:\n{table}")


def _describe(tensor: Tensor, shape: Sequence[int]) -> str:
    size = " x ".join(str(length) for length in shape) or "scalar"
    return f"{size} {str(tensor.dtype).removeprefix('torch.')}"
