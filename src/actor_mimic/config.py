"""What a stage is told to do: frozen dataclasses, their defaults, and what cannot be meant.

Every hyper-parameter has one name, unique within its stage, so that ``--set NAME=VALUE`` and a
recipe's keys need no path. Budgets and periods are in steps (one decision of one environment) or
updates (one optimiser step), as their names say.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from actor_mimic.errors import ConfigError, check_choice
from actor_mimic.learner_config import (
    DQNConfig,
    PQNConfig,
    check_budget,
    check_learner,
    check_replay,
)

# As networks/torsos.py makes them: no PyTorch is needed to read a configuration.
NETWORKS = ("auto", "nature", "large", "impala", "mlp", "wide_mlp")
NORMS = ("none", "dense", "all")


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of a network; see `TorsoSpec`.

    ``auto`` is nature for images; for vectors mlp, or wide_mlp where tasks share it.
    """

    network: str = "auto"
    width: float = 0.5
    norm: str = "all"
    centred: bool = True  # images less their mean in random play; values of one task begin at 0

    def __post_init__(self) -> None:
        check_choice("network", self.network, NETWORKS)
        check_choice("norm", self.norm, NORMS)


NETWORK_SETTINGS = tuple(entry.name for entry in dataclasses.fields(NetworkConfig))


@dataclass(frozen=True)
class ScheduleConfig:
    """When a learning stage records, evaluates and saves."""

    record_every_steps: int = 2_000
    eval_every_steps: int = 250_000
    eval_episodes: int = 10
    final_episodes: int = 30  # 0: no final figure; a student's teachers are not measured either
    # With a replay, what is new since the last one must reach the disk within seconds of a signal.
    checkpoint_every_steps: int = 100_000
    # Or "full": those of a run that is done have it too; or "none": resume is not exact.
    checkpoint_replay: str = "until_done"
    keep_every_steps: int = 0  # checkpoints to keep besides the newest two and the best


