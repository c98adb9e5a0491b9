"""What settings ask for, made of them: the shape of a torso, an optimiser, an epsilon."""

from collections.abc import Sequence

import torch
from torch import nn

from actor_mimic.config import DistillConfig, NetworkConfig
from actor_mimic.learner_config import DQNConfig, PQNConfig
from actor_mimic.learners.optimizers import AuthorsAdam, make_optimizer
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.schedules import linear


def torso_spec(config: NetworkConfig, shape: tuple[int, ...], *, shared: bool = False) -> TorsoSpec:
    """The torso that a configuration asks for, on observations of a shape.

    Only images are centred: a configuration that asks for it suits vectors too.

    Args:
        config: of the network.
        shape: of one observation.
        shared: by the tasks of one network, even if there is but one.
    """
    kind = config.network
    if kind == "auto":
        # As wide as an expert, students of three vector tasks agreed with their teachers least in
        # the hardest of them: results/sb3-student.
        vectors = "wide_mlp" if shared else "mlp"
        kind = vectors if len(shape) == 1 else "nature"
    return TorsoSpec(kind, shape, config.width, config.norm, config.centred and len(shape) > 1)


def dqn_optimizer(settings: DQNConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser that a DQN's settings ask for, over all parameters of the network."""
    return make_optimizer(
        settings.optimizer,
        network.parameters(),
        learning_rate=settings.learning_rate,
        adam_epsilon=settings.adam_epsilon,
        rmsprop_decay=settings.rmsprop_decay,
        rmsprop_epsilon=settings.rmsprop_epsilon,
    )


def epsilon_at(settings: PQNConfig | DQNConfig, steps: int, total_steps: int) -> float:
    """The probability of a random action after so many steps of the budget.

    It begins to fall when learning begins: a DQN that knows nothing would else fill its replay
    with the few actions that it happens to prefer.

    Args:
        settings: of the learner.
        steps: of one task.
        total_steps: likewise.
    """
    starts = settings.learning_starts_steps if isinstance(settings, DQNConfig) else 0
    duration = min(round(settings.exploration_fraction * total_steps), total_steps - starts)
    return linear(
        max(0, steps - starts),
        start=settings.epsilon_start,
        end=settings.epsilon_end,
        duration_steps=max(1, duration),
    )


def student_optimizer(
    config: DistillConfig, parameters: Sequence[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser that a distillation's settings ask for."""
    if config.optimizer == "authors_adam":
        return AuthorsAdam(parameters, learning_rate=config.learning_rate)
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
