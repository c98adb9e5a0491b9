"""From a trained expert to one that is shipped: 16-bit weights, measured as they are shipped.

What is rounded: kernels, matrices and the background of the torso, to float16. bfloat16 would keep
8 bits of each weight where float16 keeps 11, and buys a range that weights do not need: they are
far below 65,504, and what lies under float16's smallest normal number (6e-5) is still rounded by at
most 3e-8. The output layer stays in float32, where close scores decide actions, and so do biases
and norms, which weigh next to nothing.
"""

import dataclasses
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.config import ScheduleConfig, leaves
from actor_mimic.errors import CannotCreateError, DataError, StorageError, UsageError
from actor_mimic.flat_config import build_config
from actor_mimic.learners.warm_start import HEAD_PREFIX
from actor_mimic.presets import PRESETS
from actor_mimic.protocols import protocol_named
from actor_mimic.report.zoo import MEASURED, RANDOM_UNDER, card
from actor_mimic.stages.measure import Measuring, measure, result_json
from actor_mimic.stages.players import player_of
from actor_mimic.storage.checkpoint import MODEL, Checkpoint, read_checkpoint
from actor_mimic.storage.durable import TEMPORARY, clean_leftovers, json_bytes, write_new
from actor_mimic.storage.manifest import SCHEMA_VERSION
from actor_mimic.storage.run_dir import COMPLETE, RUN, is_complete, read_run_json, slug
from actor_mimic.storage.shipped import (
    CARD,
    RANDOM,
    SCORES,
    Shipped,
    directory_of,
    read_shipped,
)
from actor_mimic.storage.staging import check_finite, put_in_place, write_manifest
from actor_mimic.storage.tensor_files import write_tensor_file
from actor_mimic.teachers.own import load_teacher, tasks_in_file

# No run evaluates with this seed by chance. A checkpoint that was chosen by its evaluations would
# otherwise be measured on the very games that it was chosen by.
GAMES_SEED = 1_000_003

_KEPT = ("kind", "tasks", "network", "config", "protocol", "parents", "versions")
# What a command names otherwise, or what changes no weight.
_NOT_SET = {"algorithm", "task", "seed", "total_steps", "protocol"} | {
    entry.name for entry in dataclasses.fields(ScheduleConfig)
}


