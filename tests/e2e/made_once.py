"""What takes long to make is made by one of the processes that share the tests out."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A directory of this process alone, with what ``make`` put into the first one.

    Args:
        factory: pytest's own.
        name: tells this directory from others.
        make: fills the empty directory that it is given; nothing in it may name where it lies.
    """
    copy = factory.mktemp(name)
    # Of a worker it is popen-gw0 beside the others'; of a process without workers, the whole.
    mine = factory.getbasetemp()
    shared = (mine.parent if mine.name.startswith("popen-") else mine) / f"{name}-made"
    with FileLock(shared.with_suffix(".lock")):
        if not shared.exists():
            begun = factory.mktemp(f"{name}-begun")
            make(begun)
            begun.rename(shared)
    return Path(shutil.copytree(shared, copy, dirs_exist_ok=True))
