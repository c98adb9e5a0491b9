"""From a configuration and a directory to a finished run of a stage.

Each function is a generator of records, so that whoever calls it can show them; it can be called
again on the same directory: an unfinished run goes on, a finished one is left alone.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Compute, choose_compute
from actor_mimic.config import (
    Config,
    DistillConfig,
    EvaluateConfig,
    ExpertConfig,
    TransferConfig,
    to_json,
)
from actor_mimic.errors import ConfigError
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.protocols import protocol_named
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.evaluate import Act, expert_normalised
from actor_mimic.stages.expert import expert_state, fresh_network, make_task_envs
from actor_mimic.stages.measure import RANDOM, Measuring, measure, score_values
from actor_mimic.stages.session import Evaluation, Session
from actor_mimic.stages.training import LearningState
from actor_mimic.stages.transfer import transfer_network, with_network_of
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import (
    RUN,
    RunDir,
    installed_versions,
    open_run,
    read_run_json,
)
from actor_mimic.teachers.own import load_teacher
from actor_mimic.teachers.teacher import Teacher

RESUMABLE_KEYS = frozenset(
    {"record_every_steps", "eval_every_steps", "checkpoint_every_steps", "checkpoint_replay"}
)


def never() -> int | None:
    """A stop that is never asked for."""
    return None


def ignore(_: str) -> None:
    """A warning nobody wants."""


@dataclass(frozen=True)
class Launch:
    """What every stage needs beside its configuration.

    Attributes:
        path: the run directory.
        device, precision, threads: as `choose_compute` takes them; where they are left open, a
            resumed run keeps what it began with.
        stop: asked often; the number of a signal to stop for, or None.
        notice: told things that a person should read.
        on_game: told of evaluation progress: task, games finished, games to play.
    """

    path: Path
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    stop: Callable[[], int | None] = never
    notice: Callable[[str], None] = ignore
    on_game: Callable[[str, int, int], None] = field(default=lambda *_: None)

    def compute(self) -> Compute:
        """Where to run: what was asked for, else what the run began with, else the machine's."""
        kept: dict[str, Any] = {}
        if (self.path / RUN).exists():
            kept = read_run_json(self.path, RUN)["config"]["compute"]
        return choose_compute(
            kept.get("device", "auto") if self.device == "auto" else self.device,
            kept.get("precision", "auto") if self.precision == "auto" else self.precision,
            self.threads or kept.get("threads", 0),
        )


def run_expert(config: ExpertConfig, launch: Launch) -> Iterator[Record]:
    """Trains one expert.

    Raises:
        ConfigError: if the run was begun with another configuration.
        LockedError: if another process is at it.
        Interrupted: if it was stopped.
    """
    compute = launch.compute()
    with _open(launch, compute, "expert", config, []) as run:
        if run.complete:
            return
        compute.start()
        env = make_task_envs(config, compute)
        state = expert_state(config, compute, env, fresh_network(config, env))
        yield from _reinforce(config, launch, run, state, env.action_names, {"kind": "expert"})


def run_transfer(
    config: TransferConfig, launch: Launch, parent: Checkpoint | None
) -> Iterator[Record]:
    """Trains a network on a new task from a parent's weights, or from random ones.

    Raises:
        DataError: if the parent does not fit the task.
        ConfigError, LockedError, Interrupted: as `run_expert`.
    """
    if parent is not None:
        config = with_network_of(config, parent)
    parents = [] if parent is None else [parent.as_parent()]
    compute = launch.compute()
    with _open(launch, compute, "transfer", config, parents) as run:
        if run.complete:
            return
        compute.start()
        env = make_task_envs(config, compute)
        network, origins = transfer_network(config, env, parent)
        state = expert_state(config, compute, env, network)
        manifest = {
            "kind": "transfer",
            "parents": parents,
            "tensor_origins": [dataclasses.asdict(entry) for entry in origins],
        }
        yield from _reinforce(config, launch, run, state, env.action_names, manifest)


