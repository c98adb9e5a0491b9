"""Writers and readers that do it wrong: a row that does not catch its mutant shows nothing."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from actor_mimic.storage.checkpoint import Checkpoint, read_checkpoint
from actor_mimic.storage.durable import sync_path
from actor_mimic.storage.manifest import MANIFEST, read_manifest
from actor_mimic.storage.naming import checkpoint_name, find_checkpoints
from actor_mimic.storage.staging import STATE, write_files, write_manifest
from actor_mimic.storage.tensor_files import write_tensor_file


def write_in_place(
    directory: Path,
    *,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    manifest: Mapping[str, Any],
    replay_segments: Mapping[str, Mapping[str, Tensor]] | None = None,
    link_segments: Sequence[Path] = (),
) -> Checkpoint:
    """`write_checkpoint` as most programs do it: one file after the other, over the old ones."""
    target = directory / checkpoint_name(step)
    found = find_checkpoints(directory)
    old: dict[str, Any] = {}
    if found:
        old = read_manifest(found[-1])["files"]
        os.rename(found[-1], target)
    else:
        target.mkdir(parents=True)
    for name in (MANIFEST, STATE, *(f"{group}.safetensors" for group in tensors)):
        (target / name).unlink(missing_ok=True)
    entries = write_files(target, tensors, state)
    (target / "replay").mkdir(exist_ok=True)
    for path in link_segments:
        entries[f"replay/{path.name}"] = old[f"replay/{path.name}"]
    for name in replay_segments or {}:
        path = target / "replay" / f"{name}.safetensors"
        path.unlink(missing_ok=True)
        entries[f"replay/{path.name}"] = write_tensor_file(path, (replay_segments or {})[name])
    write_manifest(target, {**manifest, "step": step}, entries)
    sync_path(directory)
    return read_checkpoint(target, verify=False)


def prune_to_one_before_saving(directory: Path) -> None:
    """Makes room first, and in place."""
    for path in find_checkpoints(directory)[:-1]:
        shutil.rmtree(path)
