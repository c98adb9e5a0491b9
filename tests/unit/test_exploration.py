"""Greedy actions by hand; epsilon-greedy exact at the extremes, by statistics between them."""

import math

import numpy as np
import pytest

from actor_mimic.exploration import epsilon_greedy, spread_argmax


def make_rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


def test_the_highest_score_wins_in_every_row_and_equal_ones_are_shared_out() -> None:
    alone = np.float32([[0, 1, 3, 2], [3, 0, 1, 2], [0, 1, 2, 3], [-3, -1, -2, -4], [1, 2, 0, 0]])
    assert spread_argmax(alone).tolist() == [2, 0, 3, 1, 1]

    # Row i looks at its actions in the order i, i + 1, ..., back to 0.
    assert spread_argmax(np.zeros((7, 3), np.float32)).tolist() == [0, 1, 2, 0, 1, 2, 0]
    tied = np.float32([[0, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 1], [1, 0, 1]])
    assert spread_argmax(tied).tolist() == [1, 2, 0, 0, 2]


def test_epsilon_0_keeps_every_action_and_returns_a_new_array() -> None:
    greedy = np.arange(1000) % 4
    actions = epsilon_greedy(greedy, epsilon=0.0, num_actions=4, rng=make_rng())

    assert actions.dtype == np.int64
    assert np.array_equal(actions, greedy)
    assert not np.shares_memory(actions, greedy)


def test_epsilon_1_is_uniform_over_all_actions() -> None:
    n, num_actions = 60_000, 6
    greedy = np.zeros(n, dtype=np.int64)
    actions = epsilon_greedy(greedy, epsilon=1.0, num_actions=num_actions, rng=make_rng())

    counts = np.bincount(actions, minlength=num_actions)
    expected = n / num_actions
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert counts.shape == (num_actions,)
    assert chi_squared < 20.5  # 99.9th percentile with 5 degrees of freedom


def test_the_greedy_action_keeps_its_share_of_the_random_ones() -> None:
    n, epsilon, num_actions = 60_000, 0.1, 4
    greedy = np.full(n, 2, dtype=np.int64)
    actions = epsilon_greedy(greedy, epsilon=epsilon, num_actions=num_actions, rng=make_rng())

    expected = 1 - epsilon + epsilon / num_actions
    deviation = math.sqrt(expected * (1 - expected) / n)
    assert abs(np.mean(actions == 2) - expected) < 4 * deviation


def test_rows_explore_independently() -> None:
    n, rounds = 2, 20_000
    rng = make_rng()
    greedy = np.full(n, -1, dtype=np.int64)  # no random action looks like it
    explored = np.stack(
        [epsilon_greedy(greedy, epsilon=0.5, num_actions=3, rng=rng) != -1 for _ in range(rounds)]
    )

    correlation = np.corrcoef(explored, rowvar=False)[0, 1]
    assert abs(correlation) < 4 / math.sqrt(rounds)


def test_each_row_can_have_its_own_epsilon() -> None:
    epsilon = np.repeat([0.0, 0.25, 1.0], 20_000)
    greedy = np.full(epsilon.shape, -1, dtype=np.int64)
    actions = epsilon_greedy(greedy, epsilon=epsilon, num_actions=3, rng=make_rng())

    none, quarter, all_rows = (actions != -1).reshape(3, -1).mean(axis=1)
    assert none == 0.0
    assert abs(quarter - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 20_000)
    assert all_rows == 1.0


def test_epsilon_does_not_change_what_is_drawn() -> None:
    greedy = np.zeros(7, dtype=np.int64)
    after = []
    for epsilon in (0.0, 0.3, 1.0):
        rng = make_rng()
        epsilon_greedy(greedy, epsilon=epsilon, num_actions=5, rng=rng)
        after.append(rng.random())

    assert len(set(after)) == 1


@pytest.mark.parametrize("epsilon", [-0.01, 1.01, math.nan, np.array([0.5, 1.5])])
def test_epsilons_outside_0_to_1_are_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        epsilon_greedy(np.array([0, 1]), epsilon=epsilon, num_actions=2, rng=make_rng())


def test_a_wrong_number_of_epsilons_is_refused() -> None:
    # Unchecked, NumPy would broadcast the single epsilon over both rows. The shape types catch
    # it too, where they are switched on.
    with pytest.raises(Exception, match=r"shape|type"):
        epsilon_greedy(np.array([0, 1]), epsilon=np.array([0.5]), num_actions=2, rng=make_rng())


def test_no_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="num_actions"):
        epsilon_greedy(np.array([0, 1]), epsilon=0.5, num_actions=0, rng=make_rng())
