"""Gymnasium tasks behind the vector interface, against plain loops and scripted environments."""

import json
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import catch_up_all
from actor_mimic.errors import DataError, UnavailableError, UsageError
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.seeding import derive_seed

CARTPOLE = "gym:CartPole-v1"
RUN_SEED = 3
FIELDS = ("frames", "final_frames", "raw_reward", "reward", "terminated", "truncated", "life_lost")


class Scripted(gymnasium.Env):
    """Ends after 3 steps, terminated by its action 0 and truncated by any other.

    The observation is (the seed's last digit, steps so far); the reward is the action received.
    """

    def __init__(self, bad_value=0.0, ends="", num_actions=3, shape=(2,)):
        self.observation_space = Box(-10.0, 10.0, shape)
        self.action_space = Discrete(num_actions, start=5)
        self.bad_value, self.ends = bad_value, ends

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.seed, self.time = seed, 0
        return self.observe(), {}

    def observe(self):
        return np.array([self.seed % 10, self.time], dtype=np.float32)

    def step(self, action):
        self.time += 1
        over = self.time == 3
        terminated = over and (action == 5 or self.ends == "both")
        truncated = over and (action != 5 or self.ends == "both")
        obs = self.observe() + np.float32(self.bad_value if self.time == 2 else 0.0)
        return obs, float(action), terminated, truncated, {}


@pytest.fixture
def scripted():
    """Registers scripted environments; each call gives a task name."""
    names = []

    def register(cls=Scripted, **kwargs):
        names.append(f"Scripted{len(names)}-v0")
        gymnasium.register(names[-1], cls, kwargs=kwargs, disable_env_checker=True)
        return f"gym:{names[-1]}"

    yield register
    for name in names:
        del gymnasium.registry[name]


def make(task=CARTPOLE, num_envs=2, **settings):
    return GymnasiumEnvs(task, num_envs=num_envs, run_seed=RUN_SEED, **settings)


def step(envs, actions):
    envs.send(np.asarray(actions))
    return envs.recv()


def assert_same_step(step, other):
    for name in FIELDS:
        assert np.array_equal(getattr(step, name), getattr(other, name)), name


def test_agrees_with_plain_loops():
    envs = make(num_envs=2)
    plain = [gymnasium.make("CartPole-v1") for _ in range(2)]
    episode = [0, 0]
    frames = [
        twin.reset(seed=derive_seed(RUN_SEED, CARTPOLE, env, 0))[0]
        for env, twin in enumerate(plain)
    ]
    actions = np.random.default_rng(0).integers(2, size=(120, 2))

    assert np.array_equal(envs.reset(), frames)
    for action in actions:
        result = step(envs, action)
        for env, twin in enumerate(plain):
            obs, reward, terminated, truncated, _ = twin.step(int(action[env]))
            assert np.array_equal(result.final_frames[env], obs)
            assert result.raw_reward[env] == result.reward[env] == reward
            assert (result.terminated[env], result.truncated[env]) == (terminated, truncated)
            if terminated:
                episode[env] += 1
                obs, _ = twin.reset(seed=derive_seed(RUN_SEED, CARTPOLE, env, episode[env]))
            assert np.array_equal(result.frames[env], obs)
        assert not result.life_lost.any()
    assert min(episode) >= 2


def test_a_limit_of_steps_truncates():
    envs = make(num_envs=1)
    frame = envs.reset()
    for time in range(1, 501):
        # Leaning against the angle and its speed keeps the pole up.
        result = step(envs, [int(frame[0, 2] + frame[0, 3] > 0)])
        frame = result.frames
        assert not result.terminated[0]
        assert result.truncated[0] == (time == 500)
    assert not np.array_equal(result.frames, result.final_frames)


