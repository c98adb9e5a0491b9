"""The temperature at which a teacher's policy is as undecided as it should be.

Value functions differ in scale: differences between actions are a hundredth in one game and ten
in another, so that one temperature for all makes one teacher's policy nearly greedy and another's
nearly uniform. What can be asked of all alike is the mean entropy of the policy.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from actor_mimic.errors import DataError
from actor_mimic.losses import policy_entropy, softened_policy

_OCTAVES = 40  # searched on either side of the scores' own spread
_HALVINGS = 60  # of an interval of logarithms: to the last digit of a double


def mean_entropy(scores: Float[Tensor, "observations actions"], temperature: float) -> float:
    """Mean entropy, in nats, of the policies at a temperature.

    Args:
        scores: of the task's own actions, every one of them legal.
        temperature: positive, in units of the scores.
    """
    legal = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
    policy = softened_policy(scores, legal, temperature)
    return float(policy_entropy(policy).double().mean())


def temperature_for_entropy(scores: Float[Tensor, "observations actions"], share: float) -> float:
    """The temperature at which the mean entropy is a share of the largest possible one.

    Entropy rises with the temperature, from what ties leave of it to log(actions), so halving an
    interval finds the place; the interval is one of logarithms, since scales differ by powers.

    Args:
        scores: of the task's own actions in many observations.
        share: between 0 (only the best action) and 1 (all alike), both excluded; times
            log(actions) it is the wanted entropy in nats.

    Returns:
        The temperature, in units of the scores; 1 for a task of a single action.

    Raises:
        ValueError: if the share is not between 0 and 1.
        DataError: if no temperature will do: the scores are not finite, all alike, or tied so
            often that more entropy than wanted is left when it is cold.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    if scores.shape[1] == 1:
        return 1.0
    if not bool(torch.isfinite(scores).all()):
        raise DataError("the teacher's scores are not finite")
    wanted = share * math.log(scores.shape[1])
    spread = float((scores.amax(dim=1) - scores.amin(dim=1)).double().mean())
    if spread == 0.0:
        raise DataError("the teacher gives every action the same score")
    middle = math.log2(spread)
    low, high = middle - _OCTAVES, middle + _OCTAVES
    least = mean_entropy(scores, 2.0**low)
    if least >= wanted:
        raise DataError(
            f"the teacher's best actions are tied so often that its policy keeps an entropy of "
            f"{least / math.log(scores.shape[1]):.2f} of the largest; {share:g} was wanted"
        )
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if mean_entropy(scores, 2.0**middle) < wanted:
            low = middle
        else:
            high = middle
    return 2.0**high
