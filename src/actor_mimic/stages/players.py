"""Networks as policies that games can be played with: live ones, and those of checkpoints."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Compute, Workers
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.stages.evaluate import Act
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.callables import CallableTeacher, TeacherSource
from actor_mimic.teachers.own import check_fits, load_teachers
from actor_mimic.teachers.teacher import Teacher, label_all


def live_players(
    network: QNetwork | Student, tasks: Iterable[str], workers: Workers
) -> dict[str, Act]:
    """The live network as one policy per task."""
    device = next(network.parameters()).device

    def player(task: str) -> Act:
        def look(obs: Shaped[Tensor, "rows ..."]) -> Float[Tensor, "rows actions"]:
            output = network.play(task, obs) if isinstance(network, Student) else network(obs)
            return output.scores

        def act(obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
            return workers.infer(look, obs.to(device)).argmax(dim=1).cpu().numpy()

        return act

    return {task: player(task) for task in tasks}


def load_each_once(
    tasks: Sequence[str], checkpoints: Mapping[str, TeacherSource], compute: Compute
) -> list[Teacher]:
    """The teachers of the tasks, in order; several of one checkpoint share its network."""
    stored: dict[Path, Checkpoint] = {}
    tasks_of: dict[Path, list[str]] = {}
    loaded: dict[str, Teacher] = {}
    for task in tasks:
        source = checkpoints[task]
        if isinstance(source, CallableTeacher):
            loaded[task] = source.load(compute)
        else:
            stored[source.path] = source
            tasks_of.setdefault(source.path, []).append(task)
    for path, shared in tasks_of.items():
        loaded |= load_teachers(stored[path], shared, compute)
    return [loaded[task] for task in tasks]


def players_when_asked(
    checkpoint: Checkpoint | None, tasks: Sequence[str], compute: Compute
) -> dict[str, Act | None]:
    """A policy per task, all of one network, which is loaded when the first is asked to act."""
    if checkpoint is None:
        return dict.fromkeys(tasks)

    @functools.cache
    def teachers() -> dict[str, Teacher]:
        loaded = load_teachers(checkpoint, tasks, compute)
        for teacher in loaded.values():
            check_fits(teacher)
        return loaded

    workers = compute.workers()

    def player(task: str) -> Act:
        def act(obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
            (output,) = label_all([teachers()[task]], [obs], workers)
            return output.scores.argmax(dim=1).cpu().numpy()

        return act

    return {task: player(task) for task in tasks}
