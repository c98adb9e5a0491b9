"""``python -m benchmarks.faults``: every fault, counted; what is promised is in docs/resume.md.

Prints a row when it is done and writes all of them, with machine, versions and date, to
``benchmarks/results/faults.json``; exits with status 1 if a target is missed. Takes about 20
minutes on two cores; run nothing beside it, for two rows are about time.

    python -m benchmarks.faults --only A1 A2        # these rows; the file keeps the others
    python -m benchmarks.faults --quick             # a tenth of the trials; writes no file
    python -m benchmarks.faults --table             # the rows of the file, for documents
    python -m benchmarks.faults --table --write     # put into docs/resume.md, between its lines
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.faults import (
    cost,
    damage,
    disk,
    hostile,
    kills,
    owners,
    resume,
    saving,
    signals,
    training,
)
from benchmarks.faults.row import QUICK, Row, Rows
from benchmarks.faults.runs import warm_up
from benchmarks.machine import facts
from benchmarks.processes import ROOT

# In the order of the table.
MODULES = (saving, kills, disk, damage, owners, resume, training, signals, hostile, cost)

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
DOCUMENT = ROOT / "docs" / "resume.md"
BEGIN = "<!-- figures: written by python -m benchmarks.faults --table --write, not by hand -->"
END = "<!-- end of figures -->"


def main(arguments: list[str] | None = None) -> int:
    """Measures row by row, prints, writes."""
    rows: Rows = {name: row for module in MODULES for name, row in module.ROWS.items()}
    parser = argparse.ArgumentParser(description="Every fault that is promised to be survived.")
    parser.add_argument("--only", nargs="+", choices=rows, default=list(rows), metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials, no file")
    parser.add_argument("--table", action="store_true", help="print the file's rows as Markdown")
    parser.add_argument("--write", action="store_true", help="with --table: into the document")
    options = parser.parse_args(arguments)
    if options.table:
        _show_table(write=options.write)
        return 0
    if options.quick:
        os.environ[QUICK] = "1"
    warm_up()
    # Now: the first row that is kept changes a file of the repository.
    commit = _commit()
    passed = True
    for name in options.only:
        started = time.monotonic()
        row = _measured(name, rows[name])
        passed = passed and row.passed
        _print(row, time.monotonic() - started)
        if not options.quick:
            _keep(row, list(rows), commit)
    return 0 if passed else 1


def _measured(name: str, measure: Callable[[Path], Row]) -> Row:
    """A row; one that breaks off is a row that failed."""
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        os.chmod(scratch, 0o755)  # a row drops root, and must get here
        try:
            return measure(Path(scratch))
        except Exception as error:
            traceback.print_exc()
            return Row(name, "broke off", 0, 1, f"{type(error).__name__}: {error}", "-", False)


def _print(row: Row, seconds: float) -> None:
    verdict = "pass" if row.passed else "FAIL"
    print(f"{row.name:5} {verdict}  {row.what} ({row.trials} trials, {seconds:.0f} s)")
    print(f"{'':12}{row.figure}")
    print(f"{'':12}target: {row.target}", flush=True)


def _keep(row: Row, order: list[str], commit: str | None) -> None:
    """Into the file, beside the rows that are there."""
    kept = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    by_name: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in kept}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    by_name[row.name] = asdict(row) | {"commit": commit, "date": now}
    content = facts("benchmarks.faults") | {
        "rows": [by_name[name] for name in order if name in by_name]
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")


def _commit() -> str | None:
    """What was measured; ``-dirty`` if something of it is not committed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """One line for each row."""
    lines = ["| row | done | figure | target | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        verdict = "pass" if row["passed"] else "**FAIL**"
        lines.append(
            f"| {row['name']} | {row['what']} | {row['figure']} | {row['target']} | {verdict} |"
        )
    return "\n".join(lines)


def _show_table(*, write: bool) -> None:
    results = json.loads(RESULTS.read_text())
    machine, days = results["machine"], sorted({row["date"][:10] for row in results["rows"]})
    said = f"Measured on {', '.join(days)}: {machine['processor']}, {machine['cores']} cores."
    table = f"{said}\n\n{markdown_table(results['rows'])}"
    if not write:
        print(table)
        return
    before, rest = DOCUMENT.read_text().split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
    print(f"{DOCUMENT.name}: written")


if __name__ == "__main__":
    sys.exit(main())
