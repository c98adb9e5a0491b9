"""How fast the learning loops run, each beside its floor.

    python -m benchmarks.loops [NAME ...] [--seconds 8] [--repeats 3] [--game assault]

A loop cannot be much faster than its emulation, its acting and its updates done one after the
other in bare libraries, so that sum is its floor (`benchmarks.floors`). Each loop and its floor are
measured in turn, several times, and the median of the ratios is what counts: a machine's speed
drifts. A floor is made of medians, so the loop's speed in a ratio is one too: see
`benchmarks.one_loop.loop_speed`.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.options import add_options, passed_on
from benchmarks.processes import MeasurementError, run_own
from benchmarks.summary import print_loops, print_verdicts, verdicts, write_results
from benchmarks.workloads import WORKLOADS

NAMES = ("pqn", "dqn", "distill", "distill-nature")


def measure_loop(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A loop in a process of its own.

    Raises:
        MeasurementError: if it fails.
    """
    print(f"  {WORKLOADS[name].title} ...", file=sys.stderr, flush=True)
    return run_own("benchmarks.one_loop", [name, *passed_on(options)])


def measure_floor(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A loop's floor in a process of its own.

    Raises:
        MeasurementError: if it fails.
    """
    print(f"  {WORKLOADS[name].title}: floor ...", file=sys.stderr, flush=True)
    return run_own("benchmarks.floors", [name, *passed_on(options)])


def measure_round(names: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    """Each loop and its floor, once.

    Raises:
        MeasurementError: if one of them fails.
    """
    result: dict[str, Any] = {"loops": {}, "floors": {}}
    for name in names:
        result["loops"][name] = measure_loop(name, options)
        result["floors"][name] = measure_floor(name, options)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Measures loops in turn; prints a table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="Learning loops beside their floors.")
    parser.add_argument("names", nargs="*", help=f"any of {', '.join(WORKLOADS)}")
    add_options(parser)
    options = parser.parse_args(arguments)
    names = options.names or NAMES
    unknown = set(names) - set(WORKLOADS)
    if unknown:
        parser.error(f"unknown loops {sorted(unknown)}, expected any of {', '.join(WORKLOADS)}")
    try:
        rounds = [measure_round(names, options) for _ in range(options.repeats)]
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    print_loops(rounds)
    found = verdicts(rounds)
    print_verdicts(found)
    write_results("benchmarks.loops", options, rounds, found)
    return 0 if all(verdict.passed for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main())
