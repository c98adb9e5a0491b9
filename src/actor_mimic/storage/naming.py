"""How checkpoints are named, and which are there by their names."""

import re
from pathlib import Path

_STEP_NAME = re.compile(r"step-([0-9]{9,18})")


def checkpoint_name(step: int) -> str:
    """``step-000001000`` for step 1000, so that names sort by step."""
    return f"step-{step:09d}"


def step_of(name: str) -> int | None:
    """The inverse of `checkpoint_name`; None for any other name."""
    match = _STEP_NAME.fullmatch(name)
    return int(match[1]) if match else None


def find_checkpoints(directory: Path) -> list[Path]:
    """Directories that are named like checkpoints, by rising step; links are not among them."""
    if not directory.is_dir():
        return []
    steps = {path: step_of(path.name) for path in directory.iterdir()}
    found = [(step, path) for path, step in steps.items() if step is not None]
    return [path for _, path in sorted(found) if path.is_dir() and not path.is_symlink()]


def what_survived(directory: Path) -> str:
    """For the message of a save that failed: the newest checkpoint that is there."""
    try:
        found = find_checkpoints(directory)
    except OSError:
        return "the directory cannot be read"
    return f"the newest checkpoint there is {found[-1].name}" if found else "there is none yet"
