"""Event files of TensorBoard: ``tensorboard --logdir runs`` shows every run that is below it.

Only where the extra ``[tensorboard]`` is installed: nothing else imports that package, and nothing
is said where it is missing.
"""

import os
import socket
import time
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from actor_mimic.errors import StorageError
from actor_mimic.storage.metric_names import named_values
from actor_mimic.storage.records import Record

SUFFIX = ".actor-mimic"


def event_files_wanted() -> bool:
    """Whether TensorBoard is there to look at them (``pip install 'actor-mimic[tensorboard]'``)."""
    return find_spec("tensorboard") is not None


class EventFile:
    """Follows the records of a run; see `Follower`.

    A resumed run gets a new file that tells everything from the beginning, and the old one is
    emptied: so no step is there twice, however the process before ended. What a TensorBoard that
    is looking on has read before is purged by the mark of a restart at step 0.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._began = 0.0

    def restart(self, records: Iterable[Record]) -> None:
        """Writes a new file in place of the earlier ones.

        Raises:
            StorageError: if the disk is full or broken.
        """
        messages = import_module("tensorboard.compat.proto.event_pb2")
        self.close()
        records = list(records)
        # The axis of relative time shows how long the stage has run, stops left out.
        self._began = time.time() - (records[-1].wall_s if records else 0.0)
        try:
            earlier = list(self._directory.glob(f"events.out.tfevents.*{SUFFIX}"))
            # TensorBoard reads the files of a run in the order of their names.
            number = max([round(time.time()), *(_number(path) + 1 for path in earlier)])
            name = f"events.out.tfevents.{number:010d}.{socket.gethostname()}.{os.getpid()}"
            self._file = (self._directory / f"{name}{SUFFIX}").open("xb", buffering=0)
            for path in earlier:
                # Emptied, and gone the next time: a TensorBoard that has read it would not get
                # over its being gone.
                if path.stat().st_size:
                    os.truncate(path, 0)
                else:
                    path.unlink()
        except OSError as error:
            raise StorageError(f"cannot write to {self._directory}: {error}") from error
        self._add(messages.Event(wall_time=self._began, file_version="brain.Event:2"))
        start = messages.SessionLog(status=messages.SessionLog.START)
        self._add(messages.Event(wall_time=self._began, step=0, session_log=start))
        for record in records:
            self.write(record)

    def write(self, record: Record) -> None:
        """Adds the numbers of a record.

        Raises:
            StorageError: if the disk is full or broken.
        """
        messages = import_module("tensorboard.compat.proto.event_pb2")
        values = [
            {"tag": tag, "simple_value": value} for tag, value in named_values(record).items()
        ]
        if values:
            when = self._began + record.wall_s
            summary = {"value": values}
            self._add(messages.Event(wall_time=when, step=record.step, summary=summary))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _add(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        assert self._file is not None, "restart comes first"
        try:
            RecordWriter(self._file).write(event.SerializeToString())
        except OSError as error:
            raise StorageError(f"cannot write {self._file.name}: {error}") from error


def _number(path: Path) -> int:
    digits = path.name.split(".")[3]
    return int(digits) if digits.isdecimal() else 0
