"""Foreign files, bounded and looked through before anything in them is decoded.

Nothing here imports PyTorch, unpickles, or writes a file. A file is known by its bytes, not by
its name:

* a zip with ``policy.pth``: Stable-Baselines3; of its members only that one is ever read, and it
  is itself the next kind,
* a zip with ``NAME/data.pkl`` and ``NAME/data/0``...: what ``torch.save`` writes,
* eight bytes of length and a JSON header: safetensors.

Two programs may read one zip differently, so PyTorch is never given the file: the members that
were looked at here are packed again, in memory, and it reads those.
"""

import hashlib
import io
import json
import math
import os
import pickletools
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from actor_mimic.errors import DataError, UnsafeError
from actor_mimic.storage.durable import open_regular

MAX_FILE_BYTES = 1 << 30
# Once decoded, and in the file that they are decoded from. Agents of the networks that are known
# here take a tenth of it; decoding takes several times as much memory.
MAX_WEIGHTS_BYTES = 128 << 20
MAX_MEMBERS = 1024
MAX_SIGNATURES = 8 * MAX_MEMBERS  # of members in the whole file, archives inside it included
MAX_RATIO = 100  # of one member: deflate reaches 1,000 on zeros, text a tenth of that
# Of all members together: weights hardly shrink at all, and those who write them do not try.
MAX_TOTAL_RATIO = 4
ALWAYS_BYTES = 64 << 20  # whatever the ratio
MAX_HEADER_BYTES = 1 << 20  # of a pickle of tensors' shapes, or a safetensors header
MAX_INSTRUCTIONS = 64 * MAX_MEMBERS  # of such a pickle; one tensor takes some 25
MAX_AXES = 8
MAX_NAME = 200

# Bytes of a number, by the name of its type in safetensors.
_NUMBERS = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "U8": 1, "BOOL": 1},
}

