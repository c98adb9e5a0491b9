"""Damaged and hostile checkpoints: every one is refused with its reason."""

import errno
import hashlib
import json
import os
import random

import pytest
from saving import ignore, save, segment

from actor_mimic.errors import DataError
from actor_mimic.storage.checkpoint import newest_valid, read_checkpoint
from actor_mimic.storage.manifest import MANIFEST, encode_manifest, read_manifest
from actor_mimic.storage.tensor_files import load_tensor_file


def all_files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_every_flipped_bit_is_found_and_the_one_before_is_used(tmp_path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2, replay_segments={"a": segment(1)}).path
    rng = random.Random(0)
    unhashed = 0
    for round_number in range(100):
        path = all_files(newest)[round_number % len(all_files(newest))]
        content = bytearray(path.read_bytes())
        position, bit = rng.randrange(len(content)), rng.randrange(8)
        content[position] ^= 1 << bit
        whole = path.read_bytes()
        path.write_bytes(content)
        damaged = []

        found = newest_valid(tmp_path, lambda path, reason, to=damaged: to.append((path, reason)))

        assert found is not None
        assert found.step == 1, (path, position, bit)
        assert [damaged[0][0], len(damaged)] == [newest, 1]
        assert str(newest) in damaged[0][1]
        unhashed += is_whole_without_hashes(newest)
        path.write_bytes(whole)
    assert read_checkpoint(newest).step == 2
    assert unhashed > 25  # so many a reader of sizes and headers would have let pass


def is_whole_without_hashes(path):
    try:
        read_checkpoint(path, verify=False)
    except DataError:
        return False
    return True


def test_every_byte_of_a_manifest_counts(tmp_path):
    path = save(tmp_path, 2, tensors={"model": {}}).path / MANIFEST
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(
            whole[:position] + bytes([whole[position] ^ 1 << position % 8]) + whole[position + 1 :]
        )
        with pytest.raises(DataError, match=MANIFEST):
            read_manifest(path.parent)


def test_every_truncation_is_found(tmp_path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2).path
    for path in all_files(newest):
        whole = path.read_bytes()
        for length in {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match=path.name):
                read_checkpoint(newest)
        path.unlink()
        with pytest.raises(DataError, match=path.name):
            read_checkpoint(newest)
        path.write_bytes(whole)


def test_a_file_that_the_disk_does_not_give_back_is_damage(tmp_path, monkeypatch):
    for step in (1, 2):
        save(tmp_path, step)
    digest = hashlib.file_digest

    def broken(file, name):
        if os.readlink(f"/proc/self/fd/{file.fileno()}").endswith("2/model.safetensors"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", broken)
    damaged = []

    found = newest_valid(tmp_path, lambda _, reason: damaged.append(reason))

    assert found is not None
    assert found.step == 1
    (said,) = damaged
    assert said.endswith("model.safetensors: cannot be read: Input/output error")


def test_a_run_is_never_started_over_unasked(tmp_path):
    assert newest_valid(tmp_path, ignore) is None
    for step in (1, 2):
        (save(tmp_path, step).path / "model.safetensors").write_bytes(b"")

    with pytest.raises(DataError, match="all 2 are damaged"):
        newest_valid(tmp_path, ignore)


def forge(directory, **changes):
    """A manifest with a right hash of itself and one wrong thing in it."""
    path = directory / MANIFEST
    content = json.loads(path.read_bytes()) | changes
    path.write_bytes(encode_manifest(content))


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", "a/../b", "a/b/c", ".hidden", "a\\b", "a\0", "", "x" * 101]
)
def test_names_that_are_not_plain_are_refused(tmp_path, name):
    saved = save(tmp_path, 1)
    forge(saved.path, files={name: saved.manifest["files"]["state.json"]})

    with pytest.raises(DataError, match="plain relative file names"):
        read_checkpoint(saved.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "reads schema 2; this one reads up to 1"),
        ({"schema": True}, "expected schema 1"),
        ({"schema": None}, "expected schema 1"),
        ({"step": 2}, "expected step 1, got 2"),
        ({"step": "1"}, "expected step to be a count"),
        ({"files": []}, "files to be an object"),
        ({"files": {"state.json": {"size": 1}}}, r"size and sha256 of state\.json"),
        ({"segments": ["model.safetensors.x"]}, "segments to be listed files"),
        ({"segments": [["a"]]}, "segments to be listed files"),
    ],
)
def test_a_forged_manifest_is_refused(tmp_path, changes, message):
    saved = save(tmp_path, 1)
    forge(saved.path, **changes)

    with pytest.raises(DataError, match=message):
        read_checkpoint(saved.path)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff", b"{", b"1" * 5000])
def test_a_manifest_that_is_none(tmp_path, content):
    saved = save(tmp_path, 1)
    (saved.path / MANIFEST).write_bytes(content)

    with pytest.raises(DataError, match=MANIFEST):
        read_checkpoint(saved.path)


def test_links_and_pipes_are_not_followed(tmp_path):
    saved = save(tmp_path / "a", 1, replay_segments={"a": segment(1)})
    model = saved.path / "model.safetensors"
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="regular file"):
        read_checkpoint(saved.path)

    model.unlink()
    os.mkfifo(model)  # opening one for reading blocks
    with pytest.raises(DataError, match="regular file"):
        read_checkpoint(saved.path)

    model.unlink()
    (tmp_path / "elsewhere").rename(model)
    (saved.path / "replay").rename(tmp_path / "replay")
    (saved.path / "replay").symlink_to(tmp_path / "replay")
    with pytest.raises(DataError, match="symbolic link"):
        read_checkpoint(saved.path)


@pytest.mark.parametrize("length", [2**63, 100 << 20, (1 << 20) + 1])
def test_a_huge_tensor_header_is_refused_before_it_is_read(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little"))
    os.truncate(path, 200 << 20)  # sparse: takes no room

    with pytest.raises(DataError, match=f"got {length}"):
        load_tensor_file(path)


@pytest.mark.parametrize(
    "header", [b"{}}", b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}']
)
def test_a_bad_tensor_header_is_refused(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1234")

    with pytest.raises(DataError, match=r"model\.safetensors: expected tensors"):
        load_tensor_file(path)
