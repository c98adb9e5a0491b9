"""From a configuration and a directory to a finished run of a stage.

Each function is a generator of records, so that whoever calls it can show them; it can be called
again on the same directory: an unfinished run goes on, a finished one is left alone.
"""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actor_mimic.config import (
    DistillConfig,
    EvaluateConfig,
    ExpertConfig,
    MultitaskDQNConfig,
    TransferConfig,
)
from actor_mimic.envs.vector_step import closed_on_error
from actor_mimic.errors import ConfigError
from actor_mimic.networks.student import Student
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.evaluate import mean_score
from actor_mimic.stages.expert import expert_state, fresh_network
from actor_mimic.stages.fidelity import Fidelity
from actor_mimic.stages.lockstep import make_all_envs
from actor_mimic.stages.measure import claimed_score, measure, score_values
from actor_mimic.stages.multitask_dqn import MultitaskDQNState
from actor_mimic.stages.players import load_each_once, player_when_asked
from actor_mimic.stages.references import References
from actor_mimic.stages.session import go_on
from actor_mimic.stages.space import foresee_memory, foresee_storage
from actor_mimic.stages.stage_run import (
    COMPUTE,
    Launch,
    final_measuring,
    learn,
    measuring_for,
    open_stage,
)
from actor_mimic.stages.training import LearningState
from actor_mimic.stages.transfer import transfer_network, with_network_of
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import (
    RunDir,
    open_run,
)
from actor_mimic.storage.shipped import RANDOM
from actor_mimic.teachers.callables import TeacherSource
from actor_mimic.teachers.own import check_plays, tasks_in_file


def run_expert(config: ExpertConfig, launch: Launch) -> Iterator[Record]:
    """Trains one expert.

    Raises:
        ConfigError: if the run was begun with another configuration.
        LockedError: if another process is at it.
        Interrupted: if it was stopped.
    """
    started = time.monotonic()
    compute = launch.compute()
    with open_stage(launch, compute, "expert", config, []) as run:
        if run.complete:
            return
        compute.start()
        foresee_memory(config, compute)
        envs = make_task_envs(config, compute)
        with closed_on_error(envs):
            state = expert_state(config, compute, envs, fresh_network(config, envs[0]))
            foresee_storage(config, state, run, launch.notice)
        manifest = {"kind": "expert"}
        yield from _reinforce(config, launch, run, state, envs[0].action_names, manifest, started)


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
    with open_stage(launch, compute, "transfer", config, parents) as run:
        if run.complete:
            return
        compute.start()
        foresee_memory(config, compute)
        envs = make_task_envs(config, compute)
        with closed_on_error(envs):
            network, origins = transfer_network(config, envs[0], parent)
            state = expert_state(config, compute, envs, network)
            foresee_storage(config, state, run, launch.notice)
        manifest = {
            "kind": "transfer",
            "parents": parents,
            "tensor_origins": [dataclasses.asdict(entry) for entry in origins],
        }
        yield from _reinforce(config, launch, run, state, envs[0].action_names, manifest, started)


def run_distill(
    config: DistillConfig, launch: Launch, teachers: Mapping[str, TeacherSource]
) -> Iterator[Record]:
    """Trains one student from one teacher per task.

    Teachers and random play are measured first, or looked up: a student's evaluations are reported
    as (student - random) / (teacher - random). What cannot work is refused before that.

    Raises:
        DataError: if a teacher does not fit its task.
        ConfigError, LockedError, Interrupted: as `run_expert`.
    """
    started = time.monotonic()
    parents = [{"task": task} | teachers[task].as_parent() for task in config.tasks]
    compute = dataclasses.replace(launch.compute(), compiled=False)  # experts alone compile
    with open_stage(launch, compute, "distill", config, parents) as run:
        if run.complete:
            return
        compute.start()
        foresee_memory(config, compute)
        state = DistillState(config, compute, load_each_once(config.tasks, teachers, compute))
        references = References()
        with closed_on_error([state]):  # a closed generator too
            foresee_storage(config, state, run, launch.notice)
            measuring = final_measuring(config, launch, run)
            yield from references.measured(state, teachers, measuring, compute.workers())
        for complaint in references.complaints():
            launch.notice(complaint)
        manifest = {
            "kind": "student",
            "tasks": _named(state.network),
            "parents": parents,
            "teacher_parameters": {t.task: t.num_parameters for t in state.teachers},
        }
        fidelity = Fidelity(state.learner, state.teachers, compute.workers())
        yield from learn(
            config,
            launch,
            run,
            state,
            manifest,
            references.merit,
            started,
            player=fidelity.act,
            seen=lambda scores: references.compare(state, scores) | fidelity.take(),
        )


def run_multitask_dqn(config: MultitaskDQNConfig, launch: Launch) -> Iterator[Record]:
    """Trains one network on several tasks by Q-learning; what comes of it is a student.

    Raises:
        ConfigError, LockedError, Interrupted: as `run_expert`.
    """
    started = time.monotonic()
    compute = dataclasses.replace(launch.compute(), compiled=False)  # experts alone compile
    with open_stage(launch, compute, "multitask-dqn", config, []) as run:
        if run.complete:
            return
        compute.start()
        foresee_memory(config, compute)
        envs = make_all_envs(config, config.learner.num_envs, compute)
        with closed_on_error(envs):
            state = MultitaskDQNState(config, compute, envs)
            foresee_storage(config, state, run, launch.notice)
        manifest = {"kind": "student", "tasks": _named(state.network), "parents": []}
        yield from learn(config, launch, run, state, manifest, mean_score, started)


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
    with open_run(launch.path, stage="evaluate", config=stored, resumable_keys=COMPUTE) as run:
        if run.complete:
            return
        go_on(run, launch.notice)
        compute.start()
        measuring = measuring_for(config.protocol, config.episodes, config.seed, launch, run)
        act = player_when_asked(checkpoint, tasks, compute)
        claimed = None if checkpoint is None else claimed_score(checkpoint)
        scores = measure(act, sha256, tasks, measuring, claimed=claimed)
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


def _named(student: Student) -> dict[str, list[str]]:
    """The action names of each task, as a manifest has them."""
    return {task: list(names) for task, names in student.task_actions.items()}


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
    yield from learn(
        config,
        launch,
        run,
        state,
        {"parents": []} | dict(manifest) | tasks,
        lambda scores: scores[config.task],
        started,
    )
