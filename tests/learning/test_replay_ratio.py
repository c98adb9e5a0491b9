"""How many updates a DQN makes for its steps, whatever its environments take at once."""

import pytest
from probes import Move, ProbeEnvs, dqn, learn

from actor_mimic.stages.expert import DQNState


@pytest.mark.parametrize(("every", "updates"), [(32, 1), (16, 2), (4, 8), (1, 32)])
def test_an_update_for_every_so_many_steps(every, updates):
    """16 environments, of whose 128 steps the first 96 are only collected."""
    state = learn(ProbeEnvs([[Move(0)]]), dqn(update_every_steps=every), steps=128)

    assert (state.steps, state.updates) == (128, updates)


def test_the_updates_of_a_turn_are_recorded_as_their_mean(monkeypatch):
    said, recorded = [], []
    update, advance = DQNState._update, DQNState.advance

    def noted(state):
        said.append(update(state))
        return said[-1]

    monkeypatch.setattr(DQNState, "_update", noted)
    monkeypatch.setattr(DQNState, "advance", lambda state: recorded.append(advance(state)) or {})
    learn(ProbeEnvs([[Move(0, 1.0, "terminated")]]), dqn(update_every_steps=4), steps=128)

    losses = [float(metrics["loss"]) for metrics in said]
    assert len(losses) == 8
    assert len(set(losses)) == 8
    assert [float(one["loss"]) for one in recorded if "loss" in one] == pytest.approx(
        [sum(losses[:4]) / 4, sum(losses[4:]) / 4]
    )
