"""Runs a recipe: its stages in order, each in a directory of its own.

It can be called again: finished stages are left alone, an unfinished one goes on.
"""

import dataclasses
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actor_mimic.compute import choose_compute
from actor_mimic.config import (
    DistillConfig,
    EvaluateConfig,
    ExpertConfig,
    MultitaskDQNConfig,
    TransferConfig,
)
from actor_mimic.envs.atari import check_game
from actor_mimic.errors import (
    CannotCreateError,
    ConfigError,
    DataError,
    StorageError,
    UnavailableError,
    UsageError,
)
from actor_mimic.progress import StageProgress
from actor_mimic.protocols import protocol_named
from actor_mimic.recipes.memory import check_memory
from actor_mimic.recipes.probe import describe, predict
from actor_mimic.recipes.recipe import (
    Job,
    Parent,
    Recipe,
    seed_of_parent,
)
from actor_mimic.stages.films import TEMPERATURE, Rules
from actor_mimic.stages.launch import (
    run_distill,
    run_evaluate,
    run_expert,
    run_multitask_dqn,
    run_transfer,
)
from actor_mimic.stages.run_films import FILM_STEPS, RunFilms
from actor_mimic.stages.stage_run import Launch, ignore, never
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint
from actor_mimic.storage.durable import json_bytes, replace_file
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import COMPLETE, is_complete, read_run_json
from actor_mimic.tasks import is_atari
from actor_mimic.teachers.own import tasks_in_file

HOURS_UNASKED = 12.0
RECIPE = "recipe.json"


@dataclass(frozen=True)
class _World:
    """What every stage of one call has in common."""

    recipe: Recipe
    run_dir: Path
    device: str
    threads: int
    stop: Callable[[], int | None]
    notice: Callable[[str], None]
    show: Callable[[str, int], StageProgress]
    track: str
    complaints: set[str] = field(default_factory=set)  # about films: each is made once


def run_recipe(
    recipe: Recipe,
    run_dir: Path,
    *,
    yes: bool = False,
    device: str = "auto",
    threads: int = 0,
    stop: Callable[[], int | None] = never,
    notice: Callable[[str], None] = ignore,
    show: Callable[[str, int], StageProgress] = StageProgress,
    probe_s: float = 2.0,
    track: str = "",
) -> dict[str, Any]:
    """Runs what is not done yet.

    Args:
        recipe: what to run.
        run_dir: where; each repetition of a stage gets ``STAGE/seed-K`` in it.
        yes: also start what is predicted to take more than 12 hours.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: of the CPU; 0 takes all cores.
        stop: asked often; the number of a signal to stop for, or None.
        notice: told things that a person should read.
        show: makes the display of a stage, or of its films, from a title and a number of steps;
            called when nothing of it has been done yet, and all before it is on disk.
        probe_s: how long to run each kind of stage before, to predict the hours.
        track: the project on Weights & Biases that learning is shown in; empty for none.

    Returns:
        What ``run --json`` prints: ``recipe``, ``run_dir``, and ``stages`` by ``NAME/seed-K``.

    Raises:
        UsageError: if a game does not exist, or if it is predicted to take too long.
        ConfigError: if the directory holds another recipe, a stage was begun with another
            configuration, or a replay does not fit into memory.
        DataError: if a parent is missing, damaged, or does not fit.
        Interrupted: if it was stopped; calling again continues.
    """
    jobs = list(recipe.jobs(run_dir))
    world = _World(recipe, run_dir, device, threads, stop, notice, show, track)
    _check_owner(recipe, run_dir)
    _check_tasks(recipe)
    _check_paths(recipe)
    compute = choose_compute(device, threads=threads)
    check_memory(jobs, compute.device, notice)
    compute.start()
    if not all(is_complete(job.path) for job in jobs):
        notice("measuring how fast each kind of stage runs here, a few seconds each")
    predictions = predict(recipe, jobs, compute, seconds=probe_s, stop=stop)
    if predictions:
        notice(describe(predictions))
    hours = sum(prediction.hours for prediction in predictions)
    if hours > HOURS_UNASKED and not yes:
        raise UsageError(
            f"{recipe.name} is predicted to take {hours:.0f} hours here, more than "
            f"{HOURS_UNASKED:.0f}: start it with --yes, or lower its scale"
        )
    _write_description(recipe, run_dir)
    for job in jobs:
        is_news = not is_complete(job.path)
        _run_job(job, world)
        if recipe.films:
            _film_job(job, world, is_news=is_news)
    return {
        "recipe": recipe.name,
        "run_dir": str(run_dir),
        "stages": {job.title: _outcome(job) for job in jobs},
    }


def _run_job(job: Job, world: _World) -> None:
    config = job.config
    launch = Launch(
        job.path,
        device=world.device,
        threads=world.threads,
        stop=world.stop,
        notice=world.notice,
        track=world.track,
    )
    if is_complete(job.path):
        # Not skipped unseen: a changed configuration is refused here.
        for _ in _records(job, launch, world):
            pass
        world.notice(f"{job.title}: already done")
        return
    total = 0 if isinstance(config, EvaluateConfig) else config.total_steps
    with world.show(job.title, total) as progress:
        launch = dataclasses.replace(launch, notice=progress.notice, on_game=progress.on_game)
        for record in _records(job, launch, world):
            progress.show(record)


