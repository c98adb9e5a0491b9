"""Rows D1 to D11 of ``make faults``, with foreign files decoded in this process.

Mutants that each of them was seen to find are named beside it.
"""

import pytest

from benchmarks.faults.hostile import ROWS
from benchmarks.faults.names import NUM_NAMES, hostile_names

pytestmark = [
    pytest.mark.usefixtures("decoded_here"),
    # Gadgets of sparse and quantised tensors, and zips with a name twice, are made with warnings.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("name", ROWS)
def test_nothing_hostile_is_accepted(name, tmp_path):
    row = ROWS[name](tmp_path)

    assert row.passed, row
    assert (row.name, row.failures) == (name, 0)
    assert row.trials > 0


def test_there_are_as_many_hostile_names_as_promised():
    assert len(set(hostile_names())) == NUM_NAMES
