"""Rewards that only somebody who keeps at it meets."""

import pytest
from probes import DQNConfig, Move, PQNConfig, ProbeEnvs, dqn, learn, pqn, q_values

GEARS = 20


@pytest.mark.parametrize(
    "learner",
    [pqn(epsilon_start=0.05, epsilon_end=0.05), dqn(epsilon_start=0.05, epsilon_end=0.05)],
    ids=["pqn", "dqn"],
)
def test_values_that_begin_equal_do_not_stop_at_the_first_action(
    learner: PQNConfig | DQNConfig,
) -> None:
    """A car that moves in its highest gear, as in Enduro: action 2 shifts up, any other to 0.

    Random play needs 3^20 tries. Kills: the first of equal values, a random one of them.
    """
    gears = range(GEARS)
    moves = [[Move(0), Move(0), Move(min(gear + 1, GEARS - 1))] for gear in gears]
    moves[-1][2] = Move(GEARS - 1, reward=1.0)
    env = ProbeEnvs(moves)

    state = learn(env, learner, steps=4_000, first_values=[0.0, 0.0, 0.0])

    values = q_values(state, env.frames)
    assert values[-1, 2] > 1.5, "the reward was never met"  # 2, at gamma 1/2
    assert values[-1].argmax() == 2
