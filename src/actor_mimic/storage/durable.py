"""Files that are either there as a whole or not there at all, whenever the machine stops.

The rules that the other modules of this package rely on, for POSIX file systems:

* Nothing is changed in place. A new version is written beside the old one under a name that
  starts with ``.tmp-PID-``, synced, and renamed; then the directory is synced, since until that
  the rename itself may be lost with the power.
* Nothing is deleted in place either: a directory is renamed to ``.trash-PID-...`` first, so that
  nobody ever reads one that is half gone.
* Names from files are data: only plain relative ones are accepted, and links are not followed.

For tests, the environment variable ``ACTOR_MIMIC_FAULT=POINT:N:ACTION`` makes the N-th passage
of a point (`FAULT_POINTS`) end the process as SIGKILL would (``kill``) or raise what a full or
broken disk raises (``enospc``, ``eio``).
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from actor_mimic.errors import DataError

TEMPORARY = ".tmp-"
TRASH = ".trash-"
REPLACED = ".replaced-"

FAULT_POINTS = (
    "save-directory-made",
    "save-tensors-written",
    "save-state-written",
    "save-segments-linked",
    "save-manifest-written",
    "save-directory-synced",
    "save-old-set-aside",
    "save-renamed",
    "save-parent-synced",
    "prune-renamed",
    "prune-removed",
    "replace-written",
    "replace-renamed",
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LEFTOVER = re.compile(r"\.(?:tmp|trash|replaced)-(?P<pid>[0-9]{1,10})-(?P<name>.+)")
_ACTIONS = {"enospc": errno.ENOSPC, "eio": errno.EIO}
_passages: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Fail here if the environment asks for it; see the module's docstring.

    Raises:
        OSError: the fault that was asked for.
    """
    assert name in FAULT_POINTS, name
    wanted = os.environ.get("ACTOR_MIMIC_FAULT")
    if wanted is None:
        return
    point, number, action = wanted.split(":")
    if point != name:
        return
    _passages[name] = _passages.get(name, 0) + 1
    if _passages[name] != int(number):
        return
    if action == "kill":
        os._exit(137)
    raise OSError(_ACTIONS[action], os.strerror(_ACTIONS[action]))


def is_plain_name(name: str) -> bool:
    """Whether a name is safe as one part of a path: letters, digits, ``._-``; 100 at most."""
    return _NAME.fullmatch(name) is not None


def is_plain_path(name: str) -> bool:
    """Whether a path is one plain name, or two with a slash between them."""
    parts = name.split("/")
    return len(parts) <= 2 and all(is_plain_name(part) for part in parts)


def json_bytes(content: Any) -> bytes:
    """Readable JSON in ASCII, always the same for the same content.

    Raises:
        ValueError: if a number is not finite, which JSON cannot say.
        TypeError: if something is not plain data.
    """
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def parse_json(content: bytes, *, path: Path | str) -> Any:
    """Parse untrusted JSON.

    Raises:
        DataError: if it is none, nested too deeply, or has a number that is not finite, which
            Python's parser would make of ``NaN`` and of ``1e999``; names ``path``.
    """
    try:
        return json.loads(content, parse_constant=_finite, parse_float=_finite)
    # RecursionError is how the parser answers ten thousand opening brackets.
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON, but {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is no finite number")
    return number


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file for reading, as a descriptor; never through a link, never a pipe.

    Raises:
        DataError: if it is missing or something else.
    """
    try:
        # Without O_NONBLOCK, opening a pipe put here by somebody would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise DataError(f"{path}: expected a regular file, got: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DataError(f"{path}: expected a regular file, got something else")
        yield descriptor
    finally:
        os.close(descriptor)


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Read a whole small file.

    Raises:
        DataError: if it is missing, unreadable, not a regular file, or larger than ``max_bytes``.
    """
    with _bytes_of(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"{path}: expected at most {max_bytes} bytes, got more")
    return content


def file_sha256(path: Path) -> str:
    """Hash of a regular file, as 64 hexadecimal digits.

    Raises:
        DataError: if it is missing, unreadable, or not a regular file.
    """
    with _bytes_of(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _bytes_of(path: Path) -> Iterator[BufferedReader]:
    """A sector that cannot be read is damage to this file, like one that reads otherwise."""
    with open_regular(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        try:
            yield file
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def sync_path(path: Path) -> None:
    """Make a file's bytes, or a directory's names, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory inside one of ours, unless it is there.

    Raises:
        OSError: also if there is a link of that name, which may lead anywhere.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "expected a directory, got a symbolic link", str(path))
    if not path.is_dir():
        path.mkdir()
        sync_path(path.parent)


def make_directories(path: Path) -> None:
    """Make a directory and those above it; what is written there later is found by its whole path.

    Raises:
        OSError: if that fails.
    """
    made = [part for part in (path, *path.parents) if not part.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for part in made:
        sync_path(part.parent)


def write_new(path: Path, content: bytes) -> None:
    """Create a file with this content and sync it.

    Raises:
        OSError: also if there is something of that name already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """Give a file new content: a reader, or a crash, meets the old one or the new one.

    Raises:
        OSError: the old content is still there, unless only the last sync failed.
    """
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    try:
        temporary.unlink(missing_ok=True)
        write_new(temporary, content)
        fault_point("replace-written")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fault_point("replace-renamed")
    sync_path(path.parent)


def move_to_trash(path: Path) -> None:
    """Rename a directory out of the way and remove it; what cannot be removed stays as trash.

    Raises:
        OSError: if it cannot be renamed; it is untouched then.
    """
    trash = path.parent / f"{TRASH}{os.getpid()}-{path.name}"
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(path, trash)
    fault_point("prune-renamed")
    shutil.rmtree(trash, ignore_errors=True)
    fault_point("prune-removed")


def clean_leftovers(directory: Path) -> list[str]:
    """Remove what dead writers left in a directory, and put back what one had set aside.

    Call it where nobody else writes, so under the run's lock, and before the first write: a
    leftover that carries this process' own number comes from a predecessor with the same one,
    as happens in containers.

    Args:
        directory: may be missing.

    Returns:
        The names that are gone. Those of processes that live are left alone, except for trash,
        which nobody wants back, and for a checkpoint that was set aside and not replaced: the
        number of its dead writer may be another process' by now.
    """
    gone: list[str] = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        match = _LEFTOVER.fullmatch(path.name)
        if match is None:
            continue
        original = directory / match["name"]
        if path.name.startswith(REPLACED) and not os.path.lexists(original):
            os.rename(path, original)
            sync_path(directory)
        elif not path.name.startswith(TRASH) and _is_another_live_process(int(match["pid"])):
            continue
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if not os.path.lexists(path):
            gone.append(path.name)
    return gone


def _is_another_live_process(pid: int) -> bool:
    if pid in (0, os.getpid()):
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
