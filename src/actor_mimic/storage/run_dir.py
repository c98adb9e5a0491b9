"""A run's directory: whose it is, what it was asked to do, and whether it is done.

::

    run/
        run.json          stage, configuration, seed, versions, and what of them has changed since
        records.jsonl     what was seen, line by line
        progress.csv      the same as a table, and events.out.tfevents.* for TensorBoard
        checkpoints/      what it goes on from
        teachers/         foreign files that teach, as checkpoints
        best.json         which checkpoint was evaluated best
        evaluations/      scores, by the hash of the model
        films/            what was filmed, and who played in it
        complete.json     written when it is done
        .lock             held while a process works here
"""

import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from actor_mimic import __version__
from actor_mimic.errors import (
    ActorMimicError,
    CannotCreateError,
    ConfigError,
    DataError,
    Interrupted,
    StorageError,
    UsageError,
)
from actor_mimic.storage.differences import differences, is_below
from actor_mimic.storage.durable import (
    clean_leftovers,
    is_plain_name,
    is_plain_path,
    json_bytes,
    make_directories,
    make_directory,
    parse_json,
    read_regular,
    replace_file,
)
from actor_mimic.storage.event_file import EventFile, event_files_wanted
from actor_mimic.storage.manifest import SCHEMA_VERSION, check_schema
from actor_mimic.storage.progress_csv import PROGRESS, ProgressCsv
from actor_mimic.storage.records import Follower, RecordWriter
from actor_mimic.storage.run_lock import take_lock

RUN = "run.json"
COMPLETE = "complete.json"
RECORDS = "records.jsonl"
LOCK = ".lock"
TEACHERS = "teachers"
EVALUATIONS = "evaluations"
MAX_JSON_BYTES = 64 << 20

_PACKAGES = ("actor-mimic", "torch", "numpy", "gymnasium", "ale-py", "safetensors")


