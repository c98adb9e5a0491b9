"""Settings of the two ways to learn a Q-network, and what of them cannot be meant."""

from dataclasses import dataclass

from actor_mimic.errors import ConfigError, check_choice

OPTIMIZERS = ("adam", "rmsprop")

_STACK_SIZE = 4  # of images
_LEAST_SLOTS = _STACK_SIZE + 8  # of each environment; see `FrameReplay`


@dataclass(frozen=True)
class PQNConfig:
    """Parallel Q-learning (Gallici et al., 2024).

    The authors' Atari settings, but for the number of environments, the last epsilon, and a
    learning rate that falls to zero (docs/deviations.md, 21 and 48).
    """

    num_envs: int = 64
    env_groups: int = 1  # that do not wait for each other: for a GPU and many cores
    rollout_steps: int = 32
    epochs: int = 2
    minibatch_size: int = 128
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    lam: float = 0.65
    epsilon_start: float = 1.0
    epsilon_end: float = 0.01
    exploration_fraction: float = 0.1
    max_gradient_norm: float = 10.0


@dataclass(frozen=True)
class DQNConfig:
    """Deep Q-learning; ``update_every_steps`` counts steps over all environments.

    These step together, so there are several turns to an update, or several updates to a turn.
    """

    num_envs: int = 32
    batch_size: int = 256
    update_every_steps: int = 32
    replay_capacity_steps: int = 100_000
    learning_starts_steps: int = 5_000
    optimizer: str = "adam"
    learning_rate: float = 2.5e-4
    adam_epsilon: float = 1.5e-4
    rmsprop_decay: float = 0.95
    rmsprop_epsilon: float = 0.01 / 32**2  # of Mnih et al.: see `CentredRMSProp` for the divisor
    gamma: float = 0.99
    n_step: int = 3
    double: bool = True
    num_quantiles: int = 1
    target_period_updates: int = 250
    epsilon_start: float = 1.0
    epsilon_end: float = 0.01
    exploration_fraction: float = 0.1
    max_gradient_norm: float = 10.0

    @property
    def turns_per_update(self) -> int:
        """Steps of all environments together that one update waits for."""
        return max(1, self.update_every_steps // self.num_envs)

    @property
    def updates_per_turn(self) -> int:
        """Updates to one step of all environments together, where it is worth several."""
        return max(1, self.num_envs // self.update_every_steps)


ALGORITHMS: dict[str, type[PQNConfig] | type[DQNConfig]] = {"pqn": PQNConfig, "dqn": DQNConfig}


def check_learner(learner: PQNConfig | DQNConfig, budget: str, budget_steps: int) -> None:
    """Refuses settings that contradict each other, or a budget with which nothing is learnt.

    Args:
        learner: the settings.
        budget: the setting that says how many steps there are, for messages.
        budget_steps: its value.

    Raises:
        ConfigError: saying which, and what would do.
    """
    start, end = learner.epsilon_start, learner.epsilon_end
    if start < end:
        raise ConfigError(f"epsilon_start {start:g} is below epsilon_end {end:g}")
    if isinstance(learner, DQNConfig):
        _check_dqn(learner)
        period = max(learner.update_every_steps, learner.num_envs)
        check_budget(
            budget,
            budget_steps,
            learner.learning_starts_steps,
            period,
            "the larger of update_every_steps and num_envs",
        )
        return
    if learner.num_envs % learner.env_groups:
        raise ConfigError(
            f"env_groups {learner.env_groups} must divide num_envs {learner.num_envs}"
        )
    rollout = learner.num_envs * learner.rollout_steps
    if rollout % learner.minibatch_size:
        raise ConfigError(
            f"minibatch_size {learner.minibatch_size} must divide num_envs x rollout_steps = "
            f"{learner.num_envs} x {learner.rollout_steps} = {rollout}"
        )
    if rollout > budget_steps:
        raise ConfigError(
            f"num_envs x rollout_steps = {learner.num_envs} x {learner.rollout_steps} = {rollout} "
            f"must be at most {budget} {budget_steps}: learning is from whole rollouts"
        )


def check_budget(
    budget: str, budget_steps: int, starts_steps: int, period: int, periods_settings: str
) -> None:
    """Refuses a budget that may be over before the first update.

    Args:
        budget: the setting that says how many steps there are, for messages.
        budget_steps: its value.
        starts_steps: when learning starts.
        period: steps from one update to the next.
        periods_settings: what decides it, for messages.

    Raises:
        ConfigError: saying what would do.
    """
    if starts_steps + period > budget_steps:
        raise ConfigError(
            f"{budget} {budget_steps} must be at least {starts_steps + period}, for one update: "
            f"learning_starts_steps is {starts_steps}, and from one update to the next it is "
            f"{period} steps ({periods_settings})"
        )


def check_replay(capacity_steps: int, starts_steps: int, envs_name: str, num_envs: int) -> int:
    """Slots of each environment, once it is known that there are enough.

    Args:
        capacity_steps: of the replay, over all environments.
        starts_steps: when learning starts.
        envs_name: the setting that says how many environments there are, for messages.
        num_envs: its value.

    Raises:
        ConfigError: if the replay is too small for a stack of images, or for the start of learning.
    """
    slots = capacity_steps // num_envs
    if slots < _LEAST_SLOTS:
        raise ConfigError(
            f"replay_capacity_steps {capacity_steps} must be at least {_LEAST_SLOTS} x {envs_name} "
            f"= {_LEAST_SLOTS} x {num_envs} = {_LEAST_SLOTS * num_envs}"
        )
    if starts_steps > slots * num_envs:
        raise ConfigError(
            f"learning_starts_steps {starts_steps} exceeds replay_capacity_steps "
            f"{capacity_steps} (rounded down to {slots * num_envs}, a multiple of {envs_name})"
        )
    return slots


def _check_dqn(learner: DQNConfig) -> None:
    check_choice("optimizer", learner.optimizer, OPTIMIZERS)
    if learner.rmsprop_decay == 1.0:
        raise ConfigError("rmsprop_decay must be below 1: its averages would never move")
    every, envs = learner.update_every_steps, learner.num_envs
    if every % envs and envs % every:
        raise ConfigError(
            f"update_every_steps {every} must be a multiple of num_envs {envs}, or divide it: all "
            "environments step together"
        )
    slots = check_replay(
        learner.replay_capacity_steps, learner.learning_starts_steps, "num_envs", learner.num_envs
    )
    if learner.batch_size > slots * learner.num_envs:
        raise ConfigError(
            f"batch_size {learner.batch_size} exceeds replay_capacity_steps "
            f"{learner.replay_capacity_steps} (rounded down to {slots * learner.num_envs}, a "
            "multiple of num_envs)"
        )
    if learner.n_step > slots - _STACK_SIZE:
        raise ConfigError(
            f"n_step {learner.n_step} must be at most {slots - _STACK_SIZE}: replay_capacity_steps "
            f"gives each of num_envs {slots} slots, less a stack"
        )
    needed = (learner.n_step + 1) * learner.num_envs
    if learner.learning_starts_steps < needed:
        raise ConfigError(
            f"learning_starts_steps {learner.learning_starts_steps} must be at least (n_step + 1) "
            f"x num_envs = {learner.n_step + 1} x {learner.num_envs} = {needed}"
        )
