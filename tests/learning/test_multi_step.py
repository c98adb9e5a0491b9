"""Returns over several steps: how far one update sees. gamma is 1/2 throughout.

Each test names the mutants of the code that it was seen to kill.
"""

import pytest
import torch
from probes import DQNState, Move, ProbeEnvs, assert_values, dqn, learn, pqn, q_values

NEVER = 1_000_000_000


def corridor(end: str = "terminated") -> ProbeEnvs:
    """States 0, 1, 2, and the reward at the end; state 3 is only seen after a truncation."""
    moves = [[Move(1)], [Move(2)], [Move(3, 1.0, end)], [Move(3)]]
    return ProbeEnvs(moves)


# The target network says 4 everywhere, and never learns: what is bootstrapped is seen at once.
FIRST = 4.0
CORRIDOR = {
    # n: values of states 0, 1, 2
    1: [0.5 * FIRST, 0.5 * FIRST, 1.0],
    2: [0.25 * FIRST, 0.5, 1.0],
    5: [0.25, 0.5, 1.0],
}
CUT = {
    1: [0.5 * FIRST, 0.5 * FIRST, 1.0 + 0.5 * FIRST],
    2: [0.25 * FIRST, 0.5 + 0.25 * FIRST, 1.0 + 0.5 * FIRST],
    5: [0.25 + 0.125 * FIRST, 0.5 + 0.25 * FIRST, 1.0 + 0.5 * FIRST],
}


@pytest.mark.parametrize("n_step", CORRIDOR)
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_n_steps_reach_n_steps_back(end: str, n_step: int) -> None:
    """With a target network that never follows, one step cannot bring the reward to the start.

    Kills: n off by one either way; gamma in place of gamma ** n; a window that sums the next
    game's rewards, or whose bootstrap is weighed by n where a limit cut it shorter.
    """
    env = corridor(end)
    learner = dqn(n_step=n_step, target_period_updates=NEVER)
    state = learn(env, learner, steps=1_600, first_values=[FIRST])

    expected = (CORRIDOR if end == "terminated" else CUT)[n_step]
    assert_values(state, env, expected, seen=env.frames[:3])


def test_the_target_network_brings_a_value_back_one_copy_at_a_time() -> None:
    """From zero, one-step targets show the reward k states before its own after k copies.

    Kills: targets from the online network; a target network that follows at once, or never.
    """
    env = corridor()
    values = []

    def look(state: DQNState) -> None:
        if state.updates in (100, 200, 300):
            values.append(q_values(state, env.frames[:3]).flatten())

    learn(env, dqn(target_period_updates=100), steps=96 + 301 * 16, first_values=[0.0], each=look)

    expected = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.5, 1.0], [0.25, 0.5, 1.0]])
    torch.testing.assert_close(torch.stack(values), expected, atol=0.06, rtol=0.0)


# One rollout, whose values are 4 everywhere: G = r + gamma * ((1 - lambda) * 4 + lambda * G').
ONE_ROLLOUT = {
    # lambda: values of states 0, 1, 2
    ("terminated", 0.0): [2.0, 2.0, 1.0],
    ("terminated", 0.5): [1.0 + 0.25 * 1.25, 1.0 + 0.25 * 1.0, 1.0],
    ("terminated", 1.0): [0.25, 0.5, 1.0],
    ("truncated", 0.0): [2.0, 2.0, 3.0],
    ("truncated", 0.5): [1.0 + 0.25 * 1.75, 1.0 + 0.25 * 3.0, 3.0],
    ("truncated", 1.0): [0.75, 1.5, 3.0],
}
MANY_EPOCHS = 60


@pytest.mark.parametrize(("end", "lam"), ONE_ROLLOUT)
def test_lambda_carries_a_reward_to_the_start_of_its_rollout(end: str, lam: float) -> None:
    """With lambda 0 a single rollout teaches the state before the reward nothing about it.

    Kills: lambda and 1 - lambda swapped, or lambda squared; a recursion that runs across the end
    of a game, be it over or cut, or that runs forwards.
    """
    env = corridor(end)
    learner = pqn(lam=lam, rollout_steps=9, minibatch_size=48, epochs=MANY_EPOCHS)
    state = learn(env, learner, steps=144, first_values=[FIRST])

    assert_values(state, env, ONE_ROLLOUT[end, lam], seen=env.frames[:3])


@pytest.mark.parametrize(
    ("lam", "expected"), [(0.0, [2.0, 2.0]), (0.5, [1.5, 2.0]), (1.0, [1.0, 2.0])]
)
def test_what_lies_beyond_a_rollout_is_bootstrapped(lam: float, expected: list[float]) -> None:
    """Two steps of a corridor of three: neither has seen the reward.

    Kills: a rollout whose last step counts as an end; lambda and 1 - lambda swapped.
    """
    env = corridor()
    learner = pqn(lam=lam, rollout_steps=2, minibatch_size=16, epochs=MANY_EPOCHS)
    state = learn(env, learner, steps=32, first_values=[FIRST])

    assert_values(state, env, expected, seen=env.frames[:2])


@pytest.mark.parametrize("lam", [0.0, 0.5])
def test_lambda_weighs_what_was_done_against_the_best(lam: float) -> None:
    """After state 0 comes a choice, between 1 and 0, that is made at random.

    The one-step target is the best of both, 1; the return is 1/2 on average. So the value of the
    start is gamma * (1 - lambda / 2): the returns of PQN are not corrected for exploration.
    Kills: the mean for the maximum; lambda squared.
    """
    choice = [Move(1, 0.0, "terminated"), Move(1, 1.0, "terminated")]
    env = ProbeEnvs([[Move(1), Move(1)], choice], num_envs=32)
    learner = pqn(lam=lam, num_envs=32, minibatch_size=64)
    state = learn(env, learner, steps=8_000)

    assert_values(state, env, [0.5 * (1.0 - lam / 2.0), [0.0, 1.0]])
