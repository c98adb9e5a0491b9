"""One line of the table that ``make faults`` prints.

A row is one kind of fault: what was done, how often, how often what must not happen did, and the
figure that says so beside its target. Rows are made by functions that get an empty directory and
know nothing of each other; whoever prints them needs no more than this.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What one kind of fault did."""

    name: str  # "D2"
    what: str  # one line: what was done
    trials: int
    failures: int
    figure: str  # what the table prints: "0 of 80 ran code"
    target: str
    passed: bool