class RunDir:
    """A run directory held by this process; `open_run` makes one.

    Use it as a context manager: leaving it closes the records and releases the lock. A run that
    is refused before it has done anything takes back its configuration, and the directory if that
    is new: whoever corrects what was refused must not be told that it belongs to the mistake.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._changes: Mapping[str, str] = {}
        self._lock = lock
        self._changed: Mapping[str, Any] | None = None
        self._made_here = self._begun_here = False
        self._records: RecordWriter | None = None
        self._followers: list[Follower] = [ProgressCsv(path / PROGRESS)]
        if event_files_wanted():
            self._followers.append(EventFile(path))

    def follow(self, follower: Follower) -> None:
        """Tells somebody else of the records too; call it before they are written."""
        self._followers.append(follower)

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints are."""
        return self.path / "checkpoints"

    @property
    def records(self) -> RecordWriter:
        """The writer of its records; opened when first asked for."""
        if self._records is None:
            self._records = RecordWriter(self.path / RECORDS, self._followers)
        return self._records

    def go_on(self) -> Mapping[str, str]:
        """Lets the description take over what has changed since the last call.

        Not when it is opened: a run that is refused then, for want of memory say, is what it was.

        Returns:
            By the names of the settings, what they were and are, in words.

        Raises:
            StorageError: if that cannot be written.
        """
        if self._changed is not None:
            self.write_json(RUN, self._changed)
            self._changed = None
        return self._changes

    @property
    def complete(self) -> bool:
        """Whether the run has been marked as done."""
        return is_complete(self.path)

    def mark_complete(self, summary: Mapping[str, Any]) -> None:
        """Say that the run is done.

        Raises:
            StorageError: if that cannot be written.
        """
        self.write_json(COMPLETE, {"schema": SCHEMA_VERSION, **summary})

    def require_space(self, needed_bytes: int) -> None:
        """Refuse checkpoints that cannot fit, before hours are spent on them.

        Args:
            needed_bytes: of all that are there at once; what is there already counts.

        Raises:
            StorageError: with what is needed and what is free.
        """
        there = {
            (found.st_dev, found.st_ino): found.st_blocks * 512
            for found in (path.lstat() for path in self.checkpoints.rglob("*"))
        }
        needed, free = needed_bytes - sum(there.values()), shutil.disk_usage(self.path).free
        if needed > free:
            raise StorageError(
                f"the checkpoints in {self.path} need up to {needed / 2**20:,.0f} MiB, "
                f"{free / 2**20:,.0f} MiB are free there; choose another --run-dir, a smaller "
                "replay_capacity_steps, or --checkpoint-replay none"
            )

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file: after a crash the old one is there, or the new one.

        Args:
            name: plain, with at most one directory: ``evaluations/x.json``.
            content: plain data without numbers that are not finite.

        Raises:
            StorageError: if the disk is full or broken.
            ValueError: if the name is not plain or a number not finite.
        """
        if not is_plain_path(name):
            raise ValueError(f"expected a plain file name, got {name!r}")
        path, encoded = self.path / name, json_bytes(content)
        try:
            if path.parent != self.path:
                make_directory(path.parent)
            replace_file(path, encoded)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error}") from error

    def read_json(self, name: str) -> Any:
        """Read what `write_json` wrote.

        Raises:
            DataError: if it is missing or damaged.
        """
        return read_run_json(self.path, name)

    def close(self) -> None:
        """Close the records and release the lock; may be called twice."""
        if self._records is not None:
            self._records.close()
            self._records = None
        while self._followers:
            self._followers.pop().close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> "RunDir":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        refused = isinstance(error, ActorMimicError) and not isinstance(error, Interrupted)
        if refused and self._begun_here and self._is_empty():
            self._undo()
        self.close()

    def _undo(self) -> None:
        """Takes back the configuration, and the directory if it was made here and is empty."""
        (self.path / RUN).unlink(missing_ok=True)
        if self._made_here and set(os.listdir(self.path)) == {LOCK, self.checkpoints.name}:
            with suppress(OSError):  # somebody else may be about to work here
                self.checkpoints.rmdir()
                (self.path / LOCK).unlink()
                self.path.rmdir()

    def _is_empty(self) -> bool:
        """Whether there is nothing but what `open_run` makes, and what stays of use.

        Imports are named by their files, figures of whole games by who played and how.
        """
        made = {LOCK, RUN, TEACHERS, EVALUATIONS, self.checkpoints.name}
        return made.issuperset(os.listdir(self.path)) and not os.listdir(self.checkpoints)


def open_run(
    path: Path,
    *,
    stage: str,
    config: Mapping[str, Any],
    resumable_keys: frozenset[str] = frozenset(),
    command: str = "",
) -> RunDir:
    """Begin a run, or take up one that was begun with the same configuration.

    Leftovers of dead writers are cleaned away, once the lock is held.

    Args:
        path: the directory; made if missing. Not a symbolic link.
        stage: what it runs: expert, distill, ...
        config: JSON data; a ``seed`` in it is recorded beside it.
        resumable_keys: dotted names that may differ from the stored configuration, itself or
            everything below it; `RunDir.go_on` lets the stored one take over their new values.
        command: what was typed to begin it, if it was begun by itself; kept with what is new.

    Returns:
        The run, locked.

    Raises:
        CannotCreateError: if the directory cannot be made or written to.
        LockedError: if another process works in it; names process and host.
        ConfigError: if it was begun by another stage or with another configuration; lists every
            key that differs.
        DataError: if its run.json is damaged.
    """
    made_here = not os.path.lexists(path)
    _make_directory(path)
    run = RunDir(path, take_lock(path / LOCK))
    run._made_here = made_here
    try:
        _make_directory(run.checkpoints)
        clean_leftovers(path)
        for entry in path.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                clean_leftovers(entry)
        asked = json.loads(json_bytes(dict(config)))
        if os.path.lexists(path / RUN):
            _check_same_run(run, stage, asked, resumable_keys)
        else:
            _begin(run, stage, asked, command)
    except BaseException:
        run.close()
        raise
    return run


def read_run_json(run: Path, name: str) -> Any:
    """Read a JSON file of a run that need not be held.

    Raises:
        DataError: if it is missing or damaged.
        ValueError: if the name is not plain.
    """
    if not is_plain_path(name):
        raise ValueError(f"expected a plain file name, got {name!r}")
    path = run / name
    if path.parent != run and path.parent.is_symlink():
        raise DataError(f"{path.parent}: expected a directory, got a symbolic link")
    return parse_json(read_regular(path, max_bytes=MAX_JSON_BYTES), path=path)


def is_complete(run: Path) -> bool:
    """Whether a run has been marked as done."""
    return os.path.lexists(run / COMPLETE)


def installed_versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide what a run computes; None if absent."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            # From source nothing is installed, but our own version is known.
            versions[package] = __version__ if package == "actor-mimic" else None
    return versions


def validate_run_name(name: str) -> str:
    """A run's name as it is, if it is safe as one part of a path.

    Raises:
        UsageError: if it is not.
    """
    if not is_plain_name(name):
        raise UsageError(
            f"run name {name!r:.120}: expected a letter or digit, then at most 99 letters, digits "
            "or ._-"
        )
    return name


def slug(task: str) -> str:
    """A task's name as part of a path: ``ALE/Pong-v5`` gives ``ALE-Pong-v5``.

    Raises:
        UsageError: if nothing usable remains, or more than 100 characters.
    """
    return validate_run_name(re.sub(r"[^A-Za-z0-9._-]+", "-", task).lstrip("._-"))


def _make_directory(path: Path) -> None:
    if path.is_symlink():
        raise CannotCreateError(f"{path}: is a symbolic link; name the directory it leads to")
    try:
        make_directories(path)
    except OSError as error:
        raise CannotCreateError(f"cannot make the directory {path}: {error}") from error


def _begin(run: RunDir, stage: str, config: dict[str, Any], command: str) -> None:
    content = {
        "schema": SCHEMA_VERSION,
        "stage": stage,
        "config": config,
        "seed": config.get("seed"),
        "versions": installed_versions(),
        "created": _now(),
    }
    if command:
        content["command"] = command
    try:
        run.write_json(RUN, content)
    except StorageError as error:
        raise CannotCreateError(str(error)) from error
    run._begun_here = True


def _check_same_run(
    run: RunDir, stage: str, asked: dict[str, Any], resumable_keys: frozenset[str]
) -> None:
    path = run.path / RUN
    stored = run.read_json(RUN)
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise DataError(f"{path}: expected the description of a run, got {stored!r:.100}")
    check_schema(stored.get("schema"), path=path)
    if stored.get("stage") != stage:
        raise ConfigError(f"{path}: the run was begun as {stored.get('stage')}, asked: {stage}")
    changes = differences(stored["config"], asked)
    told = {key: change.tell(key) for key, change in changes.items()}
    refused = [text for key, text in told.items() if not is_below(key, resumable_keys)]
    if refused:
        raise ConfigError(
            f"{run.path} was begun with another configuration; choose another directory or undo: "
            + "; ".join(refused)
        )
    if not changes or run.complete:
        return  # of a run that is done the description says how it was done
    earlier = stored.get("changed", [])
    if not isinstance(earlier, list):
        raise DataError(f"{path}: expected a list of changes, got {earlier!r:.100}")
    entry = {
        "at": _now(),
        "settings": {key: change.to_json() for key, change in changes.items()},
        "versions": installed_versions(),
    }
    run._changes = told
    run._changed = {**stored, "config": asked, "changed": [*earlier, entry]}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
