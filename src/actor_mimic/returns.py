"""Lambda-returns: the regression targets of the learner without replay.

Axes: t = consecutive steps of one collection, n = environments.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def lambda_returns(
    rewards: Float[Tensor, "t n"],
    next_values: Float[Tensor, "t n"],
    terminal: Bool[Tensor, "t n"],
    cut: Bool[Tensor, "t n"],
    *,
    gamma: float,
    lam: float,
) -> Float[Tensor, "t n"]:
    """Mix the bootstrapped returns of all lengths, by a recursion from the last row back.

    With ``V[t]`` for ``next_values[t]``::

        ordinary step    G[t] = r[t] + gamma * ((1 - lam) * V[t] + lam * G[t+1])
        cut, last row    G[t] = r[t] + gamma * V[t]     what follows is unknown, or another episode
        terminal         G[t] = r[t]                    nothing follows

    ``lam=0`` gives one-step targets, ``lam=1`` discounted sums up to the next boundary.

    Source: Gallici et al. (2024), Simplifying Deep Temporal Difference Learning,
    arXiv:2407.04811, Q(lambda) targets. Truncated episodes are told from terminated ones and
    bootstrap from their final observation.

    Args:
        rewards: reward of each step.
        next_values: greatest Q-value of the observation that the step led to; after a truncation,
            of the episode's final observation, not of the reset one. Ignored at terminal steps,
            where it may hold anything.
        terminal: true where the step ended the game, or a life if that counts as an end.
        cut: true where the episode was truncated. A step that is both is terminal.
        gamma: discount per step, between 0 and 1.
        lam: weight of longer returns, between 0 and 1.

    Returns:
        The targets in float32, detached from every input.

    Raises:
        ValueError: if ``gamma`` or ``lam`` is outside ``[0, 1]``.

    Example:
        >>> column = torch.ones(2, 1)
        >>> no = torch.zeros(2, 1, dtype=torch.bool)
        >>> lambda_returns(column, 10 * column, no, no, gamma=0.5, lam=0.5).squeeze(1)
        tensor([5.0000, 6.0000])
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
    if not 0.0 <= lam <= 1.0:
        raise ValueError(f"lam must be between 0 and 1, got {lam}")

    rewards = rewards.detach().float()
    values = next_values.detach().float().masked_fill(terminal, 0.0)
    ends = terminal | cut

    # At an end the value stands in for the next return, so both halves of the mixture agree and
    # nothing of the next episode is read. Selecting, not multiplying by 0: a NaN would survive.
    targets = torch.empty_like(rewards)
    following = values[-1]
    for t in reversed(range(len(rewards))):
        following = torch.where(ends[t], values[t], following)
        following = rewards[t] + gamma * torch.lerp(values[t], following, lam)
        targets[t] = following
    return targets
