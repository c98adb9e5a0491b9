"""The emulator adapter against a frame-by-frame loop, and its own way of ending episodes."""

import json
import os
import sys
import weakref

import ale_py
import numpy as np
import pytest
from plain_atari import PlainAtari, shrink

from actor_mimic.envs import atari
from actor_mimic.envs.atari import AtariEnvs, atari_action_names, atari_games
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import catch_up_all
from actor_mimic.errors import DataError, UnavailableError, UsageError
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.seeding import derive_seed

RUN_SEED = 7
FIELDS = ("frames", "final_frames", "raw_reward", "reward", "terminated", "truncated", "life_lost")


def make(game="breakout", num_envs=2, *, sticky=0.0, max_noops=0, num_threads=1, **settings):
    return AtariEnvs(
        game,
        num_envs=num_envs,
        num_threads=num_threads,
        run_seed=RUN_SEED,
        repeat_action_probability=sticky,
        max_noops=max_noops,
        **settings,
    )


def random_actions(envs, steps, seed=0):
    shape = (steps, envs.num_envs)
    return np.random.default_rng(seed).integers(len(envs.action_names), size=shape)


def step(envs, actions):
    envs.send(actions)
    return envs.recv()


def assert_same_step(step, other):
    for name in FIELDS:
        assert np.array_equal(getattr(step, name), getattr(other, name)), name


def assert_same_frame(frame, grey):
    """Both take the maximum of the greys and shrink by area: only the rounding may differ."""
    assert np.abs(frame - shrink(grey)).max() <= 0.51


class Settings:
    """Stands in for ale-py's class: notes how it is called, and what is alive."""

    def __init__(self, monkeypatch):
        self.calls = []
        self.made = []
        real = ale_py.AtariVectorEnv

        def noting(game, **settings):
            envs = real(game, **settings)
            self.calls.append(settings)
            self.made.append(weakref.ref(envs))
            return envs

        monkeypatch.setattr(ale_py, "AtariVectorEnv", noting)


@pytest.fixture
def settings(monkeypatch):
    return Settings(monkeypatch)


@pytest.mark.parametrize(
    ("game", "env_id", "sticky", "max_steps", "steps", "per_seed"),
    [
        ("breakout", "ALE/Breakout-v5", 0.0, 27_000, 320, 0),
        ("breakout", "ALE/Breakout-v5", 0.25, 45, 95, 0),
        ("breakout", "ALE/Breakout-v5", 0.25, 45, 185, 90),
        ("space_invaders", "ALE/SpaceInvaders-v5", 0.25, 27_000, 250, 4_000),
    ],
)
def test_agrees_with_a_plain_loop(game, env_id, sticky, max_steps, steps, per_seed, monkeypatch):
    monkeypatch.setattr(atari, "STEPS_PER_SEED", per_seed)
    envs = make(game, sticky=sticky, max_episode_frames=4 * max_steps, with_picture=True)
    plain = [
        PlainAtari(env_id, repeat_action_probability=sticky, max_episode_steps=max_steps)
        for _ in range(2)
    ]
    episode = [0, 0]
    frames = [twin.reset(derive_seed(RUN_SEED, game, env, 0)) for env, twin in enumerate(plain)]
    seen = {"terminated": 0, "truncated": 0, "life_lost": 0, "raw_reward": 0}

    for env, frame in enumerate(envs.reset()):
        assert_same_frame(frame, frames[env])
    for actions in random_actions(envs, steps):
        result = step(envs, actions)
        for env, twin in enumerate(plain):
            grey, reward, over, cut, lost = twin.step(int(actions[env]))
            picture = twin.picture
            assert result.raw_reward[env] == reward
            assert result.reward[env] == np.sign(reward)
            assert result.terminated[env] == over
            assert result.truncated[env] == cut
            assert result.life_lost[env] == lost
            if cut:
                assert_same_frame(result.final_frames[env], grey)
            if over or cut:
                episode[env] += 1
                new = twin.steps_on_seed >= per_seed
                seed = derive_seed(RUN_SEED, game, env, episode[env]) if new else None
                grey = twin.reset(seed)
                picture = twin.picture
            assert_same_frame(result.frames[env], grey)
            if env == 0:
                assert np.array_equal(envs.picture(), picture)
        seen = {name: max(most, getattr(result, name).max()) for name, most in seen.items()}

    # The comparison is worth what happened in it.
    assert seen["life_lost"]
    assert seen["raw_reward"] >= (5 if game == "space_invaders" else per_seed == 0)
    assert seen["truncated"] == (max_steps == 45)
    assert seen["terminated"] == (game == "breakout" and max_steps != 45)


