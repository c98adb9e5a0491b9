"""A stage in its run directory: what it is given, how it is opened, measured and finished."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actor_mimic.compute import Compute, choose_compute
from actor_mimic.config import Config, DistillConfig, ScheduleConfig
from actor_mimic.errors import DataError, UnavailableError
from actor_mimic.flat_config import to_json
from actor_mimic.protocols import protocol_named
from actor_mimic.stages.evaluate import Act, TaskScores
from actor_mimic.stages.measure import Measuring, measure, score_values
from actor_mimic.stages.players import live_player
from actor_mimic.stages.session import Evaluation, Session
from actor_mimic.stages.summary import summary
from actor_mimic.stages.training import LearningState
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import (
    RUN,
    RunDir,
    installed_versions,
    is_complete,
    open_run,
    read_run_json,
)
from actor_mimic.storage.wandb_run import WandbRun

# When things happen and where may change from call to call; what is learned may not (see
# `open_stage` for an exception).
COMPUTE = frozenset({"compute"})
RESUMABLE_KEYS = COMPUTE | {
    entry.name for entry in dataclasses.fields(ScheduleConfig) if "episodes" not in entry.name
}
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
            open, a resumed run keeps what it had, unless it moves between CPU and GPU.
        stop: asked often; the number of a signal to stop for, or None.
        notice: told things that a person should read.
        on_game: told of evaluation progress: what is played, games finished, games to play.
        track: the project on Weights & Biases that learning is shown in; empty for none.
        command: what somebody typed to begin this run alone, without secrets; kept for the report.
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
    command: str = ""

    @property
    def kept(self) -> Mapping[str, Any]:
        """Where an earlier call of this run computed; empty if there was none, or it moves now.

        A run that moves between CPU and GPU keeps nothing: the other kind of device has a
        precision and threads that suit it.

        Raises:
            DataError: if the run's description is damaged.
        """
        if not (self.path / RUN).exists():
            return {}
        kept = _kept_compute(self.path)
        moves = self.device != "auto" and (self.device == "cpu") != (kept["device"] == "cpu")
        return {} if moves else kept

    def compute(self) -> Compute:
        """Where to run: what was asked for, else what is `kept`, else the machine's.

        Raises:
            DataError: if the run's description is damaged.
            UnavailableError: if a device is not here, unless the run is done and only looked at.
        """
        kept = self.kept
        try:
            return choose_compute(
                kept.get("device", "auto") if self.device == "auto" else self.device,
                kept.get("precision", "auto") if self.precision == "auto" else self.precision,
                self.threads or kept.get("threads", 0),
                _KEPT[kept["compiled"]] if kept and self.compiled == "auto" else self.compiled,
            )
        except UnavailableError as error:
            if not kept or self.device != "auto":
                raise
            if is_complete(self.path):
                return choose_compute(threads=self.threads)
            raise UnavailableError(
                f"{self.path} computed on {kept['device']}: {error}; with --device cpu it goes on "
                "from its last checkpoint here, though not to the same last digits"
            ) from error


def learn(
    config: Config,
    launch: Launch,
    run: RunDir,
    state: LearningState,
    manifest: Mapping[str, Any],
    merit: Callable[[Mapping[str, float]], float],
    started: float,
    *,
    player: Act | None = None,
    seen: Callable[[Mapping[str, float]], dict[str, float]] = lambda _: {},
) -> Iterator[Record]:
    """The session, a final evaluation of the last checkpoint, the summary.

    ``started`` is when the work began, on the monotonic clock; ``player`` plays evaluations, None
    is the live network itself; ``seen`` is told the mean scores of each evaluation, and what it
    answers is recorded beside them.
    """
    measuring = final_measuring(config, launch, run)
    tasks = list(manifest["tasks"])
    player = player or live_player(state.acting, launch.compute().workers())
    with closing(state):
        if launch.track:
            run.follow(
                WandbRun(run.path, launch.track, to_json(config) | {"kind": manifest["kind"]})
            )

        def evaluate() -> Evaluation:
            played = dict(measuring.play(player, tasks, config.schedule.eval_episodes))
            means = {task: played[task].mean for task in tasks}
            return Evaluation({task: played[task] for task in tasks}, merit(means), seen(means))

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
            notice=launch.notice,
        )
        yield from session.run()
        checkpoint = resolve_checkpoint(run.path)
        final: dict[str, TaskScores] = {}
        if measuring.episodes:
            final = measure(player, checkpoint.model_sha256, tasks, measuring)
    values: dict[str, Any] = {}
    if final:
        means = {task: scores.mean for task, scores in final.items()}
        values |= {"merit": merit(means)} | seen(means)
    for task, scores in final.items():
        values |= score_values(task, scores)
    elapsed_s = earlier_s + session.elapsed_s
    record = Record("final", state.steps, state.updates, values, elapsed_s)
    # Before the mark, so that who is stopped here is not taken to be done.
    session.drop_replays()
    run.mark_complete(summary(checkpoint, manifest, state.network, elapsed_s, final))
    # After the mark: a kill in between loses a line that the mark holds too, where the other
    # order would write it twice.
    run.records.write(record)
    yield record


def measuring_for(
    protocol_name: str, episodes: int, seed: int, launch: Launch, run: RunDir
) -> Measuring:
    """How games are played for the figures of a run."""
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


def final_measuring(config: Config, launch: Launch, run: RunDir) -> Measuring:
    """How they are played for the final figures of a learning stage."""
    return measuring_for(config.protocol, config.schedule.final_episodes, config.seed, launch, run)


def open_stage(
    launch: Launch,
    compute: Compute,
    stage: str,
    config: Config,
    parents: Sequence[Mapping[str, Any]],
) -> RunDir:
    """The directory of a learning stage, locked; see `open_run` for what it raises.

    Args:
        launch: where it is.
        compute: where it runs, which is kept.
        stage: the name of its kind.
        config: which must be what the run was begun with, but for `RESUMABLE_KEYS`; where tasks
            are weighed by what evaluations say, the interval of evaluations is not among them.
        parents: with the ``model_sha256`` of each.
    """
    weighed = isinstance(config, DistillConfig) and config.task_weights == "gap"
    return open_run(
        launch.path,
        stage=stage,
        config=to_json(config)
        | {"parents": [parent["model_sha256"] for parent in parents]}
        | {"compute": dataclasses.asdict(compute)},
        resumable_keys=RESUMABLE_KEYS - ({"eval_every_steps"} if weighed else set()),
        command=launch.command,
    )


def _kept_compute(path: Path) -> dict[str, Any]:
    """What `open_run` was last told of a run's device, precision and threads."""
    stored = read_run_json(path, RUN)
    config = stored.get("config") if isinstance(stored, dict) else None
    kept = config.get("compute") if isinstance(config, dict) else None
    wanted = {entry.name: entry.type for entry in dataclasses.fields(Compute)}
    if not isinstance(kept, dict) or {n: type(v) for n, v in kept.items()} != wanted:
        raise DataError(f"{path / RUN}: expected where the run computes, got {kept!r:.100}")
    return kept
