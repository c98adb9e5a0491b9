"""Vector environments of ale-py side by side, so that games which nobody needs can rest.

Axes: envs = emulators, in the order of the vector environments that they are in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from actor_mimic.envs.vector_step import close_all

Pictures = UInt8[np.ndarray, "envs ..."]


class Emulated(NamedTuple):
    """One step of every emulator; what it says of one that rests means nothing."""

    pictures: Pictures
    rewards: Shaped[np.ndarray, " envs"]
    terminated: Bool[np.ndarray, " envs"]
    lives: Shaped[np.ndarray, " envs"]


class Emulators:
    """N emulators of one game, of which some step as one.

    ale-py steps all environments of a vector environment, or none. With five in each::

        emulator    0 1 2 3 4 | 5 6 7 8 9 | 10 11 12
        at rest       x   x x | x x x x x |     x  x      5 to 9 take no time

    Args:
        make: ale-py's vector environment of so many emulators.
        num_envs: in all.
        envs_together: how many step as one; the last ones may be fewer.

    Attributes:
        awake: which do not rest.
    """

    def __init__(self, make: Callable[[int], Any], num_envs: int, envs_together: int) -> None:
        firsts = range(0, num_envs, envs_together)
        self._parts = [slice(first, min(first + envs_together, num_envs)) for first in firsts]
        self._vectors = [make(part.stop - part.start) for part in self._parts]
        self.awake: Bool[np.ndarray, " envs"] = np.ones(num_envs, dtype=bool)
        # A stack of one comes first.
        self._picture_shape = self._vectors[0].single_observation_space.shape[1:]

    @property
    def actions(self) -> list[Any]:
        """The game's own, as ale-py has them."""
        return list(self._vectors[0].ale.get_action_set())

    def rest(self, which: Bool[np.ndarray, " envs"]) -> None:
        """Lets some rest for good; they step on only beside others that do not."""
        self.awake &= ~which

    def reset(
        self, which: Bool[np.ndarray, " envs"], seeds: Int64[np.ndarray, " which"] | None
    ) -> Pictures:
        """Resets some, one vector environment after the other; others' pictures mean nothing.

        Args:
            which: all of them the first time.
            seeds: one for each of them, in their order; None goes on with their own generators.
        """
        pictures = np.zeros((len(which), *self._picture_shape), dtype=np.uint8)
        for part, vector in zip(self._parts, self._vectors, strict=True):
            mine = which[part]
            if mine.any():
                before = np.count_nonzero(which[: part.start])
                own = None if seeds is None else seeds[before : before + np.count_nonzero(mine)]
                obs, _ = vector.reset(seed=own, options={"reset_mask": mine})
                pictures[part] = obs[:, 0]
        return pictures

    def send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Starts a step."""
        for part, vector in zip(self._parts, self._vectors, strict=True):
            if self.awake[part].any():
                vector.send(actions[part])

    def recv(self) -> Emulated:
        """Waits for the step that `send` started."""
        found = [
            _step(vector) if self.awake[part].any() else self._no_step(part.stop - part.start)
            for part, vector in zip(self._parts, self._vectors, strict=True)
        ]
        if len(found) == 1:
            return found[0]
        return Emulated(*map(np.concatenate, zip(*found, strict=True)))

    def close(self) -> None:
        """Frees them all."""
        vectors, self._vectors = self._vectors, []  # threads and memory, until they are let go
        close_all(vectors)

    def _no_step(self, num_envs: int) -> Emulated:
        pictures = np.zeros((num_envs, *self._picture_shape), dtype=np.uint8)
        nothing = np.zeros(num_envs, dtype=np.int64)
        return Emulated(pictures, nothing, nothing.astype(bool), nothing)


def _step(vector: Any) -> Emulated:
    obs, rewards, terminated, _, info = vector.recv()
    return Emulated(obs[:, 0], rewards, terminated, info["lives"])
