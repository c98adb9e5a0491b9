"""How long a call takes."""

import statistics
import time
from collections.abc import Callable

WARM_CALLS = 3


def median_rate(call: Callable[[], object], items: int, seconds: float) -> float:
    """Items per second by the median time of repeated calls, after a warm-up.

    The median, because a call now and then waits for something that is not the call's doing.

    Args:
        call: what to time; every call deals with the same number of items.
        items: of one call.
        seconds: for the timed calls; the warm-up takes up to a quarter of it more.
    """
    _repeat(call, seconds / 4, WARM_CALLS)
    return items / statistics.median(_repeat(call, seconds, WARM_CALLS))


def _repeat(call: Callable[[], object], seconds: float, least: int) -> list[float]:
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < stop:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return times