def test_games_without_lives_end_at_their_game_over():
    envs = make("tetris", 1)
    envs.reset()
    games = []
    # Tetris does not depend on the seed, so the same actions make the same game.
    for _ in range(2):
        actions, results = random_actions(envs, 1000), []
        while not results or not results[-1].terminated[0]:
            results.append(step(envs, actions[len(results)]))
        assert not any(result.life_lost[0] or result.truncated[0] for result in results)
        games.append(results)

    assert len(games[0]) == len(games[1])
    assert np.array_equal(games[0][-1].frames, games[1][-1].frames)
    assert not np.array_equal(games[0][-1].frames, games[0][-1].final_frames)
    assert np.array_equal(games[0][-1].final_frames, games[1][-1].final_frames)

    # A game over in the very step of the limit is a game over.
    cut = make("tetris", 1, max_episode_frames=4 * len(games[0]))
    cut.reset()
    last = [step(cut, action) for action in actions[: len(games[0])]][-1]
    assert (last.terminated[0], last.truncated[0]) == (True, False)


def test_a_life_lost_at_the_limit_is_a_truncation_too():
    envs = make(num_envs=1)
    envs.reset()
    time = 1
    while not step(envs, np.array([1])).life_lost[0]:
        time += 1
    cut = make(num_envs=1, max_episode_frames=4 * time)
    first = cut.reset()
    results = [step(cut, np.array([1])) for _ in range(time + 1)]

    assert results[time - 1].life_lost.tolist() == [True]
    assert results[time - 1].truncated.tolist() == [True]
    assert not results[time - 1].terminated[0]
    assert np.array_equal(results[time - 1].frames, first)
    assert results[time].final_frames is results[time].frames  # a real step of the next episode
    assert np.array_equal(results[time].frames, results[0].frames)


