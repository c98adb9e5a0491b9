"""What is measured: learning loops by name, each as the configuration of a stage.

``pqn``, ``dqn`` and ``distill`` are the stages as they come; ``distill-nature`` has the Nature
network itself and trains one sample per step; ``pqn-gpu`` is PQN as ``--preset gpu`` has it, which
wants ``--device cuda`` and has no floor. The two others are DQN on Pong with the
hyper-parameters of RL Baselines3 Zoo, for the comparison with Stable-Baselines3 (`sb3`); they
replay 8 samples per step as SB3 does, and have a network of the same size. What they share with
SB3, and what is free, stands in `benchmarks.sb3`.
"""

from dataclasses import dataclass
from typing import Any

from actor_mimic.config import Config, DistillConfig, DQNConfig, PQNConfig
from actor_mimic.flat_config import build_config

SAMPLES_PER_STEP = 8  # of SB3's Atari set-up: batches of 32, an update every 4 steps
TARGET_PERIOD_STEPS = 1_000
OWN_BATCH_SIZE = 256


@dataclass(frozen=True)
class Workload:
    """One loop.

    Attributes:
        title: for the table.
        stage: ``expert`` or ``distill``.
        values: settings of the stage that differ from its defaults.
        warm_steps: taken before the clock starts; learning has begun by then.
        least_of_floor: the ratio to the floor that the loop must reach; None for no target.
        least_steps_per_s: the speed that it must reach on two cores; None for no target.
        game: fixed; empty for the one that the user chooses.
    """

    title: str
    stage: str
    values: dict[str, Any]
    warm_steps: int
    least_of_floor: float | None = None
    least_steps_per_s: float | None = None
    game: str = ""

    def config(self, game: str) -> Config:
        """The stage's configuration.

        Args:
            game: that the user chose.
        """
        game = self.game or game
        task = {"tasks": (game,)} if self.stage == "distill" else {"task": game}
        return build_config(self.stage, task | self.values)


def _like_sb3(batch_size: int, num_envs: int) -> dict[str, Any]:
    update_every_steps = batch_size // SAMPLES_PER_STEP
    return {
        "algorithm": "dqn",
        "width": 1.0,
        "norm": "none",
        "centred": False,
        "num_envs": num_envs,
        "batch_size": batch_size,
        "update_every_steps": update_every_steps,
        "target_period_updates": TARGET_PERIOD_STEPS // update_every_steps,
        "n_step": 1,
        "double": False,
        "learning_rate": 1e-4,
        "adam_epsilon": 1e-8,
        "replay_capacity_steps": 100_000,
        "learning_starts_steps": 1_000,
        "epsilon_start": 0.01,
        "epsilon_end": 0.01,
    }


WORKLOADS = {
    # The first rollout with its updates is the warm-up.
    "pqn": Workload("PQN", "expert", {}, warm_steps=1, least_of_floor=0.8),
    # The first three rollouts compile.
    "pqn-gpu": Workload("PQN, preset gpu", "expert", {"preset": "gpu"}, warm_steps=3 * 256 * 32),
    "dqn": Workload(
        "DQN",
        "expert",
        {"algorithm": "dqn", "learning_starts_steps": 1_000},
        warm_steps=1_200,
        least_of_floor=0.8,
    ),
    "distill": Workload(
        "distillation, one game",
        "distill",
        {"learning_starts_steps": 500},
        warm_steps=800,
        least_of_floor=0.8,
    ),
    "distill-nature": Workload(
        "distillation, Nature network",
        "distill",
        {
            "width": 1.0,
            "norm": "none",
            "centred": False,
            "samples_per_step": 1.0,
            "learning_starts_steps": 500,
        },
        warm_steps=800,
        least_of_floor=0.8,
        least_steps_per_s=1_100.0,
    ),
    # All environments step together: 8 updates to a turn of 32, or one.
    "dqn-like-sb3": Workload(
        "DQN, batch 32 as SB3",
        "expert",
        _like_sb3(batch_size=32, num_envs=32),
        warm_steps=1_100,
        game="pong",
    ),
    "dqn-own-batch": Workload(
        f"DQN, batch {OWN_BATCH_SIZE}, samples as SB3",
        "expert",
        _like_sb3(batch_size=OWN_BATCH_SIZE, num_envs=32),
        warm_steps=1_200,
        game="pong",
    ),
}


def num_envs(config: Config) -> int:
    """Environments of the one task."""
    return config.envs_per_task if isinstance(config, DistillConfig) else config.learner.num_envs


def batch_size(config: Config) -> int:
    """Examples of one update."""
    if isinstance(config, DistillConfig):
        return config.batch_size_per_task * len(config.tasks)
    learner = config.learner
    return learner.minibatch_size if isinstance(learner, PQNConfig) else learner.batch_size


def samples_per_step(config: Config) -> float:
    """Examples trained for every step of an environment."""
    if isinstance(config, DistillConfig):
        return config.samples_per_step or 2.0  # of games; what the stage takes where it is open
    learner = config.learner
    if isinstance(learner, PQNConfig):
        return learner.epochs
    return learner.batch_size / learner.update_every_steps


def bootstrap_passes(config: Config) -> int:
    """Forward passes that an update makes for its targets, besides the one that it learns from."""
    if isinstance(config, DistillConfig) or not isinstance(config.learner, DQNConfig):
        return 0
    return 2 if config.learner.double else 1


def acting_passes(config: Config) -> int:
    """Forward passes for every observation: the actor's, and in distillation the teacher's."""
    return 2 if isinstance(config, DistillConfig) else 1
