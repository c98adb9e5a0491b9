"""MANIFEST.json: what a checkpoint holds, written last and believed only when it fits.

The manifest lists every other file with its size and sha256, and ends in a hash of itself: its
own bytes, with the digits of that hash replaced by zeros. So one flipped bit anywhere in a
checkpoint is seen. The hashes find damage, not forgery; what a forged checkpoint can do is
bounded by having no code in it, plain names, no links, and headers of bounded size.
"""

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actor_mimic.errors import DataError
from actor_mimic.storage.durable import (
    file_sha256,
    is_plain_path,
    json_bytes,
    open_regular,
    parse_json,
    read_regular,
)

SCHEMA_VERSION = 1
MANIFEST = "MANIFEST.json"
MAX_MANIFEST_BYTES = 4 << 20
MAX_TENSOR_HEADER_BYTES = 1 << 20
MAX_TASKS = 1024
MAX_ACTIONS = 256  # as many as environments take
RESERVED_KEYS = frozenset({"schema", "step", "files", "segments", "manifest_sha256"})

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ZEROS = "0" * 64


def encode_manifest(content: Mapping[str, Any]) -> bytes:
    """JSON of a manifest, with the hash of itself added.

    Raises:
        ValueError, TypeError: if the content is not plain, finite data.
        DataError: if it is too large to be read again.
    """
    blank = json_bytes({**content, "manifest_sha256": _ZEROS})
    if len(blank) > MAX_MANIFEST_BYTES:
        raise DataError(f"{MANIFEST}: expected at most {MAX_MANIFEST_BYTES} bytes, got more")
    digest = hashlib.sha256(blank).hexdigest()
    return json_bytes({**content, "manifest_sha256": digest})


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read and check the manifest alone.

    Raises:
        DataError: if it is missing, damaged, from a newer version of the library, or has names
            that are not plain relative ones.
    """
    path = directory / MANIFEST
    raw = read_regular(path, max_bytes=MAX_MANIFEST_BYTES)
    manifest = parse_json(raw, path=path)
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(manifest).__name__}")
    check_schema(manifest.get("schema"), path=path)
    _check_own_hash(manifest, raw, path)
    _check_entries(manifest, path)
    return manifest


def check_schema(version: Any, *, path: Path) -> None:
    """Refuse a file of a version that this library does not know.

    Raises:
        DataError: if the version is newer, or none at all.
    """
    if type(version) is not int or version < 1:
        raise DataError(f"{path}: expected schema {SCHEMA_VERSION}, got {version!r:.100}")
    if version > SCHEMA_VERSION:
        raise DataError(
            f"{path}: needs an actor-mimic that reads schema {version}; this one reads up to "
            f"{SCHEMA_VERSION}"
        )


def check_files(directory: Path, manifest: Mapping[str, Any], *, hashed: frozenset[str]) -> None:
    """Check the files that a manifest lists: kind, size, header, and hash where asked.

    Args:
        directory: where the manifest was.
        manifest: from `read_manifest`.
        hashed: names of the files whose bytes are read and hashed.

    Raises:
        DataError: naming the first file that does not fit, what was expected and what came.
    """
    for name, entry in manifest["files"].items():
        path = directory / name
        if path.parent.is_symlink():
            raise DataError(f"{path.parent}: expected a directory, got a symbolic link")
        size = regular_size(path)
        if size != entry["size"]:
            raise DataError(f"{path}: expected {entry['size']} bytes, got {size}")
        if name in hashed:
            digest = file_sha256(path)
            if digest != entry["sha256"]:
                raise DataError(f"{path}: expected sha256 {entry['sha256']}, got {digest}")
        if name.endswith(".safetensors"):
            check_tensor_header(path)


def check_tasks(tasks: dict[str, Any], *, path: Path) -> dict[str, list[str]]:
    """The tasks that a manifest names, if they are so many that a network can play them.

    Raises:
        DataError: if they are not names of tasks, each with the names of its actions.
    """
    if not 0 < len(tasks) <= MAX_TASKS or not all(map(_are_actions, tasks.values())):
        raise DataError(
            f"{path}: expected 1 to {MAX_TASKS} tasks, each with the different names of 1 to "
            f"{MAX_ACTIONS} actions, got {tasks!r:.200}"
        )
    return tasks


def check_tensor_header(path: Path) -> None:
    """Make sure that a safetensors file claims no header that would take much memory to parse.

    Raises:
        DataError: if the header is over a mebibyte or longer than the file.
    """
    with open_regular(path) as descriptor:
        size = os.fstat(descriptor).st_size
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if size < 8 or length > min(size - 8, MAX_TENSOR_HEADER_BYTES):
        raise DataError(
            f"{path}: expected a tensor header of at most {MAX_TENSOR_HEADER_BYTES} bytes inside "
            f"the file of {size}, got {length}"
        )


def regular_size(path: Path) -> int:
    """Size of a regular file in bytes.

    Raises:
        DataError: if it is missing, a link, or not a file.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise DataError(f"{path}: expected a file, got: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: expected a regular file, got something else")
    return status.st_size


def _are_actions(names: Any) -> bool:
    return (
        isinstance(names, list)
        and 0 < len(names) <= MAX_ACTIONS
        and all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names)
    )


def _check_own_hash(manifest: Mapping[str, Any], raw: bytes, path: Path) -> None:
    claimed = manifest.get("manifest_sha256")
    if not isinstance(claimed, str) or not _SHA256.fullmatch(claimed):
        raise DataError(f"{path}: expected a manifest_sha256 of 64 digits, got none")
    actual = hashlib.sha256(raw.replace(claimed.encode(), _ZEROS.encode())).hexdigest()
    if actual != claimed:
        raise DataError(f"{path}: expected sha256 {claimed}, got {actual}")


def _check_entries(manifest: Mapping[str, Any], path: Path) -> None:
    step, files, segments = (manifest.get(key) for key in ("step", "files", "segments"))
    if type(step) is not int or step < 0:
        raise DataError(f"{path}: expected step to be a count, got {step!r:.100}")
    if not isinstance(files, dict) or not isinstance(segments, list):
        raise DataError(f"{path}: expected files to be an object and segments a list")
    for name, entry in files.items():
        if not is_plain_path(name) or name == MANIFEST:
            raise DataError(f"{path}: expected plain relative file names, got {name!r:.200}")
        if (
            not isinstance(entry, dict)
            or type(entry.get("size")) is not int
            or not isinstance(entry.get("sha256"), str)
            or not _SHA256.fullmatch(entry["sha256"])
        ):
            raise DataError(f"{path}: expected size and sha256 of {name}, got {entry!r:.200}")
    unknown = [name for name in segments if not isinstance(name, str) or name not in files]
    if unknown or len(set(segments)) != len(segments):
        raise DataError(f"{path}: expected segments to be listed files, got {segments!r:.200}")
