"""Which checkpoints stay, and how the others go; what of them stays when a run is done."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actor_mimic.errors import DataError, StorageError
from actor_mimic.storage.checkpoint import Checkpoint, read_checkpoint
from actor_mimic.storage.durable import TEMPORARY, move_to_trash
from actor_mimic.storage.manifest import RESERVED_KEYS, check_files
from actor_mimic.storage.naming import find_checkpoints, step_of
from actor_mimic.storage.staging import STATE, link, put_in_place, write_files, write_manifest


def prune(
    directory: Path,
    *,
    keep_last: int = 2,
    keep: frozenset[int] = frozenset(),
    keep_every_steps: int = 0,
) -> list[int]:
    """Delete old checkpoints, but never below two that are valid.

    What counts as valid is checked here, by hashing everything but the replay: its segments are
    large, and older ones are the same files in every checkpoint anyway. A damaged checkpoint
    does not count and is not deleted either.

    Args:
        directory: the run's ``checkpoints``.
        keep_last: how many of the newest valid ones stay; at least 2.
        keep: steps that stay as well, such as the best.
        keep_every_steps: of every period of so many steps, the first checkpoint stays too; 0 for
            none. Whatever is deleted, it goes on being the first.

    Returns:
        Steps of those deleted.

    Raises:
        StorageError: if one cannot be moved away.
        ValueError: if ``keep_last`` is below 2.
    """
    if keep_last < 2:
        raise ValueError(f"keep_last must be at least 2, got {keep_last}")
    removed: list[int] = []
    num_valid = 0
    found = find_checkpoints(directory)
    if keep_every_steps:
        steps = [step for path in reversed(found) if (step := step_of(path.name)) is not None]
        keep = keep.union({step // keep_every_steps: step for step in steps}.values())
    for path in reversed(found):
        step = step_of(path.name)
        if num_valid < keep_last:
            num_valid += _is_valid(path, hashed=True)
        elif step is not None and step not in keep and _is_valid(path, hashed=False):
            try:
                move_to_trash(path)
            except OSError as error:
                raise StorageError(f"cannot remove {path}: {error}") from error
            removed.append(step)
    return removed


def drop_replays(directory: Path, state: Mapping[str, Any]) -> None:
    """Make every checkpoint anew without the replay that it may hold.

    What is kept is linked with the hashes that it was saved with, so that what has been damaged
    since is still found out; one whose state is damaged is left as it is. A kill leaves each
    checkpoint as it was or as it is to be, once `clean_leftovers` has been called.

    Args:
        directory: the run's ``checkpoints``.
        state: what ``state.json`` says instead wherever it speaks of the replay.

    Raises:
        StorageError: if one cannot be written.
    """
    for path in find_checkpoints(directory):
        try:
            checkpoint = read_checkpoint(path, verify=False)
            # The one file that is written anew, and so hashed anew.
            check_files(path, checkpoint.manifest, hashed=frozenset({STATE}))
        except DataError:
            continue
        if checkpoint.manifest["segments"]:
            try:
                _put_without_replay(checkpoint, state)
            except OSError as error:
                raise StorageError(f"cannot take the replay out of {path}: {error}") from error


def _put_without_replay(checkpoint: Checkpoint, state: Mapping[str, Any]) -> None:
    path, manifest = checkpoint.path, checkpoint.manifest
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        kept = {n: e for n, e in manifest["files"].items() if n not in manifest["segments"]}
        for name in kept.keys() - {STATE}:
            link(path / name, temporary / name)
        listed = kept | write_files(temporary, {}, {**checkpoint.load_state(), **state})
        told = {key: value for key, value in manifest.items() if key not in RESERVED_KEYS}
        write_manifest(temporary, {**told, "step": checkpoint.step}, listed)
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _is_valid(path: Path, *, hashed: bool) -> bool:
    try:
        checkpoint = read_checkpoint(path, verify=False)
        names = frozenset(checkpoint.manifest["files"]).difference(checkpoint.manifest["segments"])
        check_files(path, checkpoint.manifest, hashed=names if hashed else frozenset())
    except DataError:
        return False
    return True