def run_distill(
    config: DistillConfig, launch: Launch, teachers: Mapping[str, Checkpoint]
) -> Iterator[Record]:
    """Trains one student from one teacher per task.

    Teachers and random play are measured first: a student's evaluations are reported as
    (student - random) / (teacher - random).

    Raises:
        DataError: if a teacher does not fit its task.
        ConfigError, LockedError, Interrupted: as `run_expert`.
    """
    parents = [{"task": task} | teachers[task].as_parent() for task in config.tasks]
    compute = launch.compute()
    with _open(launch, compute, "distill", config, parents) as run:
        if run.complete:
            return
        compute.start()
        loaded = [load_teacher(teachers[task], task, compute) for task in config.tasks]
        measured: dict[str, dict[str, float]] = {"teacher": {}, RANDOM: {}}
        for record in _references(loaded, teachers, _final_measuring(config, launch, run)):
            who = str(record.values["who"])
            task = str(record.values["task"])
            measured[who][task] = float(record.values[f"{task}/mean"] or 0.0)
            yield record
        state = DistillState(config, compute, loaded)
        manifest = {
            "kind": "student",
            "tasks": {task: list(n) for task, n in state.network.task_actions.items()},
            "parents": parents,
            "teacher_scores": measured["teacher"],
            "random_scores": measured[RANDOM],
        }

        def merit(scores: Mapping[str, float]) -> float:
            return expert_normalised(scores, measured["teacher"], measured[RANDOM])

        yield from _learn(config, launch, run, state, manifest, merit)


def run_evaluate(
    config: EvaluateConfig, launch: Launch, checkpoint: Checkpoint | None
) -> Iterator[Record]:
    """Plays every task; what was finished before a stop is not played again.

    Args:
        config: what to play.
        launch: where to keep the scores, and how to compute.
        checkpoint: the player; None plays at random.

    Raises:
        DataError: if the checkpoint does not play a task.
        ConfigError: if the run was begun with another configuration.
        LockedError: if another process is at it.
        Interrupted: if it was stopped.
    """
    if checkpoint is None and not config.tasks:
        raise ConfigError("random plays anything: tasks must be named")
    tasks = config.tasks or tuple(checkpoint.tasks if checkpoint else ())
    compute = launch.compute()
    sha256 = RANDOM if checkpoint is None else checkpoint.model_sha256
    stored = dataclasses.asdict(config) | {
        "tasks": list(tasks),
        "parents": [] if checkpoint is None else [sha256],
        "compute": dataclasses.asdict(compute),
    }
    with open_run(launch.path, stage="evaluate", config=stored) as run:
        if run.complete:
            return
        compute.start()
        started = time.monotonic()
        measuring = _measuring(config.protocol, config.episodes, config.seed, launch, run)
        scores = {}
        for task in tasks:
            act = None if checkpoint is None else load_teacher(checkpoint, task, compute).act
            scores[task] = measure(act, sha256, task, measuring)
        values = {k: v for task, s in scores.items() for k, v in score_values(task, s).items()}
        elapsed_s = time.monotonic() - started
        record = Record("final", 0, 0, values, elapsed_s)
        run.records.rewind(-1)
        run.records.write(record)
        run.mark_complete(
            {
                "kind": "evaluation",
                "checkpoint": RANDOM if checkpoint is None else str(checkpoint.path),
                "model_sha256": sha256,
                "seconds": elapsed_s,
                "scores": {task: s.to_json() for task, s in scores.items()},
            }
        )
        yield record


def _references(
    loaded: Sequence[Teacher], checkpoints: Mapping[str, Checkpoint], measuring: Measuring
) -> Iterator[Record]:
    """Scores of every teacher and of random play in its task, as records."""
    if not measuring.episodes:
        return
    for teacher in loaded:
        task = teacher.task
        home = checkpoints[task].run
        for who, name, act in (
            ("teacher", teacher.model_sha256, teacher.act),
            (RANDOM, RANDOM, None),
        ):
            scores = measure(act, name, task, measuring, also_look_in=home)
            values = {"who": who, "task": task} | score_values(task, scores)
            yield Record("measure", 0, 0, values, 0.0)


