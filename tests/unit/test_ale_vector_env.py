"""What ale-py's vector environment does to those who trust its names and defaults.

Nothing here runs this project's code: these are the facts that `envs/atari.py` is built on, so an
ale-py that behaves otherwise is noticed here first.

SAME_STEP autoreset is not tested, because not used: its ``final_obs`` rows of environments that did
not end are uninitialised memory, and no test can tell that from data.
"""

import inspect

import ale_py
import gymnasium
import numpy as np
import pytest

gymnasium.register_envs(ale_py)

FIRE, RIGHT, LEFT = 1, 2, 3
ALL = np.array([True, True])


def make_raw(game="breakout", num_envs=1, **settings):
    plain = {
        "num_threads": 1,
        "noop_max": 0,
        "stack_num": 1,
        "life_loss_info": True,
        "reward_clipping": False,
    }
    return ale_py.AtariVectorEnv(game, num_envs, **(plain | settings))


def seeds(*numbers):
    return np.array(numbers, dtype=np.int64)


def every(action, num_envs=1):
    return np.full(num_envs, action, dtype=np.int64)


def step_until_life_lost(envs, action=FIRE):
    """The number of the step that lost env 0's first life, and what that step returned."""
    for time in range(1, 200):
        result = envs.step(every(action, envs.num_envs))
        if result[2][0]:
            return time, result
    raise AssertionError("no life was lost")


@pytest.fixture(scope="module")
def life_lost_at():
    envs = make_raw()
    envs.reset(seed=seeds(1))
    return step_until_life_lost(envs)[0]


def test_the_defaults_that_bite():
    defaults = inspect.signature(ale_py.AtariVectorEnv.__init__).parameters

    assert defaults["reward_clipping"].default is True
    assert defaults["num_threads"].default == 0  # every core, for each game
    assert defaults["noop_max"].default == 30
    assert defaults["repeat_action_probability"].default == 0.0


def test_rewards_are_clipped_by_default_and_info_does_not_have_them():
    actions = np.random.default_rng(0).integers(6, size=(150, 1))
    clipped, raw = [], []
    for settings, rewards in (({"reward_clipping": True}, clipped), ({}, raw)):
        envs = make_raw("space_invaders", **settings)
        envs.reset(seed=seeds(1))
        for action in actions:
            _, reward, _, _, info = envs.step(action)
            rewards.append(int(reward[0]))

    assert max(raw) >= 5
    assert clipped == np.clip(raw, -1, 1).tolist()
    assert set(info) == {"env_id", "lives", "frame_number", "episode_frame_number"}


def test_make_vec_has_sticky_actions_and_clipped_rewards():
    def trace(envs):
        envs.reset(seed=seeds(1, 2))
        actions = [every(action, 2) for action in [LEFT, RIGHT] * 10]
        return [envs.step(action)[0] for action in actions]

    made = gymnasium.make_vec("ALE/Breakout-v5", num_envs=2, num_threads=1, noop_max=0, stack_num=1)
    assert made.spec.kwargs["repeat_action_probability"] == 0.25
    assert "reward_clipping" not in made.spec.kwargs
    sticky, plain = trace(made), trace(make_raw(num_envs=2))

    # Breakout does not depend on the seed, unless actions stick at random.
    assert all(np.array_equal(frames[0], frames[1]) for frames in plain)
    assert not all(np.array_equal(frames[0], frames[1]) for frames in sticky)


@pytest.mark.parametrize(("option", "lives_after"), [("life_loss_info", 4), ("episodic_life", 5)])
def test_episodic_life_starts_the_game_anew(option, lives_after):
    envs = make_raw(**({"life_loss_info": False} | {option: True}))
    envs.reset(seed=seeds(1))
    _, (_, _, terminated, truncated, info) = step_until_life_lost(envs)
    frame_number = info["episode_frame_number"][0]

    assert terminated[0]
    assert not truncated[0]
    assert info["lives"][0] == 4
    _, _, terminated, _, info = envs.step(every(FIRE))

    assert info["lives"][0] == lives_after
    assert not terminated[0]
    if option == "life_loss_info":  # a real step
        assert info["episode_frame_number"][0] == frame_number + 4
    else:  # the reset
        assert info["episode_frame_number"][0] == 1


