"""Tiny tasks whose values can be worked out on paper, and how a stage is run on them.

Each task can be got wrong in one way only. They are driven through the states of the expert
stage, so that collection, replay, targets and learner are all on the way from a reward to a value.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.config import DQNConfig, ExpertConfig, NetworkConfig, PQNConfig
from actor_mimic.envs.vector_step import VectorEnv, VectorStep
from actor_mimic.stages.expert import DQNState, PQNState, expert_state, fresh_network

CPU = Compute("cpu", "float32", 1)


@dataclass(frozen=True)
class Move:
    """What an action leads to.

    Attributes:
        to: the next state; where an episode ends, its last one.
        reward: what the learner gets.
        end: ``""``, or ``terminated``, ``truncated`` or ``life_lost``.
    """

    to: int
    reward: float = 0.0
    end: str = ""


@dataclass
class ProbeEnvs:
    """N copies of one small decision process, behind the interface of every environment.

    Args:
        moves: for each state and each action what it leads to; all states have equally many.
        frames: what is seen of each state, ``[states, ...]``; the states are told apart by one
            number each if left out.
        starts: states in which games begin, drawn evenly.
        limit: steps after which a game is truncated, even if it is over too; None for no limit.
        noise: by state; the rewards of its actions come with -noise or +noise, evenly.
        in_turn: whether the two take turns, for each action, and are not drawn.
        stack_size: frames that the actor sees, where frames are images.
    """

    moves: list[list[Move]]
    frames: np.ndarray | None = None
    starts: tuple[int, ...] = (0,)
    limit: int | None = None
    noise: Mapping[int, float] = field(default_factory=dict)
    in_turn: bool = False
    stack_size: int = 1
    num_envs: int = 16
    task: str = "probe"
    frame_skip: int = 1

    def __post_init__(self) -> None:
        if self.frames is None:
            self.frames = np.eye(len(self.moves), dtype=np.float32)
        self.frame_shape = self.frames.shape[1:]
        self.frame_dtype = self.frames.dtype.type
        self.action_names = tuple(f"probe/{action}" for action in range(len(self.moves[0])))
        self._rng = np.random.default_rng(0)
        self._signs = np.ones((len(self.moves), len(self.moves[0])))
        self._state = np.zeros(self.num_envs, dtype=np.int64)
        self._time = np.zeros(self.num_envs, dtype=np.int64)
        self._actions = np.zeros(self.num_envs, dtype=np.int64)

    def reset(self) -> np.ndarray:
        self._begin(np.ones(self.num_envs, dtype=bool))
        return self.frames[self._state]

    def send(self, actions: np.ndarray) -> None:
        self._actions = actions

    def recv(self) -> VectorStep:
        moves = [self.moves[s][a] for s, a in zip(self._state, self._actions, strict=True)]
        reward = np.array([move.reward for move in moves], dtype=np.float32)
        noise = np.array([self.noise.get(int(state), 0.0) for state in self._state])
        signs = self._turns() if self.in_turn else self._rng.choice([-1.0, 1.0], self.num_envs)
        reward += (noise * signs).astype(np.float32)
        ends = {
            kind: np.array([move.end == kind for move in moves])
            for kind in ("terminated", "truncated", "life_lost", "failed")
        }
        self._time += 1
        if self.limit is not None:
            ends["truncated"] |= self._time == self.limit
        self._state = np.array([move.to for move in moves])
        final_frames = self.frames[self._state]
        self._begin(ends["terminated"] | ends["truncated"])
        return VectorStep(
            frames=self.frames[self._state],
            final_frames=final_frames,
            raw_reward=reward,
            reward=reward,
            **ends,
        )

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError("no probe is saved")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError("no probe is saved")

    def catch_up(self) -> Iterator[None]:
        raise NotImplementedError("no probe is saved")

    def picture(self) -> np.ndarray:
        raise NotImplementedError("no probe is filmed")

    def close(self) -> None: ...

    def _turns(self) -> list[float]:
        signs = []
        for place in zip(self._state, self._actions, strict=True):
            signs.append(self._signs[place])
            self._signs[place] *= -1.0
        return signs

    def _begin(self, over: np.ndarray) -> None:
        self._state[over] = self._rng.choice(self.starts, over.sum())
        self._time[over] = 0


def pqn(**changes: Any) -> PQNConfig:
    """Small, fast, and only exploring: values do not depend on what has been learnt so far."""
    settings = {
        "num_envs": 16,
        "rollout_steps": 8,
        "minibatch_size": 32,
        "epochs": 4,
        "learning_rate": 0.02,
        "gamma": 0.5,
        "lam": 0.0,
        "epsilon_start": 1.0,
        "epsilon_end": 1.0,
    }
    return PQNConfig(**(settings | changes))


def dqn(**changes: Any) -> DQNConfig:
    """As `pqn`."""
    settings = {
        "num_envs": 16,
        "batch_size": 64,
        "update_every_steps": 16,
        "replay_capacity_steps": 2_000,
        "learning_starts_steps": 96,
        "learning_rate": 0.02,
        "gamma": 0.5,
        "n_step": 1,
        "target_period_updates": 5,
        "epsilon_start": 1.0,
        "epsilon_end": 1.0,
    }
    return DQNConfig(**(settings | changes))


def learn(
    env: VectorEnv,
    learner: PQNConfig | DQNConfig,
    *,
    steps: int,
    protocol: str = "paper",
    first_values: list[float] | None = None,
    network: NetworkConfig | None = None,
    seed: int = 0,
    each: Callable[[PQNState | DQNState], None] = lambda _: None,
) -> PQNState | DQNState:
    """Runs the expert stage for some steps.

    Args:
        env: the task.
        learner: the algorithm.
        steps: the budget.
        protocol: what a lost life means.
        first_values: Q-values of every observation at the start, target network included; None
            for random ones.
        network: which; a quarter of an MLP if left out.
        seed: of weights, exploration and minibatches.
        each: told of the state after every advance.
    """
    config = ExpertConfig(
        task=env.task,
        total_steps=steps,
        seed=seed,
        protocol=protocol,
        learner=learner,
        network=network or NetworkConfig(width=0.25),
    )
    assert env.num_envs == learner.num_envs
    fresh = fresh_network(config, env)
    if first_values is not None:
        with torch.no_grad():
            fresh.head.weight.zero_()
            fresh.head.bias.copy_(torch.tensor(first_values))
    state = expert_state(config, CPU, [env], fresh)
    state.start()
    while state.steps < steps:
        state.advance()
        each(state)
    return state


@torch.no_grad()
def q_values(state: PQNState | DQNState, observations: np.ndarray) -> Tensor:
    """Learnt values of some observations, ``[observations, actions]``."""
    return state.network(torch.from_numpy(observations)).scores


def assert_values(
    state: PQNState | DQNState,
    env: ProbeEnvs,
    expected: list[Any],
    *,
    seen: np.ndarray | None = None,
    atol: float = 0.06,
) -> None:
    """Compares learnt values with hand-computed ones.

    Args:
        state: after learning.
        env: whose states are looked at.
        expected: for each of them a value per action, or one for all of its actions.
        seen: observations to look at instead of the frames of the states.
        atol: largest difference.
    """
    found = q_values(state, env.frames if seen is None else seen)
    wanted = torch.stack(
        [
            torch.tensor(values, dtype=torch.float32).expand_as(row)
            for values, row in zip(expected, found, strict=True)
        ]
    )
    assert (found - wanted).abs().max() <= atol, f"{found.tolist()}, not {wanted.tolist()}"