def test_a_limit_that_is_no_multiple_of_the_frame_skip_ends_the_step_it_falls_in():
    envs = make(num_envs=1, max_episode_frames=9)
    envs.reset()

    truncated = [step(envs, np.array([0])).truncated[0] for _ in range(6)]
    assert truncated == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("max_episode_frames", "steps", "per_seed", "episodes", "resets"),
    [
        (108_000, 230, 0, None, [[], []]),  # games of unequal length: some over, some not
        (4 * 40, 90, 0, [2, 2], [[], []]),  # all truncated twice, with a seed for each episode
        (4 * 40, 90, 4_000, [0, 0], [[40, 80], [40, 80]]),  # ... on one seed
        (4 * 40, 130, 80, [2, 2], [[40], [40]]),  # the third episode has a new seed
    ],
)
def test_a_restored_environment_goes_on_frame_for_frame(
    max_episode_frames, steps, per_seed, episodes, resets, monkeypatch
):
    monkeypatch.setattr(atari, "STEPS_PER_SEED", per_seed)

    def build():
        return make(
            num_envs=2,
            num_threads=2,
            sticky=0.25,
            max_noops=30,
            max_episode_frames=max_episode_frames,
            with_picture=max_episode_frames == 108_000,
        )

    envs, twin = build(), build()
    envs.reset()
    actions = random_actions(envs, steps + 45)
    for action in actions[:steps]:
        step(envs, action)
    state = json.loads(json.dumps(envs.state_dict()))
    lengths = [len(text) // 2 for text in state["actions"]]
    assert state["resets"] == resets
    if episodes is None:
        assert len(set(lengths)) == 2
        assert max(state["episode"]) >= 1
    else:
        assert lengths == [steps - 40 * episodes[0]] * 2
        assert state["episode"] == episodes

    twin.load_state_dict(state)
    assert twin.state_dict() == state
    catch_up_all([twin])
    assert twin.state_dict() == state
    for action in actions[steps:]:
        assert_same_step(step(envs, action), step(twin, action))
        if max_episode_frames == 108_000:
            assert np.array_equal(envs.picture(), twin.picture())


def test_a_second_reset_is_not_lost_on_the_way_back():
    """One environment plays on, the other is reset before its first step and starts late."""
    envs, twin = (make(num_envs=2, sticky=0.25, max_noops=30) for _ in range(2))
    envs.reset()
    for action in random_actions(envs, 30):
        step(envs, action)
    envs.reset()
    envs.reset()
    twin.load_state_dict(envs.state_dict())
    catch_up_all([twin])

    for action in random_actions(envs, 20, seed=1):
        assert_same_step(step(envs, action), step(twin, action))


def test_an_environment_can_be_taken_back():
    envs = make(num_envs=2, sticky=0.25)
    envs.reset()
    actions = random_actions(envs, 40)
    for action in actions[:20]:
        step(envs, action)
    state = envs.state_dict()
    first = [step(envs, action) for action in actions[20:]]
    envs.load_state_dict(state)
    with pytest.raises(AssertionError, match="catch_up first"):
        envs.send(actions[0])
    with pytest.raises(AssertionError, match="catch_up first"):
        envs.reset()
    catch_up_all([envs])

    for action, expected in zip(actions[20:], first, strict=True):
        assert_same_step(step(envs, action), expected)


def test_what_is_handed_out_is_not_overwritten():
    envs = make(num_envs=2, max_episode_frames=4 * 8, with_picture=True)
    handed = [envs.reset(), envs.picture()]
    copies = [array.copy() for array in handed]
    for action in random_actions(envs, 14):
        result = step(envs, action)
        arrays = [getattr(result, name) for name in FIELDS] + [envs.picture()]
        handed += arrays
        copies += [array.copy() for array in arrays]

    assert all(np.array_equal(a, b) for a, b in zip(handed, copies, strict=True))


def test_every_setting_is_passed_to_the_library(settings):
    make(num_envs=3, num_threads=8, sticky=0.25, max_noops=30, with_picture=True)

    grey, colour = settings.calls
    assert grey == {
        "num_envs": 3,
        "num_threads": 3,  # more than environments would idle
        "max_num_frames_per_episode": 108_004,  # ours, 108,000, comes first
        "repeat_action_probability": 0.25,
        "full_action_space": False,
        "img_height": 84,
        "img_width": 84,
        "grayscale": True,
        "stack_num": 1,
        "frameskip": 4,
        "maxpool": True,
        "noop_max": 31,  # one more than the most
        "episodic_life": False,
        "life_loss_info": True,
        "reward_clipping": False,
        "use_fire_reset": True,
    }
    assert colour == grey | {"img_height": 210, "img_width": 160, "grayscale": False}


@pytest.mark.parametrize(("name", "sticky", "noop_max"), [("paper", 0.0, 31), ("sticky", 0.25, 1)])
@pytest.mark.parametrize("by_name", [True, False])
def test_make_envs_follows_the_protocol(settings, name, sticky, noop_max, by_name):
    protocol = name if by_name else PROTOCOLS[name]
    envs = make_envs("pong", num_envs=2, run_seed=0, protocol=protocol, num_threads=2)
    (call,) = settings.calls

    assert (envs.task, envs.num_envs, envs.frame_shape) == ("pong", 2, (84, 84))
    assert call["repeat_action_probability"] == sticky
    assert call["noop_max"] == noop_max
    assert call["num_threads"] == 2


def test_close_frees_the_emulators(settings):
    envs = make(num_envs=1, with_picture=True)
    assert [ref() is None for ref in settings.made] == [False, False]
    envs.close()

    assert [ref() is None for ref in settings.made] == [True, True]


def test_names_are_looked_up_once(settings):
    atari_action_names.cache_clear()

    assert atari_action_names("pong") is atari_action_names("pong")
    assert len(settings.calls) == 1
    assert [ref() for ref in settings.made] == [None]


def test_an_action_that_the_game_lacks_is_refused_before_it_hangs_the_emulators():
    envs = make(num_envs=2)
    envs.reset()
    before = envs.state_dict()
    for wrong in ([0, 4], [-1, 0]):
        with pytest.raises(ValueError, match=r"breakout: actions are 0\.\.3"):
            envs.send(np.array(wrong))

    assert envs.state_dict() == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"actions": ["00"], "episode": [0]}, "1 environments, this run has 2"),
        ({"actions": ["00", "04"]}, "action 4, the task has 4 actions"),
        ({"actions": ["00", "0"]}, "unreadable"),
        ({"actions": [0, 0]}, "unreadable"),
        ({"resets": ["x", []]}, "unreadable"),
        ({"actions": ["00", "00"], "resets": [[2], []]}, "a reset after its last action"),
    ],
)
def test_states_of_other_environments_are_refused(damage, message):
    envs = make(num_envs=2)
    with pytest.raises(DataError, match=message):
        envs.load_state_dict(envs.state_dict() | damage)


