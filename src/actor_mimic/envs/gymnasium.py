"""Any Gymnasium task with discrete actions and vector observations, behind the same interface."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Bool, Float32, Int64, UInt8

from actor_mimic.actions import task_action_names
from actor_mimic.envs.vector_step import EpisodeLog, Frames, VectorStep
from actor_mimic.errors import DataError, UnavailableError, UsageError, did_you_mean

TASK_PREFIX = "gym:"


class GymnasiumEnvs:
    """N copies of one registered Gymnasium environment, stepped in this process.

    Observations are float32 vectors; rewards reach the learner unclipped; nothing is stacked or
    skipped, so a frame is a step here.

    Args:
        task: ``gym:`` and a registered id, such as ``gym:CartPole-v1``.
        num_envs: how many copies.
        run_seed: with the task, the environment and the episode it gives each episode's seed.
        with_picture: render environment 0, for films.

    Raises:
        UsageError: if the id is unknown, or its spaces are not ``Discrete`` actions with a
            one-dimensional ``Box`` of observations.
        UnavailableError: if the environment needs a package that is not installed.
    """

    stack_size = 1
    frame_skip = 1
    frame_dtype: type[np.generic] = np.float32

    def __init__(
        self, task: str, *, num_envs: int, run_seed: int, with_picture: bool = False
    ) -> None:
        env_id = task.removeprefix(TASK_PREFIX)
        self.task = task
        self.num_envs = num_envs
        self._with_picture = with_picture
        try:
            self._envs = [
                # Only where it is asked for: an environment that cannot draw need not know of it.
                gymnasium.make(env_id, render_mode="rgb_array")
                if with_picture and env == 0
                else gymnasium.make(env_id)
                for env in range(num_envs)
            ]
        except gymnasium.error.DependencyNotInstalled as error:
            raise UnavailableError(f"cannot make the task {task!r}: {error}") from error
        except (gymnasium.error.Error, ImportError) as error:  # ImportError: `module:Name-v0`
            hint = did_you_mean(env_id, gymnasium.registry)
            raise UsageError(f"cannot make the task {task!r}: {error}{hint}") from error
        action_space, obs_space = self._envs[0].action_space, self._envs[0].observation_space
        if not isinstance(action_space, Discrete) or not (
            isinstance(obs_space, Box) and len(obs_space.shape) == 1
        ):
            raise UsageError(
                f"{task}: expected Discrete actions and a one-dimensional Box of observations, "
                f"got {action_space} and {obs_space}"
            )
        self._first_action = int(action_space.start)
        self.frame_shape: tuple[int, ...] = obs_space.shape
        self.action_names = task_action_names(task, int(action_space.n))
        self._log = EpisodeLog(
            num_envs, run_seed=run_seed, task=task, num_actions=len(self.action_names)
        )
        self._frames = np.zeros((num_envs, *self.frame_shape), dtype=np.float32)
        self._sent: Int64[np.ndarray, " envs"] | None = None

    def reset(self) -> Frames:
        """Starts every environment's next episode; frames are float32 ``[envs, features]``."""
        everywhere = np.ones(self.num_envs, dtype=bool)
        return self._reset(everywhere, *self._log.start(everywhere))

    def send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Notes the actions; Python environments have nothing to run beside the caller."""
        self._log.append(actions)
        self._sent = actions

    def recv(self) -> VectorStep:
        """Steps the environments, and resets those whose episode is over."""
        assert self._sent is not None, "recv without send"
        reward, terminated, truncated = self._step(self._sent, np.ones(self.num_envs, dtype=bool))
        self._sent = None
        final_frames = self._frames.copy()
        over = terminated | truncated
        frames = self._reset(over, *self._log.start(over)) if over.any() else final_frames
        return VectorStep(
            frames=frames,
            final_frames=final_frames,
            raw_reward=reward,
            reward=reward,
            terminated=terminated,
            truncated=truncated & ~terminated,
            life_lost=np.zeros_like(terminated),
        )

    def state_dict(self) -> dict[str, Any]:
        """Episode counters and the actions since each reset."""
        return self._log.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Plays the recorded actions again.

        Raises:
            DataError: if the state was taken from another number of environments.
        """
        self._log.load_state_dict(state)
        self._log.play_again(self._reset, self._step)

    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """Environment 0 as it renders itself; needs ``with_picture=True``.

        Raises:
            UnavailableError: if it cannot draw without a package that is not installed.
        """
        if not self._with_picture:
            raise ValueError("made without with_picture=True")
        try:
            return np.asarray(self._envs[0].render())
        except gymnasium.error.DependencyNotInstalled as error:
            raise UnavailableError(f"cannot draw {self.task}: {error}") from error

    def close(self) -> None:
        """Closes the environments."""
        for env in self._envs:
            env.close()

    def _reset(
        self,
        over: Bool[np.ndarray, " envs"],
        seeded: Bool[np.ndarray, " envs"],
        seeds: Int64[np.ndarray, " seeded"],
    ) -> Frames:
        assert (over == seeded).all(), "every episode has a seed of its own"
        for env, seed in zip(np.flatnonzero(over), seeds, strict=True):
            self._frames[env], _ = self._envs[env].reset(seed=int(seed))
        self._refuse_unless_finite(self._frames)
        return self._frames.copy()

    def _step(
        self, actions: Int64[np.ndarray, " envs"], which: Bool[np.ndarray, " envs"]
    ) -> tuple[Any, Any, Any]:
        reward = np.zeros(self.num_envs, dtype=np.float32)
        terminated = np.zeros(self.num_envs, dtype=bool)
        truncated = np.zeros(self.num_envs, dtype=bool)
        for index in np.flatnonzero(which):
            obs, reward[index], terminated[index], truncated[index], _ = self._envs[index].step(
                self._first_action + int(actions[index])
            )
            self._frames[index] = obs
        self._refuse_unless_finite(self._frames)
        self._refuse_unless_finite(reward)
        return reward, terminated, truncated

    def _refuse_unless_finite(self, values: Float32[np.ndarray, "..."]) -> None:
        if not np.isfinite(values).all():
            raise DataError(f"{self.task}: the environment returned a NaN or infinite value")
