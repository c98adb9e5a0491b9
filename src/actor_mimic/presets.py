"""Sets of settings with a name: ``--preset NAME``, or ``preset = "NAME"`` in a recipe."""

from collections.abc import Mapping
from typing import Any

from actor_mimic.errors import ConfigError, check_choice
from actor_mimic.tasks import is_atari

DEFAULT_PRESETS = ("fast", "classic")  # of experts: of Atari games, and of other tasks

# Of experts and transfers, by the names that --set has. Whatever is not here keeps the default of
# its learner.
PRESETS: dict[str, dict[str, Any]] = {
    # To a good expert soon, on few cores; not measured beside a DQN.
    "fast": {
        "algorithm": "pqn",
    },
    # Gymnasium's classic control, and other tasks as small: with the settings of Atari an expert
    # of CartPole knew one action only, after 50,000 steps and after 200,000.
    "classic": {
        "algorithm": "pqn",
        "total_steps": 200_000,
        "num_envs": 32,
        "epochs": 4,
        "minibatch_size": 64,
        "learning_rate": 1e-3,
        "lam": 0.95,
        "epsilon_end": 0.05,
        "exploration_fraction": 0.2,
    },
    # `fast` for a GPU and 16 cores or so: more games side by side, in groups that do not wait for
    # each other; larger minibatches; the whole network.
    "gpu": {
        "algorithm": "pqn",
        "total_steps": 10_000_000,
        "num_envs": 256,
        "env_groups": 8,
        "minibatch_size": 256,
        "width": 1.0,
    },
    # Mnih et al. (2015), extended data table 1 and the code released with it. Where the two can be
    # read differently the code decides: docs/deviations.md.
    "nature": {
        "algorithm": "dqn",
        "total_steps": 10_000_000,  # so that epsilon falls over 1,000,000; the paper had 50,000,000
        "num_envs": 1,
        "batch_size": 32,
        "update_every_steps": 4,
        "replay_capacity_steps": 1_000_000,
        "learning_starts_steps": 50_000,
        "optimizer": "rmsprop",
        "learning_rate": 2.5e-4,
        "rmsprop_decay": 0.95,
        "rmsprop_epsilon": 0.01 / 32**2,  # theirs is for the sum over the 32 examples
        "gamma": 0.99,
        "n_step": 1,
        "double": False,
        "num_quantiles": 1,
        "target_period_updates": 2_500,  # 10,000 steps
        "epsilon_start": 1.0,
        "epsilon_end": 0.1,
        "exploration_fraction": 0.1,
        "max_gradient_norm": 0.0,
        "width": 1.0,
        "norm": "none",
        "centred": False,
    },
    # What the RL Zoo of Stable-Baselines3 trains its Atari agents of DQN with, for runs side by
    # side; what it leaves out has the defaults of that library's DQN.
    "sb3": {
        "algorithm": "dqn",
        "total_steps": 10_000_000,
        "num_envs": 1,
        "batch_size": 32,
        "update_every_steps": 4,
        "replay_capacity_steps": 100_000,
        "learning_starts_steps": 100_000,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "adam_epsilon": 1e-8,
        "gamma": 0.99,
        "n_step": 1,
        "double": False,
        "num_quantiles": 1,
        "target_period_updates": 250,  # 1,000 steps
        "epsilon_start": 1.0,
        "epsilon_end": 0.01,
        "exploration_fraction": 0.1,
        "max_gradient_norm": 10.0,
        "width": 1.0,
        "norm": "none",
        "centred": False,
    },
}


def _for_each_task(preset: Mapping[str, Any]) -> dict[str, Any]:
    """A preset of one DQN as that of one network for several tasks: its counts are per task."""
    rest = {n: v for n, v in preset.items() if n not in ("algorithm", "total_steps")}
    return {"steps_per_task": preset["total_steps"], **rest}


MULTITASK_PRESETS: dict[str, dict[str, Any]] = {
    name: _for_each_task(PRESETS[name]) for name in ("nature", "sb3")
}

# What Parisotto et al. (2016) and their released code have in common. The budget is that of their
# scripts for transfer; the student of section 5.1 had 25,000,000 steps of each game.
_PAPER: dict[str, Any] = {
    "steps_per_task": 4_000_000,
    "envs_per_task": 1,
    "actor": "student",
    "epsilon": 0.1,
    "replay_capacity_steps": 100_000,
    "learning_starts_steps": 10_000,
    "samples_per_step": 2.0,  # 8 of each game every 4 steps of each
    "batch_size_per_task": 8,
    "optimizer": "adam",
    "learning_rate": 2.5e-4,
    "annealing_fraction": 0.0,
    "objective": "cross_entropy",
    "reduction": "mean",
    "task_weights": "equal",
    "temperature": 1.0,
    "feature_weight": 0.01,
    "feature_target": "raw",
    "regressor": "linear",
    "max_gradient_norm": 0.0,
    "head": "shared",
    "width": 1.0,
    "norm": "none",
    "centred": False,
}

DISTILL_PRESETS: dict[str, dict[str, Any]] = {
    # The formulas as they are printed.
    "paper": _PAPER,
    # The update of the released code: docs/deviations.md numbers what it does otherwise.
    "authors-code": _PAPER
    | {
        "optimizer": "authors_adam",
        "reduction": "sum",
        "feature_weight": 0.01 / 2,  # their gradient is that of half the squared norm
    },
}


def preset_name(stage: str, values: Mapping[str, Any]) -> str | None:
    """The preset beneath these values: the one they name, or that of an expert.

    It has ``fast`` if its task is an Atari game, ``classic`` if not, unless another algorithm than
    theirs is asked for.
    """
    if "preset" in values or stage != "expert":
        return values.get("preset")
    on_atari, elsewhere = DEFAULT_PRESETS
    name = on_atari if is_atari(str(values.get("task", ""))) else elsewhere
    algorithm = PRESETS[name]["algorithm"]
    return name if values.get("algorithm", algorithm) == algorithm else None


def presets_of(stage: str) -> Mapping[str, Mapping[str, Any]]:
    """The presets of a stage by name."""
    return {"distill": DISTILL_PRESETS, "multitask-dqn": MULTITASK_PRESETS}.get(stage, PRESETS)


def with_preset(stage: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and under them those of their preset, if they have one.

    Args:
        stage: ``expert``, ``transfer``, ``distill`` or ``multitask-dqn``.
        values: by name; ``preset`` is not among them afterwards.

    Raises:
        ConfigError: if there is no preset of that name, or ``algorithm`` asks for another learner
            than the preset's.
    """
    own = {setting: value for setting, value in values.items() if setting != "preset"}
    if "preset" in values:
        check_choice("preset", values["preset"], presets_of(stage))
    name = preset_name(stage, values)
    if name is None:
        return own
    preset = dict(presets_of(stage)[name])
    # The presets of distillation have none, and whoever gives one is told so later.
    algorithm = preset.get("algorithm")
    if algorithm is not None and own.get("algorithm", algorithm) != algorithm:
        raise ConfigError(
            f"algorithm {own['algorithm']!r} contradicts preset {name!r}, which is "
            f"{algorithm}; leave one of the two out"
        )
    return preset | own