def after_the_limit(actions, reset_first):
    """What a step with each action gives after the limit of 8 frames was hit."""
    envs = make_raw(num_envs=2, max_num_frames_per_episode=8)
    envs.reset(seed=seeds(1, 1))
    envs.step(every(LEFT, 2))
    _, _, terminated, truncated, _ = envs.step(every(LEFT, 2))
    assert truncated.all()
    assert not terminated.any()
    if reset_first:
        envs.reset(seed=seeds(1, 1), options={"reset_mask": ALL})
    obs, reward, terminated, truncated, info = envs.step(np.array(actions))
    assert not terminated.any()
    assert not truncated.any()
    return obs, reward, info["episode_frame_number"]


def test_after_a_truncation_the_next_step_is_a_dummy():
    obs, reward, frame_number = after_the_limit([LEFT, RIGHT], reset_first=False)

    assert np.array_equal(obs[0], obs[1])  # the actions were ignored
    assert reward.tolist() == [0, 0]
    assert frame_number.tolist() == [1, 1]


def test_a_masked_reset_leaves_no_dummy_behind():
    obs, _, frame_number = after_the_limit([LEFT, RIGHT], reset_first=True)

    assert not np.array_equal(obs[0], obs[1])
    assert frame_number.tolist() == [5, 5]


@pytest.mark.parametrize("game", ["breakout", "tetris"])
def test_after_a_game_over_with_or_without_lives_the_next_step_is_a_dummy(game):
    envs = make_raw(game)
    envs.reset(seed=seeds(1))
    for _ in range(1500):
        _, _, terminated, _, info = envs.step(every(FIRE))
        if terminated[0] and info["lives"][0] == 0:
            break
    assert terminated[0]
    _, reward, terminated, _, info = envs.step(every(FIRE))

    assert info["episode_frame_number"][0] == 1
    assert reward[0] == 0
    assert not terminated[0]


def test_a_life_lost_at_the_limit_hides_the_truncation_but_not_the_dummy(life_lost_at):
    envs = make_raw(max_num_frames_per_episode=4 * life_lost_at)
    envs.reset(seed=seeds(1))
    _, (_, _, terminated, truncated, info) = step_until_life_lost(envs)

    assert terminated[0]
    assert info["lives"][0] == 4
    assert not truncated[0]
    assert envs.step(every(FIRE))[4]["episode_frame_number"][0] == 1


def test_the_last_frame_before_the_limit_is_stale():
    short, long = make_raw(max_num_frames_per_episode=40), make_raw()
    for envs in (short, long):
        envs.reset(seed=seeds(1))
    for time in range(1, 11):
        cut, whole = short.step(every(RIGHT)), long.step(every(RIGHT))
        assert np.array_equal(cut[0], whole[0]) is (time < 10)
        assert cut[3][0] == (time == 10)


def test_noop_max_is_one_more_than_the_most_noops():
    envs = make_raw("boxing", noop_max=31)
    envs.reset(seed=seeds(1))
    # Later resets go on drawing from the same stream.
    frames = {int(envs.reset()[1]["episode_frame_number"][0]) for _ in range(150)}

    assert min(frames) <= 1
    assert max(frames) == 30  # the FIRE press is one of them


def test_a_masked_seeded_reset_forgets_everything_and_spares_the_others():
    envs = make_raw("space_invaders", 2, noop_max=31, repeat_action_probability=0.25)
    actions = np.random.default_rng(0).integers(6, size=(50, 2))

    def play():
        return [envs.step(action)[0] for action in actions]

    first = envs.reset(seed=seeds(5, 6))[0].copy()
    before = play()
    frames, info = envs.reset(seed=seeds(5), options={"reset_mask": np.array([True, False])})
    after = play()

    assert np.array_equal(frames[0], first[0])
    assert np.array_equal(frames[1], before[-1][1])  # untouched
    assert info["episode_frame_number"][1] > 200
    assert all(np.array_equal(new[0], old[0]) for new, old in zip(after, before, strict=True))
    assert not np.array_equal(after[-1][1], before[-1][1])
