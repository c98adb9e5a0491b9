"""What settings ask for is what a stage is made of: optimisers, rates, exploration, clipping."""

import contextlib
from typing import Any

import pytest
import torch

from actor_mimic.compute import Compute
from actor_mimic.config import ExpertConfig
from actor_mimic.envs.make import make_envs
from actor_mimic.flat_config import build_config
from actor_mimic.learners.optimizers import CentredRMSProp
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.configured import dqn_optimizer, epsilon_at
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.expert import expert_state, fresh_network

CPU = Compute("cpu", "float32", 1)
SMALL: dict[str, dict[str, Any]] = {
    "pqn": {"rollout_steps": 8, "minibatch_size": 16},
    "dqn": {"batch_size": 8, "update_every_steps": 4, "learning_starts_steps": 16},
}


def expert(algorithm: str, **changes: Any) -> ExpertConfig:
    values = {"task": "gym:CartPole-v1", "algorithm": algorithm, "total_steps": 128, "num_envs": 4}
    config = build_config("expert", values | SMALL[algorithm] | changes)
    assert isinstance(config, ExpertConfig)
    return config


def test_the_optimiser_is_the_one_that_was_asked_for() -> None:
    network = QNetwork(TorsoSpec("mlp", (4,), 0.125), 2, generator=torch.Generator())
    asked = {"learning_rate": 0.25, "adam_epsilon": 0.5, "rmsprop_decay": 0.75}
    made = {
        name: dqn_optimizer(
            expert("dqn", optimizer=name, rmsprop_epsilon=0.125, **asked).learner, network
        )
        for name in ("adam", "rmsprop")
    }

    assert isinstance(made["adam"], torch.optim.Adam)
    assert isinstance(made["rmsprop"], CentredRMSProp)
    (adam,), (rmsprop,) = (optimizer.param_groups for optimizer in made.values())
    assert (adam["lr"], adam["eps"]) == (0.25, 0.5)
    assert (rmsprop["lr"], rmsprop["decay"], rmsprop["epsilon"]) == (0.25, 0.75, 0.125)
    assert all(len(group["params"]) == len(list(network.parameters())) for group in (adam, rmsprop))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # Over a quarter of 128 steps: 32 from the first on, or from the sixteenth.
        ("pqn", {0: 1.0, 16: 0.6, 32: 0.2, 128: 0.2}),
        ("dqn", {0: 1.0, 16: 1.0, 32: 0.6, 48: 0.2, 128: 0.2}),
    ],
)
def test_exploration_falls_from_when_learning_begins(
    algorithm: str, expected: dict[int, float]
) -> None:
    learner = expert(algorithm, epsilon_end=0.2, exploration_fraction=0.25).learner
    found = {steps: epsilon_at(learner, steps, 128) for steps in expected}
    assert found == pytest.approx(expected)


def test_exploration_ends_with_the_budget_at_the_latest() -> None:
    learner = expert("dqn", epsilon_end=0.2, exploration_fraction=1.0).learner
    assert epsilon_at(learner, 16 + 56, 128) == pytest.approx(0.6)  # half of 112
    assert epsilon_at(learner, 128, 128) == pytest.approx(0.2)


def test_a_transfer_on_vectors_is_as_large_as_a_student() -> None:
    """Else the one from random weights would be compared with another network."""
    values = {"task": "gym:CartPole-v1", "total_steps": 10_000}
    env = make_envs(values["task"], num_envs=1, run_seed=0)
    kinds = [
        fresh_network(build_config(stage, values), env).torso.spec.kind
        for stage in ("expert", "transfer")
    ]
    env.close()
    assert kinds == ["mlp", "wide_mlp"]


def advanced(config: ExpertConfig) -> list[dict[str, Any]]:
    """What every advance of a whole run says."""
    envs = make_task_envs(config, CPU)
    state = expert_state(config, CPU, envs, fresh_network(config, envs[0]))
    said = []
    with contextlib.closing(state):
        state.start()
        while state.steps < state.total_steps:
            said.append(state.advance())
    return said


@pytest.mark.parametrize("algorithm", SMALL)
@pytest.mark.parametrize("norm", [0.0, 1e-6])
def test_gradients_are_clipped_if_that_is_asked_for(
    algorithm: str, norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clipped = []
    monkeypatch.setattr(
        torch.nn.utils, "clip_grads_with_norm_", lambda _, most, __: clipped.append(most)
    )
    said = advanced(expert(algorithm, max_gradient_norm=norm))

    assert any("loss" in metrics for metrics in said)
    assert set(clipped) == ({norm} if norm else set())


def test_the_learning_rate_of_parallel_q_learning_falls_to_zero() -> None:
    said = advanced(expert("pqn", learning_rate=0.5))
    # Four rollouts of 32 steps, by the steps before each.
    assert [metrics["learning_rate"] for metrics in said] == [0.5, 0.375, 0.25, 0.125]
