import pytest

from actor_mimic import compute
from actor_mimic.errors import ConfigError
from actor_mimic.flat_config import build_config
from actor_mimic.recipes.load import load_recipe
from actor_mimic.recipes.memory import check_memory
from actor_mimic.stages import space

FRAME = 84 * 84


def replay_bytes(config):
    return space.replay_bytes(config, features=True)


def test_a_replay_holds_each_frame_once():
    config = build_config("transfer", {"task": "pong", "replay_capacity_steps": 16_000})

    assert 16_000 * FRAME < replay_bytes(config) < 1.02 * 16_000 * FRAME


@pytest.mark.parametrize(("network", "units"), [("auto", 512), ("nature", 512), ("large", 1024)])
def test_a_student_has_a_labelled_replay_for_each_game(network, units):
    values = {"tasks": ["pong", "boxing"], "replay_capacity_steps": 16_000, "width": 1.0}
    values["network"] = network
    labels = 18 * 4 + units * 2

    size = replay_bytes(build_config("distill", values))
    bare = replay_bytes(build_config("distill", values | {"feature_weight": 0.0}))
    assert 32_000 * (FRAME + labels) < size < 1.02 * 32_000 * (FRAME + labels)
    assert size - bare == 32_000 * units * 2
    assert space.replay_bytes(build_config("distill", values), features=False) == bare


def test_a_multitask_dqn_has_a_replay_for_each_game():
    values = {"replay_capacity_steps": 16_000, "num_envs": 16}

    one = replay_bytes(build_config("transfer", values | {"task": "pong"}))
    several = build_config("multitask-dqn", values | {"tasks": ["pong", "boxing"]})
    assert replay_bytes(several) == 2 * one


def test_vectors_of_every_length_are_counted():
    values = {"replay_capacity_steps": 16_000, "num_envs": 16}
    tasks = ["gym:CartPole-v1", "gym:Acrobot-v1"]  # 4 and 6 numbers

    each = 2 + 4 + 1  # action, reward, flags
    expected = 16_000 * (4 * 4 + each + 4 * 6 + each)
    assert replay_bytes(build_config("multitask-dqn", values | {"tasks": tasks})) == expected


def test_parallel_q_learning_has_none():
    assert replay_bytes(build_config("expert", {"task": "pong"})) == 0


def test_the_largest_stage_is_named_and_refused_before_anything_runs(tmp_path, monkeypatch):
    jobs = list(load_recipe("paper-transfer").jobs(tmp_path))
    said: list[str] = []
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: 2**40)
    check_memory(jobs, "cpu", said.append)
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: 2**30)

    assert len(said) == 1
    with pytest.raises(ConfigError, match="replay_capacity_steps"):
        check_memory(jobs, "cpu", said.append)
    assert said[0].startswith("memory: the replay of ")