def ship_expert(
    checkpoint: Checkpoint,
    *,
    episodes: int,
    num_threads: int,
    compute: Compute,
    stop: Callable[[], int | None],
    on_game: Callable[[str, int, int], None],
) -> Shipped:
    """Writes, measures and puts an expert into the zoo; what was there under its name goes.

    Everything is made beside its place and renamed when it is whole. Scores are kept in the run's
    ``evaluations/`` as they come, by the hash of the shipped weights: called again after a stop,
    this plays only what is missing.

    Args:
        checkpoint: of a run that trained one expert.
        episodes: games under each of `MEASURED`, and as many of random play.
        num_threads: C++ threads of the emulators.
        compute: where the network runs.
        stop: asked after every step; the number of a signal, or None.
        on_game: told what is played, the games finished and the games to play.

    Raises:
        UsageError: if it lies in no run, or there is nothing to play.
        DataError: if it is no expert, or its weights do not fit into 16 bits.
        DivergenceError: if a weight is not finite.
        CannotCreateError, StorageError: if the zoo's directory cannot be written to.
        Interrupted: if it was stopped.
    """
    if episodes < 1:
        raise UsageError(f"expected at least 1 game, got {episodes}")
    run, task = _source(checkpoint)
    content = {key: checkpoint.manifest.get(key) for key in _KEPT} | {
        "step": checkpoint.step,
        "shipped": _origin(checkpoint, run),
    }
    target = directory_of(slug(task))
    temporary = target.parent / f"{TEMPORARY}{os.getpid()}-{target.name}"
    _make_empty(temporary)
    try:
        tensors = shipped_tensors(checkpoint.load_tensors("model"))
        entry = write_tensor_file(temporary / MODEL, tensors)
        write_manifest(temporary, content, {MODEL: entry})
        written = read_checkpoint(temporary)
        evaluations = []
        act = player_of([load_teacher(written, task, compute)], compute.workers())
        own = [(written.model_sha256, act, *setting) for setting in MEASURED]
        for name, policy, protocol_name, epsilon in [*own, (RANDOM, None, RANDOM_UNDER, 1.0)]:
            measuring = Measuring(
                directory=run,
                protocol=protocol_named(protocol_name),
                epsilon=epsilon,
                episodes=episodes,
                seed=GAMES_SEED,
                num_threads=num_threads,
                stop=stop,
                on_game=_named(on_game, f"{task} ({protocol_name}, epsilon {epsilon:g})"),
            )
            scores = measure(policy, name, [task], measuring)[task]
            evaluations.append(result_json(name, task, epsilon, measuring, scores))
        scores_json = {"schema": SCHEMA_VERSION, "evaluations": evaluations}
        write_new(temporary / SCORES, json_bytes(scores_json))
        told = Shipped(target.name, target, written.manifest, evaluations)
        write_new(temporary / CARD, card(told).encode())
        put_in_place(temporary, target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_shipped(target.name)


def shipped_tensors(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An expert's weights as they are shipped; see the module's docstring.

    Raises:
        DivergenceError: if one is not finite.
        DataError: if one is too large for 16 bits.
    """
    check_finite(model)
    rounded = {}
    for name, tensor in model.items():
        keeps = name.startswith(HEAD_PREFIX) or tensor.ndim < 2
        rounded[name] = tensor.float() if keeps else tensor.to(torch.float16)
        if not bool(torch.isfinite(rounded[name]).all()):
            largest = torch.finfo(torch.float16).max
            raise DataError(f"{name}: expected weights up to {largest:,.0f} in size, got larger")
    return rounded


def training_command(config: Mapping[str, Any], torso: Mapping[str, Any]) -> tuple[str | None, str]:
    """The preset that a configuration comes nearest to, and the command that trains by it.

    A run stores values and not the preset that they came from. Where several presets, or the
    algorithm alone, are as near, it is the first. The schedule is left out: it changes no weight.

    Args:
        config: of an expert, as its run stored it.
        torso: how its network is described; it says what runs that are older than a setting of
            the network do not.

    Raises:
        KeyError, ConfigError: if it is none.
    """
    config = {"centred": torso.get("centred", False)} | dict(config)
    task, algorithm = config["task"], config["algorithm"]
    starts = {name: {"preset": name} for name in PRESETS if PRESETS[name]["algorithm"] == algorithm}
    candidates: dict[str | None, dict[str, Any]] = {**starts, None: {"algorithm": algorithm}}
    settings = {
        name: _differences(config, build_config("expert", {"task": task} | start))
        for name, start in candidates.items()
    }
    preset = min(settings, key=lambda name: len(settings[name]))
    chosen = f"--preset={preset}" if preset else f"--algorithm={algorithm}"
    command = ["actor-mimic", "train-expert", task, chosen]
    command += [f"--total-steps={config['total_steps']}", f"--seed={config['seed']}"]
    command += [f"--protocol={config['protocol']}"]
    command += [f"--set={name}={value}" for name, value in settings[preset].items()]
    return preset, shlex.join(command)


def _differences(config: Mapping[str, Any], other: Any) -> dict[str, Any]:
    return {
        name: config[name]
        for name, value in leaves(other)
        if name not in _NOT_SET and config.get(name, value) != value
    }


def _source(checkpoint: Checkpoint) -> tuple[Path, str]:
    """The run and the task of an expert.

    Only what was trained from random weights is an expert: a transfer's start is in no command.
    """
    if checkpoint.run is None:
        raise UsageError(f"{checkpoint.name}: expected a run, or a checkpoint that lies in one")
    if checkpoint.kind != "expert" or len(checkpoint.tasks) != 1:
        raise DataError(
            f"{checkpoint.path}: expected an expert of one task, got a {checkpoint.kind} of "
            f"{', '.join(checkpoint.tasks)}"
        )
    (task,) = tasks_in_file(checkpoint)
    return checkpoint.run, task


def _origin(checkpoint: Checkpoint, run: Path) -> dict[str, Any]:
    """What the manifest tells of the training beside what every checkpoint's does."""
    begun = read_run_json(run, RUN)
    try:
        preset, command = training_command(checkpoint.config, checkpoint.network["torso"])
        return {
            "weights": "float16",
            "source_sha256": checkpoint.model_sha256,
            "preset": preset,
            "command": command,
            "compute": begun["config"].get("compute"),
            **({"changed": begun["changed"]} if "changed" in begun else {}),
            "created": begun.get("created"),
            "run_seconds": read_run_json(run, COMPLETE)["seconds"] if is_complete(run) else None,
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{run}: expected the description of an expert's run: {error}") from error


def _make_empty(temporary: Path) -> None:
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        clean_leftovers(temporary.parent)
        temporary.mkdir()
    except OSError as error:
        raise CannotCreateError(f"cannot write to {temporary.parent}: {error}") from error


def _named(on_game: Callable[[str, int, int], None], name: str) -> Callable[[str, int, int], None]:
    return lambda _, finished, total: on_game(name, finished, total)
