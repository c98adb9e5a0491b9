"""What every environment says after a step, whatever it is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped

from actor_mimic.errors import DataError, UsageError
from actor_mimic.seeding import derive_seed

Frames = Shaped[np.ndarray, "envs ..."]

_MAX_ACTIONS = 256


@dataclass(frozen=True)
class VectorStep:
    """One step of N environments; no later step overwrites the arrays.

    ``frames`` is what the agent sees next. Where an episode ended, the environment has already
    been reset, so it is the first frame of the next episode and the last frame of the old one is
    in ``final_frames``; where none ended the two may be one array::

        step          t        t+1 (over)   t+2
        frames        f[t+1]   g[0]         g[1]
        final_frames  f[t+1]   f[t+2]       g[1]
        started       -        yes          -
    """

    frames: Frames
    final_frames: Frames
    raw_reward: Float32[np.ndarray, " envs"]
    reward: Float32[np.ndarray, " envs"]  # what learners see: clipped to [-1, 1] on Atari
    terminated: Bool[np.ndarray, " envs"]  # true end of the game: no bootstrap
    truncated: Bool[np.ndarray, " envs"]  # cut by a limit: bootstrap from the final frame
    life_lost: Bool[np.ndarray, " envs"]  # a life was lost, and the game is not over

    @property
    def started(self) -> Bool[np.ndarray, " envs"]:
        """True where ``frames`` holds the first frame of a new episode."""
        return self.terminated | self.truncated


@runtime_checkable  # the tests check types as the code runs
class VectorEnv(Protocol):
    """N environments of one task that are stepped together and reset themselves by seed.

    An environment's whole state is the seed of its episode and the actions taken since, so that
    is what ``state_dict`` holds; ``load_state_dict`` plays the actions again.
    """

    task: str
    num_envs: int
    action_names: tuple[str, ...]
    frame_shape: tuple[int, ...]
    frame_dtype: type[np.generic]
    stack_size: int
    frame_skip: int

    def reset(self) -> Frames:
        """Starts every environment's next episode and returns the first frames."""
        ...

    def send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Starts a step; `recv` must follow before the next `send`."""
        ...

    def recv(self) -> VectorStep:
        """Waits for the step that `send` started."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Episode seeds, episode counters and actions so far, as lists and integers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Brings every environment to the recorded state by playing its actions again."""
        ...

    def picture(self) -> Shaped[np.ndarray, "height width 3"]:
        """Environment 0 as a person sees it, RGB."""
        ...

    def close(self) -> None:
        """Stops the emulators."""
        ...


class EpisodeLog:
    """Which episode each environment plays, and the actions it has taken in it.

    An episode's seed is derived from the run's seed, the task, the environment's index and the
    episode's number, so it depends on nothing that happened before.

    Raises:
        UsageError: if an action does not fit into the byte that it is stored in.
    """

    def __init__(self, num_envs: int, *, run_seed: int, task: str, num_actions: int) -> None:
        if num_actions > _MAX_ACTIONS:
            raise UsageError(f"{task}: at most {_MAX_ACTIONS} actions, got {num_actions}")
        self._num_actions = num_actions
        self._run_seed = run_seed
        self._task = task
        self._episode = np.full(num_envs, -1, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._actions = np.zeros((num_envs, 1024), dtype=np.uint8)

    @property
    def steps(self) -> Int64[np.ndarray, " envs"]:
        """Steps that each environment has taken in its episode; `append` changes it in place."""
        return self._steps

    def start(self, over: Bool[np.ndarray, " envs"]) -> Int64[np.ndarray, " over"]:
        """Begins the next episode where ``over``; returns the seeds to reset with."""
        self._episode[over] += 1
        self._steps[over] = 0
        return self._seeds(over)

    def append(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Notes one action of every environment.

        Raises:
            ValueError: if the task has no such action. The emulators would not say so: an
                unknown action kills the thread that steps them, and `recv` waits for ever.
        """
        if actions.min() < 0 or actions.max() >= self._num_actions:
            raise ValueError(f"{self._task}: actions are 0..{self._num_actions - 1}, got {actions}")
        if self._steps.max() == self._actions.shape[1]:
            self._actions = np.concatenate([self._actions, np.zeros_like(self._actions)], axis=1)
        self._actions[np.arange(len(actions)), self._steps] = actions
        self._steps += 1

    def play_again(
        self,
        reset: Callable[[Bool[np.ndarray, " envs"], Int64[np.ndarray, " over"]], object],
        step: Callable[[Int64[np.ndarray, " envs"], Bool[np.ndarray, " envs"]], object],
    ) -> None:
        """Brings freshly made environments to where this log ends.

        All environments step together, so the shorter histories start later and all end at once.
        What an environment does before its start is thrown away by its reset; ``step`` is also
        told which environments have started, for those that can step some and not others::

            env 0 (5 actions)   R a a a a a
            env 1 (3 actions)   . . . R a a a      R = seeded reset, then the first action
            env 2 (0 actions)   . . . . . . R
        """
        everywhere = np.ones(len(self._steps), dtype=bool)
        reset(everywhere, self._seeds(everywhere))
        longest = int(self._steps.max())
        start_at = longest - self._steps
        for time in range(longest + 1):
            starting = (start_at == time) & (time > 0)
            if starting.any():
                reset(starting, self._seeds(starting))
            if time < longest:
                position = np.maximum(time - start_at, 0)
                started = time >= start_at
                actions = self._actions[np.arange(len(position)), position].astype(np.int64)
                step(np.where(started, actions, 0), started)

    def state_dict(self) -> dict[str, Any]:
        """Plain integers and lists."""
        return {
            "episode": self._episode.tolist(),
            "actions": [
                bytes(row[:length]).hex()
                for row, length in zip(self._actions, self._steps, strict=True)
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Raises:
            DataError: if it was taken from another number of environments, or is damaged.
        """
        try:
            histories = [bytes.fromhex(text) for text in state["actions"]]
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._task}: the actions so far are unreadable: {error}") from error
        unknown = max((max(history, default=0) for history in histories), default=0)
        if unknown >= self._num_actions:
            raise DataError(
                f"{self._task}: the checkpoint has action {unknown}, "
                f"the task has {self._num_actions} actions"
            )
        if len(histories) != len(self._episode):
            raise DataError(
                f"{self._task}: the checkpoint has {len(histories)} environments, "
                f"this run has {len(self._episode)}"
            )
        self._episode = np.array(state["episode"], dtype=np.int64)
        self._steps = np.array([len(history) for history in histories], dtype=np.int64)
        self._actions = np.zeros((len(histories), max(1024, self._steps.max())), dtype=np.uint8)
        for row, history in zip(self._actions, histories, strict=True):
            row[: len(history)] = np.frombuffer(history, dtype=np.uint8)

    def _seeds(self, which: Bool[np.ndarray, " envs"]) -> Int64[np.ndarray, " which"]:
        return np.array(
            [
                derive_seed(self._run_seed, self._task, int(env), int(self._episode[env]))
                for env in np.flatnonzero(which)
            ],
            dtype=np.int64,
        )
