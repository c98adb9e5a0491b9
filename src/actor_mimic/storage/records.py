"""The records of a run: one JSON object a line, appended as training goes on.

JSON has no NaN and no infinity, and a diverging loss must be seen in the records: such numbers
are written as the strings "nan", "inf" and "-inf" and read back as floats. Text of just these
letters is therefore refused as a value.

A line is one write. A process killed in the middle leaves a torn last line, which readers skip
and the next writer cuts off; a bad line anywhere else is damage and is reported.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from actor_mimic.errors import CannotCreateError, DataError, StorageError
from actor_mimic.storage.durable import open_regular, parse_json, replace_file

NON_FINITE = frozenset({"nan", "inf", "-inf"})
MAX_FILE_BYTES = 1 << 30
MAX_LINE_BYTES = 1 << 20
LARGEST_WHOLE = 2**63 - 1

Value = float | int | str | None


@dataclass(frozen=True)
class Record:
    """What was seen at one moment of a run.

    Attributes:
        kind: ``train``, ``evaluation``, ``checkpoint``, ...
        step: environment steps so far.
        update: optimiser steps so far.
        values: measured values by name.
        wall_s: seconds that the stage has taken, in this process and those before it; the one
            thing that differs when a run is repeated.
    """

    kind: str
    step: int
    update: int
    values: dict[str, Value]
    wall_s: float


@runtime_checkable
class Follower(Protocol):
    """The same records in another form, for those who watch a run.

    It can be made again from the records at any time, so it need not survive what they survive.
    """

    def restart(self, records: Iterable[Record]) -> None:
        """Begins again with what is on record; called before the first `write`."""
        ...

    def write(self, record: Record) -> None:
        """Takes in one more."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class RecordWriter:
    """Appends records to a file; the one writer of that file.

    Args:
        path: the file; made if missing, and cut back to its last whole line.
        followers: told of every record, those of earlier processes first.

    Raises:
        CannotCreateError: if the file cannot be opened for writing.
    """

    def __init__(self, path: Path, followers: Sequence[Follower] = ()) -> None:
        self.path = path
        self._followers = followers
        self._followed = False
        self._descriptor = self._open()

    def write(self, record: Record) -> None:
        """Append one record; it survives this process, but see `sync`.

        Raises:
            StorageError: if the disk is full or broken; no part of the line stays.
            ValueError: if a value is text that means a number in this format.
        """
        line = encode_record(record)
        end = os.fstat(self._descriptor).st_size
        try:
            while line:
                # A full disk takes a part first; the next attempt says why.
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            os.ftruncate(self._descriptor, end)
            raise StorageError(f"cannot write {self.path}: {error}") from error
        if self._followers and not self._followed:
            self._restart(read_records(self.path))
            return
        for follower in self._followers:
            follower.write(record)

    def sync(self) -> None:
        """Make what was written survive a power failure; call it before each checkpoint.

        Raises:
            StorageError: if the disk is full or broken.
        """
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error}") from error

    def rewind(self, step: int) -> int:
        """Drop what was recorded after a checkpoint, since a resumed run records it again.

        Records of the checkpoint's own step stay: write all of a step before its checkpoint. The
        followers begin again with what stays.

        Args:
            step: of the checkpoint; 0 when starting over.

        Returns:
            How many records were dropped.

        Raises:
            DataError: if the file is damaged; it is untouched then.
            StorageError: if it cannot be written; it is untouched then.
        """
        kept: list[bytes] = []
        records: list[Record] = []
        total = 0
        for number, line in _whole_lines(self.path):
            total += 1
            record = decode_record(line, place=f"{self.path}:{number}")
            if record.step <= step:
                kept.append(line)
                records.append(record)
        if len(kept) < total:
            try:
                replace_file(self.path, b"".join(kept))
            except OSError as error:
                raise StorageError(f"cannot write {self.path}: {error}") from error
            # The old descriptor leads to the file that has just been replaced.
            os.close(self._descriptor)
            self._descriptor = self._open()
        self._restart(records)
        return total - len(kept)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _restart(self, records: Sequence[Record]) -> None:
        for follower in self._followers:
            follower.restart(records)
        self._followed = True

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise CannotCreateError(f"cannot write {self.path}: {error}") from error
        end = os.fstat(descriptor).st_size
        whole = _end_of_last_line(descriptor, end)
        if whole < end:
            os.ftruncate(descriptor, whole)
        return descriptor


def read_records(path: Path) -> list[Record]:
    """Read all whole records of a file, which may still be written to.

    Raises:
        DataError: if the file is missing, or a line is no record; names file and line.
    """
    return [decode_record(line, place=f"{path}:{number}") for number, line in _whole_lines(path)]


def encode_record(record: Record) -> bytes:
    """One line of JSON with its newline.

    Raises:
        ValueError: if a value is text that means a number in this format.
        TypeError: if a value is not plain data.
    """
    for name, value in record.values.items():
        if isinstance(value, str) and value in NON_FINITE:
            raise ValueError(f"value {name}: the text {value!r} would be read back as a number")
    content = {
        "kind": record.kind,
        "step": record.step,
        "update": record.update,
        "wall_s": round(record.wall_s, 3),
        "values": {name: _plain(value) for name, value in record.values.items()},
    }
    return (json.dumps(content, allow_nan=False) + "\n").encode("ascii")


def decode_record(line: bytes, *, place: str) -> Record:
    """Check and read one line.

    Args:
        line: JSON.
        place: file and line number, for the message.

    Raises:
        DataError: if it is no record.
    """
    content = parse_json(line, path=place)
    if not _is_record(content):
        raise DataError(
            f"{place}: expected kind, step, update, wall_s and values, got {content!r:.100}"
        )
    return Record(
        kind=content["kind"],
        step=content["step"],
        update=content["update"],
        values={
            name: float(value) if isinstance(value, str) and value in NON_FINITE else value
            for name, value in content["values"].items()
        },
        wall_s=float(content["wall_s"]),
    )


def _plain(value: Value) -> Value:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    return value


def _is_record(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and content.keys() == {"kind", "step", "update", "wall_s", "values"}
        and isinstance(content["kind"], str)
        and type(content["step"]) is int
        and type(content["update"]) is int
        and type(content["wall_s"]) in (int, float)
        and isinstance(content["values"], dict)
        and all(map(_is_number, (content["step"], content["update"], content["wall_s"])))
        and all(
            value is None or isinstance(value, str) or _is_number(value)
            for value in content["values"].values()
        )
    )


def _is_number(value: Any) -> bool:
    """Whether it is one that a float can have; JSON's whole numbers are of any length."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= LARGEST_WHOLE)


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, from 1, without a torn last one."""
    with open_regular(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > MAX_FILE_BYTES:
            raise DataError(
                f"{path}: expected at most {MAX_FILE_BYTES} bytes of records, got {size}"
            )
        number = 0
        while line := file.readline(MAX_LINE_BYTES):
            number += 1
            if line.endswith(b"\n"):
                yield number, line
            elif len(line) == MAX_LINE_BYTES and file.read(1):
                raise DataError(
                    f"{path}:{number}: expected a record of at most {MAX_LINE_BYTES} bytes"
                )


def _end_of_last_line(descriptor: int, end: int) -> int:
    """Position behind the last newline, found from the end of the file."""
    while end > 0:
        start = max(0, end - 65_536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