def test_scripted_ends_actions_and_unclipped_rewards(scripted):
    task = scripted()
    envs = make(task, 2)
    envs.reset()
    results = [step(envs, [0, 2]) for _ in range(3)]

    assert envs.action_names == (f"{task}/0", f"{task}/1", f"{task}/2")
    # The environment's own actions are 5, 6 and 7; its rewards echo them.
    assert all(result.raw_reward.tolist() == [5.0, 7.0] for result in results)
    assert all(result.reward.tolist() == [5.0, 7.0] for result in results)
    assert [result.started.tolist() for result in results] == 2 * [[False] * 2] + [[True] * 2]
    assert results[2].terminated.tolist() == [True, False]
    assert results[2].truncated.tolist() == [False, True]
    assert results[2].final_frames[:, 1].tolist() == [3.0, 3.0]
    assert results[2].frames[:, 1].tolist() == [0.0, 0.0]
    seeds = [derive_seed(RUN_SEED, task, env, 1) for env in range(2)]
    assert results[2].frames[:, 0].tolist() == [seed % 10 for seed in seeds]


def test_terminated_and_truncated_at_once_is_terminated(scripted):
    envs = make(scripted(ends="both"), 1)
    envs.reset()
    result = [step(envs, [0]) for _ in range(3)][-1]

    assert (result.terminated[0], result.truncated[0]) == (True, False)


@pytest.mark.parametrize("steps", [0, 1, 47, 80])
def test_a_restored_environment_goes_on_bit_for_bit(steps):
    envs, twin = make(num_envs=3), make(num_envs=3)
    envs.reset()
    actions = np.random.default_rng(1).integers(2, size=(steps + 60, 3))
    for action in actions[:steps]:
        step(envs, action)
    state = json.loads(json.dumps(envs.state_dict()))
    twin.load_state_dict(state)
    with pytest.raises(AssertionError, match="catch_up first"):
        twin.send(actions[0])
    with pytest.raises(AssertionError, match="catch_up first"):
        twin.reset()
    catch_up_all([twin])

    assert steps < 47 or len({len(text) for text in state["actions"]}) == 3
    assert twin.state_dict() == state
    for action in actions[steps:]:
        assert_same_step(step(envs, action), step(twin, action))


def test_more_actions_than_the_log_first_has_room_for(scripted):
    class Endless(Scripted):
        def step(self, action):
            self.time = (self.time * 3 + int(action)) % 97
            return self.observe(), 0.0, False, False, {}

    task = scripted(Endless)
    envs, twin = make(task), make(task)
    envs.reset()
    for action in np.random.default_rng(0).integers(3, size=(1500, 2)):
        result = step(envs, action)
    state = envs.state_dict()
    twin.load_state_dict(state)
    catch_up_all([twin])

    assert [len(text) for text in state["actions"]] == [3000, 3000]
    assert np.array_equal(step(twin, [1, 2]).frames, step(envs, [1, 2]).frames)
    assert not np.array_equal(result.frames[0], result.frames[1])


def test_what_is_handed_out_is_not_overwritten():
    envs = make()
    handed = [envs.reset()]
    copies = [handed[0].copy()]
    for action in np.random.default_rng(0).integers(2, size=(60, 2)):
        result = step(envs, action)
        arrays = [getattr(result, name) for name in FIELDS]
        handed += arrays
        copies += [array.copy() for array in arrays]

    assert all(np.array_equal(a, b) for a, b in zip(handed, copies, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_no_network_survives_are_refused(scripted, value):
    envs = make(scripted(bad_value=value), 1)
    envs.reset()
    step(envs, [0])
    with pytest.raises(DataError, match="NaN or infinite"):
        step(envs, [0])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("gym:CartPoel-v1", "did you mean 'CartPole-v1'"),
        ("gym:no_such_module:Thing-v0", "no_such_module"),
        ("gym:Pendulum-v1", "expected Discrete actions"),
        ("gym:FrozenLake-v1", "one-dimensional Box"),  # a number
    ],
)
def test_tasks_that_do_not_fit_are_refused(task, message):
    with pytest.raises(UsageError, match=message):
        make(task)


