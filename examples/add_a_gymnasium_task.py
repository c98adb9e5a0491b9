"""A task of your own: register it with Gymnasium, train an expert on it, watch it play."""

import argparse

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

import actor_mimic


class Corridor(gymnasium.Env):
    """Walk from one end to the other: -1 for every step, over at the right-hand end."""

    observation_space = Box(0.0, 1.0, (2,), np.float32)
    action_space = Discrete(2)  # left, right

    def reset(self, *, seed=None, options=None):
        """Begins somewhere in the left half."""
        super().reset(seed=seed, options=options)
        self.place = int(self.np_random.integers(0, 5))
        return self._look(), {}

    def step(self, action):
        """Goes one place; the wall on the left holds."""
        self.place = max(0, self.place + (1 if action == 1 else -1))
        return self._look(), -1.0, self.place == 9, False, {}

    def _look(self):
        return np.array([self.place / 9, 1 - self.place / 9], np.float32)


def main() -> None:
    """Registers, trains, plays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40_000)
    options = parser.parse_args()

    # Registered in this process, the task is "gym:Corridor-v0" wherever a task is named.
    gymnasium.register("Corridor-v0", Corridor, max_episode_steps=50)
    # The defaults are those of Atari; a task this small is learnt by small batches, often.
    often = {"num_envs": 8, "minibatch_size": 64, "learning_rate": 1e-3}
    expert = actor_mimic.train_expert(
        "gym:Corridor-v0", "runs/corridor", total_steps=options.steps, **often
    )

    env = gymnasium.make("Corridor-v0")
    obs, _ = env.reset(seed=0)
    score, over = 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(expert.act(obs))
        score, over = score + float(reward), terminated or truncated
    print(f"walked to the end in {-score:.0f} steps" if terminated else "got lost")


if __name__ == "__main__":
    main()
