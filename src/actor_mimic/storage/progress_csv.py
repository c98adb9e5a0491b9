"""``progress.csv``: the records of a run as a table, for spreadsheets and data frames.

One row for each record that is plotted, one column for each tag of `metric_names`. A tag that is
new gets the next column to the right, so a column never moves; cells are numbers or nothing.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from actor_mimic.errors import StorageError
from actor_mimic.storage.durable import replace_file
from actor_mimic.storage.metric_names import SECONDS, STEPS, UPDATES, named_values
from actor_mimic.storage.records import Record

PROGRESS = "progress.csv"
FIRST_COLUMNS = (STEPS, UPDATES, SECONDS)


class ProgressCsv:
    """Follows the records of a run; see `Follower`.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns = list(FIRST_COLUMNS)
        self._rows: list[str] = []

    def restart(self, records: Iterable[Record]) -> None:
        """Writes the file anew, from what is on record.

        Raises:
            StorageError: if the disk is full or broken.
        """
        self._columns, self._rows = list(FIRST_COLUMNS), []
        for record in records:
            self._add(record)
        self._write_all()

    def write(self, record: Record) -> None:
        """Adds a row.

        Raises:
            StorageError: if the disk is full or broken.
        """
        columns, rows = len(self._columns), len(self._rows)
        self._add(record)
        if len(self._columns) > columns:
            self._write_all()
        elif len(self._rows) > rows:
            self._append(self._rows[-1])

    def close(self) -> None:
        """Nothing is open between two rows."""

    def _add(self, record: Record) -> None:
        values = named_values(record)
        if not values:
            return
        new = [tag for tag in values if tag not in self._columns]
        self._columns += new
        self._rows = [row + "," * len(new) for row in self._rows] if new else self._rows
        place = {STEPS: record.step, UPDATES: record.update, SECONDS: round(record.wall_s, 3)}
        self._rows.append(self._row({**values, **place}))

    def _row(self, values: Mapping[str, float | int]) -> str:
        return ",".join(str(values[tag]) if tag in values else "" for tag in self._columns)

    def _write_all(self) -> None:
        lines = [",".join(self._columns), *self._rows]
        try:
            replace_file(self._path, "".join(f"{line}\n" for line in lines).encode("ascii"))
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error}") from error

    def _append(self, row: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(self._path, flags, 0o666), "ab") as file:
                file.write(f"{row}\n".encode("ascii"))
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error}") from error
