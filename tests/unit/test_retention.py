"""Which checkpoints are found, which are deleted, and what dead writers leave."""

import os
import shutil

import pytest
from saving import in_child, names, save, segment, segments

from actor_mimic.errors import DataError
from actor_mimic.storage import retention
from actor_mimic.storage.checkpoint import read_checkpoint
from actor_mimic.storage.durable import clean_leftovers
from actor_mimic.storage.manifest import MANIFEST
from actor_mimic.storage.naming import checkpoint_name, find_checkpoints
from actor_mimic.storage.retention import drop_replays, prune


def test_the_newest_is_the_highest_step_whatever_the_clock_says(tmp_path):
    for step in (1000, 30, 999_999_999, 1_000_000_000):
        os.utime(save(tmp_path, step).path, (step, 10**9 - step))
    (tmp_path / "step-9999999999").symlink_to("/etc")
    (tmp_path / "step-000000031").write_text("a file")
    (tmp_path / "step-5").mkdir()
    (tmp_path / ".tmp-1-step-9999999998").mkdir()

    found = [read_checkpoint(path).step for path in find_checkpoints(tmp_path)]
    assert found == [30, 1000, 999_999_999, 1_000_000_000]
    assert find_checkpoints(tmp_path / "missing") == []


def test_prune_keeps_the_newest_and_those_asked_for(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step)

    assert prune(tmp_path, keep=frozenset({2})) == [4, 3, 1]
    assert names(tmp_path) == [checkpoint_name(step) for step in (2, 5, 6)]
    assert prune(tmp_path, keep=frozenset({2})) == []
    with pytest.raises(ValueError, match="at least 2"):
        prune(tmp_path, keep_last=1)


def test_the_first_of_every_period_stays(tmp_path):
    """Saved every 30 steps and pruned each time: the first at or after 0, 100, 200, ..."""
    for step in range(0, 500, 30):
        save(tmp_path, step)
        prune(tmp_path, keep=frozenset({90}), keep_every_steps=100)

    kept = [0, 90, 120, 210, 300, 420, 450, 480]
    assert names(tmp_path) == [checkpoint_name(step) for step in kept]


def test_prune_does_not_count_damaged_ones(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    flip = tmp_path / checkpoint_name(5) / "model.safetensors"
    flip.write_bytes(flip.read_bytes()[:-1] + b"?")
    (tmp_path / checkpoint_name(3) / MANIFEST).unlink()

    assert prune(tmp_path) == [1]
    assert names(tmp_path) == [checkpoint_name(step) for step in (2, 3, 4, 5)]


def test_a_deletion_in_place_would_leave_a_part(tmp_path, monkeypatch):
    """The mutant of the next test: what a kill half-way leaves is taken for a checkpoint."""
    for step in (1, 2, 3):
        save(tmp_path, step)

    def remove_in_place(path):
        (path / "state.json").unlink()
        os._exit(137)

    monkeypatch.setattr(retention, "move_to_trash", remove_in_place)
    assert in_child(lambda: prune(tmp_path)) == 137
    with pytest.raises(DataError, match=r"state\.json"):
        [read_checkpoint(path) for path in find_checkpoints(tmp_path)]


@pytest.mark.parametrize("point", ["prune-renamed", "prune-removed"])
def test_a_kill_while_pruning_leaves_two_valid(tmp_path, monkeypatch, point):
    for step in range(1, 5):
        save(tmp_path, step)
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"{point}:1:kill")

    assert in_child(lambda: prune(tmp_path)) == 137
    assert [read_checkpoint(path).step for path in find_checkpoints(tmp_path)] == [1, 3, 4]
    clean_leftovers(tmp_path)
    assert len(names(tmp_path)) == 3


