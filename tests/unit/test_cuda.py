"""Whole stages on a GPU; what single networks and learners do there is tested beside them."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from actor_mimic.compute import Compute
from actor_mimic.config import DistillConfig, EvaluateConfig, ExpertConfig, MultitaskDQNConfig
from actor_mimic.envs.atari import atari_action_names
from actor_mimic.flat_config import build_config
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.expert import (
    DQNState,
    PQNState,
    expert_state,
    fresh_network,
)
from actor_mimic.stages.launch import run_evaluate, run_expert
from actor_mimic.stages.lockstep import make_all_envs
from actor_mimic.stages.multitask_dqn import MultitaskDQNState
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.teachers.own import load_network
from actor_mimic.teachers.teacher import Teacher

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")
DEVICE = "cuda"

# Only exploring: what is played, and so what is learnt from, is the same on every device.
# Not centred: that begins at values of zero, and without a reward there is nothing to learn then.
EXPLORING = {
    "epsilon_start": 1.0,
    "epsilon_end": 1.0,
    "num_envs": 4,
    "width": 0.25,
    "centred": False,
}
LEARNERS = {
    "pqn": {"algorithm": "pqn", "rollout_steps": 4, "minibatch_size": 8},
    "dqn": {
        "algorithm": "dqn",
        "update_every_steps": 4,
        "batch_size": 16,
        "learning_starts_steps": 16,
        "replay_capacity_steps": 400,
        "target_period_updates": 3,
    },
}
ADVANCES = {"pqn": 3, "dqn": 12}
each = pytest.mark.parametrize("algorithm", LEARNERS)


def configured(algorithm: str, task: str = "pong", **settings: object) -> ExpertConfig:
    values = {"task": task, "total_steps": 1_000} | EXPLORING | LEARNERS[algorithm] | settings
    config = build_config("expert", values)
    assert isinstance(config, ExpertConfig)
    return config


def losses(algorithm: str, device: str, precision: str) -> list[float]:
    """Of the updates in the first few advances."""
    config, compute = configured(algorithm), Compute(device, precision, 1)
    compute.start()
    envs = make_task_envs(config, compute)
    state = expert_state(config, compute, envs, fresh_network(config, envs[0]))
    try:
        state.start()
        metrics = [state.advance() for _ in range(ADVANCES[algorithm])]
        assert_on(state, device)
    finally:
        state.close()
    return [float(values["loss"]) for values in metrics if "loss" in values]


def assert_on(state: PQNState | DQNState, device: str) -> None:
    snapshot = state.snapshot()
    for group in ("model", "optimizer"):
        devices = {tensor.device.type for tensor in snapshot.tensors[group].values() if tensor.ndim}
        assert devices == {device}


@each
def test_an_expert_learns_on_cuda_what_it_learns_on_the_cpu(algorithm: str) -> None:
    on_cpu, on_cuda = (losses(algorithm, device, "float32") for device in ("cpu", DEVICE))

    assert len(on_cpu) >= 3
    assert min(on_cpu) > 0.0
    assert on_cuda == pytest.approx(on_cpu, rel=1e-2, abs=1e-5)


@each
def test_an_expert_learns_on_cuda_in_bfloat16(algorithm: str) -> None:
    found, exact = (losses(algorithm, DEVICE, p) for p in ("bfloat16", "float32"))

    assert torch.tensor(found).isfinite().all()
    assert found != exact, "bfloat16 was not used"
    assert found[0] == pytest.approx(exact[0], rel=0.1, abs=1e-2)


def scores_of(path: Path, obs: torch.Tensor) -> Sequence[Sequence[float]]:
    """Of the last checkpoint's network, loaded as everybody does."""
    network = load_network(resolve_checkpoint(path))
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}
    with torch.no_grad():
        return network(obs).scores.tolist()


