"""Networks as policies that games can be played with: live ones, and those of checkpoints."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Compute, Workers, cut
from actor_mimic.networks.q_network import Output, QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.stages.evaluate import Act
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.callables import CallableTeacher, TeacherSource
from actor_mimic.teachers.own import check_fits, load_teachers
from actor_mimic.teachers.teacher import Teacher, joined, label_all


def live_player(network: QNetwork | Student, workers: Workers) -> Act:
    """The live network as a policy of whatever it plays; that is one task, if it is no student."""
    device = next(network.parameters()).device

    def act(obs: Mapping[str, Shaped[Tensor, "_ ..."]]) -> dict[str, Int64[np.ndarray, " _"]]:
        if isinstance(network, Student):
            return best_actions(play_together(network, obs, workers))
        ((task, own),) = obs.items()
        scores = workers.infer(lambda rows: network(rows).scores, own.to(device))
        return {task: scores.argmax(dim=1).cpu().numpy()}

    return act


def play_together(
    student: Student, obs: Mapping[str, Shaped[Tensor, "_ ..."]], workers: Workers
) -> dict[str, Output]:
    """What a student says of several tasks' observations, by as few passes as there are workers."""
    device = next(student.parameters()).device
    nothing = {task: torch.empty(0, *student.obs_shape(task)) for task in student.tasks}
    of_all = [obs.get(task, nothing[task]).to(device) for task in student.tasks]

    @torch.no_grad()  # it holds for the thread that calls
    def part(rows: slice) -> list[Output]:
        return student.play_all(cut(of_all, rows))

    parts = workers.map(part, sum(map(len, of_all)))
    outputs = zip(student.tasks, map(joined, zip(*parts, strict=True)), strict=True)
    return {task: output for task, output in outputs if task in obs}


def player_of(teachers: Sequence[Teacher], workers: Workers) -> Act:
    """Teachers, each of its own task, as one policy."""
    known = {teacher.task: teacher for teacher in teachers}

    def act(obs: Mapping[str, Shaped[Tensor, "_ ..."]]) -> dict[str, Int64[np.ndarray, " _"]]:
        said = label_all([known[task] for task in obs], list(obs.values()), workers)
        return best_actions(dict(zip(obs, said, strict=True)))

    return act


def best_actions(outputs: Mapping[str, Output]) -> dict[str, Int64[np.ndarray, " _"]]:
    """By task the action of the highest score in every row."""
    return {task: said.scores.argmax(dim=1).cpu().numpy() for task, said in outputs.items()}


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


def player_when_asked(
    checkpoint: Checkpoint | None, tasks: Sequence[str], compute: Compute
) -> Act | None:
    """A policy of tasks, by one network, which is loaded when it is first asked to act."""
    if checkpoint is None:
        return None

    @functools.cache
    def loaded() -> Act:
        teachers = list(load_teachers(checkpoint, tasks, compute).values())
        for teacher in teachers:
            check_fits(teacher)
        return player_of(teachers, compute.workers())

    def act(
        obs: Mapping[str, Shaped[Tensor, "_ ..."]],
    ) -> Mapping[str, Int64[np.ndarray, " _"]]:
        return loaded()(obs)

    return act
