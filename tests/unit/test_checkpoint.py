"""Checkpoints: what is saved comes back, in this order, and a user finds it."""

import errno
import hashlib
import os
import shutil
import weakref
from collections.abc import Mapping

import pytest
import torch
from saving import ignore, names, numbers, save, segment, segments

from actor_mimic.errors import DataError, DivergenceError
from actor_mimic.storage import durable
from actor_mimic.storage.checkpoint import (
    newest_valid,
    read_best,
    read_checkpoint,
    resolve_checkpoint,
    write_best,
)
from actor_mimic.storage.manifest import MANIFEST
from actor_mimic.storage.naming import checkpoint_name
from actor_mimic.storage.tensor_files import load_tensor_file


def test_round_trip(tmp_path):
    written = save(tmp_path, 1000)
    read = read_checkpoint(tmp_path / "step-000001000")

    assert read == written
    assert (read.step, read.kind, read.tasks, read.parents) == (
        1000,
        "expert",
        {"pong": ["noop"]},
        [],
    )
    assert (read.config, read.network, read.load_state()) == ({"a": 1}, {}, {"counter": 1000})
    assert torch.equal(read.load_tensors("model")["w"], numbers(1000))
    assert torch.equal(read.load_tensors("optimizer")["m"], numbers(-1000))
    with pytest.raises(DataError, match=r"regressors\.safetensors"):
        read.load_tensors("regressors")


def test_the_model_is_named_by_the_hash_of_its_file(tmp_path):
    saved = save(tmp_path, 7)

    by_hand = hashlib.sha256((saved.path / "model.safetensors").read_bytes()).hexdigest()
    assert saved.model_sha256 == by_hand


def test_the_same_content_gives_the_same_bytes(tmp_path):
    one, two = save(tmp_path / "a", 5).path, save(tmp_path / "b", 5).path

    assert names(one) == names(two)
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names(one))