@each
def test_a_checkpoint_from_cuda_is_at_home_on_the_cpu(algorithm: str, tmp_path: Path) -> None:
    schedule = {
        "total_steps": 256,
        "record_every_steps": 64,
        "eval_every_steps": 0,
        "final_episodes": 1,
        "checkpoint_every_steps": 128,
    }
    config = configured(algorithm, "gym:CartPole-v1", **schedule)
    for name, device in (("home", "cpu"), ("away", DEVICE)):
        plain = {"precision": "float32", "threads": 1, "compiled": "off"}
        launch = Launch(tmp_path / name, device=device, **plain)
        records = list(run_expert(config, launch))
        assert [record.step for record in records if record.kind == "checkpoint"] == [128, 256]

    obs = torch.linspace(-0.1, 0.1, 32).view(8, 4)
    on_cpu, on_cuda = (scores_of(tmp_path / name, obs) for name in ("home", "away"))
    torch.testing.assert_close(torch.tensor(on_cuda), torch.tensor(on_cpu), atol=1e-3, rtol=1e-2)
    played = Launch(tmp_path / "played", device="cpu", precision="float32", threads=1)
    checkpoint = resolve_checkpoint(tmp_path / "away")
    (final,) = run_evaluate(EvaluateConfig(episodes=1), played, checkpoint)
    assert final.values["gym:CartPole-v1/mean"] >= 8.0


def multitask_losses(device: str) -> list[float]:
    """Of a network that learns two games from rewards, its frames in memory of the device."""
    learner = {key: value for key, value in LEARNERS["dqn"].items() if key != "algorithm"}
    values = {"tasks": ["pong", "breakout"], "steps_per_task": 1_000, **EXPLORING, **learner}
    config, compute = build_config("multitask-dqn", values), Compute(device, "float32", 1)
    assert isinstance(config, MultitaskDQNConfig)
    compute.start()
    state = MultitaskDQNState(
        config, compute, make_all_envs(config, config.learner.num_envs, compute)
    )
    return begun(state)


def begun(state: MultitaskDQNState | DistillState) -> list[float]:
    """Losses of the first updates; the state is closed then."""
    with contextlib.closing(state):
        state.start()
        metrics = [state.advance() for _ in range(ADVANCES["dqn"])]
    return [float(values["loss"]) for values in metrics if "loss" in values]


def test_several_games_are_learnt_on_cuda_as_on_the_cpu() -> None:
    on_cpu, on_cuda = map(multitask_losses, ("cpu", DEVICE))

    assert len(on_cpu) >= 3
    assert min(on_cpu) > 0.0
    assert on_cuda == pytest.approx(on_cpu, rel=1e-2, abs=1e-5)


def student_losses(device: str) -> list[float]:
    """Of a student of two untrained teachers; what the teachers play does not depend on it."""
    games = {"pong": 6, "breakout": 4}
    teachers = []
    for task, actions in games.items():
        network = QNetwork(
            TorsoSpec("nature", (4, 84, 84), width=0.25),
            actions,
            generator=torch.Generator().manual_seed(actions),
        )
        teachers.append(
            Teacher(
                task=task,
                action_names=atari_action_names(task),
                obs_shape=(4, 84, 84),
                num_features=network.torso.num_features,
                model_sha256="0" * 64,
                network=network.to(device),
                device=device,
            )
        )
    settings = {
        "tasks": list(games),
        "steps_per_task": 1_000,
        "epsilon": 1.0,
        "envs_per_task": 4,
        "learning_starts_steps": 16,
        "replay_capacity_steps": 400,
        "batch_size_per_task": 8,
        "feature_weight": 0.01,
        "network": "nature",
        "width": 0.25,
        "centred": False,
    }
    config, compute = build_config("distill", settings), Compute(device, "float32", 1)
    assert isinstance(config, DistillConfig)
    compute.start()
    return begun(DistillState(config, compute, teachers))


def test_a_student_learns_on_cuda_what_it_learns_on_the_cpu() -> None:
    on_cpu, on_cuda = map(student_losses, ("cpu", DEVICE))

    assert len(on_cpu) >= 3
    assert min(on_cpu) > 0.0
    assert on_cuda == pytest.approx(on_cpu, rel=1e-2, abs=1e-5)
