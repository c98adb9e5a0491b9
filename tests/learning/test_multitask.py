"""Two tiny tasks at once, of which each teaches the other something wrong. gamma is 1/2.

Each test names the mutants of the code that it was seen to kill.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from probes import CPU, Move, ProbeEnvs, dqn

from actor_mimic.config import MultitaskDQNConfig, NetworkConfig
from actor_mimic.envs.vector_step import VectorStep
from actor_mimic.stages.multitask_dqn import MultitaskDQNState

STEPS = 4_000  # of each task


def learn(
    head: str, *envs: ProbeEnvs, network: NetworkConfig | None = None, learning_rate: float = 0.02
) -> MultitaskDQNState:
    config = MultitaskDQNConfig(
        tasks=tuple(env.task for env in envs),
        steps_per_task=STEPS,
        head=head,
        learner=dqn(learning_rate=learning_rate),
        network=network or NetworkConfig(width=0.25),
    )
    state = MultitaskDQNState(config, CPU, envs)
    state.start()
    while state.steps < state.total_steps:
        state.advance()
    return state


@torch.no_grad()
def assert_values(
    state: MultitaskDQNState, env: ProbeEnvs, expected: list[list[float]], *, atol: float = 0.1
) -> None:
    seen = env.frames
    if env.stack_size > 1:
        seen = np.zeros((len(env.frames), env.stack_size, *env.frame_shape), dtype=np.uint8)
        seen[:, -1] = env.frames
    found = state.network.play(env.task, torch.from_numpy(seen)).scores
    assert (found - torch.tensor(expected)).abs().max() <= atol, found.tolist()


def bandit(task: str, rewards: list[list[float]], **changes: object) -> ProbeEnvs:
    moves = [[Move(0, reward, "terminated") for reward in row] for row in rewards]
    starts = tuple(range(len(rewards)))
    return ProbeEnvs(moves, starts=starts, task=task, **changes)


@pytest.mark.parametrize(("every", "updates"), [(32, 1), (16, 2), (4, 8), (1, 32)])
def test_an_update_for_every_so_many_steps_of_each(every, updates):
    """16 environments of each task, of whose 128 steps the first 96 are only collected."""
    envs = [bandit("probe", PAYS), bandit("other", COSTS)]
    config = MultitaskDQNConfig(
        tasks=("probe", "other"), steps_per_task=128, learner=dqn(update_every_steps=every)
    )
    state = MultitaskDQNState(config, CPU, envs)
    state.start()
    while state.steps < state.total_steps:
        state.advance()

    assert (state.steps, state.updates) == (256, updates)


PAYS, COSTS = [[0.5, 0.0], [0.0, -0.5]], [[-0.25, 0.25], [0.25, 0.5]]


@pytest.mark.parametrize("head", ["shared", "per_task"])
def test_the_same_pictures_and_actions_pay_differently(head: str) -> None:
    """Only outputs of its own can tell a task; shared ones can learn no more than the mean.

    Kills: replays that are swapped; per_task as shared, and the other way round; a loss in which
    one task counts twice as much as the other.
    """
    first, second = bandit("probe", PAYS), bandit("other", COSTS)
    # Slowly: a minibatch has not quite as much of one reward as of the other.
    state = learn(head, first, second, learning_rate=0.005)

    mean = ((np.array(PAYS) + np.array(COSTS)) / 2).tolist()
    assert_values(state, first, mean if head == "shared" else PAYS)
    assert_values(state, second, mean if head == "shared" else COSTS)


def test_hidden_layers_of_their_own_tell_tasks_apart() -> None:
    """The same on pictures. Kills: one branch for both; branches swapped where they are trained."""
    left, right = np.zeros((2, 36, 36), dtype=np.uint8)
    left[:, :18] = right[:, 18:] = 255
    pictures = {"frames": np.stack([left, right]), "stack_size": 2}
    first, second = bandit("probe", PAYS, **pictures), bandit("other", COSTS, **pictures)
    small = NetworkConfig(width=0.0625, norm="dense", centred=False)
    state = learn("branched", first, second, network=small)

    assert_values(state, first, PAYS)
    assert_values(state, second, COSTS)


def test_a_task_bootstraps_from_its_own_best_action() -> None:
    """Vectors of two and of three numbers; the second task has a third action, which is the best.

    Kills: the mean for the maximum; bootstrapping from the observation itself.
    """
    short = ProbeEnvs(
        [[Move(1), Move(1)], [Move(1, -1.0, "terminated"), Move(1, -0.5, "terminated")]]
    )
    over = [Move(1, reward, "terminated") for reward in (0.0, 0.5, 1.0)]
    long = ProbeEnvs([[Move(1), Move(2), Move(1)], over, over[::-1]], task="other")
    state = learn("shared", short, long)

    assert_values(state, short, [[-0.25, -0.25], [-1.0, -0.5]])
    assert_values(state, long, [[0.5, 0.5, 0.5], [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])


class Clipped(ProbeEnvs):
    """Pays ten times what the learner is told, as a game does whose rewards are clipped."""

    def recv(self) -> VectorStep:
        step = super().recv()
        return replace(step, raw_reward=10.0 * step.raw_reward)


def test_clipped_rewards_are_learnt_and_raw_ones_reported() -> None:
    """Kills: raw rewards in the replay, clipped ones in the scores."""
    moves = [[Move(0, 1.0, "terminated")] * 2]
    first, second = Clipped(moves), Clipped(moves, task="other")
    state = learn("per_task", first, second)

    assert_values(state, first, [[1.0, 1.0]])
    assert state.recent.means()["other/score"] == 10.0
