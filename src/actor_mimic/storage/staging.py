"""What a save does inside its temporary directory, and how that takes its final name."""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actor_mimic.errors import DataError, DivergenceError
from actor_mimic.storage.durable import (
    REPLACED,
    fault_point,
    is_plain_name,
    json_bytes,
    sync_path,
    write_new,
)
from actor_mimic.storage.manifest import (
    MANIFEST,
    RESERVED_KEYS,
    SCHEMA_VERSION,
    encode_manifest,
    read_manifest,
)
from actor_mimic.storage.tensor_files import file_entry, write_tensor_file

STATE = "state.json"
REPLAY = "replay"


def check_finite(model: Mapping[str, Tensor]) -> None:
    """Refuse a model with a value that is not finite.

    Raises:
        DivergenceError: naming the tensor.
    """
    for name, tensor in model.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DivergenceError(f"the model's {name} has a value that is not finite; not saved.")


def check_names(
    tensors: Iterable[str],
    replay_segments: Iterable[str],
    link_segments: Sequence[Path],
    manifest: Iterable[str],
) -> None:
    """Refuse names that are not plain, taken twice, or ours.

    Raises:
        ValueError: naming the first.
    """
    segments = [*replay_segments, *(path.stem for path in link_segments)]
    for name in (*tensors, *segments):
        if not is_plain_name(f"{name}.safetensors"):
            raise ValueError(f"expected a plain name of letters, digits and ._-, got {name!r}")
    if len(set(segments)) != len(segments):
        raise ValueError(f"expected replay segments of different names, got {segments}")
    if taken := RESERVED_KEYS.intersection(manifest):
        raise ValueError(f"the keys {sorted(taken)} of a manifest are not the caller's")


def write_files(
    directory: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write and sync the groups of tensors and state.json; their manifest entries."""
    entries: dict[str, dict[str, Any]] = {}
    for name, group in tensors.items():
        path = directory / f"{name}.safetensors"
        entries[path.name] = write_tensor_file(path, group)
        fault_point("save-tensors-written")
    write_new(directory / STATE, json_bytes(dict(state)))
    entries[STATE] = file_entry(directory / STATE)
    fault_point("save-state-written")
    return entries


def write_replay(
    directory: Path, new: Mapping[str, Mapping[str, Tensor]], old: Sequence[Path]
) -> dict[str, dict[str, Any]]:
    """Link the old segments and write the new ones; the manifest entries of both, in order.

    A new one is asked for only when it is its turn, and let go once it is written.

    Raises:
        DataError: if an old one is not what its checkpoint says.
    """
    if not new and not old:
        return {}
    (directory / REPLAY).mkdir()
    manifests = {home: read_manifest(home) for home in {path.parent.parent for path in old}}
    entries: dict[str, dict[str, Any]] = {}
    for path in old:
        name = f"{REPLAY}/{path.name}"
        entry = manifests[path.parent.parent]["files"].get(name)
        if entry is None or path.is_symlink() or path.stat().st_size != entry["size"]:
            raise DataError(f"{path}: expected the segment {entry}, which this is not")
        link(path, directory / name)
        entries[name] = entry
    fault_point("save-segments-linked")
    for stem in new:
        name = f"{REPLAY}/{stem}.safetensors"
        # Without a name for the segment, which would hold it while the next one is made.
        entries[name] = write_tensor_file(directory / name, new[stem])
    sync_path(directory / REPLAY)
    return entries


def write_manifest(
    directory: Path, content: Mapping[str, Any], files: Mapping[str, dict[str, Any]]
) -> None:
    """Write and sync the manifest over what has been written, and sync the directory."""
    listed = {
        "schema": SCHEMA_VERSION,
        "files": dict(files),
        "segments": [name for name in files if name.startswith(f"{REPLAY}/")],
    }
    write_new(directory / MANIFEST, encode_manifest({**content, **listed}))
    fault_point("save-manifest-written")
    sync_path(directory)
    fault_point("save-directory-synced")


def link(old: Path, new: Path) -> None:
    """Give a file a second name, or where that cannot be make a copy of it."""
    try:
        os.link(old, new)
    except OSError as error:
        # Some file systems have no hard links, and others only so many to one file.
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP):
            raise
        shutil.copyfile(old, new)
        sync_path(new)


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a finished directory to its name; an old one of that name is set aside meanwhile.

    Raises:
        OSError: if that fails; the old one is back then.
    """
    aside = target.parent / f"{REPLACED}{os.getpid()}-{target.name}"
    try:
        if os.path.lexists(target):
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(target, aside)
            fault_point("save-old-set-aside")
        os.rename(temporary, target)
    except OSError:
        if os.path.lexists(aside) and not os.path.lexists(target):
            os.rename(aside, target)
        raise
    fault_point("save-renamed")
    sync_path(target.parent)
    fault_point("save-parent-synced")
    shutil.rmtree(aside, ignore_errors=True)
