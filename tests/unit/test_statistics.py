import math

import numpy as np
import pytest

from actor_mimic.statistics import (
    bootstrap_mean_ci,
    geometric_mean,
    interquartile_mean,
    optimality_gap,
    resampled_runs,
    stratified_bootstrap_ci,
    summarise,
)


def covers(interval, truth):
    low, high = interval
    return low <= truth <= high


# Summaries


def test_summary_by_hand():
    summary = summarise([1.0, 2.0, 3.0, 10.0], seed=0)

    assert summary.episodes == 4
    assert summary.mean == 4.0
    assert summary.median == 2.5
    # Squared deviations 9 + 4 + 1 + 36 = 50; variance 50 / 3; divided by 4 episodes.
    assert summary.stderr == pytest.approx(math.sqrt(50 / 12))
    assert summary.ci95 == bootstrap_mean_ci([1.0, 2.0, 3.0, 10.0], seed=0)


def test_one_episode_has_no_spread():
    summary = summarise([21.0], seed=0)

    assert (summary.mean, summary.median) == (21.0, 21.0)
    assert summary.stderr is None
    assert summary.ci95 is None


def test_equal_scores_have_an_interval_of_no_width():
    summary = summarise([-21.0] * 5, seed=0)

    assert summary.stderr == 0.0
    assert summary.ci95 == (-21.0, -21.0)


@pytest.mark.parametrize("function", [interquartile_mean, optimality_gap, geometric_mean])
@pytest.mark.parametrize(
    ("scores", "message"),
    [([], "at least one score"), ([1.0, math.nan], "finite"), ([1.0, math.inf], "finite")],
)
def test_no_number_is_made_of_no_scores_or_bad_ones(function, scores, message):
    with pytest.raises(ValueError, match=message):
        function(scores)


@pytest.mark.parametrize(
    ("scores", "message"), [([], "at least one score"), ([1.0, math.nan], "finite")]
)
def test_summary_refuses_no_scores_and_bad_ones(scores, message):
    with pytest.raises(ValueError, match=message):
        summarise(scores, seed=0)


# Aggregates


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # fewer than four: nothing is dropped
        ([1000.0, 1.0, -1000.0, 3.0], 2.0),
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),  # five: one dropped at each end
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0], 2.5),
    ],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert interquartile_mean(scores) == expected


@pytest.mark.parametrize("size", range(1, 14))
def test_interquartile_mean_drops_a_quarter_at_each_end(size):
    scores = np.random.default_rng(size).normal(size=size)
    kept = list(scores)
    for _ in range(math.floor(0.25 * size)):
        kept.remove(max(kept))
        kept.remove(min(kept))

    assert interquartile_mean(scores) == pytest.approx(sum(kept) / len(kept))


def test_interquartile_mean_pools_runs_and_tasks_and_leaves_them_in_order():
    scores = np.array([[0.0, 5.0], [1.0, -100.0], [100.0, 2.0]])
    before = scores.copy()

    # Six scores: 100 and -100 go.
    assert interquartile_mean(scores) == 2.0
    np.testing.assert_array_equal(scores, before)


def test_optimality_gap_by_hand():
    # Misses 1, 0.5, 0 (met) and 0 (exceeded).
    assert optimality_gap([0.0, 0.5, 1.0, 7.0]) == 0.375
    assert optimality_gap(np.array([[0.0, 0.5], [1.0, 7.0]])) == 0.375
    assert optimality_gap([1.0, 3.0], target=2.0) == 0.5


def test_geometric_mean_by_hand():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([0.1, 10.0, 1.0]) == pytest.approx(1.0)


def test_geometric_mean_agrees_with_the_root_of_the_product():
    ratios = np.random.default_rng(0).uniform(0.1, 3.0, size=8)

    assert geometric_mean(ratios) == pytest.approx(math.prod(ratios) ** (1 / 8))


@pytest.mark.parametrize("ratio", [0.0, -0.5])
def test_geometric_mean_refuses_what_has_no_logarithm(ratio):
    with pytest.raises(ValueError, match="positive"):
        geometric_mean([1.0, ratio])


# Intervals of one mean


def exact_mean_interval(scores, confidence):
    """Percentile interval over all n ** n resamples, each equally likely."""
    grids = np.meshgrid(*[scores] * len(scores))
    means = np.mean([grid.reshape(-1) for grid in grids], axis=0)
    tail = (1 - confidence) / 2
    return np.quantile(means, [tail, 1 - tail])


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_bootstrap_agrees_with_all_resamples(confidence):
    scores = [0.0, 1.1, 2.3, 4.2, 9.7, 11.9]  # 46,656 resamples

    interval = bootstrap_mean_ci(scores, seed=1, confidence=confidence, resamples=50_000)

    assert interval == pytest.approx(exact_mean_interval(scores, confidence), abs=0.08)


def test_two_scores_by_hand():
    # Means 0, 1, 2 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_mean_ci([0.0, 2.0], seed=0) == (0.0, 2.0)
    assert bootstrap_mean_ci([0.0, 2.0], seed=0, confidence=0.4) == (1.0, 1.0)


