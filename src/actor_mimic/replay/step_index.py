"""Which slots are steps, which of them can be drawn, and where their frames and rewards lie.

All of it is arithmetic on flags, one byte per slot; frames are never touched here.

Axes: batch = drawn steps, places = positions in the list of all held slots.
"""

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from actor_mimic.replay.slot_rings import SlotRings

TERMINAL, TRUNCATED, FIRST, FINAL = (np.uint8(1 << bit) for bit in range(4))
_END = TERMINAL | TRUNCATED
_MIN_CANDIDATES = 64  # so that a small batch rarely needs a second round of rejection

Batch = Int64[np.ndarray, " batch"]


class StepIndex:
    """Index arithmetic over rings whose slots have ``flags``.

    A slot is a step unless it is ``FINAL``, the last frame of a truncated episode. Steps are
    named by environment and slot number.
    """

    def __init__(self, rings: SlotRings, stack_size: int) -> None:
        self._rings = rings
        self._flags: UInt8[np.ndarray, " rows"] = rings.arrays["flags"]
        self._stack_size = stack_size

    def draw(self, batch_size: int, n_step: int, rng: np.random.Generator) -> tuple[Batch, Batch]:
        """Environments and numbers of steps, uniform over all that can be drawn.

        Nearly every held slot can be, so we draw among all of them and reject. Only a nearly
        empty memory has a round without a hit; then we list what there is.

        Args:
            batch_size: steps to draw, with replacement.
            n_step: length of the window that must be closed; 0 asks for a complete stack only.
            rng: the only source of randomness.

        Raises:
            ValueError: if nothing can be drawn.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        num_held = int(self._rings.held.sum())
        kept: list[tuple[Batch, Batch]] = []
        missing = batch_size
        while missing:
            candidates = max(missing, _MIN_CANDIDATES)
            env, number = self.drawable(rng.integers(0, max(num_held, 1), candidates), n_step)
            if not len(env):
                env, number = self.drawable(np.arange(num_held), n_step)
                if not len(env):
                    raise ValueError(f"no step can be drawn yet; {num_held} slots are held")
                picks = rng.integers(0, len(env), missing)
                env, number = env[picks], number[picks]
            kept.append((env[:missing], number[:missing]))
            missing -= len(kept[-1][0])
        envs, numbers = zip(*kept, strict=True)
        return np.concatenate(envs), np.concatenate(numbers)

    def drawable(
        self, places: Int64[np.ndarray, " places"], n_step: int
    ) -> tuple[Int64[np.ndarray, " found"], Int64[np.ndarray, " found"]]:
        """Environments and numbers of those places that can be drawn, in the given order."""
        held = self._rings.held
        stop = np.cumsum(held)
        places = places[places < stop[-1]]
        env = np.searchsorted(stop, places, side="right")
        older = places - (stop - held)[env]  # held slots before this one, in its environment
        newer = held[env] - 1 - older
        number = self._rings.oldest[env] + older

        back = np.arange(self._stack_size)
        flags = self._flags[self._rings.rows(env[:, None], number[:, None] - back)]
        cut = ((flags & FIRST) != 0) & (back <= older[:, None])
        complete = (older >= self._stack_size - 1) | cut.any(axis=1)
        is_step = (flags[:, 0] & FINAL) == 0

        ahead = np.arange(n_step)
        flags = self._flags[self._rings.rows(env[:, None], number[:, None] + ahead)]
        ended = ((flags & _END) != 0) & (ahead <= newer[:, None])
        closed = (newer >= n_step) | ended.any(axis=1)

        found = is_step & complete & closed
        return env[found], number[found]

    def window(
        self, env: Batch, number: Batch, n_step: int
    ) -> tuple[Batch, Bool[np.ndarray, " batch"]]:
        """How the windows of drawn steps end.

        Returns:
            Rewards inside each window, 1 to ``n_step``, up to the first terminal or truncated
            step; and whether that step is a terminal one.
        """
        rows = self._rings.rows(env[:, None], number[:, None] + np.arange(n_step))
        ends = (self._flags[rows] & _END) != 0
        length = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, n_step)
        last = self._flags[self._rings.rows(env, number + length - 1)]
        return length, (last & TERMINAL) != 0

    def stack(
        self, env: Batch, number: Batch
    ) -> tuple[Int64[np.ndarray, "batch stack"], Bool[np.ndarray, "batch stack"]]:
        """Where the frames of the stacks that end with the given slots lie.

        Returns:
            Their rows, oldest first, and which of them are from before the episode's reset.
        """
        back = np.arange(self._stack_size - 1, -1, -1)
        rows = self._rings.rows(env[:, None], number[:, None] - back)
        # A frame is from before the reset if any later one of its stack is a first frame.
        newest_first = (self._flags[rows[:, :0:-1]] & FIRST) != 0
        before_reset = np.zeros(rows.shape, dtype=np.bool_)
        before_reset[:, :-1] = np.logical_or.accumulate(newest_first, axis=1)[:, ::-1]
        return rows, before_reset
