"""The stage of a recipe that only plays: scores of a checkpoint, or of random play."""

import dataclasses
import time
from collections.abc import Iterator

from actor_mimic.errors import ConfigError
from actor_mimic.protocols import protocol_named
from actor_mimic.recipes.recipe import RANDOM, EvaluateConfig
from actor_mimic.stages.launch import Launch, score_values
from actor_mimic.stages.measure import Measuring, measure
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import RunDir, open_run
from actor_mimic.teachers.own import load_teacher


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
        measuring = _measuring(config, launch, run, compute.threads)
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


def _measuring(config: EvaluateConfig, launch: Launch, run: RunDir, threads: int) -> Measuring:
    protocol = protocol_named(config.protocol)
    return Measuring(
        directory=run.path,
        protocol=protocol,
        epsilon=protocol.evaluation_epsilon,
        episodes=config.episodes,
        seed=config.seed,
        num_threads=threads,
        stop=launch.stop,
        on_game=launch.on_game,
    )