def test_more_actions_than_a_byte_counts_are_refused(scripted):
    with pytest.raises(UsageError, match="at most 256 actions, got 257"):
        make(scripted(num_actions=257))


@pytest.mark.parametrize("shape", [(4, 4), (84, 84), (84, 84, 3)])
def test_images_that_are_no_bytes_are_refused(scripted, shape):
    with pytest.raises(UsageError, match="bytes from 0 to 255, grey or RGB"):
        make(scripted(shape=shape))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "Box2D", None)
    with pytest.raises(UnavailableError, match=r"LunarLander.*box2d"):
        make("gym:LunarLander-v3")


@pytest.mark.parametrize("wrong", [[0, 2], [-1, 0]])
def test_actions_that_the_task_lacks_are_refused(wrong):
    envs = make()
    envs.reset()
    with pytest.raises(ValueError, match=r"actions are 0\.\.1"):
        envs.send(np.array(wrong))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"actions": ["00"], "episode": [0]}, "1 environments, this run has 2"),
        ({"actions": ["02", "00"]}, "action 2, the task has 2 actions"),
        ({"actions": ["0x", "00"]}, "unreadable"),
    ],
)
def test_states_of_other_environments_are_refused(damage, message):
    envs = make()
    envs.reset()
    with pytest.raises(DataError, match=message):
        envs.load_state_dict(envs.state_dict() | damage)


def test_make_envs_knows_tasks_by_their_prefix():
    envs = make_envs(CARTPOLE, num_envs=2, run_seed=RUN_SEED, protocol=PROTOCOLS["paper"])

    assert isinstance(envs, GymnasiumEnvs)
    assert (envs.task, envs.frame_shape, envs.stack_size, envs.frame_skip) == (CARTPOLE, (4,), 1, 1)
    assert np.array_equal(envs.reset(), make().reset())


def test_a_picture_must_be_asked_for():
    envs = make(num_envs=1)
    envs.reset()
    with pytest.raises(ValueError, match="with_picture"):
        envs.picture()


def test_a_picture_is_what_the_environment_draws(scripted):
    class Painted(Scripted):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

        # Those that cannot draw, such as its parent, are not asked to take this.
        def __init__(self, render_mode=None):
            super().__init__()
            self.render_mode = render_mode

        def render(self):
            return np.full((2, 3, 3), self.time, dtype=np.uint8)

    envs = make(scripted(Painted), with_picture=True)
    envs.reset()
    step(envs, [0, 0])

    assert np.array_equal(envs.picture(), np.ones((2, 3, 3)))


class Drawn(Scripted):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012
    drawn = np.zeros((2, 3, 3), dtype=np.uint8)

    def __init__(self, render_mode=None, **settings):
        super().__init__(**settings)
        self.render_mode = render_mode

    def render(self):
        return self.drawn


def test_only_what_draws_can_be_filmed(scripted):
    class Dumb(Scripted):
        metadata = {"render_modes": ["human", "ansi"]}  # noqa: RUF012

    with pytest.raises(UsageError, match=r"cannot be filmed.*rgb_array, this one has human, ansi"):
        make(scripted(Dumb), num_envs=1, with_picture=True)
    with pytest.raises(UsageError, match=r"cannot be filmed.*this one has none"):
        make(scripted(), num_envs=1, with_picture=True)


@pytest.mark.parametrize(
    "drawn", [None, np.zeros((2, 3)), np.zeros((2, 3, 4), np.uint8), np.zeros((0, 3, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(scripted, monkeypatch, drawn):
    monkeypatch.setattr(Drawn, "drawn", drawn)
    envs = make(scripted(Drawn), num_envs=1, with_picture=True)
    envs.reset()

    with pytest.raises(DataError, match="expected an RGB picture"):
        envs.picture()


def test_films_run_as_fast_as_the_environment_says(scripted):
    assert make(scripted(Drawn), num_envs=1).steps_per_s == 50.0
    assert make(scripted(), num_envs=1).steps_per_s == 30.0
    assert make(num_envs=1).steps_per_s == 50.0
