"""Checkpoints: directories of tensors and JSON that are complete or not there; no pickle.

::

    checkpoints/step-000001000/
        model.safetensors  optimizer.safetensors  ...     one file per group of tensors
        state.json                                        counters, generators, environments
        replay/NAME.safetensors                           append-only, hard-linked from save to save
        MANIFEST.json                                     written last

A save goes into ``.tmp-PID-step-...`` beside the others; every file is synced, then the manifest,
then the directory; it is renamed, and the parent is synced. Whatever stops it, the checkpoints
that were there still are.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors import SafetensorError
from torch import Tensor

from actor_mimic.errors import DataError, StorageError
from actor_mimic.storage.durable import (
    TEMPORARY,
    fault_point,
    json_bytes,
    make_directory,
    parse_json,
    read_regular,
    replace_file,
)
from actor_mimic.storage.manifest import MANIFEST, check_files, check_tasks, read_manifest
from actor_mimic.storage.naming import (
    checkpoint_name,
    find_checkpoints,
    step_of,
    what_survived,
)
from actor_mimic.storage.shipped import PREFIX, shipped_name, shipped_path
from actor_mimic.storage.staging import (
    STATE,
    check_finite,
    check_names,
    put_in_place,
    write_files,
    write_manifest,
    write_replay,
)
from actor_mimic.storage.tensor_files import load_tensor_file

MODEL = "model.safetensors"
BEST = "best.json"
MAX_STATE_BYTES = 512 << 20

_log = logging.getLogger(__name__)


class Best(NamedTuple):
    """Which checkpoint of a run scored highest."""

    step: int
    score: float


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest has been checked; tensors are loaded when asked for.

    Attributes:
        path: its directory.
        manifest: everything in MANIFEST.json.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Environment steps when it was taken."""
        return self.manifest["step"]

    @property
    def kind(self) -> str:
        """What its model is: an expert's network, a student, ..."""
        return self._get("kind", str)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the stage that wrote it."""
        return self._get("config", dict)

    @property
    def network(self) -> dict[str, Any]:
        """What is needed to build the network again."""
        return self._get("network", dict)

    @property
    def tasks(self) -> dict[str, list[str]]:
        """Tasks that the model plays, each with the names of its actions in the task's order."""
        return check_tasks(self._get("tasks", dict), path=self.path / MANIFEST)

    @property
    def parents(self) -> list[Any]:
        """What it was made from; models are named by the hash of their file."""
        return self._get("parents", list)

    @property
    def model_sha256(self) -> str:
        """Hash of the model's file, under which others refer to it."""
        if MODEL not in self.manifest["files"]:
            raise DataError(f"{self.path}: expected {MODEL}, which is not in {MANIFEST}")
        return self.manifest["files"][MODEL]["sha256"]

    @property
    def name(self) -> str:
        """What a user calls it: ``zoo:NAME``, or its path."""
        return shipped_name(self.path) or str(self.path)

    @property
    def run(self) -> Path | None:
        """The run that it lies in, if it lies in one."""
        home = self.path.parent
        return home.parent if home.name == "checkpoints" else None

    def as_parent(self) -> dict[str, Any]:
        """How the manifest of a child names it: by the hash of its weights."""
        return {
            "kind": self.kind,
            "model_sha256": self.model_sha256,
            "step": self.step,
            "tasks": list(self.tasks),
        }

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Load one group, by the name it was saved under, onto the CPU.

        The tensors may be views of the mapped file: copy them into place and let them go.

        Raises:
            DataError: if there is no such group, or it is not a safetensors file.
        """
        file_name = f"{name}.safetensors"
        if file_name not in self.manifest["files"]:
            raise DataError(f"{self.path}: expected {file_name}, which is not in {MANIFEST}")
        return load_tensor_file(self.path / file_name)

    def load_state(self) -> dict[str, Any]:
        """The plain data that was saved beside the tensors.

        Raises:
            DataError: if it is not a JSON object.
        """
        path = self.path / STATE
        state = parse_json(read_regular(path, max_bytes=MAX_STATE_BYTES), path=path)
        if not isinstance(state, dict):
            raise DataError(f"{path}: expected a JSON object, got {type(state).__name__}")
        return state

    def _get(self, key: str, expected: type) -> Any:
        value = self.manifest.get(key)
        if not isinstance(value, expected):
            raise DataError(
                f"{self.path / MANIFEST}: expected {key} to be {expected.__name__}, "
                f"got {value!r:.100}"
            )
        return value


def write_checkpoint(
    directory: Path,
    *,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    manifest: Mapping[str, Any],
    replay_segments: Mapping[str, Mapping[str, Tensor]] | None = None,
    link_segments: Sequence[Path] = (),
) -> Checkpoint:
    """Write a checkpoint durably; when this returns, it survives a power failure.

    One of the same step is replaced: it is set aside, and comes back if this process dies before
    the new one is in place (`durable.clean_leftovers`).

    Args:
        directory: the run's ``checkpoints``; made if missing.
        step: environment steps so far; the name.
        tensors: groups by plain name; ``model`` must be finite.
        state: JSON data, finite.
        manifest: JSON data to be put into the manifest: kind, tasks, network, config, parents, ...
        replay_segments: new segments of the replay by plain name, in order. Each is asked for
            once, written and let go before the next: a mapping that makes them when asked never
            has two in memory.
        link_segments: segments of an earlier checkpoint that still count, oldest first. They are
            hard-linked, and their recorded hashes are taken over.

    Raises:
        DivergenceError: if the model has a value that is not finite; nothing is written.
        StorageError: if the disk is full or broken; earlier checkpoints are as they were.
        DataError: if a segment to link is not what its checkpoint says.
        ValueError: if a name is not plain or taken twice, or a number in the JSON not finite.
    """
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    replay_segments = replay_segments or {}
    check_finite(tensors.get("model", {}))
    check_names(tensors, replay_segments, link_segments, manifest)
    target = directory / checkpoint_name(step)
    temporary = directory / f"{TEMPORARY}{os.getpid()}-{target.name}"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        make_directory(directory)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        fault_point("save-directory-made")
        listed = {
            **write_files(temporary, tensors, state),
            **write_replay(temporary, replay_segments, link_segments),
        }
        write_manifest(temporary, {**manifest, "step": step}, listed)
        put_in_place(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(f"cannot save {target}: {error}; {what_survived(directory)}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return read_checkpoint(target, verify=False)


def read_checkpoint(path: Path, *, verify: bool = True, replay: bool = True) -> Checkpoint:
    """Open a checkpoint directory.

    Args:
        path: the directory with MANIFEST.json.
        verify: hash its files; otherwise only names, sizes and headers are checked.
        replay: hash the segments of the replay as well, which may be gigabytes; whoever only plays
            or starts from the weights has no need of them.

    Raises:
        DataError: naming the file, what was expected and what came.
    """
    manifest = read_manifest(path)
    named = step_of(path.name)
    if named not in (None, manifest["step"]):
        raise DataError(f"{path / MANIFEST}: expected step {named}, got {manifest['step']}")
    hashed = frozenset(manifest["files"] if verify else ())
    check_files(path, manifest, hashed=hashed if replay else hashed - {*manifest["segments"]})
    return Checkpoint(path, manifest)


def newest_valid(
    directory: Path, on_damaged: Callable[[Path, str], None], *, replay: bool = True
) -> Checkpoint | None:
    """Open the newest checkpoint that is whole.

    Args:
        directory: the run's ``checkpoints``.
        on_damaged: is told of each one passed over, and why.
        replay: as of `read_checkpoint`.

    Returns:
        None only if there are no checkpoints at all: a run whose checkpoints are all damaged is
        never started over unasked.

    Raises:
        DataError: if there are some and all are damaged.
    """
    found = find_checkpoints(directory)
    for path in reversed(found):
        try:
            return read_checkpoint(path, replay=replay)
        except DataError as error:
            on_damaged(path, str(error))
    if found:
        raise DataError(f"{directory}: expected a whole checkpoint, all {len(found)} are damaged")
    return None


def resolve_checkpoint(
    path: Path,
    *,
    which: Literal["newest", "best"] = "newest",
    on_damaged: Callable[[Path, str], None] | None = None,
) -> Checkpoint:
    """Open what a user named as a checkpoint, for its weights.

    Its replay, if it has one, is not hashed.

    Args:
        path: a checkpoint directory, a run with ``checkpoints``, or ``zoo:NAME``.
        which: of a run's checkpoints; the best is the one that `write_best` named.
        on_damaged: as in `newest_valid`; a warning is logged by default.

    Raises:
        DataError: saying what was expected there and what is there.
        UsageError: if no expert of that name is shipped.
    """
    if str(path).startswith(PREFIX):
        path = shipped_path(str(path))
    if not path.is_dir():
        came = "a file" if path.exists() else "nothing of that name"
        raise DataError(f"{path}: expected a run or a checkpoint directory, got {came}")
    if os.path.lexists(path / MANIFEST):
        return read_checkpoint(path, replay=False)
    checkpoints = path / "checkpoints"
    if not checkpoints.is_dir():
        raise DataError(
            f"{path}: expected a run (with checkpoints/) or a checkpoint (with {MANIFEST}), got a "
            "directory with neither"
        )
    if checkpoints.is_symlink():
        raise DataError(f"{checkpoints}: expected a directory, got a symbolic link")
    if which == "best":
        best = read_best(path)
        if best is None:
            raise DataError(f"{path}: expected {BEST}, but this run has not been evaluated yet")
        return read_checkpoint(checkpoints / checkpoint_name(best.step), replay=False)
    newest = newest_valid(checkpoints, on_damaged or _warn, replay=False)
    if newest is None:
        raise DataError(f"{checkpoints}: expected a checkpoint, but this run has none yet")
    return newest


def write_best(run: Path, *, step: int, score: float) -> None:
    """Name a run's best checkpoint in its best.json.

    Raises:
        StorageError: if it cannot be written; the old one is as it was.
    """
    try:
        replace_file(run / BEST, json_bytes({"step": step, "score": score}))
    except OSError as error:
        raise StorageError(f"cannot write {run / BEST}: {error}") from error


def read_best(run: Path) -> Best | None:
    """A run's best checkpoint, or None before there is one.

    Raises:
        DataError: if best.json is damaged.
    """
    path = run / BEST
    if not os.path.lexists(path):
        return None
    content = parse_json(read_regular(path, max_bytes=4096), path=path)
    step, score = map(content.get, Best._fields) if isinstance(content, dict) else (None, None)
    if type(step) is not int or step < 0 or not isinstance(score, float | int):
        raise DataError(f"{path}: expected a step and a score, got {content!r:.100}")
    return Best(step, float(score))


def _warn(path: Path, reason: str) -> None:
    _log.warning("passing over %s: %s", path.name, reason)
