"""Rows D1 to D11 of ``make faults``, with foreign files decoded in this process.

Each was seen to fail with a part of what it tries taken out: pickles trusted by PyTorch (D2); no
limit of compression, any member names (D3); any length of a header, names twice (D4); shared
memory, weights that are not finite (D5, D6); networks with other outputs than actions, tensors of
other shapes (D6); agents with other numbers of actions (D7); slashes in names, links followed (D8);
the message about a key that is none (D9); modules in recipes or checkpoints (D10); any size (D11).
"""

import pytest

from actor_mimic.errors import ConfigError, DataError
from actor_mimic.recipes.load import load_recipe
from benchmarks.faults.hostile import ROWS
from benchmarks.faults.names import NUM_NAMES, hostile_names, hostile_recipes

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


@pytest.mark.parametrize("name", hostile_recipes())
def test_a_recipe_that_nobody_can_mean_is_named(tmp_path, name):
    text = hostile_recipes()[name]
    path = tmp_path / "strange.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises((ConfigError, DataError), match=r"strange\.toml(:\d+)?: "):
        load_recipe(path)
