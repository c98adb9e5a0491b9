"""Networks as policies that games can be played with: live ones, and those of checkpoints."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.stages.evaluate import Act
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.own import load_teachers
from actor_mimic.teachers.teacher import Teacher


def live_players(network: QNetwork | Student, tasks: Iterable[str]) -> dict[str, Act]:
    """The live network as one policy per task."""
    device = next(network.parameters()).device

    def player(task: str) -> Act:
        @torch.no_grad()
        def act(obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
            obs = obs.to(device)
            output = network.play(task, obs) if isinstance(network, Student) else network(obs)
            return output.scores.argmax(dim=1).cpu().numpy()

        return act

    return {task: player(task) for task in tasks}


def load_each_once(
    tasks: Sequence[str], checkpoints: Mapping[str, Checkpoint], compute: Compute
) -> list[Teacher]:
    """The teachers of the tasks, in order; several of one checkpoint share its network."""
    tasks_of: dict[Path, list[str]] = {}
    for task in tasks:
        tasks_of.setdefault(checkpoints[task].path, []).append(task)
    loaded: dict[str, Teacher] = {}
    for shared in tasks_of.values():
        loaded |= load_teachers(checkpoints[shared[0]], shared, compute)
    return [loaded[task] for task in tasks]


def players_when_asked(
    checkpoint: Checkpoint | None, tasks: Sequence[str], compute: Compute
) -> dict[str, Act | None]:
    """A policy per task, all of one network, which is loaded when the first is asked to act."""
    if checkpoint is None:
        return dict.fromkeys(tasks)
    teachers = functools.cache(lambda: load_teachers(checkpoint, tasks, compute))

    def player(task: str) -> Act:
        def act(obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
            return teachers()[task].act(obs)

        return act

    return {task: player(task) for task in tasks}
