"""Double Q-learning: one network chooses the next action, the other values it. gamma is 1/2.

Each test names the mutants of the code that it was seen to kill.
"""

import pytest
import torch
from probes import DQNState, Move, ProbeEnvs, assert_values, dqn, learn, q_values

NEVER = 1_000_000_000


@pytest.mark.parametrize(("double", "start"), [(False, 0.5 * 3.0), (True, 0.5 * 2.0)])
def test_who_chooses_and_who_values(double: bool, start: float) -> None:
    """The target network holds 2 and 3 for ever; the online one learns that 1 and 0 are right.

    Plain: the target network's best, 3. Double: what it thinks of the online network's best, 2.
    Kills: the setting ignored; the two networks' parts swapped (the start would be worth 0), the
    online network doing both (1/2).
    """
    choice = [Move(1, 1.0, "terminated"), Move(1, 0.0, "terminated")]
    env = ProbeEnvs([[Move(1), Move(1)], choice])
    learner = dqn(double=double, target_period_updates=NEVER)
    state = learn(env, learner, steps=1_600, first_values=[2.0, 3.0])

    assert_values(state, env, [start, [1.0, 0.0]])


def overestimate(double: bool, seed: int) -> float:
    """Value of a state from which nothing but noise around 0 follows, averaged over learning."""
    pays = [Move(1, 0.0, "terminated")] * 8
    env = ProbeEnvs([[Move(1)] * 8, pays], noise={1: 1.0}, starts=(0, 1))
    values = []

    def look(state: DQNState) -> None:
        if state.updates > 50:
            values.append(q_values(state, env.frames[:1]).mean())

    learner = dqn(double=double, target_period_updates=50, gamma=1.0, replay_capacity_steps=192)
    learn(env, learner, steps=3_200, seed=seed, each=look)
    return float(torch.stack(values).mean())


def test_noise_is_not_taken_for_value() -> None:
    """Eight actions, each worth 0, whose rewards are -1 or +1 at random.

    The greatest of eight noisy estimates is above 0, and plain Q-learning believes it. Kills:
    the setting ignored; both networks the same.
    """
    plain, double = overestimate(False, seed=0), overestimate(True, seed=0)

    assert plain > 0.1, plain
    assert double < 0.5 * plain, (double, plain)
