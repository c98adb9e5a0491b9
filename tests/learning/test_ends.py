"""What follows the end of an episode: nothing, or the value of where it was cut.

Three states in a circle, and an action that only goes on, so that every value is a sum on paper.
gamma is 1/2. Each test names the mutants of the code that it was seen to kill.
"""

from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from probes import DQNConfig, Move, PQNConfig, ProbeEnvs, assert_values, dqn, learn, pqn

from actor_mimic.config import NetworkConfig
from actor_mimic.envs.gymnasium import GymnasiumEnvs

# Rollouts of 8 and games of 3 steps: ends fall on every position of a rollout.
LEARNERS = {
    "pqn": pqn(lam=0.65),
    "pqn-one-step-rollouts": pqn(rollout_steps=1, minibatch_size=16, epochs=2, lam=1.0),
    "dqn": dqn(double=False),
    "dqn-3-step": dqn(n_step=3),
    "dqn-quantiles": dqn(double=False, num_quantiles=4),
}
STEPS = 2_000
every = pytest.mark.parametrize("learner", LEARNERS.values(), ids=LEARNERS)

CIRCLE = (1, 2, 0)
ONES = (1.0, 1.0, 1.0)
ONE_OF_THREE = (0.0, 0.0, 1.0)

# What 1, 1, 1, ... and 0, 0, 1, 0, 0, 1, ... are worth, at gamma 1/2, for ever.
FOR_EVER = {ONES: [2.0, 2.0, 2.0], ONE_OF_THREE: [2 / 7, 4 / 7, 8 / 7]}
ONE_ROUND = {ONES: [1.75, 1.5, 1.0], ONE_OF_THREE: [0.25, 0.5, 1.0]}


def circle(rewards: tuple[float, ...], *, end: str = "", **settings: object) -> ProbeEnvs:
    """States 0, 1, 2; the way from 2 back to 0 may be an end."""
    moves = [
        [Move(to, reward, end if to == 0 else "")] * 2
        for to, reward in zip(CIRCLE, rewards, strict=True)
    ]
    return ProbeEnvs(moves, **settings)


@every
@pytest.mark.parametrize("rewards", FOR_EVER)
def test_a_truncated_game_is_worth_what_would_have_followed(
    learner: PQNConfig | DQNConfig, rewards: tuple[float, ...]
) -> None:
    """Three steps from anywhere, then a limit; the agent cannot know how much time is left.

    Kills: truncation as an end (with constant rewards, values below 2); bootstrapping from the
    next game's first observation, or from the one before the last action (with unequal rewards);
    rollouts that end with the value of their own last observation.
    """
    env = circle(rewards, starts=(0, 1, 2), limit=3)
    state = learn(env, learner, steps=STEPS)

    assert_values(state, env, FOR_EVER[rewards])


@every
def test_a_game_over_is_worth_nothing(learner: PQNConfig | DQNConfig) -> None:
    """Kills: bootstrapping across a game over; a mask that is a step late or early."""
    env = circle(ONES, end="terminated")
    state = learn(env, learner, steps=STEPS)

    assert_values(state, env, ONE_ROUND[ONES])


@every
def test_a_limit_at_the_last_step_of_a_game_does_not_undo_its_end(
    learner: PQNConfig | DQNConfig,
) -> None:
    """Half of the games end by themselves where the limit is, the others are cut there.

    State 3 goes on to itself for ever. The first games are over and truncated in one step.
    Kills: ends that hold for all environments at once, or for the environment beside.
    """
    moves = [
        [Move(1, 1.0)] * 2,
        [Move(2, 1.0)] * 2,
        [Move(2, 1.0, "terminated")] * 2,
        [Move(3, 1.0)] * 2,
    ]
    env = ProbeEnvs(moves, starts=(0, 3), limit=3)
    state = learn(env, learner, steps=STEPS)

    assert_values(state, env, [1.75, 1.5, 1.0, 2.0])


