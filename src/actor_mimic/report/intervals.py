"""95 % intervals of what several seeds reached: which seeds, and which games each happened to play.

Source: the bootstrap of two levels (Davison and Hinkley 1997, section 3.8), percentile interval:
seeds are drawn with replacement, and with each drawn seed its games. Of n seeds the variance of
seeds is counted (n - 1) / n times, so of two half, and that of games (2n - 1) / n times, of two one
and a half. Drawn over seeds alone, the interval of two seeds would end at their two means.

A score whose single games were not kept counts as exact.
"""

from collections.abc import Sequence

import numpy as np

from actor_mimic.report.aggregate import Score
from actor_mimic.statistics import percentile_interval, resampled_means, resampled_runs


def mean_interval(scores: Sequence[Score]) -> tuple[float, float]:
    """Of the mean over seeds.

    Args:
        scores: one of each seed, at least two.
    """
    _, means = resampled_runs([_games(score) for score in scores], rng=np.random.default_rng(0))
    return percentile_interval(means.mean(axis=0))


def ratio_interval(
    students: Sequence[Score], experts: Sequence[Score], randoms: Sequence[Score]
) -> tuple[float, float] | None:
    """Of the mean over seeds of (student - random) / (expert - random).

    Args:
        students: one of each seed.
        experts: of each seed the student's own; one that several have in common is drawn once for
            all of them, as it was measured once.
        randoms: random play, likewise.

    Returns:
        None where an expert may be no better than random play, which gives no scale; and of a
        single seed, if the games of one of the three were not kept.
    """
    everyone = [*students, *experts, *randoms]
    if len(students) == 1 and any(len(score.scores) < 2 for score in everyone):
        return None
    rng = np.random.default_rng(0)
    seeds, reached = resampled_runs([_games(score) for score in students], rng=rng)
    measured = dict.fromkeys([*experts, *randoms])
    drawn = {score: resampled_means(_games(score), rng=rng) for score in measured}
    low, high = (np.stack([drawn[score] for score in scores]) for scores in (randoms, experts))
    if not (high > low).all():
        return None
    chosen = seeds, np.arange(seeds.shape[1])
    return percentile_interval(((reached - low[chosen]) / (high - low)[chosen]).mean(axis=0))


def _games(score: Score) -> tuple[float, ...]:
    return score.scores or (score.mean,)
