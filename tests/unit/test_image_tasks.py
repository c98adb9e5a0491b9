"""Tasks that show images and are none of Atari's: what the networks see, and a whole pipeline."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from actor_mimic.config import DistillConfig, ExpertConfig
from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.envs.make import describe_task
from actor_mimic.errors import UnavailableError, UsageError
from actor_mimic.flat_config import build_config
from actor_mimic.stages.launch import run_distill, run_expert
from actor_mimic.stages.space import replay_bytes
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.teachers.player import Player


class Halves(gymnasium.Env):
    """One half of the picture is bright; whoever names it gets 1. Ten pictures are an episode."""

    render_mode = None

    def __init__(self, shape=(84, 84, 3), high=255, dtype=np.uint8, render_mode=None):
        self.observation_space = Box(0, high, shape, dtype)
        self.action_space = Discrete(2)
        self.shape, self.render_mode = shape, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.time = 0
        return self.draw(), {}

    def draw(self):
        self.right = int(self.np_random.integers(2))
        picture = np.zeros(self.shape, np.uint8)
        half = self.shape[1] // 2
        picture[:, half * self.right : half * (self.right + 1)] = 200
        return picture

    def step(self, action):
        reward = float(action == self.right)
        self.time += 1
        return self.draw(), reward, self.time == 10, False, {}


@pytest.fixture
def halves():
    """Registers the environment; each call gives a task name."""
    names = []

    def register(**kwargs):
        names.append(f"Halves{len(names)}-v0")
        gymnasium.register(names[-1], Halves, kwargs=kwargs, disable_env_checker=True)
        return f"gym:{names[-1]}"

    yield register
    for name in names:
        del gymnasium.registry[name]


@pytest.mark.parametrize("change", [{"high": 1}, {"shape": (84, 84, 4)}, {"dtype": np.int16}])
def test_what_is_not_sure_to_be_an_image_is_refused(halves, change):
    with pytest.raises(UsageError, match="bytes from 0 to 255, grey or RGB"):
        GymnasiumEnvs(halves(**change), num_envs=1, run_seed=0)


@pytest.mark.parametrize("shape", [(84, 84, 3), (84, 84, 1), (84, 84), (100, 160, 3), (42, 50)])
def test_images_of_any_size_become_grey_ones_of_one_size(halves, shape):
    task = halves(shape=shape)
    envs = GymnasiumEnvs(task, num_envs=2, run_seed=0)
    frames = envs.reset()
    envs.send(np.zeros(2, np.int64))
    step = envs.recv()
    rights = [env.unwrapped.right for env in envs._envs]

    assert describe_task(task) == ((4, 84, 84), (f"{task}/0", f"{task}/1"))
    assert (envs.frame_shape, envs.frame_dtype, envs.stack_size) == ((84, 84), np.uint8, 4)
    for one in (frames, step.frames, step.final_frames):
        assert (one.shape, one.dtype) == ((2, 84, 84), np.uint8)
    for frame, right in zip(step.frames, rights, strict=True):
        bright = frame[:, 42:] if right else frame[:, :42]
        dark = frame[:, :42] if right else frame[:, 42:]
        assert abs(int(bright.mean()) - 200) <= 1  # grey of a grey is itself
        assert dark.max() <= 1


def test_grey_is_the_weighted_sum_of_the_colours(halves):
    envs = GymnasiumEnvs(halves(), num_envs=1, run_seed=0)
    red = np.zeros((84, 84, 3), np.uint8)
    red[..., 0] = 100
    envs._envs[0].unwrapped.draw = lambda: red

    assert set(np.unique(envs.reset())) == {21}  # 0.2125 of 100


def test_resizing_says_what_it_needs(halves, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[images\]'"):
        GymnasiumEnvs(halves(shape=(100, 160, 3)), num_envs=1, run_seed=0)
    GymnasiumEnvs(halves(), num_envs=1, run_seed=0).close()


def test_replays_hold_frames_of_84_by_84(halves):
    config = build_config("expert", {"task": halves(), "algorithm": "dqn"})

    assert replay_bytes(config, features=True) > 84 * 84 * config.learner.replay_capacity_steps


SMALL = {"width": 0.125, "eval_every_steps": 0, "final_episodes": 8, "replay_capacity_steps": 1_000}


def test_two_such_tasks_are_trained_distilled_and_played(halves, tmp_path):
    """Ten is the most that can be scored, and five what is scored at random."""
    tasks = [halves(), halves(shape=(84, 84))]
    settings = {"algorithm": "dqn", "num_envs": 4, "batch_size": 32, "gamma": 0.0}
    settings |= {"learning_starts_steps": 100, "total_steps": 600, "learning_rate": 1e-3}
    for number, task in enumerate(tasks):
        config = build_config("expert", SMALL | settings | {"task": task})
        assert isinstance(config, ExpertConfig)
        *_, final = run_expert(config, launch(tmp_path / str(number)))
        assert final.values[f"{task}/mean"] > 9.0

    config = build_config(
        "distill",
        SMALL
        | {"tasks": tasks, "steps_per_task": 400, "envs_per_task": 4, "temperature": 0.1}
        | {"learning_starts_steps": 100, "batch_size_per_task": 16, "learning_rate": 1e-3},
    )
    assert isinstance(config, DistillConfig)
    teachers = {t: resolve_checkpoint(tmp_path / str(n)) for n, t in enumerate(tasks)}
    *_, final = run_distill(config, launch(tmp_path / "student"), teachers)

    assert all(final.values[f"{task}/mean"] > 9.0 for task in tasks)
    player = Player(resolve_checkpoint(tmp_path / "student"))
    picture = np.zeros((4, 84, 84), np.uint8)
    picture[..., 42:] = 200
    assert [player.act(p, tasks[0]) for p in (picture, picture[..., ::-1].copy())] == [1, 0]


def launch(path):
    return Launch(path, device="cpu", precision="float32", threads=1)
