"""Scores over all games of a student in a few numbers, with intervals.

Two scales: human-normalised (0 the published random play, 1 the published human) and
expert-normalised (0 measured random play, 1 the student's own expert).

Source: Agarwal et al. (2021), arXiv:2108.13264. Deviation: with one seed, where the source has no
interval, games played are drawn anew within every task. Such an interval says how well these
weights were measured, and nothing of how seeds differ.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from actor_mimic.errors import UsageError, did_you_mean
from actor_mimic.games import GAMES, human_normalised
from actor_mimic.report.aggregate import Score
from actor_mimic.report.tables import OVER_SEEDS, ScoreRow
from actor_mimic.statistics import (
    geometric_mean,
    interquartile_mean,
    optimality_gap,
    percentile_interval,
    resampled_means,
    stratified_bootstrap_ci,
)

RESAMPLES = 2_000

Matrix = Float64[np.ndarray, "runs tasks"]


def _geometric_mean(scores: Matrix) -> float:
    """Of the tasks' means; nothing, where one of them is no better than zero."""
    means = scores.mean(axis=0)
    return geometric_mean(means) if means.min() > 0.0 else 0.0


STATISTICS: dict[str, Callable[[Matrix], float]] = {
    "IQM": interquartile_mean,
    "median": lambda scores: float(np.median(scores.mean(axis=0))),
    "mean": lambda scores: float(scores.mean()),
    "geometric mean": _geometric_mean,
    "optimality gap": optimality_gap,
}


@dataclass(frozen=True)
class Estimate:
    """One number over games, and its 95 % interval where there is one."""

    value: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class OverGames:
    """One policy on one scale.

    Attributes:
        stage: of the student.
        who: ``student``, or ``experts`` for its teachers together.
        scale: ``human`` or ``expert``.
        tasks: that are counted.
        seeds: that are counted.
        estimates: by the names of `STATISTICS`; empty if they are refused.
        missing: tasks without a figure; unless they were allowed, they are why it is refused.
    """

    stage: str
    who: str
    scale: str
    tasks: tuple[str, ...]
    seeds: int
    estimates: dict[str, Estimate]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Cell:
    """One seed and task: the normalised score, and bootstrap samples of it over games."""

    value: float
    draws: Float64[np.ndarray, " resamples"] | None


def over_games(rows: Sequence[ScoreRow], allow_missing: Iterable[str] = ()) -> list[OverGames]:
    """Of every student, and of its experts beside it.

    Args:
        rows: as `score_rows` gives them.
        allow_missing: tasks that are left out where they have no figure. A task that has none and
            is not named here makes its scale refused: a mean over the games that went well is no
            mean over the games.

    Raises:
        UsageError: if a student has no such task.
    """
    rows = [row for row in rows if row.of_student and row.seed != OVER_SEEDS]
    tasks = list(dict.fromkeys(row.task for row in rows))
    allowed = tuple(allow_missing)
    for task in allowed:
        if task not in tasks:
            raise UsageError(
                f"--allow-missing {task}: no student here plays it{did_you_mean(task, tasks)}"
            )
    found = []
    for stage in dict.fromkeys(row.stage for row in rows):
        members = [row for row in rows if row.stage == stage]
        for who, scale, cell in _KINDS:
            if scale == "human" and not any(row.task in GAMES for row in members):
                continue  # nobody published one
            found.append(_over_games(members, who, scale, cell, allowed))
    return found


def of_experts(rows: Sequence[ScoreRow]) -> dict[str, Estimate]:
    """By student, the geometric mean on the scale of its experts, if no task's figure is missing.

    Args:
        rows: as `score_rows` gives them.
    """
    name = "geometric mean"
    rows = [row for row in rows if row.of_student and row.seed != OVER_SEEDS]
    found = {}
    for stage in dict.fromkeys(row.stage for row in rows):
        members = [row for row in rows if row.stage == stage]
        over = _over_games(members, *_KINDS[0], (), {name: STATISTICS[name]})
        if over.estimates:
            found[stage] = over.estimates[name]
    return found


