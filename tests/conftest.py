"""Settings of every test process."""

import pytest
import torch

# The networks of the tests are so small that a second thread costs more than it brings, most of
# all where other processes want the cores too.
torch.set_num_threads(1)


@pytest.fixture
def decoded_here(monkeypatch):
    """Foreign files are decoded in this process: starting another takes seconds for each.

    `tests/unit/test_confined.py` and the tests of the verbs use the real one.
    """
    from actor_mimic.teachers import decoder, weights

    monkeypatch.setattr(weights, "decode_confined", lambda _, *given: decoder.decode(*given))


@pytest.fixture(autouse=True)
def _a_glance_at_the_background(monkeypatch):
    """What a game looks like is seen in a glance: networks are built in many tests."""
    monkeypatch.setattr("actor_mimic.stages.background.STEPS", 20)