def test_what_cannot_be_deleted_is_out_of_the_way(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        save(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        assert prune(tmp_path) == [1]
    assert len(find_checkpoints(tmp_path)) == 2

    assert clean_leftovers(tmp_path) == [f".trash-{os.getpid()}-step-000000001"]
    assert len(names(tmp_path)) == 2


def test_leftovers_of_the_living_are_left_alone(tmp_path):
    gone = os.waitpid(pid, 0)[0] if (pid := os.posix_spawn("/bin/true", ["true"], {})) else 0
    for name in (f".tmp-{gone}-step-1", f".tmp-{os.getppid()}-step-1", f".tmp-{os.getpid()}-x"):
        (tmp_path / name).mkdir()
    (tmp_path / f".tmp-{gone}-run.json").write_text("{")
    (tmp_path / ".tmp-mine").mkdir()

    clean_leftovers(tmp_path)

    assert names(tmp_path) == sorted([f".tmp-{os.getppid()}-step-1", ".tmp-mine"])
    assert clean_leftovers(tmp_path / "missing") == []


def test_what_was_set_aside_comes_back_whoever_has_the_number_of_its_writer(tmp_path):
    """It may be the only checkpoint: a run that finds none starts over."""
    path = save(tmp_path, 1).path
    path.rename(tmp_path / f".replaced-{os.getppid()}-{path.name}")

    clean_leftovers(tmp_path)

    assert names(tmp_path) == [path.name]
    assert read_checkpoint(path).step == 1


def save_with_replay(directory):
    """Two checkpoints that share a segment, and one without a replay."""
    save(directory, 1)
    state = {"counter": 2, "segments": ["a"]}
    second = save(directory, 2, replay_segments={"a": segment(1)}, state=state)
    new = {"replay_segments": {"b": segment(2)}, "link_segments": segments(second)}
    save(directory, 3, state={"counter": 3, "segments": ["a", "b"]}, **new)


def test_a_checkpoint_without_its_replay_is_otherwise_what_it_was(tmp_path):
    save_with_replay(tmp_path)
    before = {path.name: read_checkpoint(path) for path in find_checkpoints(tmp_path)}
    untouched = (tmp_path / checkpoint_name(1)).stat().st_ino

    drop_replays(tmp_path, {"segments": []})

    assert (tmp_path / checkpoint_name(1)).stat().st_ino == untouched
    for path in find_checkpoints(tmp_path):
        after, old = read_checkpoint(path), before[path.name].manifest
        assert not (path / "replay").exists()
        assert after.manifest["segments"] == []
        assert after.model_sha256 == before[path.name].model_sha256
        assert list(after.load_tensors("optimizer")) == ["m"]
        same = old.keys() - {"files", "segments", "manifest_sha256"}
        assert {key: after.manifest[key] for key in same} == {key: old[key] for key in same}
    states = [read_checkpoint(path).load_state() for path in find_checkpoints(tmp_path)]
    assert states == [{"counter": 1}, *({"counter": n, "segments": []} for n in (2, 3))]
    assert names(tmp_path) == [checkpoint_name(step) for step in (1, 2, 3)]
    drop_replays(tmp_path / "missing", {})


def test_damage_is_not_hidden_by_taking_the_replay_out(tmp_path):
    save_with_replay(tmp_path)
    save(tmp_path, 4, replay_segments={"c": segment(3)})
    third = tmp_path / checkpoint_name(3)
    model = third / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    (tmp_path / checkpoint_name(2) / "optimizer.safetensors").unlink()
    state = tmp_path / checkpoint_name(4) / "state.json"
    state.write_bytes(state.read_bytes().replace(b"4", b"5"))

    drop_replays(tmp_path, {"segments": []})

    assert read_checkpoint(third, verify=False).manifest["segments"] == []
    with pytest.raises(DataError, match=r"model\.safetensors: expected sha256"):
        read_checkpoint(third)
    for step, name in ((2, "optimizer"), (4, "state")):  # these are left as they are
        assert (tmp_path / checkpoint_name(step) / "replay").exists()
        with pytest.raises(DataError, match=name):
            read_checkpoint(tmp_path / checkpoint_name(step))


POINTS = ["state-written", "manifest-written", "old-set-aside", "renamed"]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_while_replays_are_dropped_leaves_every_checkpoint_whole(
    tmp_path, monkeypatch, point
):
    save_with_replay(tmp_path)
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"save-{point}:2:kill")

    assert in_child(lambda: drop_replays(tmp_path, {"segments": []})) == 137
    clean_leftovers(tmp_path)

    assert names(tmp_path) == [checkpoint_name(step) for step in (1, 2, 3)]
    left = [len(read_checkpoint(path).manifest["segments"]) for path in find_checkpoints(tmp_path)]
    assert left == [0, 0, 2 if point != "renamed" else 0]