def _reinforce(
    config: ExpertConfig | TransferConfig,
    launch: Launch,
    run: RunDir,
    state: LearningState,
    action_names: Sequence[str],
    manifest: Mapping[str, Any],
) -> Iterator[Record]:
    tasks = {"tasks": {config.task: list(action_names)}}
    yield from _learn(
        config,
        launch,
        run,
        state,
        {"parents": []} | dict(manifest) | tasks,
        lambda scores: scores[config.task],
    )


def _learn(
    config: Config,
    launch: Launch,
    run: RunDir,
    state: LearningState,
    manifest: Mapping[str, Any],
    merit: Callable[[Mapping[str, float]], float],
) -> Iterator[Record]:
    """The session, a final evaluation of the last checkpoint, the summary."""
    measuring = _final_measuring(config, launch, run)
    players = _players(state.network, manifest["tasks"])
    if state.replay_bytes:
        launch.notice(f"the replay will take up to {state.replay_bytes / 2**30:.2f} GiB")

    def evaluate() -> Evaluation:
        tasks = {
            task: measuring.play(act, task, config.schedule.eval_episodes)
            for task, act in players.items()
        }
        return Evaluation(tasks, merit({task: scores.mean for task, scores in tasks.items()}))

    session = Session(
        state,
        run,
        schedule=config.schedule,
        manifest=dict(manifest)
        | {
            "network": state.network.to_json(),
            "config": to_json(config),
            "protocol": config.protocol,
            "versions": installed_versions(),
        },
        evaluate=evaluate,
        stop=launch.stop,
        warn=launch.notice,
    )
    try:
        yield from session.run()
        checkpoint = resolve_checkpoint(run.path)
        final = {
            task: measure(act, checkpoint.model_sha256, task, measuring)
            for task, act in players.items()
            if measuring.episodes
        }
    finally:
        state.close()
    values: dict[str, Any] = {}
    if final:
        values["merit"] = merit({task: scores.mean for task, scores in final.items()})
    for task, scores in final.items():
        values |= score_values(task, scores)
    record = Record("final", state.steps, state.updates, values, session.elapsed_s)
    run.mark_complete(
        {
            "kind": manifest["kind"],
            "checkpoint": str(checkpoint.path.relative_to(run.path)),
            "model_sha256": checkpoint.model_sha256,
            "seconds": session.elapsed_s,
            "scores": {task: scores.to_json() for task, scores in final.items()},
        }
    )
    # After the mark: a kill in between loses a line that the mark holds too, where the other
    # order would write it twice.
    run.records.write(record)
    yield record


def _players(network: QNetwork | Student, tasks: Mapping[str, Any]) -> dict[str, Act]:
    """The live network as one policy per task."""
    device = next(network.parameters()).device

    def player(task: str) -> Act:
        @torch.no_grad()
        def act(obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
            scores = network(obs.to(device)).scores
            if isinstance(network, Student):
                scores = network.task_scores(task, scores)
            return scores.argmax(dim=1).cpu().numpy()

        return act

    return {task: player(task) for task in tasks}


def _measuring(
    protocol_name: str, episodes: int, seed: int, launch: Launch, run: RunDir
) -> Measuring:
    protocol = protocol_named(protocol_name)
    return Measuring(
        directory=run.path,
        protocol=protocol,
        epsilon=protocol.evaluation_epsilon,
        episodes=episodes,
        seed=seed,
        num_threads=torch.get_num_threads(),
        stop=launch.stop,
        on_game=launch.on_game,
    )


def _final_measuring(config: Config, launch: Launch, run: RunDir) -> Measuring:
    return _measuring(config.protocol, config.schedule.final_episodes, config.seed, launch, run)


def _open(
    launch: Launch,
    compute: Compute,
    stage: str,
    config: Config,
    parents: Sequence[Mapping[str, Any]],
) -> RunDir:
    return open_run(
        launch.path,
        stage=stage,
        config=to_json(config)
        | {"parents": [parent["model_sha256"] for parent in parents]}
        | {"compute": dataclasses.asdict(compute)},
        resumable_keys=RESUMABLE_KEYS,
    )