def _film_job(job: Job, world: _World, *, is_news: bool) -> None:
    """Films what a finished stage has learnt, or what it has only played, unless that is done.

    A task that cannot be filmed here is said once, and stops nothing; nor is it said again of
    what an earlier call has finished.
    """
    parents = {key: _resolve(parent, job, world) for key, parent in job.stage.parents.items()}
    config = job.config
    if isinstance(config, EvaluateConfig):
        checkpoint = parents.get("parent")
        if checkpoint is None:
            return  # random play
    else:
        checkpoint = resolve_checkpoint(job.path)
    is_distilled = isinstance(config, DistillConfig)
    protocol = protocol_named(config.protocol)
    films = RunFilms(
        job.path,
        checkpoint,
        job.stage.tasks or tasks_in_file(checkpoint),
        Rules(protocol, protocol.evaluation_epsilon, job.seed, FILM_STEPS),
        experts=parents if is_distilled else {},
        temperature=config.temperature if is_distilled else TEMPERATURE,
    )
    missing = films.missing()
    if not missing:
        return
    compute = Launch(job.path, device=world.device, threads=world.threads).compute()
    try:
        with world.show(f"{job.title}: films", len(missing) * FILM_STEPS) as progress:
            for record in films.make(missing, compute, stop=world.stop):
                progress.show(record)
    except (UnavailableError, UsageError) as error:
        complaint = f"no films: {error}"
        if is_news and complaint not in world.complaints:
            world.complaints.add(complaint)
            world.notice(complaint)


def _records(job: Job, launch: Launch, world: _World) -> Iterator[Record]:
    parents = {key: _resolve(parent, job, world) for key, parent in job.stage.parents.items()}
    parent = parents.get("parent")
    match job.config:
        case ExpertConfig() as config:
            return run_expert(config, launch)
        case TransferConfig() as config:
            return run_transfer(config, launch, parent)
        case DistillConfig() as config:
            return run_distill(config, launch, parents)
        case MultitaskDQNConfig() as config:
            return run_multitask_dqn(config, launch)
        case EvaluateConfig() as config:
            return run_evaluate(config, launch, parent)


def _resolve(parent: Parent, job: Job, world: _World) -> Checkpoint:
    if parent.stage is None:
        assert parent.path is not None
        path = parent.path
    else:
        seed = seed_of_parent(world.recipe.stage(parent.stage), job.seed)
        path = world.run_dir / parent.stage / f"seed-{seed}"
    return resolve_checkpoint(
        path,
        which="best" if parent.best else "newest",
        on_damaged=lambda where, why: world.notice(f"damaged checkpoint {where}: {why}"),
    )


def _check_tasks(recipe: Recipe) -> None:
    """A misspelt game in the last stage is found before the first."""
    asked = {task for stage in recipe.stages for task in stage.tasks}
    for task in sorted(asked):
        if is_atari(task):
            check_game(task)


def _check_paths(recipe: Recipe) -> None:
    """So is a parent that is not there, or a teacher of another game."""
    for stage in recipe.stages:
        for key, parent in stage.parents.items():
            if parent.path is None:
                continue
            checkpoint = resolve_checkpoint(parent.path, which="best" if parent.best else "newest")
            if stage.kind == "distill" and key not in checkpoint.tasks:
                raise DataError(
                    f"stage {stage.name!r}: {checkpoint.name} plays "
                    f"{', '.join(checkpoint.tasks)}, not {key}"
                )


def _check_owner(recipe: Recipe, run_dir: Path) -> None:
    for stage in recipe.stages:
        if (run_dir / stage.name).is_symlink():
            raise CannotCreateError(
                f"{run_dir / stage.name}: expected a directory, got a symbolic link"
            )
    if not os.path.lexists(run_dir / RECIPE):
        return
    stored = read_run_json(run_dir, RECIPE)
    name = stored.get("recipe") if isinstance(stored, dict) else None
    if name != recipe.name:
        raise ConfigError(
            f"{run_dir} holds the runs of recipe {name!r:.120}, asked: {recipe.name!r}; "
            "choose another --run-dir"
        )


def _write_description(recipe: Recipe, run_dir: Path) -> None:
    """What the report needs to know of the recipe."""
    command = ["actor-mimic", "run", recipe.source, "--run-dir", str(run_dir)]
    content = {
        "schema": 1,
        "recipe": recipe.name,
        "description": recipe.description,
        "command": shlex.join(command),
        "scale": recipe.scale,
        "seeds": list(recipe.seeds),
        "stages": [
            {
                "name": stage.name,
                "kind": stage.kind,
                "seeds": list(stage.seeds),
                "parents": {key: str(parent) for key, parent in stage.parents.items()},
            }
            for stage in recipe.stages
        ],
    }
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(f"cannot make {run_dir}: {error}") from error
    try:
        replace_file(run_dir / RECIPE, json_bytes(content))
    except OSError as error:
        raise StorageError(f"cannot write {run_dir / RECIPE}: {error}") from error


def _outcome(job: Job) -> dict[str, Any]:
    """A finished repetition, from what it left behind."""
    done = read_run_json(job.path, COMPLETE)
    try:
        named = done["checkpoint"]
        return {
            "kind": job.stage.kind,
            "run_dir": str(job.path),
            "checkpoint": named if job.stage.kind == "evaluate" else str(job.path / named),
            "seconds": done["seconds"],
            "scores": _plain_scores(done["scores"]),
        }
    except (KeyError, TypeError) as error:
        raise DataError(f"{job.path / COMPLETE}: expected a stage's summary: {error}") from error


def _plain_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {task: dict(values) for task, values in scores.items()}
