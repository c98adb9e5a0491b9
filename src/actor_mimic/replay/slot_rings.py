"""One ring of slots per environment, and the append-only segments that save them.

A slot is a row with several fields. Environment ``e`` numbers the slots it writes 0, 1, 2, ...
for ever; slot ``k`` lies in row ``e * slots_per_env + k % slots_per_env``, so a number that has
been overwritten still leads to a row, and whoever asks must know what is held.

Axes: envs = environments, rows = any slots of any environments.
"""

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from actor_mimic.errors import DataError

Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape, without the slots, and type of each field."""


def layout_bytes(layout: Layout) -> int:
    """Bytes of one slot."""
    return sum(prod(shape) * dtype.itemsize for shape, dtype in layout.values())


class SlotRings:
    """Equally long rings of slots, written by one environment each.

    Main memory is allocated at once but not touched: the operating system hands out its pages
    when slots are first written.

    Args:
        num_envs: rings.
        slots_per_env: of each ring.
        layout: the fields.
        devices: where those fields are kept that do not lie in main memory.

    Attributes, for reading and for `push` only:
        tensors: the fields, each ``[num_envs * slots_per_env, ...]``.
        arrays: those in main memory as NumPy sees them.
        written: slots ever written by each environment, int64 ``[envs]``.
    """

    def __init__(
        self,
        num_envs: int,
        slots_per_env: int,
        layout: Layout,
        devices: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.num_envs = num_envs
        self.slots_per_env = slots_per_env
        self.tensors = {
            name: torch.empty(
                (num_envs * slots_per_env, *shape), dtype=dtype, device=devices.get(name)
            )
            for name, (shape, dtype) in layout.items()
        }
        self.arrays = {
            name: tensor.numpy() for name, tensor in self.tensors.items() if name not in devices
        }
        self.written: Int64[np.ndarray, " envs"] = np.zeros(num_envs, dtype=np.int64)
        # Below this number slots were in no segment, so their rows hold nothing.
        self._complete_from = np.zeros(num_envs, dtype=np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for the fields."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def held(self) -> Int64[np.ndarray, " envs"]:
        """Slots that each ring holds now."""
        return np.minimum(self.written, self.slots_per_env)

    @property
    def oldest(self) -> Int64[np.ndarray, " envs"]:
        """Number of the oldest slot that each ring holds."""
        return self.written - self.held

    def rows(
        self, env: Int64[np.ndarray, "..."], number: Int64[np.ndarray, "..."]
    ) -> Int64[np.ndarray, "..."]:
        """Rows of slots; ``env`` and ``number`` broadcast against each other."""
        return env * self.slots_per_env + number % self.slots_per_env

    def push(
        self, envs: Int64[np.ndarray, " rows"], values: Mapping[str, np.ndarray | np.uint8]
    ) -> None:
        """Write the next slot of different environments; fields without a value become zero."""
        rows = self.rows(envs, self.written[envs])
        for name in self.tensors:
            self._put(name, rows, values.get(name, 0))
        self.written[envs] += 1

    def export_since(self, written_before: Int64[np.ndarray, " envs"]) -> dict[str, Tensor]:
        """Copy the slots written since ``written`` had the given value and still held.

        Args:
            written_before: slots counted by each environment at the earlier moment.

        Returns:
            One tensor per field, environment by environment and oldest slot first, and the
            counts ``written_before`` and ``written_after``.

        Raises:
            ValueError: if ``written_before`` cannot be an earlier value of ``written``.
        """
        before = np.array(written_before, dtype=np.int64)
        fits = before.shape == self.written.shape
        if not fits or (before < 0).any() or (before > self.written).any():
            raise ValueError(
                f"written_before must be an earlier value of {self.written.tolist()}, "
                f"got {before.tolist()}"
            )
        rows = torch.from_numpy(self._rows_between(np.maximum(before, self.oldest), self.written))
        segment = {
            name: torch.index_select(field, 0, rows.to(field.device)).cpu()
            for name, field in self.tensors.items()
        }
        segment["written_before"] = torch.from_numpy(before)
        segment["written_after"] = torch.from_numpy(self.written.copy())
        return segment

    def append_segment(self, segment: Mapping[str, Tensor]) -> None:
        """Write the slots of a segment; a first one may begin anywhere, others must follow on.

        Raises:
            DataError: if the segment has other fields, shapes or counts, or leaves a gap.
        """
        before, after = self._counts(segment)
        if self.written.any() and (before != self.written).any():
            raise DataError(
                f"replay segment begins at slots {before.tolist()}, the one before it ended at "
                f"{self.written.tolist()}"
            )
        start = np.maximum(before, after - self.slots_per_env)
        rows = self._rows_between(start, after)
        self._check_fields(segment, len(rows))
        for name in self.tensors:
            self._put(name, rows, segment[name].numpy())
        self._complete_from = np.where(start > self.written, start, self._complete_from)
        self.written = after

    def check_complete(self) -> None:
        """Make sure that the segments appended so far hold everything the rings should hold.

        Raises:
            DataError: if an early segment is missing.
        """
        if (self._complete_from > self.oldest).any():
            raise DataError(
                f"replay segments begin at slots {self._complete_from.tolist()}, expected "
                f"everything from slots {self.oldest.tolist()} on"
            )

    def _put(
        self, name: str, rows: Int64[np.ndarray, " rows"], values: np.ndarray | np.uint8 | int
    ) -> None:
        if name in self.arrays:
            # Row assignment by NumPy: 6 us for 64 Atari frames where index_copy_ took 120.
            self.arrays[name][rows] = values
        else:
            field = self.tensors[name]
            field[torch.from_numpy(rows).to(field.device)] = torch.as_tensor(values).to(field)

    def _rows_between(
        self, start: Int64[np.ndarray, " envs"], stop: Int64[np.ndarray, " envs"]
    ) -> Int64[np.ndarray, " rows"]:
        counts = stop - start
        env = np.repeat(np.arange(self.num_envs), counts)
        # The running index minus where its environment's run begins: 0 1 2 | 0 1 | 0 1 2 3
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.rows(env, start[env] + place)

    def _counts(
        self, segment: Mapping[str, Tensor]
    ) -> tuple[Int64[np.ndarray, " envs"], Int64[np.ndarray, " envs"]]:
        expected = {*self.tensors, "written_before", "written_after"}
        if set(segment) != expected:
            raise DataError(f"replay segment: expected {sorted(expected)}, got {sorted(segment)}")
        before = segment["written_before"].numpy()
        after = segment["written_after"].numpy().copy()
        fits = before.shape == after.shape == self.written.shape
        if not fits or (before < 0).any() or (before > after).any():
            raise DataError(
                f"replay segment: expected rising slot counts of {self.num_envs} environments, "
                f"got {before.tolist()} to {after.tolist()}"
            )
        return before, after

    def _check_fields(self, segment: Mapping[str, Tensor], num_rows: int) -> None:
        for name, field in self.tensors.items():
            expected = (num_rows, *field.shape[1:])
            came = segment[name]
            if came.shape != expected or came.dtype != field.dtype:
                raise DataError(
                    f"replay segment, field {name}: expected {expected} {field.dtype}, "
                    f"got {tuple(came.shape)} {came.dtype}"
                )
