"""Environments that raise, or return what they should not: what that costs."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from actor_mimic.envs import gymnasium as adapter
from actor_mimic.envs.gymnasium import FREE_RESTARTS, GymnasiumEnvs
from actor_mimic.envs.vector_step import catch_up_all
from actor_mimic.errors import DataError, Interrupted, UnavailableError, UsageError
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import derive_seed

SIGTERM = 15


class Wayward(gymnasium.Env):
    """Episodes of four steps; observes (seed modulo 10, steps so far). ``plan`` says what else."""

    plan: ClassVar[dict] = {}
    calls: ClassVar[int] = 0  # of reset and step, in all copies
    made: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    def __init__(self, **_):
        Wayward.made += 1
        if Wayward.made in Wayward.plan.get("unmakeable", ()):
            raise OSError("no simulator")
        self.observation_space = Box(-10.0, 10.0, (2,))
        self.action_space = Wayward.plan.get("actions", Discrete(3))

    def reset(self, *, seed=None, **_):
        super().reset(seed=seed)
        self.seed, self.time = seed, 0
        self.perhaps_raise()
        return Wayward.plan.get("reset", lambda right: right)((self.observe(), {}))

    def step(self, _):
        self.perhaps_raise()
        self.time += 1
        right = (self.observe(), 1.0, self.time == 4, False, {})
        return Wayward.plan.get("step", lambda right: right)(right)

    def close(self):
        Wayward.closed += 1
        if "close" in Wayward.plan:
            raise Wayward.plan["close"]

    def observe(self):
        return np.array([self.seed % 10, self.time], dtype=np.float32)

    def perhaps_raise(self):
        Wayward.calls += 1
        if Wayward.calls in Wayward.plan.get("raises", ()):
            raise Wayward.plan.get("error", RuntimeError("the simulator is gone"))


@pytest.fixture
def make():
    """Makes environments whose copies follow one plan."""
    gymnasium.register("Wayward-v0", Wayward)

    def make(num_envs=1, **plan):
        Wayward.plan, Wayward.calls, Wayward.made, Wayward.closed = plan, 0, 0, 0
        return GymnasiumEnvs("gym:Wayward-v0", num_envs=num_envs, run_seed=3)

    yield make
    del gymnasium.registry["Wayward-v0"]


def step(envs):
    envs.send(np.zeros(envs.num_envs, dtype=np.int64))
    return envs.recv()


def test_a_failure_truncates_the_episode_where_it_was(make, caplog):
    envs = make(2, raises={7})  # calls 1 2: resets, 3 4: first steps, 5 6, then the first copy
    envs.reset()
    step(envs)
    before = step(envs)
    failed = step(envs)

    assert failed.failed.tolist() == failed.truncated.tolist() == [True, False]
    assert failed.terminated.tolist() == [False, False]
    assert failed.reward.tolist() == [0.0, 1.0]
    assert failed.final_frames[0].tolist() == before.frames[0].tolist()  # the last that was seen
    assert failed.frames[:, 1].tolist() == [0.0, 3.0]  # a new episode, and one that goes on
    assert Wayward.made == 3
    assert "gym:Wayward-v0: environment 0 failed, made again: RuntimeError" in caplog.text
    assert step(envs).failed.tolist() == [False, False]


def test_the_episode_after_a_failure_has_the_next_seed(make):
    envs = make(raises={3})
    envs.reset()
    step(envs)
    failed = step(envs)

    assert envs.state_dict()["episode"] == [1]
    assert failed.frames[0, 0] == derive_seed(3, "gym:Wayward-v0", 0, 1) % 10


def test_the_score_of_a_game_that_failed_counts_nowhere(make):
    rollout = Rollout(
        [make(raises={4})], life_loss_is_terminal=False, rngs=[np.random.default_rng(0)]
    )
    rollout.start()
    for _ in range(7):  # two good steps, the failure, a whole game
        rollout.send(np.zeros(1, dtype=np.int64), 0.0)
        rollout.recv()

    assert [(game.score, game.length) for game in rollout.take_finished()] == [(4.0, 4)]


@pytest.mark.parametrize("method", ["reset", "step"])
def test_what_always_fails_is_given_up(make, method):
    calls = range(1, 1000) if method == "reset" else range(2, 1000, 2)
    envs = make(raises=set(calls))

    def play():
        envs.reset()
        for _ in range(1000):
            step(envs)

    with pytest.raises(UnavailableError, match=r"gym:Wayward-v0: given up, .*simulator is gone"):
        play()
    assert Wayward.made == 1 + FREE_RESTARTS


def test_what_fails_once_in_many_steps_never_is(make, monkeypatch):
    monkeypatch.setattr(adapter, "STEPS_PER_RESTART", 20)
    envs = make(raises=set(range(30, 2000, 30)))  # every 30 calls, of which 24 are steps
    envs.reset()
    failures = sum(int(step(envs).failed[0]) for _ in range(1200))

    assert failures > 2 * FREE_RESTARTS


def test_what_cannot_be_made_again_is_given_up_at_once(make):
    envs = make(raises={3}, unmakeable={2})
    envs.reset()
    step(envs)
    with pytest.raises(UnavailableError, match=r"cannot be made again: no simulator"):
        step(envs)


def test_what_cannot_be_made_at_all_is_named(make):
    with pytest.raises(UnavailableError, match=r"'gym:Wayward-v0': OSError: no simulator"):
        make(unmakeable={1})


def test_a_failure_while_games_are_played_again_begins_that_game_again(make):
    envs = make(2)
    envs.reset()
    for _ in range(3):
        step(envs)
    saved = envs.state_dict()
    restored = make(2, raises={3, 9})  # once within each copy's games
    restored.load_state_dict(saved)
    catch_up_all([restored])

    assert Wayward.made == 4
    assert restored.state_dict() == saved
    for _ in range(3):
        one, other = step(restored), step(envs)
        assert np.array_equal(one.frames, other.frames)


def test_a_game_that_always_fails_when_it_is_played_again_is_given_up(make, monkeypatch):
    """However long it is: its steps count as steps, of which some may fail."""
    monkeypatch.setattr(adapter, "STEPS_PER_RESTART", 1)
    envs = make()
    envs.reset()
    for _ in range(3):
        step(envs)
    restored = make(raises=set(range(4, 1000, 4)))  # a reset, two steps, and the third
    restored.load_state_dict(envs.state_dict())

    with pytest.raises(UnavailableError, match=r"environment 0 failed each of 20 times"):
        catch_up_all([restored])


def test_what_does_not_close_is_told_and_no_more(make, caplog):
    envs = make(3, close=BrokenPipeError("it is gone already"))
    envs.close()

    assert Wayward.closed == 3
    assert "gym:Wayward-v0: environment 2 did not close: it is gone already" in caplog.text


@pytest.mark.parametrize("when", ["closed", "made again"])
def test_a_signal_while_one_closes_is_no_failure(make, when):
    envs = make(raises={2}, close=Interrupted(SIGTERM))
    envs.reset()
    with pytest.raises(Interrupted):
        envs.close() if when == "closed" else step(envs)


@pytest.mark.parametrize("plan", [{"unmakeable": {3}}, {"actions": Box(0.0, 1.0, (2,))}])
def test_those_that_were_made_are_closed_if_the_task_is_refused(make, plan):
    with pytest.raises((UnavailableError, UsageError)):
        make(3, **plan)
    assert Wayward.closed == Wayward.made - len(plan.get("unmakeable", ()))


def test_a_signal_is_no_failure(make):
    envs = make(raises={2}, error=Interrupted(SIGTERM))
    envs.reset()
    with pytest.raises(Interrupted):
        step(envs)
    assert Wayward.made == 1


BAD_STEPS = {
    "shape": (lambda s: (s[0][:1], *s[1:]), r"observation: expected numbers of shape \(2,\)"),
    "rank": (lambda s: (s[0][None], *s[1:]), r"observation: expected numbers of shape \(2,\)"),
    "text": (lambda s: (np.array(["a", "b"]), *s[1:]), "observation: expected numbers"),
    "complex": (lambda s: (s[0] * 1j, *s[1:]), "observation: expected numbers"),
    "nan": (lambda s: (s[0] * np.nan, *s[1:]), "NaN or infinite"),
    "infinite reward": (lambda s: (s[0], np.inf, *s[2:]), "NaN or infinite"),
    "reward beyond float32": (lambda s: (s[0], 1e39, *s[2:]), "NaN or infinite"),
    "rewards": (lambda s: (s[0], np.ones(2), *s[2:]), "reward: expected a number"),
    "no reward": (lambda s: (s[0], None, *s[2:]), "reward: expected a number"),
    "no flag": (lambda s: (*s[:2], None, *s[3:]), "terminated: expected true or false, got None"),
    "no info": (lambda s: (*s[:4], None), "info: expected a dictionary, got None"),
    "four values": (lambda s: (*s[:2], False, {}), "step: expected observation, reward,"),
    "nothing": (lambda _: None, "step: expected observation, reward,"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD_STEPS.values(), ids=BAD_STEPS)
def test_a_step_that_is_none_is_refused(make, wrong, message):
    envs = make(step=wrong)
    envs.reset()
    with pytest.raises(DataError, match=f"gym:Wayward-v0: the environment.*{message}"):
        step(envs)
    assert Wayward.made == 1  # no failure that could pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda right: right[0], "reset: expected observation and info"),
        (lambda right: (right[0][:1], {}), r"observation: expected numbers of shape \(2,\)"),
        (lambda right: (right[0], None), "info: expected a dictionary"),
    ],
)
def test_a_reset_that_is_none_is_refused(make, wrong, message):
    with pytest.raises(DataError, match=message):
        make(reset=wrong).reset()


def test_without_the_checks_a_wrong_shape_is_broadcast(make, monkeypatch):
    """What the test of shapes would let pass if nobody looked."""
    monkeypatch.setattr(GymnasiumEnvs, "_refuse_unless", lambda *_: None)
    envs = make(step=BAD_STEPS["shape"][0])
    envs.reset()

    (frame,) = step(envs).frames
    assert frame[0] == frame[1]
