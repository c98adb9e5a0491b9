"""The learning verbs as functions: what ``actor-mimic train-expert`` does, from Python.

Each shows its progress on standard error, as the verb does, and ends in a `Player`. Called again
with the same arguments it goes on with an unfinished run, and only loads a finished one; so a
script may be interrupted and started again.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actor_mimic.config import DistillConfig, ExpertConfig, NetworkConfig, TransferConfig
from actor_mimic.errors import ConfigError
from actor_mimic.flat_config import build_config
from actor_mimic.progress import StageProgress
from actor_mimic.stages.launch import Launch, run_distill, run_expert, run_transfer
from actor_mimic.storage.records import Record
from actor_mimic.teachers.player import Player, load
from actor_mimic.verbs.arguments import checkpoint_argument
from actor_mimic.verbs.foreign import check_features, teacher_argument


def train_expert(
    task: str, run_dir: str | Path, *, device: str = "auto", **settings: Any
) -> Player:
    """Trains a Q-network on one task.

    Args:
        task: an Atari game, or ``gym:`` and a Gymnasium id that is registered in this process.
        run_dir: where the run is kept, and goes on from.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: any hyper-parameter of an expert by its name, such as ``total_steps=50_000``;
            ``preset`` and ``algorithm`` as the verb has them.

    Returns:
        The expert, with the weights of the last checkpoint.

    Raises:
        ConfigError: for an unknown or contradictory setting, or if the run was begun with others.
        UsageError: if there is no such task.
        DivergenceError: if learning went wrong.
    """
    config = build_config("expert", {"task": task, **settings})
    assert isinstance(config, ExpertConfig)
    with StageProgress(f"expert {task}", config.total_steps) as progress:
        return _learn(run_expert(config, _launch(run_dir, device, progress)), run_dir, progress)


def distill(
    teachers: Mapping[str, str | Path],
    run_dir: str | Path,
    *,
    device: str = "auto",
    **settings: Any,
) -> Player:
    """Teaches one network several tasks from their teachers.

    Args:
        teachers: by task, whatever the verb takes: a run, a checkpoint directory, ``zoo:NAME``,
            another library's file, or ``module:function``.
        run_dir: where the run is kept, and goes on from.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: any hyper-parameter of a distillation by its name, such as
            ``steps_per_task=20_000``.

    Returns:
        The student, with the weights of the last checkpoint.

    Raises:
        ConfigError: as `train_expert`, and if a teacher without features is to be regressed on.
        DataError: if a teacher is missing or damaged, or does not play its task.
        UnsafeError: if a file is refused as it stands.
        DivergenceError: if learning went wrong.
    """
    config = build_config("distill", {"tasks": list(teachers), **settings})
    assert isinstance(config, DistillConfig)
    sources = {
        task: teacher_argument(str(where), task, Path(run_dir)) for task, where in teachers.items()
    }
    check_features(sources, config.feature_weight)
    with StageProgress("student", config.total_steps) as progress:
        launch = _launch(run_dir, device, progress)
        return _learn(run_distill(config, launch, sources), run_dir, progress)


def transfer(
    task: str,
    run_dir: str | Path,
    *,
    parent: str | Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> Player:
    """Trains a Q-network on a new task from somebody's weights.

    Args:
        task: an Atari game, or ``gym:`` and a Gymnasium id that is registered in this process.
        run_dir: where the run is kept, and goes on from.
        parent: a run, a checkpoint directory or ``zoo:NAME``; None for random weights, the arm to
            compare with.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        settings: any hyper-parameter of a transfer by its name.

    Returns:
        The network, with the weights of the last checkpoint.

    Raises:
        ConfigError, UsageError, DivergenceError: as `train_expert`.
        DataError: if the parent is missing or damaged, or reads other observations.
    """
    config = build_config("transfer", {"task": task, **settings})
    assert isinstance(config, TransferConfig)
    for entry in dataclasses.fields(NetworkConfig):
        if parent is not None and entry.name in settings:
            raise ConfigError(f"{entry.name} with a parent: its weights decide the network")
    start = None if parent is None else checkpoint_argument(str(parent))
    with StageProgress(f"transfer {task}", config.total_steps) as progress:
        launch = _launch(run_dir, device, progress)
        return _learn(run_transfer(config, launch, start), run_dir, progress)


def _launch(run_dir: str | Path, device: str, progress: StageProgress) -> Launch:
    return Launch(Path(run_dir), device=device, notice=progress.notice, on_game=progress.on_game)


def _learn(records: Iterator[Record], run_dir: str | Path, progress: StageProgress) -> Player:
    for record in records:
        progress.show(record)
    return load(run_dir)
