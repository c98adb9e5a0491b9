"""Agents of other libraries, as tiny as they come, for the tests that import them."""

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

VECTOR_TASK = "gym:CartPole-v1"
IMAGE_TASK = "pong"  # six actions


class StackedImages(gymnasium.Env):
    """What Stable-Baselines3 sees of an Atari game behind its own wrappers."""

    observation_space = Box(0, 255, (84, 84, 4), np.uint8)

    def __init__(self, num_actions: int) -> None:
        self.action_space = Discrete(num_actions)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros((84, 84, 4), np.uint8), {}

    def step(self, _):
        return np.zeros((84, 84, 4), np.uint8), 0.0, False, False, {}


def sb3_agent(algorithm: str, policy: str, path: Path, num_actions: int = 6, **policy_kwargs):
    """An untrained agent, saved by its library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sb3_contrib import QRDQN
        from stable_baselines3 import A2C, DQN, PPO

        cls = {"DQN": DQN, "QRDQN": QRDQN, "PPO": PPO, "A2C": A2C}[algorithm]
        small = {"buffer_size": 10} if algorithm.endswith("DQN") else {"n_steps": 8}
        if algorithm == "PPO":
            small["batch_size"] = 8
        env = gymnasium.make("CartPole-v1") if policy == "MlpPolicy" else StackedImages(num_actions)
        agent = cls(policy, env, seed=3, device="cpu", policy_kwargs=policy_kwargs, **small)
        agent.save(path)
    return agent


def sb3_scores(agent, obs: np.ndarray) -> np.ndarray:
    """What the library's own network says: Q-values, mean quantiles or logits."""
    policy = agent.policy
    policy.set_training_mode(False)
    seen = torch.from_numpy(obs)
    with torch.no_grad():
        if type(agent).__name__ == "DQN":
            return policy.q_net(seen).numpy()
        if type(agent).__name__ == "QRDQN":
            return policy.quantile_net(seen).mean(dim=1).numpy()
        # Normalised log-probabilities: the logits less one number per row.
        return policy.get_distribution(seen).distribution.logits.numpy()


def observations(policy: str, count: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    if policy == "MlpPolicy":
        return rng.normal(size=(count, 4)).astype(np.float32)
    return rng.integers(0, 256, (count, 4, 84, 84), dtype=np.uint8)


def cleanrl_mlp(num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_outputs)
    )


def cleanrl_nature(num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 32, 8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, num_outputs),
    )


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv1(self.conv0(x.relu()).relu())


class Stage(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.res_block0 = Block(after)
        self.res_block1 = Block(after)

    def forward(self, x):
        return self.res_block1(self.res_block0(self.pool(self.conv(x))))


def cleanrl_impala(num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Stage(4, 16),
        Stage(16, 32),
        Stage(32, 32),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(32 * 11 * 11, 256),
        nn.ReLU(),
        nn.Linear(256, num_outputs),
    )


class Named(nn.Module):
    """The layers under the name that CleanRL gives them, a support beside them if it has one."""

    def __init__(self, network: nn.Sequential, atoms: torch.Tensor | None = None) -> None:
        super().__init__()
        self.network = network
        if atoms is not None:
            self.register_buffer("atoms", atoms)
