"""What is foreseen of a run's checkpoints, against sums made by hand."""

import math

import pytest
import torch

from actor_mimic import compute
from actor_mimic.compute import Compute
from actor_mimic.errors import ConfigError
from actor_mimic.flat_config import build_config
from actor_mimic.stages import space
from actor_mimic.stages.space import disk_bytes, foresee_memory

KB = 1000
TASK = "gym:CartPole-v1"
DQN = {"task": TASK, "algorithm": "dqn", "total_steps": 1000, "num_envs": 1}


@pytest.mark.parametrize(
    ("settings", "replay", "expected"),
    [
        # The newest two and the one that is being written, four copies of the weights in each.
        ({"eval_every_steps": 0}, 0, 12 * KB),
        # ... and the best.
        ({}, 0, 16 * KB),
        # ... and those of steps 0, 250, 500, 750 and 1000.
        ({"keep_every_steps": 250}, 0, 36 * KB),
        ({"eval_every_steps": 0, "replay_capacity_steps": 1000}, 7 * KB, 12 * KB + 7 * KB),
        ({"replay_capacity_steps": 1000}, 7 * KB, 16 * KB + 2 * 7 * KB),
        # A run that never fills its replay: a tenth of it.
        ({"eval_every_steps": 0, "replay_capacity_steps": 10_000}, 70 * KB, 12 * KB + 7 * KB),
        ({"checkpoint_replay": "none", "replay_capacity_steps": 1000}, 7 * KB, 16 * KB),
    ],
)
def test_disk_by_hand(settings, replay, expected):
    config = build_config("expert", DQN | {"learning_starts_steps": 100} | settings)

    assert disk_bytes(config, KB, replay) == expected


def test_a_student_has_a_replay_for_each_task():
    values = {"tasks": [TASK, "gym:Acrobot-v1"], "steps_per_task": 500, "envs_per_task": 1}
    values |= {"replay_capacity_steps": 1000, "learning_starts_steps": 100, "eval_every_steps": 0}
    config = build_config("distill", values)

    assert disk_bytes(config, KB, 14 * KB) == 12 * KB + 7 * KB


SMALL = {"replay_capacity_steps": 4096, "learning_starts_steps": 1000, "network": "mlp"}


# An observation of CartPole is 4 numbers of 4 bytes, and as many as the network reads it.
@pytest.mark.parametrize(
    ("stage", "settings", "needed", "named"),
    [
        ("expert", {"num_envs": 2000, "rollout_steps": 64}, 2000 * 64 * 16, "num_envs or rollout"),
        (
            "expert",
            {"num_envs": 32, "rollout_steps": 256, "minibatch_size": 8192},
            8192 * 32,
            "minibatch_size",
        ),
        ("expert", {"algorithm": "dqn", "batch_size": 4096} | SMALL, 2 * 4096 * 32, "batch_size"),
        ("multitask-dqn", {"batch_size": 4096} | SMALL, 2 * 2 * 4096 * 32, "batch_size"),
        (
            "distill",
            {"batch_size_per_task": 4096, "feature_weight": 0.0, "network": "mlp"}
            | {"replay_capacity_steps": 384, "learning_starts_steps": 320},
            2 * 4096 * 32,
            "batch_size_per_task",
        ),
        # Hidden layers of 1280: 4 x 1280, 1280 x 1280, 1280 x 2, their biases and norms.
        ("expert", {"width": 10.0}, 16 * (4 * 1280 + 1280**2 + 2 * 1280 + 6 * 1280 + 2), "width"),
    ],
)
def test_memory_by_hand(stage, settings, needed, named, monkeypatch):
    tasks = {"task": TASK} if stage == "expert" else {"tasks": (TASK, "gym:Acrobot-v1")}
    config = build_config(stage, tasks | settings)
    cpu = Compute("cpu", "float32", 1)
    monkeypatch.setattr(space, "ENV_BYTES", 0)

    monkeypatch.setattr(compute, "available_memory_bytes", lambda: math.ceil(1.1 * needed))
    foresee_memory(config, cpu)
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: math.ceil(1.1 * needed) - 1)
    with pytest.raises(ConfigError, match=f"smaller {named}"):
        foresee_memory(config, cpu)

    # On a GPU it is the GPU's that counts, but for emulators.
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: 0)
    free = {"cuda:1": math.ceil(1.1 * needed)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 2**40))
    foresee_memory(config, Compute("cuda:1", "float32", 1))
    free["cuda:1"] -= 1
    with pytest.raises(ConfigError, match=f"smaller {named}"):
        foresee_memory(config, Compute("cuda:1", "float32", 1))


@pytest.mark.parametrize(
    ("stage", "settings", "count", "named"),
    [
        (
            "expert",
            {"task": "pong", "num_envs": 96, "rollout_steps": 4},
            96,
            "num_envs",
        ),
        ("distill", {"tasks": ("pong", TASK, "boxing"), "envs_per_task": 50}, 100, "envs_per_task"),
        ("multitask-dqn", {"tasks": ("pong", "boxing"), "num_envs": 32}, 64, "num_envs"),
    ],
)
def test_emulators_must_fit_before_they_are_made(stage, settings, count, named, monkeypatch):
    config = build_config(stage, settings)
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: int(1.1 * count * 2**20) - 1)

    with pytest.raises(ConfigError, match=f"emulators needs .* smaller {named}$"):
        foresee_memory(config, Compute("cpu", "float32", 1))


def test_environments_of_gymnasium_must_fit_too(monkeypatch):
    config = build_config("expert", {"task": TASK, "num_envs": 1024, "rollout_steps": 2})
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: int(1.1 * 4 * 2**20) - 1)

    with pytest.raises(ConfigError, match=r"environments needs .* smaller num_envs$"):
        foresee_memory(config, Compute("cpu", "float32", 1))


def test_quantiles_must_fit_before_anything_is_made(monkeypatch):
    settings = {"num_quantiles": 1000, "batch_size": 64, "replay_capacity_steps": 10_000}
    config = build_config("expert", DQN | {"total_steps": 10_000} | settings)
    pairs = 4 * 64 * 1000**2  # of each example: all of its quantiles beside all of its target's
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: math.ceil(1.1 * pairs) - 1)

    with pytest.raises(ConfigError, match="smaller num_quantiles or batch_size"):
        foresee_memory(config, Compute("cpu", "float32", 1))


def test_replays_must_fit_before_there_are_environments(monkeypatch):
    config = build_config("expert", DQN | {"total_steps": 10_000, "replay_capacity_steps": 10**9})
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: 2**30)

    with pytest.raises(ConfigError, match=r"the replay of 1 task\(s\) needs 21\.4 GiB"):
        foresee_memory(config, Compute("cpu", "float32", 1))
