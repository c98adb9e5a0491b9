"""The distillation's state: what it stores, in which order, and what it says of its updates."""

import contextlib
import dataclasses
from collections.abc import Iterator

import gymnasium
import pytest
import torch

from actor_mimic.compute import Compute
from actor_mimic.config import DistillConfig, NetworkConfig
from actor_mimic.envs.make import make_envs
from actor_mimic.errors import DataError
from actor_mimic.flat_config import build_config
from actor_mimic.learners.mimic import MimicLearner
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.stages.configured import torso_spec
from actor_mimic.stages.distill import DistillState, default_samples_per_step
from actor_mimic.teachers.teacher import Teacher

CARTPOLE = "gym:CartPole-v1"
COMPUTE = Compute("cpu", "float32", 1)
ENVS, BATCH = 4, 8


def config(**changes: object) -> DistillConfig:
    small = {
        "tasks": [CARTPOLE],
        "steps_per_task": 400,
        "envs_per_task": ENVS,
        "learning_starts_steps": 3 * ENVS,
        "replay_capacity_steps": 400,
        "batch_size_per_task": BATCH,
        "samples_per_step": 2.0,
    }
    made = build_config("distill", small | changes)
    assert isinstance(made, DistillConfig)
    return made


def teacher(task: str = CARTPOLE, **changes: object) -> Teacher:
    env = make_envs(task, num_envs=1, run_seed=0, protocol=PROTOCOLS["paper"], num_threads=1)
    names, shape = env.action_names, env.frame_shape
    env.close()
    network = QNetwork(
        TorsoSpec("mlp", shape), len(names), generator=torch.Generator().manual_seed(1)
    )
    described = {
        "task": task,
        "action_names": names,
        "obs_shape": shape,
        "num_features": network.torso.num_features,
        "model_sha256": "0" * 64,
        "network": network,
        "device": "cpu",
    }
    return Teacher(**(described | changes))


@contextlib.contextmanager
def started(made: DistillConfig, *teachers: Teacher) -> Iterator[DistillState]:
    with contextlib.closing(DistillState(made, COMPUTE, teachers or [teacher()])) as state:
        state.start()
        yield state


@pytest.mark.parametrize(("asked", "kind"), [("auto", "wide_mlp"), ("mlp", "mlp")])
def test_a_student_of_vectors_is_wider_than_their_experts(asked: str, kind: str) -> None:
    with started(config(network=asked)) as state:
        spec = state.network.spec
    assert spec == TorsoSpec(kind, (4,), width=0.5, norm="all")
    assert torso_spec(NetworkConfig(), (4,)).kind == "mlp"


def test_learning_starts_after_so_many_steps_of_each_task() -> None:
    with started(config()) as state:
        updates = []
        for _ in range(5):
            state.advance()
            updates.append(state.updates)
    # Updates run beside the emulators, before their step is stored: 4 x 2 samples are a batch.
    assert updates == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(("weight", "width"), [(0.0, 0), (0.5, 1)])
def test_features_are_stored_only_for_a_feature_loss(weight: float, width: int) -> None:
    taught = teacher()
    with started(config(feature_weight=weight), taught) as state:
        for _ in range(6):
            metrics = state.advance()
        segment = (
            state.snapshot()
            .replays["task-00"]
            .export_since(state.snapshot().replays["task-00"].written * 0)
        )
    assert segment["label_scores"].shape == (6 * ENVS, 2)
    assert ("label_features" in segment) == bool(width)
    assert (f"{CARTPOLE}/feature_loss" in metrics) == bool(width)
    if width:
        assert segment["label_features"].shape == (6 * ENVS, taught.num_features)


def test_memory_without_features_is_smaller_by_just_them() -> None:
    taught = teacher()
    sizes = []
    for weight in (0.0, 0.5):
        with started(config(feature_weight=weight), taught) as state:
            sizes.append(state.replay_bytes)
    assert sizes[1] - sizes[0] == 400 * taught.num_features * 2


def test_steps_of_vectors_are_trained_on_more_often_than_images() -> None:
    with started(config(samples_per_step=0.0)) as state:
        updates = []
        for _ in range(5):
            state.advance()
            updates.append(state.updates)
    assert updates == [0, 0, 0, 4, 8]  # 4 x 8 samples are four batches
    env = make_envs("pong", num_envs=1, run_seed=0)
    assert default_samples_per_step([env]) == 2.0
    env.close()


