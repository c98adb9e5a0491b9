"""Exploration: how values become behaviour.

Axes: n = environments, a = actions. Actions are indices of the task's own action set.
"""

import numpy as np
from jaxtyping import Float, Int64


def spread_argmax(scores: Float[np.ndarray, "n a"], *, first: int = 0) -> Int64[np.ndarray, " n"]:
    """The action of the highest score in each row; among equal ones each row has its own favourite.

    Row i, counted from ``first``, prefers action i mod a, then the next ones in their cyclic order.
    Outputs that begin at zero are equal until the first reward, and where random play never meets
    one (Enduro) it is exploration that decides whether there will be any: some of the environments
    press the accelerator for as long as it takes. Were the first of the best taken, all would do
    nothing for ever as soon as epsilon has fallen; were one taken at random, all would go on
    playing at random. With fewer rows than actions, the last actions are nobody's favourite.

    Source: our deviation (docs/deviations.md, 47).

    Args:
        scores: of each environment's actions.
        first: number of the first row among all environments.

    Returns:
        The actions, a new array.
    """
    n, num_actions = scores.shape
    shifts = first + np.arange(n)
    order = (shifts[:, None] + np.arange(num_actions)) % num_actions
    preferred_first = np.take_along_axis(scores, order, axis=1)
    return (preferred_first.argmax(axis=1) + shifts) % num_actions


def epsilon_greedy(
    greedy_actions: Int64[np.ndarray, " n"],
    *,
    epsilon: float | Float[np.ndarray, " n"],
    num_actions: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, " n"]:
    """Replace each action, independently, by a uniformly random one with probability epsilon.

    The random choice may fall on the greedy action again, so a greedy action is taken with
    probability ``1 - epsilon + epsilon / num_actions``. Every call draws the same two vectors
    from ``rng``, whatever epsilon is: two runs that differ in epsilon stay comparable.

    Source: Mnih et al. (2015), Human-level control through deep reinforcement learning,
    algorithm 1. No deviation.

    Args:
        greedy_actions: the actions to keep otherwise; not modified.
        epsilon: a probability for all rows, or one for each row.
        num_actions: size of the task's action set.
        rng: the only source of randomness.

    Returns:
        The actions to take, a new array.

    Raises:
        ValueError: if an epsilon is outside ``[0, 1]``, its shape fits neither case, or there
            is no action.
    """
    probability = np.asarray(epsilon)
    if not np.all((probability >= 0.0) & (probability <= 1.0)):
        raise ValueError(f"epsilon must be between 0 and 1, got {epsilon}")
    if probability.shape not in ((), greedy_actions.shape):
        raise ValueError(
            f"epsilon must be a number or have shape {greedy_actions.shape}, "
            f"got shape {probability.shape}"
        )
    if num_actions < 1:
        raise ValueError(f"num_actions must be at least 1, got {num_actions}")

    explores = rng.random(greedy_actions.shape) < probability
    random_actions = rng.integers(num_actions, size=greedy_actions.shape, dtype=np.int64)
    return np.where(explores, random_actions, greedy_actions)
