"""The emulator step by step, one frame at a time, with the preprocessing written out."""

import ale_py
import gymnasium
import numpy as np

gymnasium.register_envs(ale_py)


def area_taps(source, target):
    """For each target pixel four source pixels, and the share that each has of its area."""
    scale = source / target
    start = np.minimum(np.floor(np.arange(target) * scale), source - 4).astype(int)
    taps = start[:, None] + np.arange(4)
    left = np.maximum(taps, np.arange(target)[:, None] * scale)
    right = np.minimum(taps + 1, (np.arange(target)[:, None] + 1) * scale)
    return taps, np.maximum(right - left, 0.0) / scale


ROWS, ROW_SHARES = area_taps(210, 84)
COLUMNS, COLUMN_SHARES = area_taps(160, 84)


def shrink(grey):
    """84x84 by area, not rounded."""
    rows = (grey[ROWS] * ROW_SHARES[:, :, None]).sum(axis=1)
    return (rows[:, COLUMNS] * COLUMN_SHARES).sum(axis=2)


class PlainAtari:
    """One ``ALE/...-v5`` environment, frame by frame: skip 4, maximum of 2, FIRE at reset."""

    def __init__(self, env_id, *, repeat_action_probability, max_episode_steps=27_000):
        self.env = gymnasium.make(
            env_id,
            frameskip=1,
            repeat_action_probability=repeat_action_probability,
            full_action_space=False,
            obs_type="rgb",
            disable_env_checker=True,
        )
        self.ale = self.env.unwrapped.ale
        self.max_episode_steps = max_episode_steps

    def reset(self, seed=None):
        if seed is not None:
            # The environment's own `reset(seed=)` hands another number to the emulator.
            self.ale.setInt("random_seed", seed)
            self.env.unwrapped.load_game()
            self.steps_on_seed = 0
        self.env.reset()
        meanings = self.env.unwrapped.get_action_meanings()
        if "FIRE" in meanings:
            self.env.step(meanings.index("FIRE"))
        self.lives = self.ale.lives()
        self.steps = 0
        self.picture = self.ale.getScreenRGB()
        return self.ale.getScreenGrayscale()

    def step(self, action):
        """The grey screen, raw reward, game over, cut by the limit, life lost."""
        greys, pictures, total, over = [], [], 0.0, False
        for _ in range(4):
            _, reward, over, _, info = self.env.step(action)
            greys.append(self.ale.getScreenGrayscale())
            pictures.append(self.ale.getScreenRGB())
            total += reward
            if over:
                break
        lost = info["lives"] < self.lives and not over and info["lives"] > 0
        self.lives = info["lives"]
        self.steps += 1
        self.steps_on_seed += 1
        cut = self.steps >= self.max_episode_steps and not over
        self.picture = np.max(pictures[-2:], axis=0)
        return np.max(greys[-2:], axis=0), total, over, cut, lost
