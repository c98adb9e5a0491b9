"""Files made to harm: what they would run is never run, what they would take is never taken."""

import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_agents import VECTOR_TASK, sb3_agent
from safetensors.torch import save

from actor_mimic.errors import ActorMimicError, DataError, UnsafeError
from actor_mimic.teachers import archives
from actor_mimic.teachers.foreign import ImportOptions, import_teacher
from actor_mimic.teachers.weights import read_weights
from benchmarks.faults.gadgets import (
    ONE_TENSOR,
    Gadget,
    changed,
    hostile_safetensors,
    hostile_tensors,
    lying_storage,
    safetensors_file,
    state,
    torch_file,
    zipped,
)

pytestmark = pytest.mark.usefixtures("decoded_here")


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code from a file was run"


@pytest.fixture
def refused(tmp_path):
    """Writes bytes under a name and checks how they are refused, with nothing left behind."""

    def check(content: bytes, error: type[ActorMimicError], match: str, name="agent.zip"):
        path = tmp_path / name
        path.write_bytes(content)
        before = time.monotonic()
        with pytest.raises(error, match=match) as caught:
            import_teacher(path, tmp_path / "imported", ImportOptions(VECTOR_TASK))
        assert time.monotonic() - before < 30
        assert caught.value.exit_code in (65, 77)
        assert not (tmp_path / "imported").exists()

    return check


def test_the_canary_sings_where_pickles_are_trusted(tmp_path):
    pickle.loads(pickle.dumps(Gadget(tmp_path / "canary")))  # noqa: S301  (the point of it)

    assert (tmp_path / "canary").exists()


def test_a_gadget_in_the_data_of_a_good_zip_is_not_decoded(tmp_path, canary):
    import base64
    import json

    sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip")
    gadget = base64.b64encode(pickle.dumps(Gadget(canary))).decode()
    data = json.dumps({"policy_class": {":type:": "x", ":serialized:": gadget}}).encode()

    def poison(name: str, content: bytes) -> bytes:
        if name in ("policy.optimizer.pth", "pytorch_variables.pth"):
            return pickle.dumps(Gadget(canary))
        return data if name == "data" else content

    poisoned = changed((tmp_path / "agent.zip").read_bytes(), poison)
    (tmp_path / "poisoned.zip").write_bytes(poisoned)

    one = import_teacher(tmp_path / "agent.zip", tmp_path / "a", ImportOptions(VECTOR_TASK))
    two = import_teacher(tmp_path / "poisoned.zip", tmp_path / "b", ImportOptions(VECTOR_TASK))

    assert one.model_sha256 == two.model_sha256


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["policy.pth", "agent.cleanrl_model", "a.safetensors", "a.bin"])
def test_gadgets_are_refused_under_every_name_and_protocol(
    canary, refused, monkeypatch, name, force
):
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    gadget = Gadget(canary)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bare = pickle.dumps(gadget, protocol)
        refused(bare, UnsafeError, "a bare pickle", name)
        refused(zipped({"policy.pth": bare, "data": b"{}"}), UnsafeError, "torch.save", name)
        packed = changed(
            torch_file(state()), lambda n, c, bare=bare: bare if n.endswith("data.pkl") else c
        )
        refused(packed, UnsafeError, "a pickle of tensors", name)
        refused(zipped({"policy.pth": packed}), UnsafeError, "a pickle of tensors", name)
    refused(torch_file({"network.0.weight": gadget}), UnsafeError, "a call of '.*mkdir'", name)


def test_pytorch_itself_refuses_what_the_first_look_lets_pass(tmp_path, canary, monkeypatch):
    monkeypatch.setattr(archives, "_check_pickle", lambda *_: None)
    (tmp_path / "agent.pt").write_bytes(torch_file({"network.0.weight": Gadget(canary)}))

    with pytest.raises(DataError, match=r"Weights only load failed|Unsupported"):
        read_weights(tmp_path / "agent.pt")


