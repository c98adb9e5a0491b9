"""Intervals over seeds and games, beside plain loops and variances worked by hand."""

import numpy as np
import pytest

from actor_mimic.report.aggregate import Score
from actor_mimic.report.intervals import mean_interval, ratio_interval


def score(*games):
    return Score(sum(games) / len(games), scores=games)


def drawn_again(rng, games):
    return np.mean(rng.choice(games, size=len(games)))


TWIN_DRAWS = 5_000
RANDOM, EXPERT = score(0.0, 1.0, 2.0, 1.0), score(8.0, 10.0, 12.0, 14.0)
STUDENTS = [score(4.0, 6.0, 8.0), score(7.0, 9.0, 14.0)]


def test_both_seeds_and_games_spread_the_mean():
    rng = np.random.default_rng(1)
    twin = [
        np.mean([drawn_again(rng, STUDENTS[rng.integers(2)].scores) for _ in range(2)])
        for _ in range(TWIN_DRAWS)
    ]

    assert mean_interval(STUDENTS) == pytest.approx(np.quantile(twin, [0.025, 0.975]), abs=0.2)


def test_seeds_that_differ_in_nothing_leave_the_spread_of_games():
    # 100 games of variance 1: the mean of one seed has 0.01, of two half of that.
    games = tuple(np.tile([-1.0, 1.0], 50))

    low, high = mean_interval([Score(0.0, scores=games), Score(0.0, scores=games)])

    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(0.01 / 2), rel=0.06)


def test_without_single_games_seeds_alone_are_drawn():
    assert mean_interval([Score(10.0), Score(20.0)]) == (10.0, 20.0)  # 10, 15, 20 at 1:2:1


def test_one_seed_has_the_interval_of_its_games():
    rng = np.random.default_rng(1)
    twin = []
    for _ in range(TWIN_DRAWS):
        s, e, r = (drawn_again(rng, one.scores) for one in (STUDENTS[0], EXPERT, RANDOM))
        twin.append((s - r) / (e - r))

    interval = ratio_interval(STUDENTS[:1], [EXPERT], [RANDOM])

    assert interval == pytest.approx(np.quantile(twin, [0.025, 0.975]), abs=0.02)


def test_an_expert_of_both_seeds_is_drawn_once_for_both():
    rng = np.random.default_rng(1)
    twin = []
    for _ in range(TWIN_DRAWS):
        e, r = (drawn_again(rng, one.scores) for one in (EXPERT, RANDOM))
        reached = [drawn_again(rng, STUDENTS[rng.integers(2)].scores) for _ in range(2)]
        twin.append(np.mean([(s - r) / (e - r) for s in reached]))

    interval = ratio_interval(STUDENTS, [EXPERT] * 2, [RANDOM] * 2)

    assert interval == pytest.approx(np.quantile(twin, [0.025, 0.975]), abs=0.02)


def test_a_wide_expert_spreads_both_seeds_alike():
    # All three games 10 or all 30, each with probability 1/27, which is more than the tail.
    interval = ratio_interval([Score(10.0)] * 2, [score(10.0, 20.0, 30.0)] * 2, [Score(0.0)] * 2)

    assert interval == pytest.approx((1 / 3, 1.0))


def test_each_student_is_measured_by_its_own_expert():
    # Without spread of their own: 5/10 and 18/20, whichever seeds are drawn.
    students, experts = [Score(5.0), Score(18.0)], [Score(10.0), Score(20.0)]

    assert ratio_interval(students, experts, [Score(0.0)] * 2) == (0.5, 0.9)


def test_there_is_no_ratio_to_an_expert_that_may_be_no_better_than_random_play():
    assert ratio_interval(STUDENTS[:1], [score(0.0, 9.0)], [score(0.0, 1.0)]) is None


def test_one_seed_without_single_games_has_no_interval():
    assert ratio_interval(STUDENTS[:1], [Score(11.0)], [RANDOM]) is None
