"""One row of the table, and what its figures have in common."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

QUICK = "FAULTS_QUICK"


@dataclass(frozen=True)
class Row:
    """What one kind of fault did.

    Attributes:
        name: as in ``--only``.
        what: in one line, what was done.
        trials: how often, the mutant's trials not counted.
        failures: how often something promised did not hold.
        figure: what the table prints.
        target: what it must be.
        passed: whether it is.
    """

    name: str
    what: str
    trials: int
    failures: int
    figure: str
    target: str
    passed: bool


Rows = dict[str, Callable[[Path], Row]]
"""Of one module: a row's name, and what measures it in an empty directory."""


def trials(full: int) -> int:
    """How many trials to make: all, or with ``--quick`` a tenth, and three at least."""
    return full if QUICK not in os.environ else min(full, max(3, full // 10))


def of_trials(failures: int, number: int, said: str) -> str:
    """``0 of 300 corrupt (95 % upper bound 1.0 %)``."""
    bound = 100.0 * upper_bound(failures, number)
    return f"{failures} of {number} {said} (95 % upper bound {bound:.1f} %)"


def upper_bound(failures: int, number: int, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound of a proportion (Clopper and Pearson, 1934), by bisection.

    Example:
        >>> round(upper_bound(0, 300), 5)  # 1 - 0.05 ** (1 / 300)
        0.00994
    """
    if failures >= number:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        term = at_most = (1.0 - middle) ** number
        for count in range(failures):
            term *= (number - count) / (count + 1) * middle / (1.0 - middle)
            at_most += term
        low, high = (middle, high) if at_most > 1.0 - confidence else (low, middle)
    return high