def _over_games(
    rows: Sequence[ScoreRow],
    who: str,
    scale: str,
    cell_of: Callable[[ScoreRow, np.random.Generator], _Cell | None],
    allowed: Sequence[str],
    statistics: Mapping[str, Callable[[Matrix], float]] = STATISTICS,
) -> OverGames:
    rng = np.random.default_rng(0)
    tasks, seeds = (list(dict.fromkeys(names)) for names in zip(*map(_place, rows), strict=True))
    if who == "experts" and _same_experts(rows, tasks):
        seeds = seeds[:1]  # one expert for all seeds was measured once
    cells = {_place(row): cell_of(row, rng) for row in rows if row.seed in seeds}
    missing = [t for t in tasks if any(cells.get((t, seed)) is None for seed in seeds)]
    counted = [task for task in tasks if task not in missing]
    estimates = {}
    if counted and set(allowed).issuperset(missing):
        matrix = [[cells[task, seed] for task in counted] for seed in seeds]
        estimates = {
            name: _estimate([[c for c in row if c is not None] for row in matrix], statistic)
            for name, statistic in statistics.items()
        }
    counted = counted if estimates else []
    return OverGames(
        rows[0].stage, who, scale, tuple(counted), len(seeds), estimates, tuple(missing)
    )


def _estimate(cells: Sequence[Sequence[_Cell]], statistic: Callable[[Matrix], float]) -> Estimate:
    values = np.array([[cell.value for cell in row] for row in cells])
    if len(cells) > 1:
        interval = stratified_bootstrap_ci(values, statistic, seed=0, resamples=RESAMPLES)
        return Estimate(statistic(values), interval)
    draws = [cell.draws for cell in cells[0] if cell.draws is not None]
    if len(draws) < len(cells[0]):
        return Estimate(statistic(values), None)
    samples = np.stack(draws, axis=1)
    drawn = np.array([statistic(samples[i : i + 1]) for i in range(RESAMPLES)])
    return Estimate(statistic(values), percentile_interval(drawn))


def _place(row: ScoreRow) -> tuple[str, str]:
    return row.task, row.seed


def _same_experts(rows: Sequence[ScoreRow], tasks: Sequence[str]) -> bool:
    return all(len({row.expert for row in rows if row.task == task}) == 1 for task in tasks)


def _human(task: str, score: Score | None, rng: np.random.Generator) -> _Cell | None:
    value = None if score is None else human_normalised(task, score.mean)
    if score is None or value is None:
        return None
    draws = _draws(score, rng)
    if draws is None:
        return _Cell(value, None)
    # Linear in the score, so two points of the scale are all of it.
    zero, one = human_normalised(task, 0.0), human_normalised(task, 1.0)
    assert zero is not None
    assert one is not None
    return _Cell(value, zero + (one - zero) * draws)


def _expert(row: ScoreRow, rng: np.random.Generator) -> _Cell | None:
    if row.ratio is None or row.student is None or row.expert is None or row.random is None:
        return None
    s, e, r = (_draws(score, rng) for score in (row.student, row.expert, row.random))
    if s is None or e is None or r is None or not (e > r).all():
        return _Cell(row.ratio, None)
    return _Cell(row.ratio, (s - r) / (e - r))


def _draws(score: Score, rng: np.random.Generator) -> Float64[np.ndarray, " resamples"] | None:
    if len(score.scores) < 2:
        return None
    return resampled_means(score.scores, rng=rng, resamples=RESAMPLES)


_KINDS: tuple[tuple[str, str, Callable[[ScoreRow, np.random.Generator], _Cell | None]], ...] = (
    ("student", "expert", _expert),
    ("student", "human", lambda row, rng: _human(row.task, row.student, rng)),
    ("experts", "human", lambda row, rng: _human(row.task, row.expert, rng)),
)
