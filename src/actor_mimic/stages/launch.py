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

from actor_mimic.compute import Compute, choose_compute
from actor_mimic.config import (
    Config,
    DistillConfig,
    EvaluateConfig,
    ExpertConfig,
    TransferConfig,
    to_json,
)
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.protocols import protocol_named
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.evaluate import Act
from actor_mimic.stages.expert import expert_state, fresh_network, make_task_envs
from actor_mimic.stages.fidelity import Fidelity
from actor_mimic.stages.measure import RANDOM, Measuring, measure, score_values
from actor_mimic.stages.players import live_players, load_each_once, players_when_asked
from actor_mimic.stages.references import References
from actor_mimic.stages.session import Evaluation, Session
from actor_mimic.stages.training import LearningState
from actor_mimic.stages.transfer import transfer_network, with_network_of
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import RUN, RunDir, installed_versions, open_run, read_run_json
from actor_mimic.storage.wandb_run import WandbRun
from actor_mimic.teachers.callables import TeacherSource
from actor_mimic.teachers.own import check_plays, tasks_in_file

RESUMABLE_KEYS = frozenset(
    {"record_every_steps", "eval_every_steps", "checkpoint_every_steps", "checkpoint_replay"}
)
_KEPT = {True: "on", False: "off"}


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
        device, precision, threads, compiled: as `choose_compute` takes them; where they are left
            open, a resumed run keeps what it began with.
        stop: asked often; the number of a signal to stop for, or None.
        notice: told things that a person should read.
        on_game: told of evaluation progress: task, games finished, games to play.
        track: the project on Weights & Biases that learning is shown in; empty for none.
    """

    path: Path
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    compiled: str = "auto"
    stop: Callable[[], int | None] = never
    notice: Callable[[str], None] = ignore
    on_game: Callable[[str, int, int], None] = field(default=lambda *_: None)
    track: str = ""

    def compute(self) -> Compute:
        """Where to run: what was asked for, else what the run began with, else the machine's.

        Raises:
            DataError: if the run's description is damaged.
        """
        kept: dict[str, Any] = {}
        if (self.path / RUN).exists():
            kept = _kept_compute(self.path)
        return choose_compute(
            kept.get("device", "auto") if self.device == "auto" else self.device,
            kept.get("precision", "auto") if self.precision == "auto" else self.precision,
            self.threads or kept.get("threads", 0),
            _KEPT[kept["compiled"]] if kept and self.compiled == "auto" else self.compiled,
        )


def run_expert(config: ExpertConfig, launch: Launch) -> Iterator[Record]:
    """Trains one expert.

    Raises:
        ConfigError: if the run was begun with another configuration.
        LockedError: if another process is at it.
        Interrupted: if it was stopped.
    """
    started = time.monotonic()
    compute = launch.compute()
    with _open(launch, compute, "expert", config, []) as run:
        if run.complete:
            return
        compute.start()
        env = make_task_envs(config, compute)
        state = expert_state(config, compute, env, fresh_network(config, env))
        manifest = {"kind": "expert"}
        yield from _reinforce(config, launch, run, state, env.action_names, manifest, started)


def run_transfer(
    config: TransferConfig, launch: Launch, parent: Checkpoint | None
) -> Iterator[Record]:
    """Trains a network on a new task from a parent's weights, or from random ones.

    Raises:
        DataError: if the parent does not fit the task.
        ConfigError, LockedError, Interrupted: as `run_expert`.
    """
    started = time.monotonic()
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
        yield from _reinforce(config, launch, run, state, env.action_names, manifest, started)


def run_distill(
    config: DistillConfig, launch: Launch, teachers: Mapping[str, TeacherSource]
) -> Iterator[Record]:
    """Trains one student from one teacher per task.

    Teachers and random play are measured first: a student's evaluations are reported as
    (student - random) / (teacher - random). What cannot work is refused before that.

    Raises:
        DataError: if a teacher does not fit its task.
        ConfigError, LockedError, Interrupted: as `run_expert`.
    """
    started = time.monotonic()
    parents = [{"task": task} | teachers[task].as_parent() for task in config.tasks]
    compute = dataclasses.replace(launch.compute(), compiled=False)  # experts alone compile
    with _open(launch, compute, "distill", config, parents) as run:
        if run.complete:
            return
        compute.start()
        state = DistillState(config, compute, load_each_once(config.tasks, teachers, compute))
        references = References()
        try:
            yield from references.measured(state, teachers, _final_measuring(config, launch, run))
        except BaseException:  # a closed generator too: the emulators must stop
            state.close()
            raise
        for complaint in references.complaints():
            launch.notice(complaint)
        manifest = {
            "kind": "student",
            "tasks": {task: list(n) for task, n in state.network.task_actions.items()},
            "parents": parents,
        }
        fidelity = Fidelity(state.learner, state.teachers)
        yield from _learn(
            config,
            launch,
            run,
            state,
            manifest,
            references.merit,
            started,
            players=fidelity.players(),
            seen=lambda scores: references.compare(state, scores) | fidelity.take(),
        )


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
    started = time.monotonic()
    if checkpoint is None and not config.tasks:
        raise ConfigError("random plays anything: tasks must be named")
    tasks = config.tasks or (tasks_in_file(checkpoint) if checkpoint else ())
    if checkpoint is not None:
        check_plays(checkpoint, tasks)
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
        measuring = _measuring(config.protocol, config.episodes, config.seed, launch, run)
        acts = players_when_asked(checkpoint, tasks, compute)
        scores = {task: measure(acts[task], sha256, task, measuring) for task in tasks}
        values = {k: v for task, s in scores.items() for k, v in score_values(task, s).items()}
        elapsed_s = time.monotonic() - started
        record = Record("final", 0, 0, values, elapsed_s)
        run.records.rewind(-1)
        run.records.write(record)
        run.mark_complete(
            {
                "kind": "evaluation",
                "checkpoint": RANDOM if checkpoint is None else checkpoint.name,
                "model_sha256": sha256,
                "seconds": elapsed_s,
                "scores": {task: s.to_json() for task, s in scores.items()},
            }
        )
        yield record


def _kept_compute(path: Path) -> dict[str, Any]:
    """What `open_run` was told of the device, precision and threads when a run began."""
    stored = read_run_json(path, RUN)
    config = stored.get("config") if isinstance(stored, dict) else None
    kept = config.get("compute") if isinstance(config, dict) else None
    wanted = {entry.name: entry.type for entry in dataclasses.fields(Compute)}
    if not isinstance(kept, dict) or {n: type(v) for n, v in kept.items()} != wanted:
        raise DataError(f"{path / RUN}: expected where the run computes, got {kept!r:.100}")
    return kept


def _reinforce(
    config: ExpertConfig | TransferConfig,
    launch: Launch,
    run: RunDir,
    state: LearningState,
    action_names: Sequence[str],
    manifest: Mapping[str, Any],
    started: float,
) -> Iterator[Record]:
    tasks = {"tasks": {config.task: list(action_names)}}
    yield from _learn(
        config,
        launch,
        run,
        state,
        {"parents": []} | dict(manifest) | tasks,
        lambda scores: scores[config.task],
        started,
    )


def _learn(
    config: Config,
    launch: Launch,
    run: RunDir,
    state: LearningState,
    manifest: Mapping[str, Any],
    merit: Callable[[Mapping[str, float]], float],
    started: float,
    *,
    players: Mapping[str, Act] | None = None,
    seen: Callable[[Mapping[str, float]], dict[str, float]] = lambda _: {},
) -> Iterator[Record]:
    """The session, a final evaluation of the last checkpoint, the summary.

    ``started`` is when the work began, on the monotonic clock; ``seen`` is told the mean scores of
    each evaluation, and what it answers is recorded beside them.
    """
    measuring = _final_measuring(config, launch, run)
    players = players or live_players(state.network, manifest["tasks"])
    if launch.track:
        run.follow(WandbRun(run.path, launch.track, to_json(config) | {"kind": manifest["kind"]}))
    if state.replay_bytes:
        launch.notice(f"the replay will take up to {state.replay_bytes / 2**30:.2f} GiB")

    def evaluate() -> Evaluation:
        tasks = {
            task: measuring.play(act, task, config.schedule.eval_episodes)
            for task, act in players.items()
        }
        means = {task: scores.mean for task, scores in tasks.items()}
        return Evaluation(tasks, merit(means), seen(means))

    # The session's clock begins here, with the teachers already measured.
    earlier_s = time.monotonic() - started
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
        means = {task: scores.mean for task, scores in final.items()}
        values |= {"merit": merit(means)} | seen(means)
    for task, scores in final.items():
        values |= score_values(task, scores)
    elapsed_s = earlier_s + session.elapsed_s
    record = Record("final", state.steps, state.updates, values, elapsed_s)
    run.mark_complete(
        {
            "kind": manifest["kind"],
            "checkpoint": str(checkpoint.path.relative_to(run.path)),
            "model_sha256": checkpoint.model_sha256,
            "seconds": elapsed_s,
            "scores": {task: scores.to_json() for task, scores in final.items()},
        }
    )
    # After the mark: a kill in between loses a line that the mark holds too, where the other
    # order would write it twice.
    run.records.write(record)
    yield record


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
        num_threads=launch.compute().threads,
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
