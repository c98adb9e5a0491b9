"""Rows of ``make faults`` at a tenth of their trials; each has a mutant that must fail it.

Hostile files have `test_hostile_rows`. Left to ``make faults``: 50 kills (A3), a hundred signals
(B7), what saving costs, and whole stages compared bit by bit (A12), of which `test_verbs`,
`test_recipe` and `test_exact_resume` have one of each.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A few in each process: it takes seconds to load what the work needs, before it is forked.
ROWS = ["A1 A2 A11", "A5 A6", "A7 A8", "A10 B1", "B3 B6"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rows", ROWS)
def test_nothing_is_lost(rows: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", "--quick", "--only", *rows.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" pass  ") == len(rows.split())
