"""Distillation: who plays, three tasks of different shapes in one student, resume of it all."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from actor_mimic.compute import Compute, Workers
from actor_mimic.config import DistillConfig
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.flat_config import build_config
from actor_mimic.networks.q_network import Output
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.evaluate import TaskScores, play_games
from actor_mimic.stages.fidelity import Fidelity
from actor_mimic.teachers.teacher import Teacher

CART, BOT, CAR = "gym:CartPole-v1", "gym:Acrobot-v1", "gym:MountainCar-v0"
COMPUTE = Compute("cpu", "float32", 1)
ENVS = 4


def leaning(obs: Tensor) -> Tensor:
    """Push to where the pole falls; a good player of CartPole."""
    push = 3.0 * obs[:, 2] + obs[:, 3]
    return torch.stack([-push, push], dim=1)


def swinging(obs: Tensor) -> Tensor:
    """Torque along the first joint's velocity pumps energy into Acrobot."""
    push = -obs[:, 4]
    return torch.stack([-push, torch.full_like(push, -0.05), push], dim=1)


def rocking(obs: Tensor) -> Tensor:
    """Accelerate along the velocity: MountainCar out of the valley, about 120 steps."""
    push = 50.0 * obs[:, 1]
    return torch.stack([-push, torch.full_like(push, -0.02), push], dim=1)


RULES: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    CART: (leaning, 2, 4),
    BOT: (swinging, 3, 6),
    CAR: (rocking, 3, 2),
}


def teacher(task: str, **changes: object) -> Teacher:
    rule, actions, length = RULES[task]
    described = Teacher(
        task=task,
        action_names=tuple(f"{task}/{action}" for action in range(actions)),
        obs_shape=(length,),
        num_features=length,
        model_sha256="0" * 64,
        network=lambda obs: Output(rule(obs), obs),
        device="cpu",
    )
    return dataclasses.replace(described, **changes)


def config(*tasks: str, **changes: object) -> DistillConfig:
    small = {
        "tasks": list(tasks),
        "steps_per_task": 400,
        "envs_per_task": ENVS,
        "learning_starts_steps": 3 * ENVS,
        "replay_capacity_steps": 400,
        "batch_size_per_task": 8,
        "samples_per_step": 1.0,
    }
    made = build_config("distill", small | changes)
    assert isinstance(made, DistillConfig)
    return made


@contextlib.contextmanager
def started(made: DistillConfig, **changes: object) -> Iterator[DistillState]:
    teachers = [teacher(task, **changes) for task in made.tasks]
    with contextlib.closing(DistillState(made, COMPUTE, teachers)) as state:
        state.start()
        yield state


def acted(state: DistillState) -> tuple[Tensor, Tensor]:
    """Observations and actions of the only task's replay."""
    (replay,) = state.snapshot().replays.values()
    segment = replay.export_since(replay.written * 0)
    steps = (segment["flags"] & 8) == 0  # without the last frames of truncated episodes
    return segment["frames"][steps], segment["actions"][steps].long()


def test_the_teacher_plays_if_asked_to():
    with started(config(CART, actor="teacher", epsilon=0.0)) as state:
        for _ in range(30):
            state.advance()
        obs, actions = acted(state)
    assert torch.equal(actions, leaning(obs).argmax(dim=1))


def test_whoever_plays_explores():
    with started(config(CART, actor="teacher", epsilon=1.0)) as state:
        for _ in range(50):
            state.advance()
        obs, actions = acted(state)
    agreed = (actions == leaning(obs).argmax(dim=1)).float().mean().item()
    assert agreed == pytest.approx(0.5, abs=4 * (0.25 / 200) ** 0.5)


def test_a_mixture_gives_the_teacher_its_share_in_every_environment():
    """A student that always does the opposite tells who acted."""
    made = config(
        CART,
        actor="mixture",
        epsilon=0.0,
        envs_per_task=16,
        steps_per_task=6_400,
        replay_capacity_steps=8_000,
        learning_starts_steps=6_384,  # learnt from after the last step
        teacher_share_start=0.9,
        teacher_share_end=0.2,
        teacher_share_fraction=0.5,
    )
    shares = []
    with started(made) as state:
        choose, observed = state._mixed, []

        def noted(_own: np.ndarray, labels: list[Output]) -> np.ndarray:
            (output,) = labels
            taught = output.scores.argmax(dim=1).numpy()
            actions = choose(1 - taught, labels)
            observed.append(actions == taught)
            return actions

        state._mixed = noted  # type: ignore[method-assign]
        while state.steps < state.total_steps:
            state.advance()
        shares = np.array(observed, dtype=float)  # [steps, envs]
    # From 0.9 to 0.2 over the first 200 of 400 steps, then 0.2.
    expected = np.concatenate([np.linspace(0.9, 0.2, 200, endpoint=False), np.full(200, 0.2)])
    error = np.sqrt((expected * (1 - expected)).mean() / shares.size)
    assert shares.mean() == pytest.approx(expected.mean(), abs=4 * error)
    for part in range(4):
        rows = slice(100 * part, 100 * part + 100)
        spread = np.sqrt((expected[rows] * (1 - expected[rows])).mean() / 1600)
        assert shares[rows].mean() == pytest.approx(expected[rows].mean(), abs=4.5 * spread)
    assert shares.mean(axis=0) == pytest.approx(np.full(16, expected.mean()), abs=0.11)


