"""Arithmetic of the fault harness; the faults themselves are `make faults`."""

import json
from types import SimpleNamespace

import pytest

from benchmarks.faults import __main__ as harness
from benchmarks.faults.__main__ import MODULES, markdown_table
from benchmarks.faults.row import Row, of_trials, upper_bound


@pytest.mark.parametrize(
    ("failures", "number", "expected"),
    [
        (0, 300, 1.0 - 0.05 ** (1 / 300)),
        (0, 1, 0.95),
        (1, 1, 1.0),
        # P(at most 1 of 10) = (1 - p)^10 + 10 p (1 - p)^9 is 0.05 at p = 0.394163.
        (1, 10, 0.394163),
        (9, 10, 0.95 ** (1 / 10)),  # P(at most 9 of 10) = 1 - p^10
    ],
)
def test_upper_bound_by_hand(failures, number, expected):
    assert upper_bound(failures, number) == pytest.approx(expected, abs=1e-5)


def test_a_proportion_in_words():
    assert of_trials(0, 300, "corrupt") == "0 of 300 corrupt (95 % upper bound 1.0 %)"


def test_every_row_has_a_name_of_its_own():
    names = [name for module in MODULES for name in module.ROWS]
    expected = "A1 A2 A3 A5 A6 A7 A8 A10 A11 A12 B1 B3 B6 B7 cost"

    assert len(set(names)) == len(names)
    assert set(expected.split()) <= set(names)


def test_the_table_of_the_document():
    row = {"name": "A1", "what": "kills", "figure": "0 of 3", "target": "0", "passed": False}

    assert markdown_table([row]).splitlines()[-1] == "| A1 | kills | 0 of 3 | 0 | **FAIL** |"


def test_rows_of_one_call_are_of_the_commit_that_it_began_with(tmp_path, monkeypatch):
    """Keeping the first changes a file that git knows."""
    rows = {name: lambda _, name=name: Row(name, "", 1, 0, "", "", True) for name in "AB"}
    results = tmp_path / "faults.json"
    monkeypatch.setattr(harness, "MODULES", (SimpleNamespace(ROWS=rows),))
    monkeypatch.setattr(harness, "RESULTS", results)
    monkeypatch.setattr(harness, "warm_up", lambda: None)
    monkeypatch.setattr(harness, "_commit", lambda: "dirty" if results.exists() else "clean")

    assert harness.main([]) == 0
    assert [row["commit"] for row in json.loads(results.read_text())["rows"]] == ["clean"] * 2
