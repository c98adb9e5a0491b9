"""A foreign file becomes a checkpoint of ours: read, recognised, held against its task, written."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actor_mimic.envs.make import describe_task
from actor_mimic.errors import CannotCreateError, ConfigError, DataError, check_choice
from actor_mimic.networks.layered import ACTIVATIONS, LayeredNetwork
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint, write_checkpoint
from actor_mimic.storage.durable import (
    file_sha256,
    make_directories,
    parse_json,
    read_regular,
)
from actor_mimic.storage.naming import find_checkpoints
from actor_mimic.storage.run_dir import installed_versions
from actor_mimic.teachers.cleanrl import from_cleanrl
from actor_mimic.teachers.layout import Imported
from actor_mimic.teachers.own import load_tensors
from actor_mimic.teachers.sb3 import from_sb3
from actor_mimic.teachers.weights import ForeignWeights, read_weights

KIND = "import"
MAX_STATS_BYTES = 1 << 20


@dataclass(frozen=True)
class ImportOptions:
    """What a file does not say of itself.

    Attributes:
        task: what the agent plays.
        activation: of the hidden layers of an agent of Stable-Baselines3; None for its default.
        obs_stats: a JSON file with the observations' ``mean`` and ``var`` (lists), ``epsilon`` and
            ``clip`` (numbers), by which the agent's observations were normalised.
        quantiles: of each action of a QR-DQN agent; None for its library's default.
        claimed_score: what its author says that it scores.

    Raises:
        ConfigError: if a value is unknown or out of its range.
    """

    task: str
    activation: str | None = None
    obs_stats: Path | None = None
    quantiles: int | None = None
    claimed_score: float | None = None

    def __post_init__(self) -> None:
        if self.activation is not None:
            check_choice("activation", self.activation, ACTIVATIONS)
        if self.quantiles is not None and self.quantiles < 1:
            raise ConfigError(f"quantiles must be at least 1, got {self.quantiles}")
        if self.claimed_score is not None and not math.isfinite(self.claimed_score):
            raise ConfigError(f"the claimed score must be finite, got {self.claimed_score}")


def import_teacher(
    path: Path, directory: Path, options: ImportOptions, *, origin: str | None = None
) -> Checkpoint:
    """Turns a foreign file into an import directory.

    Args:
        path: the file.
        directory: made if missing. If it holds the same file's import with the same options, that
            is what is returned.
        options: what the file does not say.
        origin: where the file came from, if not from this machine.

    Raises:
        UnsafeError, DataError: if the file is not safe, not whole, or does not fit the task.
        ConfigError: if the options do not fit the file.
        CannotCreateError: if there is something else in the directory.
        StorageError: if it cannot be written.
    """
    # What takes a moment first: to decode the file takes seconds.
    shape, actions = describe_task(options.task)
    weights = read_weights(path)
    imported = _recognise(weights, str(path), shape, actions, options)
    imported = _normalised(imported, options.obs_stats)
    network = build(imported, str(path))
    manifest = {
        "kind": KIND,
        "tasks": {options.task: list(actions)},
        "network": network.to_json(),
        "config": {
            "layout": imported.layout,
            "source": origin or path.name,
            "source_sha256": weights.sha256,
            "obs_stats_sha256": options.obs_stats and file_sha256(options.obs_stats),
            "claimed_score": options.claimed_score,
        },
        "parents": [],
        "protocol": None,
    }
    if directory.is_dir():
        before = _written_before(directory, manifest)
        if before is not None:
            return before
    try:
        make_directories(directory)
    except OSError as error:
        raise CannotCreateError(f"cannot make {directory}: {error}") from error
    return write_checkpoint(
        directory / "checkpoints",
        step=0,
        tensors={"model": network.state_dict()},
        state={},
        manifest=manifest | {"versions": installed_versions()},
    )


def _recognise(
    weights: ForeignWeights,
    source: str,
    obs_shape: tuple[int, ...],
    actions: Sequence[str],
    options: ImportOptions,
) -> Imported:
    activation = options.activation
    try:
        if weights.kind == "sb3" or not any(n.startswith("network.") for n in weights.tensors):
            return from_sb3(
                weights.tensors,
                source,
                obs_shape=obs_shape,
                actions=actions,
                activation=activation,
                quantiles=options.quantiles,
            )
        if activation is not None:
            raise ConfigError(f"activation = {activation}: the layers of CleanRL all have relu")
        if options.quantiles is not None:
            raise ConfigError(f"quantiles = {options.quantiles}: {source} is no QR-DQN agent")
        return from_cleanrl(weights.tensors, source, obs_shape=obs_shape, actions=actions)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error


def _normalised(imported: Imported, obs_stats: Path | None) -> Imported:
    """The network behind the normalisation of its observations."""
    if obs_stats is None:
        return imported
    (length, *more) = imported.spec.obs_shape
    if more:
        raise ConfigError("obs_stats: only vectors are normalised, images never are")
    content = parse_json(read_regular(obs_stats, max_bytes=MAX_STATS_BYTES), path=obs_stats)
    if not isinstance(content, dict) or set(content) != {"mean", "var", "epsilon", "clip"}:
        raise DataError(f"{obs_stats}: expected mean, var, epsilon and clip, got {content!r:.200}")
    numbers = [_numbers(obs_stats, name, content[name], length) for name in ("mean", "var")] + [
        _numbers(obs_stats, name, [content[name]], 1) for name in ("epsilon", "clip")
    ]
    mean, var, epsilon, clip = numbers
    if not bool((var + epsilon > 0).all()):
        raise DataError(f"{obs_stats}: expected a positive var + epsilon")
    largest = torch.finfo(torch.float32).max
    if not 0 < float(clip) <= largest:
        raise DataError(
            f"{obs_stats}: expected a clip above 0 and at most {largest:g}, got {float(clip):g}"
        )
    deviation = (var + epsilon).sqrt().float()
    if not bool((deviation > 0).all()):
        raise DataError(f"{obs_stats}: expected deviations that float32 can hold, got {deviation}")
    fields = imported.spec.to_json() | {"clip": float(clip)}
    tensors = imported.tensors | {"obs_mean": mean.float(), "obs_deviation": deviation}
    return Imported(imported.layout, type(imported.spec).from_json(fields), tensors)


def _numbers(path: Path, name: str, values: Any, length: int) -> Tensor:
    plain = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not plain or len(values) != length or not all(abs(v) <= sys.float_info.max for v in values):
        raise DataError(
            f"{path}: expected {name} to be {length} finite numbers, got {json.dumps(values):.100}"
        )
    return torch.tensor(values, dtype=torch.float64)


def build(imported: Imported, source: str) -> LayeredNetwork:
    """The network, on the CPU.

    Raises:
        DataError: if its tensors do not fit each other or the task's observations.
    """
    try:
        network = LayeredNetwork(imported.spec)
    except ValueError as error:
        raise DataError(f"{source}: does not fit the task's observations: {error}") from error
    load_tensors(network, imported.tensors, source)
    return network


def _written_before(directory: Path, manifest: Mapping[str, Any]) -> Checkpoint | None:
    """The same import, if the directory holds it; None if it holds nothing."""
    if not find_checkpoints(directory / "checkpoints"):
        others = [path.name for path in directory.iterdir() if path.name != "checkpoints"]
        if others:
            raise CannotCreateError(f"{directory}: expected no such directory, got {others[:5]}")
        return None
    checkpoint = resolve_checkpoint(directory)
    if any(_unnamed(checkpoint.manifest.get(key)) != _unnamed(manifest[key]) for key in manifest):
        raise CannotCreateError(
            f"{directory} holds another import or a run; choose another directory"
        )
    return checkpoint


def _unnamed(entry: Any) -> Any:
    """Part of a manifest without the file's name: its hash says which file it is."""
    return {**entry, "source": None} if isinstance(entry, dict) and "source" in entry else entry
