"""Hostile text in a terminal and in a table for spreadsheets; in the page: `test_report_page`."""

import csv
import re
import unicodedata

import pytest
from hostile_text import PAYLOADS, hostile_recipe

from actor_mimic.report.terminal import text_table
from actor_mimic.storage.progress_csv import ProgressCsv
from actor_mimic.storage.records import Record
from actor_mimic.storage.shipped import read_scores, shipped_path
from actor_mimic.verbs import look


def assert_only_text(shown: str) -> None:
    """Nothing that a terminal would obey, or that changes the order of what is read."""
    odd = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    assert not odd, odd


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_field_of_a_recipe_steers_a_terminal(payload, tmp_path):
    shown = text_table(hostile_recipe(tmp_path / "x", lambda field: f"{payload}field {field}"))

    assert_only_text(shown)
    assert "Transfer" in shown


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_field_of_a_kept_score_steers_a_terminal(payload):
    kept = read_scores(shipped_path("zoo:pong"), "pong")[0]
    kept |= {"protocol": f"{payload}protocol", "tasks": {f"{payload}task": kept["tasks"]["pong"]}}

    shown = look._score_table(kept)

    assert_only_text(shown)
    assert re.search(r"task +\d+ +\d+\.\d ", shown)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_name_is_a_formula_of_a_spreadsheet(payload, tmp_path):
    values = {payload: 1.0, f"{payload}/score": 2.0, f"pong/{payload}": 3.0, "loss": float("nan")}
    table = ProgressCsv(tmp_path / "progress.csv")
    table.restart([])
    for kind in ("train", "evaluation", "final"):
        table.write(Record(kind, 1, 1, values, 1.0))

    head, *rows = csv.reader((tmp_path / "progress.csv").read_text().splitlines())
    assert all(re.fullmatch(r"[a-z]+(/[A-Za-z0-9._-]+)+", name) for name in head)
    assert len(rows) == 3
    assert all(
        cell == "" or float(cell) == float(cell) or cell == "nan" for r in rows for cell in r
    )