class Circle(gymnasium.Env):
    """The circle as anybody would write it for Gymnasium."""

    observation_space = Box(0.0, 1.0, (3,))
    action_space = Discrete(2)

    def __init__(self, ends: bool, render_mode: str | None = None) -> None:
        self.ends = ends
        self.render_mode = render_mode
        self.state = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed, options=options)
        self.state = 0 if self.ends else int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self.state], {}

    def step(self, _action: int) -> tuple:
        self.state = CIRCLE[self.state]
        over = self.ends and self.state == 0
        return np.eye(3, dtype=np.float32)[self.state], 1.0, over, False, {}


@pytest.fixture(params=["terminated", "truncated"])
def registered(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[float]]]:
    """A task's id and its values. Gymnasium's own limit falls on the terminated step too."""
    ends = request.param == "terminated"
    gymnasium.register(
        "ProbeCircle-v0",
        Circle,
        kwargs={"ends": ends},
        max_episode_steps=3,
        disable_env_checker=True,
    )
    yield "gym:ProbeCircle-v0", (ONE_ROUND if ends else FOR_EVER)[ONES]
    del gymnasium.registry["ProbeCircle-v0"]


@pytest.mark.parametrize("learner", [LEARNERS["pqn"], LEARNERS["dqn"]], ids=["pqn", "dqn"])
def test_gymnasiums_limit_is_a_truncation(
    registered: tuple[str, list[float]], learner: PQNConfig | DQNConfig
) -> None:
    """Kills: ``terminated`` and ``truncated`` swapped or joined where Gymnasium is read."""
    task, expected = registered
    env = GymnasiumEnvs(task, num_envs=16, run_seed=0)
    state = learn(env, learner, steps=STEPS)

    assert_values(state, circle(ONES), expected)


@every
@pytest.mark.parametrize(
    ("protocol", "expected"),
    [("paper", ONE_ROUND[ONE_OF_THREE]), ("sticky", FOR_EVER[ONE_OF_THREE])],
)
def test_a_lost_life_ends_a_training_episode_where_the_protocol_says_so(
    learner: PQNConfig | DQNConfig, protocol: str, expected: list[float]
) -> None:
    """A life is lost on the way from 2 to 0, and the game goes on.

    Kills: lost lives that are ignored, or that count under every protocol.
    """
    env = circle(ONE_OF_THREE, end="life_lost")
    state = learn(env, learner, steps=STEPS, protocol=protocol)

    assert_values(state, env, expected)


@pytest.mark.parametrize(
    "learner", [pqn(learning_rate=0.005), dqn(learning_rate=0.005)], ids=["pqn", "dqn"]
)
@pytest.mark.parametrize(("protocol", "crossed"), [("paper", 0.0), ("sticky", 0.5)])
def test_frames_are_remembered_across_a_lost_life(
    learner: PQNConfig | DQNConfig, protocol: str, crossed: float
) -> None:
    """The picture after a lost life pays +1 or -1 by what was seen *before* it.

    Pictures left, right and top; from the first two a life is lost on the way to the third, which
    ends the game. Kills: stacks that are cut at a lost life (the third picture is worth 0 then),
    in the replay or in the actor; a bootstrap across it under ``paper``.
    """
    left, right, top = np.zeros((3, 36, 36), dtype=np.uint8)
    left[:, :18] = right[:, 18:] = top[:18] = 255
    moves = [
        [Move(2, 0.0, "life_lost")],
        [Move(3, 0.0, "life_lost")],
        [Move(2, 1.0, "terminated")],
        [Move(3, -1.0, "terminated")],
    ]
    env = ProbeEnvs(moves, frames=np.stack([left, right, top, top]), starts=(0, 1), stack_size=4)
    network = NetworkConfig(width=0.125, norm="dense", centred=False)
    state = learn(env, learner, steps=STEPS, protocol=protocol, network=network)

    nothing = np.zeros_like(left)
    stacks = [[nothing, nothing, nothing, first] for first in (left, right)]
    stacks += [[nothing, nothing, first, top] for first in (left, right)]
    expected = [[crossed], [-crossed], [1.0], [-1.0]]
    assert_values(state, env, expected, seen=np.stack(stacks), atol=0.15)
