"""Learning curves: over seeds, their areas, and when they reach a score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from actor_mimic.report.aggregate import Point

MOST_POINTS = 150


@dataclass(frozen=True)
class Curve:
    """Learning curves of several seeds in one.

    Attributes:
        steps: where it is known, rising.
        mean: over seeds, of raw scores.
        low, high: the lowest and the highest seed.
        seeds: how many they are.
    """

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int

    def over(self, share: float) -> "Curve":
        """The same, over a share of the steps."""
        return replace(self, steps=tuple(step * share for step in self.steps))


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """As many of them, evenly, as an eye can tell apart, the last included."""
    return [*points[-1 :: -max(1, -(-len(points) // MOST_POINTS))]][::-1]


def mean_curve(curves: Sequence[Sequence[Point]]) -> Curve | None:
    """The curve over seeds, at every step where one of them has a point and all have reached.

    Between its own points a seed counts with the straight line through them. Seeds without any
    are left out; None if that leaves nothing.
    """
    curves = [sorted(points, key=lambda point: point.step) for points in curves if points]
    if not curves:
        return None
    first = max(points[0].step for points in curves)
    last = min(points[-1].step for points in curves)
    steps = sorted({p.step for points in curves for p in points if first <= p.step <= last})
    if not steps:
        return None
    heights = np.array([_heights(points, steps) for points in curves])
    return Curve(
        tuple(map(float, steps)),
        tuple(heights.mean(axis=0).tolist()),
        tuple(heights.min(axis=0).tolist()),
        tuple(heights.max(axis=0).tolist()),
        len(curves),
    )


def first_reach(curve: Curve, threshold: float) -> float | None:
    """Steps until the mean first reaches a score, on straight lines; None if it never does."""
    before: tuple[float, float] | None = None
    for step, mean in zip(curve.steps, curve.mean, strict=True):
        if mean >= threshold:
            if before is None:
                return step
            share = (threshold - before[1]) / (mean - before[1])
            return before[0] + share * (step - before[0])
        before = (step, mean)
    return None


def area_above(points: Sequence[Point], floor: float, end: int) -> float | None:
    """Area between a learning curve and a floor, from its beginning to ``end``, in score x steps.

    Straight lines between evaluations, by the trapezoidal rule; negative where the curve lies
    below the floor. None if there are fewer than two evaluations, or they do not reach so far.
    """
    steps = [point.step for point in points]
    if len(points) < 2 or end <= steps[0] or end > steps[-1]:
        return None
    grid = sorted({step for step in steps if step < end} | {end})
    heights = _heights(points, grid) - floor
    return float((np.diff(grid) * (heights[:-1] + heights[1:]) / 2.0).sum())


def _heights(points: Sequence[Point], steps: Sequence[int]) -> np.ndarray:
    return np.interp(steps, [point.step for point in points], [point.mean for point in points])
