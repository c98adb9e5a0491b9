import pytest

from actor_mimic import config
from actor_mimic.config import (
    DistillConfig,
    ExpertConfig,
    MultitaskDQNConfig,
    TransferConfig,
    leaves,
)
from actor_mimic.errors import ConfigError
from actor_mimic.flat_config import build_config, to_json
from actor_mimic.learner_config import DQNConfig, PQNConfig
from actor_mimic.networks import torsos
from actor_mimic.presets import DISTILL_PRESETS, MULTITASK_PRESETS, PRESETS

STAGES = {
    "expert": ExpertConfig,
    "transfer": TransferConfig,
    "distill": DistillConfig,
    "multitask-dqn": MultitaskDQNConfig,
}
REQUIRED = {
    "expert": {"task": "pong"},
    "transfer": {"task": "pong"},
    "distill": {"tasks": ["pong"]},
    "multitask-dqn": {"tasks": ["pong", "boxing"]},
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


@pytest.mark.parametrize("stage", ["expert", "transfer"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_settings_and_the_defaults_of_its_learner(stage, preset):
    built = to_json(build(stage, preset=preset))
    plain = to_json(build(stage, algorithm=PRESETS[preset]["algorithm"]))

    assert built == plain | PRESETS[preset]
    assert all(type(built[name]) is type(plain[name]) for name in built)
    assert to_json(build_config(stage, built)) == built  # as a resumed run stores and reads it


@pytest.mark.parametrize("preset", DISTILL_PRESETS)
def test_a_preset_of_distillation_is_its_settings_and_the_defaults(preset):
    built = to_json(build("distill", preset=preset))
    plain = to_json(build("distill"))

    assert built == plain | DISTILL_PRESETS[preset]
    assert all(type(built[name]) is type(plain[name]) for name in built)
    assert build("distill", preset=preset, temperature=0.5).temperature == 0.5


@pytest.mark.parametrize("preset", ["nature", "sb3"])
def test_a_preset_of_one_dqn_is_that_of_each_task(preset):
    several, one = build("multitask-dqn", preset=preset), build("expert", preset=preset)

    assert (several.learner, several.network) == (one.learner, one.network)
    assert several.steps_per_task == one.total_steps
    assert several.total_steps == 2 * one.total_steps
    assert MULTITASK_PRESETS.keys() == {"nature", "sb3"}


def test_the_paper_draws_eight_of_each_game_every_four_steps():
    for tasks in (["pong"], ["pong", "boxing", "breakout"]):
        config = build_config("distill", {"tasks": tasks, "preset": "paper"})
        steps_of_each = config.batch_size_per_task / config.samples_per_step
        assert (config.batch_size_per_task, steps_of_each) == (8, 4)
        assert config.total_steps == 4_000_000 * len(tasks)


def test_an_expert_is_fast_unless_told_and_a_transfer_is_dqn():
    assert build("expert") == build("expert", preset="fast")
    assert build("expert", algorithm="dqn").learner == DQNConfig()
    assert build("transfer").learner == DQNConfig()
    assert build("expert", algorithm="pqn").learner == PQNConfig()


def test_what_is_asked_for_stands_over_the_preset():
    config = build("expert", preset="nature", learning_rate="1e-3", norm="all", total_steps=60_000)

    assert config == build(
        "expert",
        **{"preset": "nature", "algorithm": "dqn"}  # said twice, and the same
        | {"learning_rate": 1e-3, "norm": "all", "total_steps": 60_000},
    )
    assert (config.learner.learning_rate, config.learner.batch_size) == (1e-3, 32)
    assert (config.network.norm, config.network.width, config.total_steps) == ("all", 1.0, 60_000)


def test_nature_is_the_papers_table():
    config = build("expert", preset="nature")
    learner = config.learner

    assert isinstance(learner, DQNConfig)
    assert (learner.batch_size, learner.update_every_steps, learner.n_step) == (32, 4, 1)
    assert learner.target_period_updates * learner.update_every_steps == 10_000
    assert learner.exploration_fraction * config.total_steps == 1_000_000
    # The smallest squared gradient is 0.01 of a sum over the minibatch.
    assert learner.rmsprop_epsilon * learner.batch_size**2 == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ("50_000", "total_steps", 50_000),
        ("1e6", "total_steps", 1_000_000),
        (5e4, "total_steps", 50_000),
        ("1e-4", "learning_rate", 1e-4),
        (1, "gamma", 1.0),
        (2**53 + 1, "seed", 2**53 + 1),
        (str(2**63 - 1), "seed", 2**63 - 1),
        (0, "seed", 0),
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
        ("expert", {"algorithm": ["dqn"]}, "unknown algorithm"),
        (
            "expert",
            {"preset": "natur"},
            "unknown preset 'natur'.*fast, classic, gpu, nature, sb3; did you mean",
        ),
        ("expert", {"preset": 3}, "unknown preset 3"),
        ("expert", {"preset": "nature", "algorithm": "pqn"}, "'pqn' contradicts preset 'nature'"),
        ("expert", {"preset": "fast", "algorithm": "dqn"}, "leave one of the two out"),
        ("expert", {"preset": "fast", "n_step": 3}, "unknown setting 'n_step'"),
        ("distill", {"preset": "fast"}, "unknown preset 'fast', expected one of paper, authors-co"),
        ("distill", {"preset": "paper", "algorithm": "dqn"}, "unknown setting 'algorithm'"),
        ("distill", {"objective": "KL"}, "unknown objective 'KL'.*did you mean 'kl'"),
        ("distill", {"actor": "expert"}, "unknown actor"),
        ("distill", {"head": "copy"}, "unknown head"),
        ("distill", {"optimizer": "rmsprop"}, "unknown optimizer"),
        ("distill", {"reduction": "max"}, "unknown reduction"),
        ("distill", {"task_weights": "gap", "eval_every_steps": 0}, "gap needs eval_every_steps"),
        ("distill", {"teacher_entropy": 1}, "teacher_entropy must be below 1"),
        ("distill", {"teacher_entropy": 1.5}, r"teacher_entropy must lie in \[0, 1\]"),
        ("distill", {"teacher_entropy": 0.2, "objective": "nll"}, "nll has no temperature"),
        (
            "distill",
            {"teacher_entropy": 0.2, "eval_every_steps": 0, "final_episodes": 0},
            "teacher_entropy needs final_episodes",
        ),
        ("distill", {"teacher_share_end": 0.5}, "need actor = mixture"),
        ("distill", {"actor": "mixture", "teacher_share_fraction": 0}, "must be positive"),
        (
            "distill",
            {"feature_target": "normalised", "feature_weight": 0},
            "needs a feature_weight",
        ),
        ("distill", {"regressor": "hiden"}, "unknown regressor 'hiden'.*did you mean 'hidden'"),
        ("distill", {"regressor": "hidden", "feature_weight": 0}, "regressor needs a feature"),
        ("expert", {"num_quantiles": 4}, "unknown setting 'num_quantiles'"),  # this is PQN
        ("transfer", {"num_quantiles": 0}, "num_quantiles must be positive"),
        ("transfer", {"optimizer": "adm"}, "unknown optimizer 'adm'.*did you mean 'adam'"),
        ("transfer", {"rmsprop_decay": 1}, "rmsprop_decay must be below 1"),
        ("transfer", {"rmsprop_decay": -0.1}, r"rmsprop_decay must lie in \[0, 1\]"),
        ("transfer", {"rmsprop_epsilon": 0}, "rmsprop_epsilon must be positive"),
        ("transfer", {"max_gradient_norm": -1}, "max_gradient_norm must be positive"),
        ("expert", {"total_steps": "many"}, "total_steps must be a whole number"),
        ("expert", {"total_steps": 0.5}, "total_steps must be a whole number"),
        ("expert", {"total_steps": 0}, "total_steps must be positive"),
        ("expert", {"total_steps": True}, "total_steps must be a whole number"),
        ("expert", {"total_steps": "inf"}, "total_steps must be a whole number"),
        ("expert", {"total_steps": [1]}, "total_steps must be a whole number"),
        ("expert", {"seed": 2**63}, "seed must be a whole number"),
        ("expert", {"seed": "1e999999999"}, "seed must be a whole number"),
        ("expert", {"algorithm": "dqn", "double": 1}, "double must be true or false"),
        ("expert", {"algorithm": "dqn", "double": "yes"}, "double must be true or false"),
        ("expert", {"exploration_fraction": 1.1}, r"exploration_fraction must lie in \[0, 1\]"),
        ("expert", {"epsilon_start": 0.1, "epsilon_end": 0.2}, "epsilon_start 0.1 is below eps"),
        ("expert", {"learning_rate": "nan"}, "learning_rate must be a number"),
        ("expert", {"gamma": 1.5}, r"gamma must lie in \[0, 1\]"),
        ("expert", {"minibatch_size": 100}, "minibatch_size 100 must divide"),
        ("expert", {"norm": "none"}, "pqn"),
        ("expert", {"checkpoint_replay": "some"}, "one of until_done, full, none"),
        ("expert", {"task": 3}, "task must be text"),
        (
            "expert",
            {"algorithm": "dqn", "num_envs": 3, "update_every_steps": 8},
            "update_every_steps 8 must be a multiple of num_envs 3, or divide it",
        ),
        (
            "expert",
            {"algorithm": "dqn", "num_envs": 16, "learning_starts_steps": 63},  # 3-step returns
            r"learning_starts_steps 63 .* \(n_step \+ 1\) x num_envs = 4 x 16 = 64",
        ),
        ("expert", {"algorithm": "dqn", "learning_starts_steps": 0}, "learning_starts_steps 0"),
        (
            "expert",
            {"algorithm": "dqn", "learning_starts_steps": 193, "replay_capacity_steps": 207}
            | {"num_envs": 16},
            r"learning_starts_steps 193 exceeds replay_capacity_steps 207 \(rounded down to 192",
        ),
        (
            "expert",
            {"algorithm": "dqn", "num_envs": 16, "replay_capacity_steps": 191},
            "replay_capacity_steps 191 must be at least 12 x num_envs = 12 x 16 = 192",
        ),
        (
            "expert",
            {"algorithm": "dqn", "learning_starts_steps": 192, "replay_capacity_steps": 192}
            | {"num_envs": 16, "n_step": 9, "batch_size": 32},
            "n_step 9 must be at most 8",
        ),
        (
            "expert",
            {"algorithm": "dqn", "batch_size": 2001, "replay_capacity_steps": 2000}
            | {"learning_starts_steps": 500},
            "batch_size 2001 exceeds replay_capacity_steps 2000",
        ),
        (
            "expert",
            {"preset": "sb3", "total_steps": 100_003},
            "total_steps 100003 must be at least 100004, for one update: learning_starts_steps is "
            r"100000, and from one update to the next it is 4 steps \(the larger of "
            "update_every_steps and num_envs",
        ),
        (  # 16 environments step together, whatever is updated in between
            "transfer",
            {"num_envs": 16, "update_every_steps": 4, "total_steps": 5_015},
            "total_steps 5015 must be at least 5016, .* 16 steps",
        ),
        (
            "multitask-dqn",
            {"steps_per_task": 5_031},
            "steps_per_task 5031 must be at least 5032",
        ),
        (
            "distill",
            {"steps_per_task": 2_031},
            "steps_per_task 2031 must be at least 2032",
        ),
        (  # 16 x 0.25 examples at a turn, 64 after 16 turns
            "distill",
            {"steps_per_task": 2_255, "envs_per_task": 16, "samples_per_step": 0.25},
            "steps_per_task 2255 must be at least 2256, .* 256 steps",
        ),
        (
            "expert",
            {"total_steps": 2_047},
            "num_envs x rollout_steps = 64 x 32 = 2048 must be at most total_steps 2047",
        ),
        ("transfer", {"head": "both"}, "fresh or copy"),
        ("distill", {"tasks": ["pong", "pong"]}, "tasks must be different"),
        ("distill", {"tasks": "pong"}, "tasks must be a list of names"),
        ("distill", {"tasks": []}, "at least one"),
        ("distill", {"epsilon": 2.0}, "epsilon"),
        ("distill", {"algorithm": "dqn"}, "algorithm"),
        (
            "distill",
            {"learning_starts_steps": 385, "replay_capacity_steps": 415},
            "learning_starts_steps 385 exceeds replay_capacity_steps 415",
        ),
        ("distill", {"learning_starts_steps": 31}, "31 must be at least envs_per_task 32"),
        ("distill", {"replay_capacity_steps": 383}, "at least 12 x envs_per_task"),
    ],
)
def test_what_cannot_be_meant_is_refused(stage, values, said):
    with pytest.raises(ConfigError, match=said):
        build(stage, **values)


def test_what_just_fits_is_taken():
    fits = {"learning_starts_steps": 64, "replay_capacity_steps": 192, "n_step": 3}
    fits |= {"num_envs": 16, "batch_size": 192, "total_steps": 64 + 32}
    assert build("expert", algorithm="dqn", **fits)
    longest = {"learning_starts_steps": 144, "replay_capacity_steps": 207, "n_step": 8}
    longest |= {"num_envs": 16, "batch_size": 192}
    assert build("expert", total_steps=2_048)
    assert build("multitask-dqn", steps_per_task=5_032)
    assert build("distill", steps_per_task=2_032)
    assert build("expert", algorithm="dqn", **longest)
    assert build("expert", exploration_fraction=1.0, epsilon_start=0.1, epsilon_end=0.1)
    assert build("expert", max_gradient_norm=0)
    assert build("distill", max_gradient_norm=0)
    assert build("distill", learning_starts_steps=32, replay_capacity_steps=384)


@pytest.mark.parametrize(("given", "meant"), [("True", True), ("false", False), (True, True)])
def test_truth_in_words(given, meant):
    assert dict(leaves(build("transfer", double=given)))["double"] is meant


def test_distill_counts_steps_over_all_tasks():
    assert build("distill", tasks=["pong", "boxing"], steps_per_task=3_000).total_steps == 6_000


@pytest.mark.parametrize(
    ("task", "given", "preset"),
    [
        ("pong", {}, "fast"),
        ("gym:CartPole-v1", {}, "classic"),
        ("gym:CartPole-v1", {"preset": "fast"}, "fast"),
        ("pong", {"preset": "classic"}, "classic"),
    ],
)
def test_an_expert_has_the_preset_of_its_task(task, given, preset):
    values = to_json(build("expert", task=task, **given))
    expected = to_json(build("expert", task=task, preset=preset))
    assert values == expected
    assert (values["learning_rate"], values["lam"]) == {
        "fast": (2.5e-4, 0.65),
        "classic": (1e-3, 0.95),
    }[preset]


@pytest.mark.parametrize("task", ["pong", "gym:CartPole-v1"])
def test_another_algorithm_than_the_presets_has_none(task):
    assert build("expert", task=task, algorithm="dqn").learner == DQNConfig()
    assert build("expert", task=task, algorithm="pqn") == build("expert", task=task)


def test_the_networks_of_a_configuration_are_those_that_can_be_made():
    assert ("auto", *torsos.SHAPES) == config.NETWORKS
    assert config.NORMS == torsos.NORMS
    with pytest.raises(ConfigError, match=r"unknown network 'resnet', expected one of auto"):
        build_config("expert", {"task": "pong", "network": "resnet"})
    with pytest.raises(ConfigError, match=r"unknown norm 'al'.*did you mean 'all'"):
        build_config("expert", {"task": "pong", "norm": "al"})
