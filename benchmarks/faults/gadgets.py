"""Files made to harm, for the rows of ``make faults`` and for the tests.

A gadget is an object that makes a directory, the canary, when it is unpickled: if the directory is
there afterwards, code from the file was run. Nothing here is harmful to anything else.
"""

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ONE_TENSOR = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'


class Gadget:
    """Makes a directory when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        """What a pickle of it calls."""
        return (os.mkdir, (self.canary,))


def state() -> dict[str, torch.Tensor]:
    """Weights of a tiny agent of CleanRL's for CartPole."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"network.0": (8, 4), "network.2": (8, 8), "network.4": (2, 8)}
    weights = {
        f"{name}.weight": torch.randn(size, generator=generator) for name, size in sizes.items()
    }
    return weights | {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items()}


def sb3_state() -> dict[str, torch.Tensor]:
    """The same network as Stable-Baselines3 names one of its DQN."""
    return {f"q_net.q_{name.replace('network', 'net')}": value for name, value in state().items()}


def torch_file(content: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def changed(content: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """A zip whose members have gone through ``change(name, bytes)``; None leaves one out."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        for member in old.infolist():
            there = change(member.filename, old.read(member))
            if there is not None:
                members[member.filename] = there
    return zipped(members)


def with_member(content: bytes, name: str, added: bytes) -> bytes:
    """A zip with one more member, or another one of that name."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {entry.filename: old.read(entry) for entry in old.infolist()}
    return zipped(members | {name: added})


def with_pickle(content: bytes, replaced: bytes) -> bytes:
    """A file of ``torch.save`` with another pickle in it."""
    return changed(content, lambda name, there: replaced if name.endswith("data.pkl") else there)


def sb3_zip(policy: bytes, data: bytes = b"{}") -> bytes:
    """A zip as Stable-Baselines3 writes it."""
    return zipped({"data": data, "policy.pth": policy})


def safetensors_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, and any length of it."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def gadget_files(canary: Path) -> dict[str, bytes]:
    """Forty files that would run code where they are trusted, by the names they go under."""
    gadget = Gadget(canary)
    pickles = {protocol: pickle.dumps(gadget, protocol) for protocol in PROTOCOLS}
    good = torch_file(state())
    endings = ("pth", "pt", "cleanrl_model", "bin", "safetensors", "pt2")
    files: dict[str, bytes] = {}
    for (protocol, bare), ending in zip(pickles.items(), endings, strict=True):
        packed = with_pickle(good, bare)
        files[f"bare-{protocol}.{ending}"] = bare
        files[f"zip-{protocol}.{ending}"] = packed
        files[f"sb3-bare-{protocol}.zip"] = sb3_zip(bare)
        files[f"sb3-zip-{protocol}.zip"] = sb3_zip(packed)
    bare = pickles[2]
    files["value.pt"] = torch_file({"network.0.weight": gadget})
    files["legacy.pt"] = torch_file({"a": gadget}, _use_new_zipfile_serialization=False)
    for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        files[f"{name}.pt"] = _tar(bare, kind)
    # Instructions of protocol 0, as a person would write them.
    text = b"cos\nmkdir\n(V" + str(canary).encode() + b"\ntR."
    files["text.pt"] = text
    files["text-in-zip.pt"] = with_pickle(good, text)
    inner = pickle.dumps(_Call("torch.storage", "_load_from_bytes", (torch_file(gadget),)), 2)
    files["nested-load.pt"] = with_pickle(good, inner)
    files["script.pt"] = with_member(
        with_member(good, "archive/constants.pkl", bare), "archive/code/__torch__.py", b"x"
    )
    files["pt2.safetensors"] = zipped({"archive/extra/x.pkl": bare, "archive/models/m.json": b"{}"})
    files["zip-in-zip.zip"] = sb3_zip(sb3_zip(with_pickle(good, bare)))
    files["before-the-zip.pt"] = bare + good
    files["after-tensors.safetensors"] = save(state()) + bare
    files["header.safetensors"] = safetensors_file(b"{}", bare, len(bare))
    for name, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        files[f"packed.{name}"] = pack(bare)
    return files


def _tar(content: bytes, kind: int) -> bytes:
    """As PyTorch wrote files before its version 0.1.10."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class _Call:
    """Calls a function by its name when it is unpickled."""

    def __init__(self, module: str, function: str, arguments: tuple[Any, ...]) -> None:
        self._function = getattr(__import__(module, fromlist=[function]), function)
        self._arguments = arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (self._function, self._arguments)


def hostile_zips() -> dict[str, bytes]:
    """Zips that take far more than they are, or lead elsewhere, by what is wrong with them."""
    good = torch_file(state())
    zeros = zipped({"policy.pth": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    lying = bytearray(zeros)
    place = lying.rindex(b"PK\x01\x02") + 24  # the size that the directory claims
    lying[place : place + 4] = struct.pack("<I", 1000)
    files = {
        "bomb": zeros,
        "bomb beside": zipped({"data": bytes(64 << 20), "policy.pth": good}, zipfile.ZIP_DEFLATED),
        "bomb that lies": bytes(lying),
        "bomb in bomb": sb3_zip(zipped({"archive/data.pkl": zeros})),
        "100,000 members": zipped({f"m{index}": b"" for index in range(100_000)}),
        "2,000 members": zipped({f"m{index}": b"" for index in range(2_000)}),
        "the same bytes twice": _overlapping(good),
        "encrypted": _encrypted(good),
        "another compression": zipped({"policy.pth": good}, zipfile.ZIP_BZIP2),
        "bytes before": b"#!/bin/sh\n" + sb3_zip(good),
        "bad checksum": _damaged(good),
        "a name twice": _twice(good),
        "link": _link(),
    }
    for name in ("../x", "/etc/x", "a/../../x", "..\\x", "C:x", "a\nx", "./x", "x" * 300):
        files[f"member {name!r:.20}"] = zipped({"policy.pth": good, name: b"x"})
    return files


def _overlapping(good: bytes) -> bytes:
    plain = zipped({"policy.pth": good})
    directory, end = plain.rindex(b"PK\x01\x02"), plain.rindex(b"PK\x05\x06")
    entry, tail = plain[directory:end], bytearray(plain[end:])
    tail[8:12] = struct.pack("<HH", 2, 2)
    tail[12:16] = struct.pack("<I", 2 * len(entry))
    return plain[:directory] + entry + entry.replace(b"policy.pth", b"policy.pti") + bytes(tail)


def _encrypted(good: bytes) -> bytes:
    plain = bytearray(zipped({"policy.pth": good}))
    plain[6] |= 1
    plain[plain.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(plain)


def _damaged(good: bytes) -> bytes:
    plain = bytearray(sb3_zip(good))
    plain[len(plain) // 2] ^= 1
    return bytes(plain)


def _twice(good: bytes) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("policy.pth", good)
    return out.getvalue()


def _link() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("policy.pth")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return out.getvalue()


def hostile_safetensors() -> dict[str, bytes]:
    """Safetensors files that lie about themselves, by what is wrong with them."""
    overlap = b'"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}'
    hole = b'"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}'
    large = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4]}}'
    overflow = b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    negative = b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'
    half = b'{"a":{"dtype":"F32","shape":[0.5],"data_offsets":[0,2]}}'
    axes = b'{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}'
    unknown = b'{"a":{"dtype":"PY","shape":[1],"data_offsets":[0,4]}}'
    many = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(9))
    thousands = b",".join(b'"%d":{}' % i for i in range(2000))
    million = b",".join(b'"%d":{}' % i for i in range(1_000_000))
    return {
        "header of 2^63": safetensors_file(b"{}", length=2**63 - 1),
        "header of 2^64 - 1": safetensors_file(b"{}", length=2**64 - 1),
        "header of 100 MB": safetensors_file(b"{}" + b" " * (100 << 20)),
        "a million tensors": safetensors_file(b"{" + million + b"}"),
        "two thousand tensors": safetensors_file(b"{" + thousands + b"}"),
        "a name twice": safetensors_file(b"{" + ONE_TENSOR + b"," + ONE_TENSOR + b"}", bytes(4)),
        "deep header": safetensors_file(b"{" * 100_000),
        "deep metadata": safetensors_file(b'{"__metadata__":' + b'{"a":' * 50_000),
        "no JSON": safetensors_file(b"{\xff\xfe}"),
        "empty": safetensors_file(b"{}"),
        "truncated": safetensors_file(b"{" + ONE_TENSOR + b"}", bytes(2)),
        "bytes behind": safetensors_file(b"{" + ONE_TENSOR + b"}", bytes(9)),
        "overlap": safetensors_file(b"{" + ONE_TENSOR + b"," + overlap + b"}", bytes(6)),
        "hole": safetensors_file(b"{" + ONE_TENSOR + b"," + hole + b"}", bytes(12)),
        "larger than it is": safetensors_file(large, bytes(4)),
        "size overflows": safetensors_file(overflow),
        "negative size": safetensors_file(negative, bytes(4)),
        "half a number": safetensors_file(half, bytes(2)),
        "no place": safetensors_file(b'{"a":{"dtype":"F32","shape":[1]}}', bytes(4)),
        "many axes": safetensors_file(axes, bytes(4)),
        "unknown type": safetensors_file(unknown, bytes(4)),
        "longer than the file": safetensors_file(b"{" + many, length=1 << 19),
    }


def hostile_tensors() -> dict[str, Any]:
    """What ``torch.save`` can write that is no dictionary of dense, finite tensors."""
    memory = torch.zeros(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8)
        nested = torch.nested.nested_tensor([torch.ones(2)])
        compressed = torch.eye(4).to_sparse_csr()
    return {
        "one number as a terabyte": {"a": torch.zeros(4).as_strided((1 << 20, 1 << 20), (0, 0))},
        "a view with gaps": {"a": torch.eye(4).t()[:, :2]},
        "half in another": {"a": memory[:8].view(2, 4), "b": memory[7:9]},
        "sparse": {"a": torch.eye(4).to_sparse()},
        "compressed rows": {"a": compressed},
        "quantised": {"a": quantised},
        "complex": {"a": torch.ones(4, dtype=torch.complex64)},
        "meta": {"a": torch.empty(1 << 40, device="meta")},
        "nested": {"a": nested},
        "parameter of a subclass": {"a": _Weights(torch.ones(2))},
        "a number": {"a": 1.0},
        "a list": [torch.ones(3)],
        "nothing": {},
        "NaN": {"a": torch.tensor([1.0, float("nan")])},
        "infinity": {"a": torch.tensor([1.0, float("-inf")])},
        "an array": {"a": np.ones(3)},
    }


class _Weights(torch.Tensor):
    """A tensor with a class of its own, which would have to be imported."""


def lying_storage() -> bytes:
    """A file of ``torch.save`` whose tensor claims more numbers than it has."""
    content = torch_file({"network.0.weight": torch.arange(4.0)})
    lied = changed(
        content,
        lambda name, there: (
            there.replace(b"cpuq\x06K\x04", b"cpuq\x06M\x00\x10") if "data.pkl" in name else there
        ),
    )
    assert lied != changed(content, lambda _, there: there)
    return lied
