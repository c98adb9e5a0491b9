"""This project's DQN and Stable-Baselines3's, in turn on the same machine.

    python -m benchmarks.comparison [--seconds 8] [--repeats 3]

One round is SB3 with 1 environment, ours with SB3's batch, SB3 with 8 environments, ours with a
batch of our own; then the floors of our two. Ratios are taken within a round, against either of
SB3's two; the median of those against 1 environment, its default, counts. What is the same on both
sides and what is free: `benchmarks.sb3`.

Measure on a quiet machine only: SB3's threads wait for each other in a busy loop, as PyTorch comes,
and anything that runs beside them slows SB3 down far more than it slows ours (decision 4).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.loops import measure_floor, measure_loop
from benchmarks.options import add_options
from benchmarks.processes import ROOT, MeasurementError, run_foreign
from benchmarks.summary import (
    print_comparison,
    print_loops,
    print_verdicts,
    verdicts,
    write_results,
)

SB3_PYTHON = ROOT / ".venv-sb3" / "bin" / "python"
HINT = f"""\
no comparison with Stable-Baselines3: there is no {SB3_PYTHON.relative_to(ROOT)}; `make bench` makes
it, and so do `python3 -m venv .venv-sb3` and
`.venv-sb3/bin/python -m pip install -r benchmarks/requirements-sb3.txt`"""


def find_sb3() -> Path | None:
    """The interpreter that has SB3; None, and a line that says how to get it, if there is none."""
    if SB3_PYTHON.exists():
        return SB3_PYTHON
    print(HINT, file=sys.stderr)
    return None


def measure_round(options: argparse.Namespace, python: Path | None) -> dict[str, Any]:
    """Both sides once; ours alone without an interpreter for SB3.

    Raises:
        MeasurementError: if one of them fails.
    """
    result: dict[str, Any] = {"sb3": {}, "loops": {}, "floors": {}}
    for name, sb3_envs in (("dqn-like-sb3", 1), ("dqn-own-batch", 8)):
        if python is not None:
            print(f"  SB3, {sb3_envs} environments ...", file=sys.stderr, flush=True)
            result["sb3"][str(sb3_envs)] = run_foreign(
                python,
                ROOT / "benchmarks" / "sb3.py",
                ["--envs", str(sb3_envs), "--seconds", str(options.seconds)],
            )
        result["loops"][name] = measure_loop(name, options)
    for name in result["loops"]:
        result["floors"][name] = measure_floor(name, options)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Measures both sides in turn; prints a table; 1 if a target is missed or SB3 is missing."""
    parser = argparse.ArgumentParser(description="DQN of this project and of Stable-Baselines3.")
    add_options(parser)
    options = parser.parse_args(arguments)
    python = find_sb3()
    if python is None:
        return 1
    try:
        rounds = [measure_round(options, python) for _ in range(options.repeats)]
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    print_loops(rounds)
    print_comparison(rounds)
    found = verdicts(rounds)
    print_verdicts(found)
    write_results("benchmarks.comparison", options, rounds, found)
    return 0 if all(verdict.passed for verdict in found) else 1


if __name__ == "__main__":
    sys.exit(main())