@dataclass(frozen=True)
class ExpertConfig:
    """One network learns one task by reinforcement."""

    task: str
    total_steps: int = 2_500_000
    seed: int = 0
    protocol: str = "paper"
    learner: PQNConfig | DQNConfig = field(default_factory=PQNConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        _check_learning(self)


@dataclass(frozen=True)
class TransferConfig:
    """An expert that starts from another network's weights."""

    task: str
    head: str = "fresh"  # or "copy": the outputs of the actions that both have
    total_steps: int = 1_000_000
    seed: int = 0
    protocol: str = "paper"
    learner: PQNConfig | DQNConfig = field(default_factory=DQNConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        _check_learning(self)
        if self.head not in ("fresh", "copy"):
            raise ConfigError(f"head must be fresh or copy, got {self.head!r}")


@dataclass(frozen=True)
class DistillConfig:
    """One student learns several tasks from their teachers; steps are per task."""

    tasks: tuple[str, ...]
    steps_per_task: int = 100_000
    seed: int = 0
    protocol: str = "paper"
    head: str = "shared"  # or "per_task"
    envs_per_task: int = 32
    actor: str = "student"  # or "teacher", or "mixture": see the three below
    teacher_share_start: float = 1.0
    teacher_share_end: float = 0.0
    teacher_share_fraction: float = 0.5
    epsilon: float = 0.1
    replay_capacity_steps: int = 100_000  # per task
    learning_starts_steps: int = 2_000  # per task
    samples_per_step: float = 0.0  # 0: 2 of images, 8 of vectors, which cost less than playing
    batch_size_per_task: int = 64
    optimizer: str = "adam"  # or "authors_adam"
    learning_rate: float = 5e-4
    annealing_fraction: float = 0.25  # of the steps, the last: in them learning_rate falls to 0
    objective: str = "cross_entropy"  # or "kl", "nll", "mse"
    reduction: str = "mean"  # or "sum"
    task_weights: str = "equal"  # or "gap"
    temperature: float = 0.1
    teacher_entropy: float = 0.0  # share of the largest; 0: the temperature is the fixed one
    logit_temperature: float = 1.0  # of teachers that have a policy already
    feature_weight: float = 0.01
    feature_target: str = "raw"  # or "normalised"
    regressor: str = "linear"
    max_gradient_norm: float = 10.0
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    @property
    def total_steps(self) -> int:
        """Steps over all tasks."""
        return self.steps_per_task * len(self.tasks)

    def __post_init__(self) -> None:
        _check_tasks(self.tasks)
        _check_positive(self)
        _check_schedule(self.schedule)
        for setting, choices in _DISTILL_CHOICES.items():
            check_choice(setting, getattr(self, setting), choices)
        _check_objective(self)
        _check_features(self)
        if self.schedule.eval_every_steps and not self.schedule.final_episodes:
            raise ConfigError(
                "eval_every_steps without final_episodes: a student's evaluations are reported "
                "beside its teachers' scores, and those are played with final_episodes games"
            )
        if self.learning_starts_steps < self.envs_per_task:
            raise ConfigError(
                f"learning_starts_steps {self.learning_starts_steps} must be at least "
                f"envs_per_task {self.envs_per_task}: all environments step together"
            )
        capacity, starts = self.replay_capacity_steps, self.learning_starts_steps
        check_replay(capacity, starts, "envs_per_task", self.envs_per_task)
        # Left open it is 2 at least.
        due = (self.samples_per_step or 2.0) * self.envs_per_task
        period = self.envs_per_task * math.ceil(self.batch_size_per_task / due)
        check_budget(
            "steps_per_task",
            self.steps_per_task,
            starts,
            period,
            "batch_size_per_task / samples_per_step, up to a multiple of envs_per_task",
        )


@dataclass(frozen=True)
class MultitaskDQNConfig:
    """One network learns several tasks by reinforcement.

    Whatever the learner counts, steps, environments or examples, it counts for each task.
    """

    tasks: tuple[str, ...]
    steps_per_task: int = 1_000_000
    seed: int = 0
    protocol: str = "paper"
    head: str = "shared"  # or "per_task", or "branched": hidden layers for each task as well
    learner: DQNConfig = field(default_factory=DQNConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    @property
    def total_steps(self) -> int:
        """Steps over all tasks."""
        return self.steps_per_task * len(self.tasks)

    def __post_init__(self) -> None:
        _check_tasks(self.tasks)
        _check_positive(self)
        _check_schedule(self.schedule)
        check_learner(self.learner, "steps_per_task", self.steps_per_task)
        check_choice("head", self.head, ("shared", "per_task", "branched"))
        if self.learner.num_quantiles != 1:
            raise ConfigError(
                f"num_quantiles must be 1, got {self.learner.num_quantiles}: a network of several "
                "tasks has one value for each action"
            )


@dataclass(frozen=True)
class EvaluateConfig:
    """A stage that only plays.

    Attributes:
        tasks: what to play; empty for everything that the checkpoint plays.
        episodes: games per task.
        protocol: how games start and how noisy they are.
        seed: of the games.
    """

    tasks: tuple[str, ...] = ()
    episodes: int = 30
    protocol: str = "paper"
    seed: int = 0


SeveralTasks = DistillConfig | MultitaskDQNConfig  # in one network
Config = ExpertConfig | TransferConfig | SeveralTasks


def tasks_of(config: Config) -> tuple[str, ...]:
    """What is learnt."""
    return config.tasks if isinstance(config, SeveralTasks) else (config.task,)


_DISTILL_CHOICES = {
    "head": ("shared", "per_task"),
    "actor": ("student", "teacher", "mixture"),
    "optimizer": ("adam", "authors_adam"),
    "objective": ("cross_entropy", "kl", "nll", "mse"),
    "reduction": ("mean", "sum"),
    "task_weights": ("equal", "gap"),
    "feature_target": ("raw", "normalised"),
    "regressor": ("identity", "linear", "hidden"),
}
_FRACTIONS = (
    "epsilon",
    "epsilon_start",
    "epsilon_end",
    "exploration_fraction",
    "annealing_fraction",
    "lam",
    "gamma",
    "rmsprop_decay",
    "teacher_entropy",
    "teacher_share_start",
    "teacher_share_end",
    "teacher_share_fraction",
)

# A count of zero is meant in these; everywhere else it can only be a mistake.
_MAY_BE_ZERO = {
    "samples_per_step",
    "seed",
    "learning_starts_steps",
    "feature_weight",
    "eval_every_steps",
    "final_episodes",
    "keep_every_steps",
    "max_gradient_norm",
}


def _check_tasks(tasks: tuple[str, ...]) -> None:
    if not tasks or len(set(tasks)) != len(tasks):
        raise ConfigError(f"tasks must be different and at least one, got {tasks}")


def _check_positive(config: Any) -> None:
    for name, value in leaves(config):
        if isinstance(value, bool | str) or not isinstance(value, int | float):
            continue
        if not math.isfinite(value):
            raise ConfigError(f"{name} must be finite, got {value}")
        if name in _FRACTIONS:
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must lie in [0, 1], got {value}")
        elif value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
            raise ConfigError(f"{name} must be positive, got {value}")


def _check_schedule(schedule: ScheduleConfig) -> None:
    check_choice("checkpoint_replay", schedule.checkpoint_replay, ("until_done", "full", "none"))


def _check_objective(config: DistillConfig) -> None:
    """Refuses settings that would have no effect, or nothing to work with."""
    schedule = config.schedule
    if config.task_weights == "gap" and not schedule.eval_every_steps:
        raise ConfigError(
            "task_weights = gap needs eval_every_steps: the gaps are those of the evaluations"
        )
    if config.teacher_entropy:
        if config.teacher_entropy == 1.0:
            raise ConfigError("teacher_entropy must be below 1: no temperature makes it so large")
        if config.objective in ("nll", "mse"):
            raise ConfigError(f"teacher_entropy: objective {config.objective} has no temperature")
        if not schedule.final_episodes:
            raise ConfigError(
                "teacher_entropy needs final_episodes: it is measured in the teacher's games"
            )
    if config.actor == "mixture":
        if not config.teacher_share_fraction:
            raise ConfigError("teacher_share_fraction must be positive")
    elif any(
        getattr(config, entry.name) != entry.default
        for entry in dataclasses.fields(config)
        if entry.name.startswith("teacher_share")
    ):
        raise ConfigError("the teacher_share settings need actor = mixture")


def _check_features(config: DistillConfig) -> None:
    for name, plain in (("feature_target", "raw"), ("regressor", "linear")):
        if getattr(config, name) != plain and not config.feature_weight:
            raise ConfigError(f"{name} needs a feature_weight")


def _check_learning(config: ExpertConfig | TransferConfig) -> None:
    _check_positive(config)
    _check_schedule(config.schedule)
    check_learner(config.learner, "total_steps", config.total_steps)
    if isinstance(config.learner, PQNConfig) and config.network.norm == "none":
        raise ConfigError(
            "norm = none with pqn: without a target network the algorithm relies on layer "
            "norm; choose norm = all or dense, or algorithm = dqn"
        )


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Every hyper-parameter of a configuration with its value, nested sections flattened."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value)
        else:
            yield entry.name, value
