"""How many updates a DQN makes for its steps, whatever its environments take at once."""

import pytest
from probes import Move, ProbeEnvs, dqn, learn


@pytest.mark.parametrize(("every", "updates"), [(32, 1), (16, 2), (4, 8), (1, 32)])
def test_an_update_for_every_so_many_steps(every, updates):
    """16 environments, of whose 128 steps the first 96 are only collected."""
    state = learn(ProbeEnvs([[Move(0)]]), dqn(update_every_steps=every), steps=128)

    assert (state.steps, state.updates) == (128, updates)