def test_the_metrics_of_several_updates_are_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    original = MimicLearner.update

    def noted(learner: MimicLearner, batches: object) -> dict[str, torch.Tensor]:
        metrics = original(learner, batches)  # type: ignore[arg-type]
        losses.append(metrics["loss"].item())
        return metrics

    monkeypatch.setattr(MimicLearner, "update", noted)
    with started(config(samples_per_step=6.0)) as state:  # 4 x 6 samples are three batches
        for _ in range(3):
            assert state.advance() == {}
        metrics = state.advance()
    assert len(losses) == 3
    assert float(metrics["loss"]) == pytest.approx(sum(losses) / 3)


@pytest.fixture
def used_rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Learning rates that updates were made with, as they are made."""
    used: list[float] = []
    original = MimicLearner.update

    def noted(learner: MimicLearner, batches: object) -> dict[str, torch.Tensor]:
        used.append(learner.optimizer.param_groups[0]["lr"])
        return original(learner, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(MimicLearner, "update", noted)
    return used


SHORT = {"steps_per_task": 40, "replay_capacity_steps": 48, "learning_rate": 0.01}


def to_the_end(state: DistillState) -> list[float | torch.Tensor]:
    """Trains for the whole budget; the learning rates that are told of."""
    told = []
    while state.steps < state.total_steps:
        metrics = state.advance()
        told += [metrics["learning_rate"]] if metrics else []
    return told


def test_the_learning_rate_falls_to_zero_at_the_last_step(
    dotted: str, used_rates: list[float]
) -> None:
    made = config(tasks=[dotted, CARTPOLE], annealing_fraction=1.0, **SHORT)
    with started(made, teacher(dotted), teacher()) as state:
        told = to_the_end(state)
    # An update of 8 of each task every 4 steps of each, once it has 12; by the steps before it.
    assert used_rates == told
    assert used_rates == pytest.approx([0.01 * (1 - steps / 40) for steps in range(12, 40, 4)])


def test_the_learning_rate_falls_in_the_last_part(used_rates: list[float]) -> None:
    with started(config(annealing_fraction=0.4, **SHORT)) as state:
        to_the_end(state)
    # 40 steps, of which the last 16 are those of the fall.
    assert used_rates == pytest.approx([0.01] * 4 + [0.0075, 0.005, 0.0025])


def test_without_annealing_the_learning_rate_stays(used_rates: list[float]) -> None:
    with started(config(annealing_fraction=0.0, **SHORT)) as state:
        told = to_the_end(state)
    assert used_rates == told == [0.01] * 7


def test_a_falling_learning_rate_falls_on_after_a_restore() -> None:
    made = config(annealing_fraction=0.5, **SHORT)
    with started(made) as state, started(made) as resumed:
        while state.steps < 24:
            state.advance()
        kept = state.snapshot()
        replays = {name: [r.export_since(r.written * 0)] for name, r in kept.replays.items()}
        resumed.restore(kept.tensors, kept.state, replays)
        resumed.catch_up()
        assert to_the_end(resumed) == to_the_end(state)
        ours, theirs = state.network.state_dict(), resumed.network.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def dotted() -> Iterator[str]:
    """A task whose name could not name a module."""
    name = "Dotted.Pole-v1"
    gymnasium.register(name, "gymnasium.envs.classic_control.cartpole:CartPoleEnv")
    yield f"gym:{name}"
    del gymnasium.registry[name]


def test_regressors_are_numbered_as_the_students_tasks(dotted: str) -> None:
    made = config(tasks=[dotted, CARTPOLE])
    first, second = teacher(dotted), teacher()
    with started(made, first, second) as state:
        for _ in range(4):
            state.advance()
        assert list(state.network.action_maps) == [dotted, CARTPOLE]
        assert state.updates == 1
        names = state.snapshot().tensors["regressors"].keys()
    assert names == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_teachers_in_another_order_are_a_mistake(dotted: str) -> None:
    """Of two games with the same actions, say; only the names can tell."""
    made = config(tasks=[dotted, CARTPOLE])
    first, second = teacher(dotted), teacher()
    swapped = [
        dataclasses.replace(second, action_names=first.action_names),
        dataclasses.replace(first, action_names=second.action_names),
    ]

    with pytest.raises(AssertionError):
        DistillState(made, COMPUTE, swapped)


def test_a_teacher_with_other_actions_is_refused() -> None:
    wrong = teacher(action_names=("left", "up"))

    with pytest.raises(DataError, match=r"\('left', 'up'\)"):
        DistillState(config(), COMPUTE, [wrong])
