"""One process at a time in a run directory."""

import fcntl
import os
import socket
from pathlib import Path

from actor_mimic.errors import CannotCreateError, LockedError


def take_lock(path: Path) -> int:
    """Takes the lock of a directory, without waiting for it.

    Args:
        path: the lock; made if missing. It holds the name of the process that has it.

    Returns:
        A descriptor. The lock is free again when it is closed, or its process is gone.

    Raises:
        CannotCreateError: if the file cannot be written to.
        LockedError: if another process has it, or had it a moment ago; names process and host, if
            it is known.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise CannotCreateError(f"cannot write {path}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        if os.fstat(descriptor).st_ino != os.stat(path, follow_symlinks=False).st_ino:
            # Whoever had it has just removed it, and a third may have made another.
            raise BlockingIOError
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 300, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise LockedError(f"{path.parent} is in use by {owner or 'another process'}") from error
    except OSError as error:
        os.close(descriptor)
        raise CannotCreateError(f"cannot lock {path}: {error}") from error
    return descriptor
