import pytest

from actor_mimic.config import (
    DistillConfig,
    DQNConfig,
    ExpertConfig,
    PQNConfig,
    TransferConfig,
    build_config,
    leaves,
    to_json,
)
from actor_mimic.errors import ConfigError

STAGES = {"expert": ExpertConfig, "transfer": TransferConfig, "distill": DistillConfig}
REQUIRED = {
    "expert": {"task": "pong"},
    "transfer": {"task": "pong"},
    "distill": {"tasks": ["pong"]},
}


def build(stage, **values):
    return build_config(stage, REQUIRED[stage] | values)


@pytest.mark.parametrize("stage", STAGES)
def test_every_name_is_unique_and_can_be_set(stage):
    config = build(stage)
    names = [name for name, _ in leaves(config)]

    assert isinstance(config, STAGES[stage])
    assert len(names) == len(set(names))
    assert build_config(stage, to_json(config)) == config


@pytest.mark.parametrize("stage", ["expert", "transfer"])
@pytest.mark.parametrize(("algorithm", "learner"), [("pqn", PQNConfig), ("dqn", DQNConfig)])
def test_algorithm_chooses_the_learner(stage, algorithm, learner):
    config = build(stage, algorithm=algorithm)

    assert isinstance(config.learner, learner)
    assert to_json(config)["algorithm"] == algorithm
    assert build_config(stage, to_json(config)) == config


def test_experts_learn_by_pqn_and_transfers_by_dqn_unless_told():
    assert to_json(build("expert"))["algorithm"] == "pqn"
    assert to_json(build("transfer"))["algorithm"] == "dqn"


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ("50_000", "total_steps", 50_000),
        ("1e6", "total_steps", 1_000_000),
        (2.0, "total_steps", 2),
        ("1e-4", "learning_rate", 1e-4),
        (1, "gamma", 1.0),
        ("none", "checkpoint_replay", "none"),
    ],
)
def test_text_is_read_as_the_type_of_the_field(given, name, expected):
    value = dict(leaves(build("expert", **{name: given})))[name]

    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("stage", "values", "said"),
    [
        ("expert", {"gama": 0.9}, "did you mean 'gamma'"),
        ("expert", {"n_step": 3}, "n_step"),  # of DQN, and this is PQN
        ("expert", {"algorithm": "ppo"}, "pqn, dqn"),
        ("expert", {"total_steps": "many"}, "total_steps must be a whole number"),
        ("expert", {"total_steps": 0.5}, "total_steps must be a whole number"),
        ("expert", {"total_steps": 0}, "total_steps must be positive"),
        ("expert", {"total_steps": True}, "total_steps must be a whole number"),
        ("expert", {"learning_rate": "nan"}, "learning_rate must be a number"),
        ("expert", {"gamma": 1.5}, r"gamma must lie in \[0, 1\]"),
        ("expert", {"minibatch_size": 100}, "minibatch_size 100 must divide"),
        ("expert", {"norm": "none"}, "pqn"),
        ("expert", {"checkpoint_replay": "some"}, "full or none"),
        ("expert", {"task": 3}, "task must be text"),
        (
            "expert",
            {"algorithm": "dqn", "num_envs": 3, "update_every_steps": 8},
            "update_every_steps 8 must be a multiple of num_envs 3",
        ),
        (
            "expert",
            {"algorithm": "dqn", "learning_starts_steps": 10, "replay_capacity_steps": 5},
            "learning would never start",
        ),
        ("transfer", {"head": "both"}, "fresh or copy"),
        ("distill", {"tasks": ["pong", "pong"]}, "tasks must be different"),
        ("distill", {"tasks": "pong"}, "tasks must be a list of names"),
        ("distill", {"tasks": []}, "at least one"),
        ("distill", {"epsilon": 2.0}, "epsilon"),
        ("distill", {"algorithm": "dqn"}, "algorithm"),
        ("distill", {"learning_starts_steps": 10, "replay_capacity_steps": 5}, "never start"),
    ],
)
def test_what_cannot_be_meant_is_refused(stage, values, said):
    with pytest.raises(ConfigError, match=said):
        build(stage, **values)


def test_distill_counts_steps_over_all_tasks():
    assert build("distill", tasks=["pong", "boxing"], steps_per_task=10).total_steps == 20
