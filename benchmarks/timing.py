"""How long a call takes."""

import statistics
import time
from collections.abc import Callable, Mapping

WARM_CALLS = 3
TURNS = 4


def median_rate(call: Callable[[], object], items: int, seconds: float) -> float:
    """Items per second by the median time of repeated calls, after a warm-up.

    The median, because a call now and then waits for something that is not the call's doing.

    Args:
        call: what to time; every call deals with the same number of items.
        items: of one call.
        seconds: for the timed calls; the warm-up takes up to a quarter of it more.
    """
    return median_rates({"": call}, items, seconds, turns=1)[""]


def median_rates(
    calls: Mapping[str, Callable[[], object]], items: int, seconds: float, turns: int = TURNS
) -> dict[str, float]:
    """The same of several calls that are compared, by turns, each with a warm-up.

    One after the other, the best of them would be the one that a drifting machine was fast for.

    Args:
        calls: by name; each deals with the same number of items.
        items: of one call.
        seconds: for the timed calls of each, over all its turns.
        turns: of each.

    Returns:
        Items per second by name.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            _repeat(call, seconds / turns / 4, WARM_CALLS)
            times[name] += _repeat(call, seconds / turns, WARM_CALLS)
    return {name: items / statistics.median(own) for name, own in times.items()}


def _repeat(call: Callable[[], object], seconds: float, least: int) -> list[float]:
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < stop:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times
