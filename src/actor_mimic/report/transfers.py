"""Transfers to one new task, side by side: what the arms started from, and what that was worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actor_mimic.report.aggregate import Collection, Run
from actor_mimic.report.curves import Curve, area_above, first_reach, mean_curve
from actor_mimic.statistics import percentile_interval, resampled_means
from actor_mimic.storage.shipped import RANDOM, name_of_model


@dataclass(frozen=True)
class Arm:
    """One way to start, over its seeds.

    Attributes:
        name: of the stage.
        origin: whose weights it started from.
        runs: one for each seed.
        from_random: whether it started from random weights.
        curve: what its evaluations said; None without any.
        area_ratio: area between its curve and random play, mean over seeds, divided by that of
            the arm from random weights; None where there is nothing to divide by.
        area_ratio_ci95: bootstrap over the seeds of both arms; None for a single seed.
        threshold_steps: when the mean first reached the contest's threshold; None if never.
    """

    name: str
    origin: str
    runs: tuple[Run, ...]
    from_random: bool
    curve: Curve | None
    area_ratio: float | None = None
    area_ratio_ci95: tuple[float, float] | None = None
    threshold_steps: float | None = None


@dataclass(frozen=True)
class Contest:
    """Arms of one task, budget and protocol.

    Attributes:
        random: mean raw score of random play; None where it was not measured.
        threshold: the best that the arm from random weights reached, by its mean over seeds.
        arms: the one from random weights first.
    """

    task: str
    protocol: str
    total_steps: object
    random: float | None
    threshold: float | None
    arms: tuple[Arm, ...]


def contests(collection: Collection) -> list[Contest]:
    """All transfers, those together that may be compared."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in collection.runs:
        if run.kind == "transfer":
            groups.setdefault(contest_of(run), []).append(run)
    return [_contest(collection, runs) for runs in groups.values()]


def contest_of(run: Run) -> tuple[str, str, str]:
    """What two transfers must share to be compared: task, protocol, budget."""
    return task_of(run), run.protocol, str(run.config.get("total_steps"))


def task_of(run: Run) -> str:
    """The one that a transfer learns."""
    return run.tasks[0] if run.tasks else ""


def origin_of(collection: Collection, run: Run) -> str:
    """Whose weights it started from, by the best name there is."""
    if not run.parents:
        return "random weights"
    parent = collection.run_of(run.parents[0])
    if parent is not None:
        return parent.name
    return name_of_model(run.parents[0]) or f"model {run.parents[0][:12]}"


def area_ratio(collection: Collection, run: Run, random_run: Run | None) -> float | None:
    """That of one seed beside one seed of the arm from random weights."""
    if random_run is None:
        return None
    areas, base = _areas(collection, (run,), (random_run,))
    return areas[0] / base[0] if areas and base and base[0] > 0.0 else None


def _contest(collection: Collection, runs: Sequence[Run]) -> Contest:
    task, protocol, _ = contest_of(runs[0])
    by_name: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: bool(run.parents)):
        by_name.setdefault(run.name, []).append(run)
    groups = [tuple(members) for members in by_name.values()]
    base = next((members for members in groups if not members[0].parents), None)
    base_curve = None if base is None else _curve(base)
    threshold = None if base_curve is None else max(base_curve.mean)
    random = collection.score_of(RANDOM, task, near=runs[0])
    arms = [_arm(collection, members, base, threshold) for members in groups]
    return Contest(
        task=task,
        protocol=protocol,
        total_steps=runs[0].config.get("total_steps"),
        random=None if random is None else random.mean,
        threshold=threshold,
        arms=tuple(arms),
    )


def _arm(
    collection: Collection,
    runs: tuple[Run, ...],
    base: tuple[Run, ...] | None,
    threshold: float | None,
) -> Arm:
    curve = _curve(runs)
    origins = {origin_of(collection, run) for run in runs}
    arm = Arm(
        name=runs[0].name,
        origin=origins.pop() if len(origins) == 1 else "several",
        runs=runs,
        from_random=not runs[0].parents,
        curve=curve,
        threshold_steps=None
        if curve is None or threshold is None
        else first_reach(curve, threshold),
    )
    if base is None:
        return arm
    ratio, interval = _ratio_of_means(*_areas(collection, runs, base))
    if runs is base:
        interval = None  # one by definition
    return Arm(**{**vars(arm), "area_ratio": ratio, "area_ratio_ci95": interval})


def _curve(runs: Sequence[Run]) -> Curve | None:
    return mean_curve([run.curves.get(task_of(run), ()) for run in runs])


def _areas(
    collection: Collection, runs: Sequence[Run], base: Sequence[Run]
) -> tuple[list[float], list[float]]:
    """Of every seed of two arms, over the steps that all have; empty if they cannot be compared."""
    task = task_of(runs[0])
    curves = [run.curves.get(task, ()) for run in (*runs, *base)]
    randoms = [collection.score_of(RANDOM, task, near=run) for run in (*runs, *base)]
    if not all(curves) or len({points[0].step for points in curves}) != 1:
        return [], []
    end = min(points[-1].step for points in curves)
    areas: list[float] = []
    for points, random in zip(curves, randoms, strict=True):
        area = None if random is None else area_above(points, random.mean, end)
        if area is None:
            return [], []
        areas.append(area)
    return areas[: len(runs)], areas[len(runs) :]


def _ratio_of_means(
    areas: Sequence[float], base: Sequence[float]
) -> tuple[float | None, tuple[float, float] | None]:
    # An arm that learned nothing is no measure for another.
    if not areas or not base or np.mean(base) <= 0.0:
        return None, None
    ratio = float(np.mean(areas) / np.mean(base))
    if len(areas) < 2 or len(base) < 2:
        return ratio, None
    rng = np.random.default_rng(0)
    above, below = (resampled_means(values, rng=rng) for values in (areas, base))
    # Where some seeds alone would be such an arm, the ratio has no upper end.
    return ratio, percentile_interval(above / below) if (below > 0.0).all() else None
