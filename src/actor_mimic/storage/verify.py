"""Everything under a directory of runs, checked byte by byte; nothing is written."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from actor_mimic.errors import DataError
from actor_mimic.storage.checkpoint import BEST, read_best, read_checkpoint
from actor_mimic.storage.durable import parse_json, read_regular
from actor_mimic.storage.manifest import MANIFEST, check_schema
from actor_mimic.storage.naming import checkpoint_name, step_of
from actor_mimic.storage.records import read_records
from actor_mimic.storage.run_dir import COMPLETE, MAX_JSON_BYTES, RECORDS, RUN


@dataclass(frozen=True)
class Finding:
    """One checkpoint or one file.

    Attributes:
        path: of it.
        facts: how much was checked.
        problem: what is wrong, naming the file; None if it is whole.
    """

    path: Path
    facts: str
    problem: str | None = None


def verify(directory: Path) -> Iterator[Finding]:
    """Hashes every file of every checkpoint, and reads all JSON and all records.

    What a process is writing, and what dead ones left under hidden names, is passed over; so is
    what a running process prunes meanwhile.

    Args:
        directory: a run, a recipe's runs, an import or a single checkpoint.

    Raises:
        DataError: if it is no directory.
    """
    if not directory.is_dir():
        raise DataError(f"{directory}: expected a run or a checkpoint directory")
    if os.path.lexists(directory / MANIFEST):
        yield _checked(directory)
        return
    unread: list[OSError] = []
    for parent, names, files in os.walk(directory, onerror=unread.append):
        here = Path(parent)
        # In place, so that the walk passes by what is hidden and what is checked as a whole.
        names[:] = sorted(name for name in names if not name.startswith("."))
        found = {name for name in names if _is_checkpoint(here / name)}
        names[:] = [name for name in names if name not in found]
        found |= {name for name in files if name.endswith(".json") and not name.startswith(".")}
        found |= {RECORDS}.intersection(files)
        for path in [here / name for name in sorted(found)]:
            finding = _checked(path)
            if finding.problem is None or os.path.lexists(path):
                yield finding
    for error in unread:
        if os.path.lexists(error.filename):
            path = Path(error.filename)
            yield Finding(path, "", f"{path}: cannot be read: {error.strerror}")


def _is_checkpoint(path: Path) -> bool:
    # A link in place of all checkpoints is none of ours either, and the walk would pass it by.
    linked = path.name == "checkpoints" and path.is_symlink()
    return linked or step_of(path.name) is not None or os.path.lexists(path / MANIFEST)


def _checked(path: Path) -> Finding:
    try:
        return Finding(path, _check(path))
    except DataError as error:
        return Finding(path, "", str(error))


def _check(path: Path) -> str:
    """What was checked.

    Raises:
        DataError: saying what is wrong.
    """
    if path.is_symlink():
        raise DataError(f"{path}: is a symbolic link")
    if path.is_dir():
        files = read_checkpoint(path).manifest["files"]
        size = sum(entry["size"] for entry in files.values())
        return f"{len(files)} files, {size / 1e6:.1f} MB"
    if path.name == RECORDS:
        return f"{len(read_records(path)):,} records"
    content = parse_json(read_regular(path, max_bytes=MAX_JSON_BYTES), path=path)
    if path.name in (RUN, COMPLETE):
        check_schema(content.get("schema") if isinstance(content, dict) else None, path=path)
    if path.name == BEST:
        best = read_best(path.parent)
        home = path.parent / "checkpoints"
        if best is not None and not (home / checkpoint_name(best.step)).is_dir():
            raise DataError(f"{path}: names step {best.step:,}, of which there is no checkpoint")
    return "JSON"