_CHUNK = 1 << 20
_ZIP = b"PK\x03\x04"
_MEMBER = b"PK\x01\x02"  # starts each entry of a zip's directory
_TORCH_MEMBER = re.compile(
    r"(?P<root>[^/]+)/(?P<name>data\.pkl|data/[0-9]{1,6}|version|byteorder"
    r"|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
    | {
        f"torch {name}Storage"
        for name in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Byte", "Bool")
    }
)
_OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "DICT", "LIST"}
    | {"EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_LIST", "NONE", "NEWTRUE", "NEWFALSE"}
    | {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINPERSID"}
    | {"GLOBAL", "REDUCE", "BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS"}
    | {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
)


@dataclass(frozen=True)
class ForeignFile:
    """A file that has been looked through.

    Attributes:
        path: where it is.
        kind: what it is: a zip of Stable-Baselines3, a file of ``torch.save``, or safetensors.
        sha256: of the whole file.
        weights: what is to be decoded: a clean zip for ``torch.load``, or safetensors.
    """

    path: Path
    kind: Literal["sb3", "torch", "safetensors"]
    sha256: str
    weights: bytes


def open_foreign(path: Path) -> ForeignFile:
    """Looks through a file.

    Raises:
        UnsafeError: if reading on could run code or take more memory than any honest file.
        DataError: if it is damaged, or no such file.
    """
    with open_regular(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > MAX_FILE_BYTES:
            _unsafe(path, f"at most {MAX_FILE_BYTES} bytes", f"{size}")
        sha256, members = _scan(file)
        start = file.read(9) if file.seek(0) == 0 else b""
        if start.startswith(_ZIP):
            _check_signatures(path, members)
            kind, weights = _open_zip(path, file, size)
            return ForeignFile(path, kind, sha256, weights)
        if start[8:9] == b"{":
            return ForeignFile(path, "safetensors", sha256, read_safetensors(path, file, size))
        if start[:1] == b"\x80" or _is_pickle(file) or b"ustar" in _peek(file, 257, 5):
            _unsafe(
                path,
                "a file of torch.save in its zip format",
                "a bare pickle, whose tensors cannot be bounded before it is run",
            )
    raise DataError(
        f"{path}: expected a zip of Stable-Baselines3, a file of torch.save or safetensors, got "
        f"{size} bytes that start with {start!r}"
    )


def _scan(file: io.BufferedIOBase) -> tuple[str, int]:
    """Hash of the file, and how many members all zips in it can have."""
    digest, members = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        members += chunk.count(_MEMBER)
    return digest.hexdigest(), members


def _is_pickle(file: io.BufferedIOBase) -> bool:
    """Whether the first bytes are instructions of a pickle, up to its end; not followed."""
    try:
        return any(code.name == "STOP" for code, _, _ in pickletools.genops(_peek(file, 0, _CHUNK)))
    # The parser promises no exception of its own.
    except Exception:
        return False


def _peek(file: io.BufferedIOBase, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _open_zip(
    path: Path, file: io.BufferedIOBase, size: int
) -> tuple[Literal["sb3", "torch"], bytes]:
    with _zip(path, file) as archive:
        names = _check_members(path, archive, size)
        if "policy.pth" not in names:
            return "torch", _repack(path, archive, names)
        where = path / "policy.pth"  # for messages only
        start = _first_bytes(path, archive, "policy.pth")
        if not start.startswith(_ZIP):
            _unsafe(where, "a file of torch.save in its zip format", f"{start!r}")
        inner = _read(path, archive, "policy.pth", MAX_WEIGHTS_BYTES)
    # Where it was deflated, none of its members were seen in the bytes of the file.
    _check_signatures(where, inner.count(_MEMBER))
    with _zip(where, io.BytesIO(inner)) as archive:
        return "sb3", _repack(where, archive, _check_members(where, archive, len(inner)))


def _check_signatures(path: Path, members: int) -> None:
    """Before the parser, which keeps half a kilobyte of every member.

    Raises:
        UnsafeError: if there may be too many.
    """
    if members > MAX_SIGNATURES:
        _unsafe(path, f"at most {MAX_SIGNATURES} members", f"{members}")


def _zip(path: Path, file: io.BufferedIOBase) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    # Whatever the parser trips over is damage; it promises no exception of its own.
    except Exception as error:
        raise DataError(f"{path}: expected a whole zip, but {error}") from error


def _check_members(path: Path, archive: zipfile.ZipFile, size: int) -> list[str]:
    """Names of the members, none of which could surprise whoever reads them.

    Raises:
        UnsafeError: naming the first that could.
    """
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        _unsafe(path, f"at most {MAX_MEMBERS} members", f"{len(members)}")
    for member in members:
        name = member.filename
        where = f"the member {name!r:.100}"
        if not _is_inside(name):
            _unsafe(path, "members with plain relative names", where)
        if stat.S_ISLNK(member.external_attr >> 16):
            _unsafe(path, "no links", where)
        if member.flag_bits & 1:
            _unsafe(path, "no encryption", where)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _unsafe(path, "members stored or deflated", f"{where}, of another compression")
        if member.file_size > MAX_RATIO * member.compress_size:
            _unsafe(
                path,
                f"members that shrink to 1/{MAX_RATIO} at most",
                f"{where}, {member.file_size} bytes from {member.compress_size}",
            )
    limit = min(MAX_FILE_BYTES, max(ALWAYS_BYTES, MAX_TOTAL_RATIO * size))
    total = sum(member.file_size for member in members)
    if total > limit:
        _unsafe(path, f"at most {limit} bytes in all members", f"{total}")
    names = [member.filename for member in members]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        _unsafe(path, "every member once", f"two of the name {min(twice)!r:.100}")
    _check_places(path, members, size)
    return names


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    plain = 0 < len(name) <= MAX_NAME and name.isprintable() and not set(name) & {"\\", ":"}
    return plain and parts[0] != "" and not {".", ".."} & set(parts)


def _check_places(path: Path, members: Iterable[zipfile.ZipInfo], size: int) -> None:
    """No byte belongs to two members, or to none before the first."""
    end = 0
    for member in sorted(members, key=lambda entry: entry.header_offset):
        if member.header_offset < end or (end == 0 and member.header_offset > 0):
            _unsafe(path, "members one after the other", f"{member.filename!r:.100} in another")
        end = member.header_offset + 30 + member.compress_size
    if end > size:
        raise DataError(f"{path}: expected {end} bytes of members, got {size}")


def _repack(path: Path, archive: zipfile.ZipFile, names: Iterable[str]) -> bytes:
    """A file of torch.save, from checked members only, stored, under one name.

    Raises:
        UnsafeError: if it holds more than tensors.
        DataError: if it is no such file.
    """
    found: dict[str, str] = {}
    for name in names:
        match = _TORCH_MEMBER.fullmatch(name)
        if match is None:
            if "/" not in name:
                raise DataError(
                    f"{path}: expected a zip with policy.pth, or one of torch.save, got one with "
                    f"{name!r:.100}"
                )
            _unsafe(path, "tensors and their names alone", f"the member {name!r:.100}")
        found[match["name"]] = name
    roots = {name.partition("/")[0] for name in found.values()}
    if "data.pkl" not in found or len(roots) != 1:
        raise DataError(f"{path}: expected data.pkl in one directory, got {sorted(roots)!r:.200}")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as clean:
        left = MAX_WEIGHTS_BYTES
        for short, name in found.items():
            limit = min(left, left if short.startswith("data/") else MAX_HEADER_BYTES)
            content = _read(path, archive, name, limit)
            left -= len(content)
            if short == "data.pkl":
                _check_pickle(path, content)
            clean.writestr(f"archive/{short}", content)
    return packed.getvalue()


def _first_bytes(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        with archive.open(name) as member:
            return member.read(9)
    except Exception as error:
        raise DataError(f"{path}: cannot read the member {name!r:.100}: {error}") from error


def _read(path: Path, archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(max_bytes + 1)
            # To the end, where the checksum is compared.
            whole = len(content) <= max_bytes and not member.read(1)
    except Exception as error:
        raise DataError(f"{path}: cannot read the member {name!r:.100}: {error}") from error
    if not whole:
        _unsafe(path, f"at most {max_bytes} bytes in {name!r:.100}", "more")
    return content


def _check_pickle(path: Path, content: bytes) -> None:
    """Reads the instructions of a pickle, without following them.

    PyTorch's own reader refuses other names too; this comes before PyTorch is loaded, and is the
    shorter list: no sparse, quantised or nested tensors, no classes but dictionaries.

    Raises:
        UnsafeError: if it calls anything but what builds dense tensors.
        DataError: if it is damaged.
    """
    for number, (opcode, argument) in enumerate(_instructions(path, content)):
        if number >= MAX_INSTRUCTIONS:
            _unsafe(path, f"a pickle of at most {MAX_INSTRUCTIONS} instructions", "more")
        if opcode not in _OPCODES:
            _unsafe(path, "a pickle of tensors", f"the instruction {opcode}")
        if opcode == "GLOBAL" and argument not in _GLOBALS:
            _unsafe(path, "a pickle of tensors", f"a call of {argument!r:.100}")


def _instructions(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for code, argument, _ in pickletools.genops(content):
            yield code.name, argument
    # The parser promises no exception of its own.
    except Exception as error:
        raise DataError(f"{path}: expected the names of tensors, but {error}") from error


def read_safetensors(path: Path, file: io.BufferedIOBase, size: int) -> bytes:
    """The bytes of a safetensors file whose header is bounded and says the truth about its size.

    Args:
        path: for messages.
        file: of which all is read.
        size: its bytes.

    Raises:
        UnsafeError: if its header is larger than any honest one, says something twice, or there
            is anything but dense tensors of floats or integers.
        DataError: if that is no JSON, or the tensors are not all there, one after the other.
    """
    length = int.from_bytes(_peek(file, 0, 8), "little")
    if length > MAX_HEADER_BYTES:
        _unsafe(path, f"a header of at most {MAX_HEADER_BYTES} bytes", f"{length}")
    if size > MAX_WEIGHTS_BYTES:
        _unsafe(path, f"at most {MAX_WEIGHTS_BYTES} bytes of tensors", f"{size}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            _unsafe(path, "every tensor once", "a name that is there twice")
        return dict(pairs)

    try:
        header = json.loads(_peek(file, 8, length), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON header, but {error}") from error
    if not isinstance(header, dict) or len(header) > MAX_MEMBERS:
        _unsafe(path, f"at most {MAX_MEMBERS} tensors", f"{len(header)}")
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    _check_tensors(path, tensors, size - 8 - length)
    return _peek(file, 0, size)


def _check_tensors(path: Path, tensors: Mapping[str, Any], data_bytes: int) -> None:
    """Every tensor is as long as its shape says, and starts where the one before it ends."""
    if not tensors:
        raise DataError(f"{path}: expected 1 to {MAX_MEMBERS} tensors, got none")
    places = [_check_tensor(path, name, entry) for name, entry in tensors.items()]
    end = 0
    for begin, stop in sorted(places):
        if begin != end:
            raise DataError(
                f"{path}: expected tensors one after the other, got one at {begin} behind {end}"
            )
        end = stop
    if end != data_bytes:
        raise DataError(
            f"{path}: expected {data_bytes} bytes of tensors, got a header of {len(places)} that "
            f"take {end}"
        )


def _check_tensor(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor lies, by an entry of a safetensors header."""
    try:
        dtype, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sizes = [*shape, begin, stop]
    except (KeyError, TypeError, ValueError):
        dtype, shape, begin, stop, sizes = None, (), 0, 0, [None]
    # A bool is an int, to Python.
    if not isinstance(dtype, str) or not all(type(size) is int and size >= 0 for size in sizes):
        raise DataError(f"{path}: expected type, shape and place of {name!r:.100}, got others")
    if dtype not in _NUMBERS:
        _unsafe(path, "tensors of floats or integers", f"{name!r:.100} of type {dtype!r:.20}")
    if len(shape) > MAX_AXES:
        _unsafe(path, f"tensors of at most {MAX_AXES} axes", f"{name!r:.100} of {len(shape)}")
    needed = math.prod(shape) * _NUMBERS[dtype]
    if needed != stop - begin:
        raise DataError(
            f"{path}: expected {needed} bytes of {name!r:.100}, a {dtype} of shape {shape}, got "
            f"{stop - begin}"
        )
    return begin, stop


def _unsafe(path: Path, expected: str, came: str) -> NoReturn:
    raise UnsafeError(f"{path}: refused: expected {expected}, got {came}")
