"""A slow replay that keeps whole episodes in lists, and random streams that feed both."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from actor_mimic.replay.frame_replay import FrameReplay

GAMMA = 0.5
# By its other name the CPU is as far away as a GPU: frames go there and come back.
ELSEWHERE = [
    "cpu:0",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="PyTorch finds no CUDA here"
        ),
    ),
]


@dataclass
class Slot:
    """One decision, or the final frame of a truncated episode; frames are known by a number."""

    frame: int
    episode_start: int  # index of the episode's first slot in the environment's list
    action: int = 0
    reward: float = 0.0
    terminal: bool = False
    truncated: bool = False
    final: bool = False


@dataclass
class Twin:
    """Everything that ever happened, in lists; the answers come from walking along them."""

    num_envs: int
    slots_per_env: int
    stack_size: int
    history: list[list[Slot]] = field(default_factory=list)

    def __post_init__(self):
        self.history = [[] for _ in range(self.num_envs)]

    def held(self, env):
        end = len(self.history[env])
        return range(max(0, end - self.slots_per_env), end)

    def stack(self, env, index):
        """Frame numbers, 0 for a zero frame; None if a frame of the episode is gone."""
        slots = self.history[env]
        numbers = []
        for i in range(index - self.stack_size + 1, index + 1):
            if i < slots[index].episode_start:
                numbers.append(0)
            elif i not in self.held(env):
                return None
            else:
                numbers.append(slots[i].frame)
        return tuple(numbers)

    def transition(self, env, index, n_step):
        """(obs, action, return, next_obs, discount), or None while the window is open."""
        total = 0.0
        for k in range(n_step):
            if index + k >= len(self.history[env]):
                return None
            slot = self.history[env][index + k]
            total += GAMMA**k * slot.reward
            if slot.terminal:
                bootstrap, discount = index + k, 0.0
                break
            if slot.truncated:
                bootstrap, discount = index + k + 1, GAMMA ** (k + 1)
                break
        else:
            if index + n_step >= len(self.history[env]):
                return None
            bootstrap, discount = index + n_step, GAMMA**n_step
        action = self.history[env][index].action
        return self.stack(env, index), action, total, self.stack(env, bootstrap), discount

    def drawable(self, n_step):
        """Expected answers by number of the newest frame; n_step 0: (obs, action) alone."""
        answers = {}
        for env in range(self.num_envs):
            for i in self.held(env):
                slot = self.history[env][i]
                if slot.final or self.stack(env, i) is None:
                    continue
                answer = self.transition(env, i, n_step) if n_step else ()
                if answer is not None:
                    answers[slot.frame] = answer or (self.stack(env, i), slot.action)
        return answers

    def steps_held(self):
        return sum(not self.history[e][i].final for e in range(self.num_envs) for i in self.held(e))


def picture(numbers, frame_shape, dtype=np.uint8):
    """Frames that show their number: its bytes, repeated, in the first four pixels."""
    numbers = np.asarray(numbers)
    if dtype == np.float32:
        return np.repeat(numbers[..., None], math.prod(frame_shape), axis=-1).astype(np.float32)
    frame = np.stack([numbers >> 24, numbers >> 16, numbers >> 8, numbers], axis=-1)
    return (frame & 255).astype(np.uint8).reshape(*numbers.shape, *frame_shape)


def read(frames, frame_shape):
    """The inverse of `picture`, for any leading axes; a zero frame reads 0."""
    flat = frames.cpu().numpy().reshape(*frames.shape[: frames.ndim - len(frame_shape)], -1)
    if flat.dtype == np.float32:
        assert (flat == flat[..., :1]).all()
        return flat[..., 0].astype(np.int64)
    return flat.astype(np.int64) @ (1 << np.array([24, 16, 8, 0]))


class Stream:
    """Plays random episodes into a replay and its twin at once."""

    def __init__(self, replay, seed, *, frame_shape=(2, 2), dtype=np.uint8, labels=False):
        self.replay, self.labels = replay, labels
        self.frame_shape, self.dtype = frame_shape, dtype
        self.rng = np.random.default_rng(seed)
        self.twin = Twin(replay.num_envs, replay.slots_per_env, replay.stack_size)
        self.starts = np.ones(replay.num_envs, dtype=bool)
        self.frames_shown = 0

    def numbers(self):
        """Frame numbers never used before, scattered so that every byte of a picture is."""
        self.frames_shown += self.replay.num_envs
        counts = np.arange(self.frames_shown - self.replay.num_envs, self.frames_shown) + 1
        return counts * 257 if self.dtype == np.uint8 else counts

    def arguments(self):
        """One step of every environment: keyword arguments of `FrameReplay.add`."""
        n = self.replay.num_envs
        chance = self.rng.random(n)
        life_lost, game_over = chance < 0.1, (chance >= 0.1) & (chance < 0.18)
        truncated = self.rng.random(n) < 0.1
        frame, last_frame = self.numbers(), self.numbers()
        action, reward = self.rng.integers(0, 18, n), self.rng.integers(-8, 9, n)
        terminal = life_lost | game_over
        for env, history in enumerate(self.twin.history):
            start = len(history) if self.starts[env] else history[-1].episode_start
            end = bool(terminal[env]), bool(truncated[env])
            history.append(Slot(int(frame[env]), start, int(action[env]), float(reward[env]), *end))
            if end == (False, True):
                history.append(Slot(int(last_frame[env]), start, final=True))
        first, self.starts = self.starts, game_over | truncated
        labels = {
            "label_scores": np.outer(frame, [1.0, -1.0]).astype(np.float32),
            "label_features": (frame % 2048)[:, None].astype(np.float16),
        }
        return {
            "frames": picture(frame, self.frame_shape, self.dtype),
            "actions": action,
            "rewards": reward.astype(np.float32),
            "terminal": terminal,
            "truncated": truncated,
            "first": first,
            "final_frames": picture(last_frame, self.frame_shape, self.dtype),
        } | (labels if self.labels else {})

    def play(self, steps):
        for _ in range(steps):
            self.replay.add(**self.arguments())


def make_replay(num_envs=3, slots=17, stack_size=4, frame_shape=(2, 2), labels=False, **others):
    return FrameReplay(
        num_envs=num_envs,
        capacity_steps=num_envs * slots + num_envs - 1,
        frame_shape=frame_shape,
        frame_dtype=others.get("frame_dtype", torch.uint8),
        stack_size=stack_size,
        label_scores=2 if labels else 0,
        label_features=1 if labels else 0,
        device=others.get("device", "cpu"),
    )