def test_samples_of_two_levels_draw_runs_and_then_their_games():
    runs = [[0.0, 2.0], [10.0, 14.0, 18.0]]
    resamples = 40_000

    chosen, means = resampled_runs(runs, rng=np.random.default_rng(0), resamples=resamples)

    # Each place of a sample is of either run, whatever the other place is of.
    pairs, counts = np.unique(chosen.T, axis=0, return_counts=True)
    assert pairs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert counts / resamples == pytest.approx(0.25, abs=0.01)
    first = means[chosen == 0]  # 0, 1, 2 with probabilities 1/4, 1/2, 1/4
    assert [np.mean(first == value) for value in (0.0, 1.0, 2.0)] == pytest.approx(
        [0.25, 0.5, 0.25], abs=0.01
    )
    second = means[chosen == 1]  # variance of one game 32/3, of the mean of three a third of it
    assert second.mean() == pytest.approx(14.0, abs=0.05)
    assert second.var() == pytest.approx(32 / 9, rel=0.03)
    # One run drawn twice has its games drawn twice.
    twice = means[:, (chosen == 0).all(axis=0)]
    assert abs(np.corrcoef(twice)[0, 1]) < 0.03


def test_a_run_that_no_sample_holds_is_no_matter():
    chosen, means = resampled_runs([[1.0]] * 9, rng=np.random.default_rng(0), resamples=1)

    assert chosen.shape == (9, 1)
    assert means.tolist() == [[1.0]] * 9


def test_interval_depends_on_the_seed_alone():
    scores = np.random.default_rng(0).normal(size=30)

    assert bootstrap_mean_ci(scores, seed=3) == bootstrap_mean_ci(scores, seed=3)
    assert bootstrap_mean_ci(scores, seed=3) != bootstrap_mean_ci(scores, seed=4)


def test_interval_moves_and_scales_with_the_scores():
    scores = np.random.default_rng(0).normal(size=30)
    low, high = bootstrap_mean_ci(scores, seed=0)

    assert bootstrap_mean_ci(10.0 * scores - 3.0, seed=0) == pytest.approx(
        (10.0 * low - 3.0, 10.0 * high - 3.0)
    )


def test_many_scores_fit_in_memory():
    # 20,000 scores: blocks of 50 resamples, the last one short.
    scores = np.random.default_rng(0).normal(size=20_000)
    low, high = bootstrap_mean_ci(scores, seed=0, resamples=120)

    assert low < scores.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(20_000), rel=0.2)


def test_no_more_resamples_are_drawn_than_asked_for():
    low, high = bootstrap_mean_ci([0.0, 1.0, 10.0], seed=0, resamples=1)

    assert low == high


@pytest.mark.parametrize(
    ("episodes", "lowest", "highest"),
    [
        (10, 0.86, 0.935),  # too narrow for few scores, as the docstring says
        (30, 0.915, 0.965),
    ],
)
def test_interval_covers_the_mean_as_often_as_it_says(episodes, lowest, highest):
    rng = np.random.default_rng(20)
    trials = 1_000
    covered = sum(
        covers(bootstrap_mean_ci(rng.normal(size=episodes), seed=trial, resamples=500), 0.0)
        for trial in range(trials)
    )

    assert lowest < covered / trials < highest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 0.0}, "confidence"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 95.0}, "confidence"),
        ({"resamples": 0}, "resamples"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean_ci([1.0, 2.0], seed=0, **options)
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap_ci(np.ones((2, 2)), np.mean, seed=0, **options)


def test_one_score_has_no_interval():
    with pytest.raises(ValueError, match="two scores"):
        bootstrap_mean_ci([1.0], seed=0)


# Intervals over tasks


def test_tasks_keep_their_own_scores():
    # Tasks differ by far more than runs: pooling them would show at once.
    scores = np.array([[0.0, 100.0], [0.0, 100.0], [0.0, 100.0]])

    assert stratified_bootstrap_ci(scores, interquartile_mean, seed=0) == (50.0, 50.0)


def test_tasks_are_drawn_independently():
    # Both tasks hold 0 and 1. Whole runs drawn together would pair 0 with 0 and 1 with 1, and
    # give the product of the task means only the values 0, 1/4 and 1.
    scores = np.array([[0.0, 0.0], [1.0, 1.0]])
    seen = set()

    def product_of_task_means(drawn):
        seen.add(float(drawn.mean(axis=0).prod()))
        return 0.0

    stratified_bootstrap_ci(scores, product_of_task_means, seed=0, resamples=200)
    assert seen == {0.0, 0.25, 0.5, 1.0}


def test_one_task_agrees_with_the_interval_of_its_mean():
    scores = np.random.default_rng(0).normal(size=(12, 1))

    stratified = stratified_bootstrap_ci(scores, np.mean, seed=0, resamples=10_000)

    assert stratified == pytest.approx(bootstrap_mean_ci(scores[:, 0], seed=1), abs=0.03)


def test_stratified_interval_covers_the_truth():
    rng = np.random.default_rng(30)
    task_means = np.array([0.0, 5.0, 50.0])
    trials = 200
    covered = sum(
        covers(
            stratified_bootstrap_ci(
                rng.normal(task_means, size=(20, 3)), np.mean, seed=trial, resamples=200
            ),
            task_means.mean(),
        )
        for trial in range(trials)
    )

    assert 0.88 < covered / trials < 0.98


def test_one_run_has_no_interval():
    with pytest.raises(ValueError, match="two runs"):
        stratified_bootstrap_ci(np.ones((1, 3)), np.mean, seed=0)