def test_a_teacher_that_reads_something_else_is_refused():
    """The task has changed since, or is another one of the same name."""
    said = rf"teacher of {CART} reads .*\(2,\), the task shows \(4,\)"
    with pytest.raises(DataError, match=said):
        DistillState(config(CART), Compute("cpu", "float32", 1), [teacher(CART, obs_shape=(2,))])


def test_values_cannot_be_learnt_from_a_policy():
    with (
        pytest.raises(ConfigError, match=f"mse teaches values, and the teacher of {CART}"),
        started(config(CART, objective="mse"), scores_are_logits=True),
    ):
        pass


def test_teachers_of_logits_have_a_temperature_of_their_own():
    made = config(CART, temperature=0.02, logit_temperature=1.5)
    with started(made) as state:
        assert state.temperatures == (0.02,)
    with started(made, scores_are_logits=True) as state:
        assert state.temperatures == (1.5,)


EVERYTHING = {
    "actor": "mixture",
    "task_weights": "gap",
    "objective": "kl",
    "feature_target": "normalised",
    "optimizer": "authors_adam",
    "reduction": "sum",
    "head": "per_task",
    "teacher_entropy": 0.3,
    "teacher_share_fraction": 1.0,
}


@pytest.mark.parametrize("tasks", [(CART,), (CART, BOT, CAR)])
def test_resume_is_exact_with_every_new_setting(tasks: tuple[str, ...]):
    made = config(*tasks, **EVERYTHING)
    with started(made) as whole, started(made) as again:
        whole.soften(dict.fromkeys(tasks, 0.7))
        for _ in range(20):
            whole.advance()
        whole.take_gaps({task: 0.2 * index for index, task in enumerate(tasks)})
        for _ in range(5):
            whole.advance()
        snapshot = whole.snapshot()
        tensors = {
            group: {name: value.clone() for name, value in values.items()}
            for group, values in snapshot.tensors.items()
        }
        state = json.loads(json.dumps(snapshot.state))
        segments = {
            name: [replay.export_since(replay.written * 0)]
            for name, replay in snapshot.replays.items()
        }
        again.restore(tensors, state, segments)
        again.catch_up()
        assert again.temperatures == (0.7,) * len(tasks)
        assert again.learner.weights == whole.learner.weights
        for _ in range(20):
            expected, found = whole.advance(), again.advance()
            assert {name: float(value) for name, value in expected.items()} == {
                name: float(value) for name, value in found.items()
            }
        left, right = whole.snapshot(), again.snapshot()
        assert left.state == right.state
        for group, values in left.tensors.items():
            for name, value in values.items():
                assert torch.equal(value, right.tensors[group][name]), (group, name)


def test_images_and_vectors_do_not_share_a_student():
    made = config(CART, "pong")
    with pytest.raises(ConfigError, match="all give vectors, or all images of one shape"):
        DistillState(made, COMPUTE, [])


def played(state: DistillState, task: str) -> TaskScores:
    fidelity = Fidelity(state.learner, state.teachers, Workers())
    *_, last = play_games(
        fidelity.act,
        [task],
        episodes=8,
        protocol=PROTOCOLS["paper"],
        epsilon=0.0,
        seed=1,
        num_threads=1,
    )
    scores = last[task]
    assert isinstance(scores, TaskScores)
    assert fidelity.take()[f"{task}/held_out_agreement"] > 0.75
    return scores


def test_three_tasks_of_different_shapes_are_learnt_by_one_student():
    made = config(
        CART,
        BOT,
        CAR,
        steps_per_task=3_000,
        envs_per_task=8,
        replay_capacity_steps=4_000,
        learning_starts_steps=400,
        samples_per_step=4.0,
        batch_size_per_task=32,
        learning_rate=1e-3,
        teacher_share_start=1.0,
        teacher_share_end=0.5,
        teacher_share_fraction=1.0,
        actor="mixture",
        temperature=0.1,
    )
    with started(made) as state:
        while state.steps < state.total_steps:
            state.advance()
        means = {task: played(state, task).mean for task in made.tasks}
    # Random play: 20, -500 and -200.
    assert means[CART] > 150.0
    assert means[BOT] > -200.0
    assert means[CAR] > -150.0