def test_formats_that_are_not_tensors_in_a_zip_are_refused(refused, canary):
    legacy = io.BytesIO()
    torch.save(state(), legacy, _use_new_zipfile_serialization=False)
    refused(legacy.getvalue(), UnsafeError, "a bare pickle")

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        content = pickle.dumps(Gadget(canary))
        entry = tarfile.TarInfo("pickle")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    refused(tar.getvalue(), UnsafeError, "a bare pickle")

    good = torch_file(state())
    for extra in ("archive/constants.pkl", "archive/code/__torch__.py", "archive/data/x"):
        with_code = zipped(
            {
                i.filename: zipfile.ZipFile(io.BytesIO(good)).read(i)
                for i in zipfile.ZipFile(io.BytesIO(good)).infolist()
            }
            | {extra: b"x"}
        )
        refused(with_code, UnsafeError, "tensors and their names alone")
    for content in (b"", b"MZ\x90", b"GIF89a" * 10, b"\x00" * 100):
        refused(content, DataError, "expected a zip of Stable-Baselines3")
    refused(zipped({"a.txt": b"x"}), DataError, "expected a zip with policy.pth")


@pytest.mark.parametrize(
    "name",
    ["../policy.pth", "/etc/passwd", "a/../../b", "..\\b", "C:b", "a\nb", "", "x" * 300, "./a"],
)
def test_names_that_lead_elsewhere_are_refused(refused, name):
    members = {"policy.pth": torch_file(state()), name or "\u200e": b"x"}

    refused(zipped(members), UnsafeError, "plain relative names")