def test_unknown_games_are_refused_with_a_hint():
    with pytest.raises(UsageError, match="did you mean 'breakout'"):
        make("breakuot")


@pytest.mark.parametrize("size", [{"num_envs": 0}, {"num_threads": 0}])
def test_nothing_to_play_with_is_refused(size):
    # The library takes 0 threads for "every core".
    with pytest.raises(ValueError, match="need environments and threads"):
        make(**size)


def test_a_missing_library_is_named_with_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[atari\]'"):
        atari_games()


def test_the_games_are_those_with_a_single_player_mode():
    import gymnasium

    gymnasium.register_envs(ale_py)
    registered = {
        spec.kwargs["game"]
        for name, spec in gymnasium.registry.items()
        if name.startswith("ALE/") and name.endswith("-v5")
    }

    assert set(atari_games()) == registered


def test_a_picture_must_be_asked_for():
    envs = make(num_envs=1)
    envs.reset()
    with pytest.raises(ValueError, match="with_picture"):
        envs.picture()


def policies_can_be_changed():
    try:
        for policy in (os.SCHED_BATCH, os.SCHED_OTHER):
            os.sched_setscheduler(0, policy, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


on_linux = pytest.mark.skipif(not policies_can_be_changed(), reason="needs policies of Linux")


@on_linux
def test_emulators_are_batch_threads_and_their_caller_is_not():
    before = set(os.listdir("/proc/self/task"))
    envs = make(num_threads=2, with_picture=True)
    started = set(os.listdir("/proc/self/task")) - before
    policies = [os.sched_getscheduler(int(thread)) for thread in started]
    envs.close()

    assert policies == 4 * [os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@on_linux
def test_a_caller_keeps_its_policy_where_the_emulators_cannot_be_made(monkeypatch):
    def broken(*_, **__):
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        raise RuntimeError("no emulators")

    monkeypatch.setattr(ale_py, "AtariVectorEnv", broken)
    with pytest.raises(RuntimeError, match="no emulators"):
        make()
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@on_linux
def test_a_caller_of_another_policy_keeps_it():
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        make().close()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.parametrize("call", ["sched_getscheduler", "sched_setscheduler"])
def test_emulators_run_where_a_sandbox_forbids_to_change_policies(monkeypatch, call):
    def forbidden(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, call, forbidden, raising=False)
    envs = make()
    envs.reset()
    envs.close()


def test_emulators_run_on_systems_without_policies(monkeypatch):
    for name in ("SCHED_BATCH", "SCHED_OTHER", "sched_getscheduler", "sched_setscheduler"):
        monkeypatch.delattr(os, name, raising=False)
    envs = make()
    envs.reset()
    envs.close()
