"""Where a setting's value comes from, and who wins."""

import pytest

from actor_mimic.errors import ConfigError, UsageError
from actor_mimic.flat_config import to_json
from actor_mimic.verbs.settings import compute_settings, read_settings


def read(stage="expert", sets=(), environ=None, **options):
    required = {"tasks": ["pong"]} if stage == "distill" else {"task": "pong"}
    settings = read_settings(stage, required | options, sets, environ or {})
    return settings, {
        name: (v, settings.sources[name]) for name, v in to_json(settings.config).items()
    }


def test_option_then_set_then_environment_then_preset_then_default():
    environ = {
        f"ACTOR_MIMIC_{name}": value
        for name, value in {"SEED": "1", "GAMMA": "0.1", "BATCH_SIZE": "8", "TASK": "x"}.items()
    }
    _, found = read(seed=2, preset="nature", sets=["gamma=0.2"], environ=environ)

    assert found["seed"] == (2, "--seed")
    assert found["gamma"] == (0.2, "--set")
    assert found["batch_size"] == (8, "ACTOR_MIMIC_BATCH_SIZE")
    assert found["num_envs"] == (1, "preset nature")
    assert found["algorithm"] == ("dqn", "preset nature")
    assert found["final_episodes"] == (30, "default")
    assert found["task"] == ("pong", "TASK")


def test_the_environment_chooses_a_preset_and_leaves_other_stages_alone():
    environ = {"ACTOR_MIMIC_PRESET": "nature", "ACTOR_MIMIC_TEMPERATURE": "0.5"}
    settings, found = read(environ=environ)
    assert settings.preset == "nature"
    assert found["width"] == (1.0, "preset nature")

    _, found = read("distill", environ={"ACTOR_MIMIC_ALGORITHM": "dqn"} | environ, preset="paper")
    assert found["temperature"] == (0.5, "ACTOR_MIMIC_TEMPERATURE")
    assert found["tasks"] == (["pong"], "the tasks as arguments")


def test_a_budget_over_all_tasks_is_named_by_its_option():
    _, found = read("distill", steps_per_task=5_000)
    assert found["steps_per_task"] == (5_000, "--total-steps")
    with pytest.raises(ConfigError, match="twice"):
        read("distill", steps_per_task=5_000, sets=["steps_per_task=6_000"])


def test_what_is_left_open_may_be_in_the_environment():
    given = {"device": "auto", "precision": "float32", "threads": 0}
    environ = {"ACTOR_MIMIC_DEVICE": "cpu", "ACTOR_MIMIC_PRECISION": "bfloat16"}
    environ["ACTOR_MIMIC_THREADS"] = "3"
    values, sources = compute_settings(given, environ)

    assert values == {"device": "cpu", "precision": "float32", "threads": 3}
    assert sources == {
        "device": "ACTOR_MIMIC_DEVICE",
        "precision": "--precision",
        "threads": "ACTOR_MIMIC_THREADS",
    }
    with pytest.raises(ConfigError, match="whole number"):
        compute_settings(given, {"ACTOR_MIMIC_THREADS": "many"})


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(
        ConfigError, match="ACTOR_MIMIC_GAMA: no such setting; did you mean 'gamma'"
    ):
        read(environ={"ACTOR_MIMIC_GAMA": "1"})
    with pytest.raises(ConfigError, match="write --seed instead"):
        read(sets=["seed=1"])
    with pytest.raises(UsageError, match="NAME=VALUE"):
        read(sets=["seed"])