def test_members_that_are_not_what_they_seem_are_refused(refused):
    good = torch_file(state())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("policy.pth", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("policy.pth", good)
    refused(out.getvalue(), UnsafeError, "every member once")

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("policy.pth")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    refused(out.getvalue(), UnsafeError, "no links")

    plain = bytearray(zipped({"policy.pth": good}))
    encrypted = bytes(plain[:6] + b"\x01" + plain[7:])
    directory = encrypted.rindex(b"PK\x01\x02")
    encrypted = encrypted[: directory + 8] + b"\x01" + encrypted[directory + 9 :]
    refused(encrypted, UnsafeError, "no encryption")
    refused(zipped({"policy.pth": good}, zipfile.ZIP_BZIP2), UnsafeError, "stored or deflated")
    refused(b"#!/bin/sh\n" + bytes(plain), DataError, "expected a zip of Stable")


def test_two_names_for_the_same_bytes_are_refused(refused):
    """The overlap of which the densest zip bombs are made."""
    plain = zipped({"policy.pth": torch_file(state())})
    directory = plain.rindex(b"PK\x01\x02")
    end = plain.rindex(b"PK\x05\x06")
    entry = plain[directory:end]
    again = entry.replace(b"policy.pth", b"policy.pti")
    tail = bytearray(plain[end:])
    tail[8:12] = struct.pack("<HH", 2, 2)
    tail[12:16] = struct.pack("<I", 2 * len(entry))

    refused(plain[:directory] + entry + again + bytes(tail), UnsafeError, "one after the other")


def test_bombs_are_refused_before_they_are_expanded(refused, monkeypatch):
    zeros = zipped({"policy.pth": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    assert len(zeros) < 100_000
    refused(zeros, UnsafeError, "shrink to 1/100")
    beside = zipped(
        {"data": bytes(64 << 20), "policy.pth": torch_file(state())}, zipfile.ZIP_DEFLATED
    )
    refused(beside, UnsafeError, "shrink to 1/100")
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 1 << 20)
    # Each member shrinks to a fiftieth only, and all together are far more than the file.
    dense = b"".join(bytes([index]) * 30 for index in np.random.default_rng(0).bytes(1 << 17))
    mixed = zipped({"data": dense, "policy.pth": torch_file(state())}, zipfile.ZIP_DEFLATED)
    assert 10 < len(dense) / len(mixed) < 100
    refused(mixed, UnsafeError, "bytes in all members")
    monkeypatch.undo()
    # What cannot be weights by its first bytes is not expanded for the rest.
    monkeypatch.setattr(archives, "_read", lambda *_: pytest.fail("it was expanded"))
    refused(zipped({"policy.pth": b"\x80\x02" + dense}), UnsafeError, "zip format")
    monkeypatch.undo()
    many = zipped({f"m{index}": b"" for index in range(20_000)})
    refused(many, UnsafeError, "at most 8192 members")
    hidden = zipped({"policy.pth": many}, zipfile.ZIP_DEFLATED)
    assert hidden.count(b"PK\x01\x02") == 1
    refused(hidden, UnsafeError, r"policy\.pth: .*at most 8192 members")
    some = zipped({f"m{index}": b"" for index in range(2_000)})
    refused(some, UnsafeError, "at most 1024 members")
    lying = bytearray(zeros)
    # Its directory now says that the member is small.
    place = lying.rindex(b"PK\x01\x02") + 24
    lying[place : place + 4] = struct.pack("<I", 1000)
    refused(bytes(lying), DataError, "policy.pth")


def test_sizes_are_bounded(tmp_path, refused, monkeypatch):
    with (tmp_path / "sparse.zip").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(UnsafeError, match="at most 1073741824 bytes"):
        read_weights(tmp_path / "sparse.zip")
    weights = {"network.0.weight": torch.zeros(100, 100)}
    good = torch_file(weights)
    monkeypatch.setattr(archives, "MAX_WEIGHTS_BYTES", 10_000)
    refused(good, UnsafeError, "at most .* bytes in '.*/data/")
    refused(zipped({"policy.pth": good}), UnsafeError, "at most 10000 bytes in 'policy.pth'")
    refused(save(weights), UnsafeError, "at most 10000 bytes of tensors")
    monkeypatch.undo()
    monkeypatch.setattr(archives, "MAX_HEADER_BYTES", 100)
    refused(good, UnsafeError, "at most 100 bytes in '.*/data.pkl'")


def test_every_truncation_is_damage(refused):
    for content in (
        torch_file(state()),
        zipped({"policy.pth": torch_file(state())}),
        save(state()),
    ):
        for part in range(1, 12):
            refused(content[: len(content) * part // 12], DataError, "expected")


def test_a_flipped_bit_is_damage_or_harmless(tmp_path):
    content = zipped({"policy.pth": torch_file(state()), "data": b"{}" * 50})
    expected = read_weights_of(tmp_path, content)
    rng = np.random.default_rng(0)
    # Half of them in the directory and the pickle, where they could matter most.
    places = [
        *rng.integers(0, len(content), 150),
        *rng.integers(len(content) - 3000, len(content), 150),
    ]
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        try:
            tensors = read_weights_of(tmp_path, bytes(flipped))
        except (DataError, UnsafeError):
            continue
        for name, tensor in expected.items():
            assert tensor.equal(tensors[name])


def read_weights_of(tmp_path: Path, content: bytes) -> dict[str, torch.Tensor]:
    (tmp_path / "flipped").write_bytes(content)
    return read_weights(tmp_path / "flipped").tensors


SAFETENSORS = {
    "header of 2^63": (UnsafeError, "a header of at most 1048576"),
    "header of 2^64 - 1": (UnsafeError, "a header of at most 1048576"),
    "header of 100 MB": (UnsafeError, "a header of at most 1048576"),
    "a million tensors": (UnsafeError, "a header of at most 1048576"),
    "two thousand tensors": (UnsafeError, "at most 1024 tensors"),
    "a name twice": (UnsafeError, "once"),
    "deep header": (DataError, "expected a JSON header"),
    "deep metadata": (DataError, "expected a JSON header"),
    "no JSON": (DataError, "expected a JSON header"),
    "longer than the file": (DataError, "expected a JSON header"),
    "empty": (DataError, "expected 1 to 1024 tensors, got none"),
    "no place": (DataError, "expected type, shape and place of 'a'"),
    "half a number": (DataError, "expected type, shape and place of 'a'"),
    "negative size": (DataError, "expected type, shape and place of 'a'"),
    "truncated": (DataError, "expected 2 bytes of tensors, got a header of 1 that take 4"),
    "bytes behind": (DataError, "expected 9 bytes of tensors, got a header of 1 that take 4"),
    "overlap": (DataError, "got one at 2 behind 4"),
    "hole": (DataError, "got one at 8 behind 4"),
    "larger than it is": (DataError, "expected 4000000000 bytes of 'a', .*, got 4"),
    "size overflows": (DataError, "expected 73786976294838206464 bytes of 'a', .*, got 0"),
    "unknown type": (UnsafeError, "'a' of type 'PY'"),
    "many axes": (UnsafeError, "at most 8 axes, got 'a' of 9"),
}


def test_safetensors_that_lie_are_refused_before_they_are_decoded(tmp_path):
    made = hostile_safetensors()
    assert made.keys() == SAFETENSORS.keys()
    for name, content in made.items():
        error, match = SAFETENSORS[name]
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(error, match=match):
            archives.open_foreign(path)
    path.write_bytes(safetensors_file(b"{" + ONE_TENSOR + b"}", bytes(4)))
    assert archives.open_foreign(path).kind == "safetensors"  # the trap: an honest one is taken


def test_a_pickle_of_many_instructions_is_refused(refused):
    """Each is harmless, but makes an object; those of an honest file are some 25 a tensor."""
    honest = {f"network.{index}.weight": torch.ones(1) for index in range(1000)}
    content = torch_file(honest)
    nothing = b"\x80\x02" + b"N" * 70_000 + b"."
    many = changed(content, lambda name, there: nothing if "data.pkl" in name else there)

    refused(many, UnsafeError, "at most 65536 instructions")
    refused(content, DataError, "expected the layers")  # the trap: that many tensors are read


TENSORS = {
    "one number as a terabyte": (UnsafeError, "contiguous"),
    "a view with gaps": (UnsafeError, "contiguous"),
    "half in another": (UnsafeError, "share no memory"),
    "sparse": (UnsafeError, "a call of .*_rebuild_sparse_tensor"),
    "compressed rows": (UnsafeError, "a call of"),
    "quantised": (UnsafeError, "a call of"),
    "complex": (UnsafeError, "a call of .*ComplexFloat"),
    "meta": (UnsafeError, "a call of"),
    "nested": (UnsafeError, "a call of"),
    "parameter of a subclass": (UnsafeError, "a call of .*_rebuild_from_type_v2"),
    "an array": (UnsafeError, "a call of .*numpy"),
    "a number": (DataError, "expected named tensors"),
    "a list": (DataError, "expected a dictionary of tensors, got list"),
    "nothing": (DataError, "expected a dictionary of tensors"),
    "NaN": (DataError, "NaN or infinity in 'a'"),
    "infinity": (DataError, "NaN or infinity in 'a'"),
}


def test_tensors_that_are_not_what_they_claim_are_refused(refused):
    made = hostile_tensors()
    assert made.keys() == TENSORS.keys()
    for name, content in made.items():
        refused(torch_file(content), *TENSORS[name], "agent.cleanrl_model")
    named = torch_file({"__metadata__": torch.ones(1)})
    refused(named, (DataError, UnsafeError), "expected")
    many = {str(index): torch.ones(1) for index in range(1100)}
    refused(torch_file(many), UnsafeError, "at most 1024 members")


def test_tied_weights_are_not_overlapping_ones(tmp_path):
    one = torch.ones(2, 4)
    (tmp_path / "tied").write_bytes(torch_file({"a": one, "b": one}))

    assert read_weights(tmp_path / "tied").tensors["b"].equal(one)


def test_a_storage_larger_than_its_bytes_is_refused(refused):
    refused(lying_storage(), DataError, "expected tensors")


def test_pipes_and_directories_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent", Path("/dev/zero")):
        with pytest.raises(DataError, match="expected a regular file"):
            read_weights(path)


def test_bombs_are_refused_before_pytorch_is_loaded(tmp_path):
    (tmp_path / "bomb.zip").write_bytes(
        zipped({"policy.pth": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    )
    code = (
        "import re, sys; from actor_mimic.cli import main\n"
        "try: main(['import', 'bomb.zip', '--task', 'pong', '-o', 'out'])\n"
        "except SystemExit as end: code = end.code\n"
        "status = open('/proc/self/status').read()\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1])\n"
        "print(code, 'torch' in sys.modules, peak < 200_000)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert result.stdout.split() == ["77", "False", "True"], result.stderr
    assert "bomb.zip: refused: expected members that shrink to 1/100" in result.stderr


def test_pytorch_is_given_a_zip_of_ours_and_not_the_file(tmp_path):
    good = torch_file(state())
    (tmp_path / "agent.zip").write_bytes(
        zipped({"data": b"{}", "policy.pth": good, "other.pth": b"x"}, zipfile.ZIP_DEFLATED)
    )

    weights = archives.open_foreign(tmp_path / "agent.zip").weights

    with zipfile.ZipFile(io.BytesIO(good)) as theirs, zipfile.ZipFile(io.BytesIO(weights)) as ours:
        renamed = {f"archive/{name.partition('/')[2]}" for name in theirs.namelist()}
        assert sorted(ours.namelist()) == sorted(renamed)
        assert {member.compress_type for member in ours.infolist()} == {zipfile.ZIP_STORED}
        assert ours.infolist()[0].date_time != theirs.infolist()[0].date_time
