"""The simplest tasks: reward, its sign, which action, how far away. gamma is 1/2 by default.

Each test names the mutants of the code that it was seen to kill.
"""

import numpy as np
import pytest
from probes import Move, ProbeEnvs, assert_values, dqn, learn, pqn

LEARNERS = {"pqn": pqn, "dqn": dqn}
STEPS = 2_000

both = pytest.mark.parametrize("algorithm", LEARNERS)


def over(reward: float) -> Move:
    return Move(0, reward, "terminated")


@both
def test_each_reward_is_credited_to_the_action_and_the_observation_that_got_it(
    algorithm: str,
) -> None:
    """A bandit that is different in every state.

    Kills: a reward that is negated, or clipped below at 0; actions that are stored a step late, or
    are another environment's; the greedy action in place of the one that was taken; observations
    that `recv` has overwritten.
    """
    rewards = [[1.0, -1.0, 0.5], [0.0, 1.0, -0.5], [-1.0, -0.5, 0.0], [0.5, 0.0, 1.0]]
    env = ProbeEnvs([[over(r) for r in row] for row in rewards], starts=(0, 1, 2, 3))
    state = learn(env, LEARNERS[algorithm](), steps=2 * STEPS)

    assert_values(state, env, rewards, atol=0.1)


@both
def test_what_was_found_best_is_what_is_played(algorithm: str) -> None:
    """Kills: the least value in place of the greatest; an epsilon that does not fall."""
    rewards = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    env = ProbeEnvs([[over(r) for r in row] for row in rewards], starts=(0, 1, 2))
    epsilons = {"epsilon_start": 1.0, "epsilon_end": 0.0, "exploration_fraction": 0.5}
    state = learn(env, LEARNERS[algorithm](**epsilons), steps=STEPS)

    assert state.recent.means()["probe/score"] == 1.0  # of the last 100 games, all greedy


@both
@pytest.mark.parametrize("gamma", [0.9, 0.0])
def test_a_reward_one_step_away_is_discounted_once(algorithm: str, gamma: float) -> None:
    """Kills: a discount that is forgotten, or applied to the reward itself; no bootstrap; values of
    the observation itself in place of the next one's.
    """
    env = ProbeEnvs([[Move(1)], [over(1.0)]])
    state = learn(env, LEARNERS[algorithm](gamma=gamma), steps=STEPS)

    assert_values(state, env, [gamma, 1.0])


@both
def test_the_best_of_the_next_actions_counts(algorithm: str) -> None:
    """Kills: bootstrapping from the mean, from the action that is taken next, or from the first.

    Also a maximum with zero: state 2 has nothing but losses.
    """
    env = ProbeEnvs(
        [[Move(1), Move(2)], [over(0.0), over(1.0)], [over(-1.0), over(-0.5)]],
    )
    state = learn(env, LEARNERS[algorithm](), steps=2 * STEPS)

    assert_values(state, env, [[0.5, -0.25], [0.0, 1.0], [-1.0, -0.5]])


def test_probes_do_what_they_say() -> None:
    """The tasks themselves: what is seen, what is paid, when a game is over."""
    env = ProbeEnvs(
        [[Move(1, 2.0)], [Move(0, 3.0)]], limit=3, num_envs=2, noise={1: 0.5}, starts=(0,)
    )
    assert env.reset().tolist() == [[1.0, 0.0], [1.0, 0.0]]
    steps = []
    for _ in range(4):
        env.send(np.zeros(2, dtype=np.int64))
        steps.append(env.recv())

    assert [step.reward[0] for step in steps[::2]] == [2.0, 2.0]
    assert {abs(float(r) - 3.0) for r in steps[1].reward} == {0.5}
    assert [step.truncated.tolist() for step in steps] == [[False] * 2] * 2 + [
        [True] * 2,
        [False] * 2,
    ]
    assert [step.frames[0].argmax() for step in steps] == [1, 0, 0, 1]
    assert [step.final_frames[0].argmax() for step in steps] == [1, 0, 1, 1]
    assert not any(step.terminated.any() or step.life_lost.any() for step in steps)