def test_awkward_tensors(tmp_path):
    """Shared, transposed, empty and scalar ones, and such that need a gradient."""
    shared = torch.arange(6.0).reshape(2, 3)
    model = {
        "one": shared,
        "tied": shared,
        "transposed": shared.t(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    read = save(tmp_path, 1, tensors={"model": model}).load_tensors("model")

    assert read.keys() == model.keys()
    assert all(torch.equal(read[name], model[name]) for name in model)
    assert all(read[name].dtype == model[name].dtype for name in model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_not_saved(tmp_path, value):
    with pytest.raises(DivergenceError, match="w2"):
        save(tmp_path, 1, tensors={"model": {"w": torch.ones(2), "w2": torch.tensor([1, value])}})

    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"tensors": {"../model": {}}},
        {"replay_segments": {"a/b": {}}},
        {"manifest": {"files": {}}},
        {"state": {"loss": float("nan")}},
        {"step": -1},
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, changes):
    step = changes.pop("step", 1)
    with pytest.raises(ValueError, match=r"plain|keys|JSON|negative"):
        save(tmp_path, step, **changes)

    assert names(tmp_path) == []


def test_the_order_of_syncs_and_renames(tmp_path, monkeypatch):
    """Every file before the manifest, the manifest before its directory, then rename, parent."""
    events = []
    fsync, rename = os.fsync, os.rename

    def record_fsync(descriptor):
        events.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def record_rename(old, new):
        events.append(("rename", os.path.basename(new)))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    saved = save(tmp_path, 3, replay_segments={"pong-0": segment(1)})

    assert events == [
        ("sync", "model.safetensors"),
        ("sync", "optimizer.safetensors"),
        ("sync", "state.json"),
        ("sync", "pong-0.safetensors"),
        ("sync", "replay"),
        ("sync", MANIFEST),
        ("sync", f".tmp-{os.getpid()}-step-000000003"),
        ("rename", "step-000000003"),
        ("sync", tmp_path.name),
    ]
    assert {name for _, name in events} >= {os.path.basename(n) for n in saved.manifest["files"]}


def test_old_segments_are_linked_and_not_read(tmp_path, monkeypatch):
    first = save(tmp_path, 1, replay_segments={"a": segment(1), "b": segment(2)})
    hashed = []
    original = durable.file_sha256
    monkeypatch.setattr(
        "actor_mimic.storage.tensor_files.file_sha256",
        lambda path: hashed.append(path.name) or original(path),
    )
    second = save(tmp_path, 2, link_segments=segments(first)[1:], replay_segments={"c": segment(3)})

    assert [path.name for path in segments(second)] == ["b.safetensors", "c.safetensors"]
    assert os.path.samefile(segments(first)[1], segments(second)[0])
    assert sorted(hashed) == [
        "c.safetensors", "model.safetensors", "optimizer.safetensors", "state.json"
    ]  # fmt: skip
    shutil.rmtree(first.path)
    again = read_checkpoint(second.path)
    frames = [int(load_tensor_file(path)["frames"][0, 0]) for path in segments(again)]
    assert frames == [2, 3]


def test_segments_are_made_and_let_go_one_at_a_time(tmp_path):
    """A replay's segment may be as large as the replay: two at once may not fit."""

    class Segment(dict):  # a plain dict cannot be referred to weakly, nor hashed
        __hash__ = object.__hash__

    alive = weakref.WeakSet()
    asked = []

    class Lazy(Mapping):
        def __iter__(self):
            return iter("abc")

        def __len__(self):
            return 3

        def __getitem__(self, name):
            assert not list(alive), f"{name} is asked for while another is held"
            asked.append(name)
            made = Segment(segment("abc".index(name)))
            alive.add(made)
            return made

    saved = save(tmp_path, 1, replay_segments=Lazy())

    # The type checks of the tests look at the first one on their own account.
    assert list(dict.fromkeys(asked)) == ["a", "b", "c"]
    assert asked.count("b") == asked.count("c") == 1
    frames = [int(load_tensor_file(path)["frames"][0, 0]) for path in segments(saved)]
    assert frames == [0, 1, 2]


def test_segments_are_copied_where_links_are_not_to_be_had(tmp_path, monkeypatch):
    first = save(tmp_path, 1, replay_segments={"a": segment(1)})

    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    second = save(tmp_path, 2, link_segments=segments(first))

    assert not os.path.samefile(segments(first)[0], segments(second)[0])
    assert segments(read_checkpoint(second.path)) == segments(second)


def test_a_truncated_segment_is_not_linked(tmp_path):
    first = save(tmp_path, 1, replay_segments={"a": segment(1)})
    os.truncate(segments(first)[0], 20)

    with pytest.raises(DataError, match=r"a\.safetensors"):
        save(tmp_path, 2, link_segments=segments(first))
    assert names(tmp_path) == ["step-000000001"]


def test_resolve(tmp_path):
    run = tmp_path / "run"
    for step in (1, 2, 3):
        save(run / "checkpoints", step)

    assert resolve_checkpoint(run).step == 3
    assert resolve_checkpoint(run / "checkpoints" / checkpoint_name(1)).step == 1
    with pytest.raises(DataError, match=r"expected best\.json"):
        resolve_checkpoint(run, which="best")
    write_best(run, step=2, score=1.5)
    assert resolve_checkpoint(run, which="best").step == 2
    assert read_best(run) == (2, 1.5)

    (run / "checkpoints" / checkpoint_name(3) / "state.json").unlink()
    damaged = []
    assert resolve_checkpoint(run, on_damaged=lambda path, _: damaged.append(path.name)).step == 2
    assert damaged == [checkpoint_name(3)]


def test_whoever_wants_the_weights_does_not_wait_for_the_replay(tmp_path):
    newest = save(tmp_path / "checkpoints", 2, replay_segments={"a": segment(1)}).path
    (name,) = read_checkpoint(newest).manifest["segments"]
    content = bytearray((newest / name).read_bytes())
    content[-1] ^= 1
    (newest / name).write_bytes(content)

    assert resolve_checkpoint(tmp_path).step == resolve_checkpoint(newest).step == 2
    with pytest.raises(DataError, match="sha256"):
        read_checkpoint(newest)
    with pytest.raises(DataError, match="damaged"):  # a run that would go on from it
        newest_valid(tmp_path / "checkpoints", ignore)


def test_resolve_says_what_was_expected_and_what_came(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "new" / "checkpoints").mkdir(parents=True)
    for name, came in [
        ("missing", "nothing of that name"),
        ("file", "got a file"),
        ("empty", "neither"),
        ("new", "none yet"),
    ]:
        with pytest.raises(DataError, match=came) as caught:
            resolve_checkpoint(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": -1, "score": 1}', '{"step": 1}'])
def test_a_damaged_best_is_refused(tmp_path, content):
    assert read_best(tmp_path) is None
    (tmp_path / "best.json").write_text(content)

    with pytest.raises(DataError, match=r"best\.json"):
        read_best(tmp_path)
