"""A save that is killed or meets a full disk: the checkpoints before it are whole."""

import os
import random
import resource
import shutil
import signal
import time
import warnings

import pytest
import torch
from saving import ignore, in_child, names, save, segment, segments

from actor_mimic.errors import DataError, StorageError
from actor_mimic.storage import durable
from actor_mimic.storage.checkpoint import newest_valid, read_checkpoint
from actor_mimic.storage.durable import FAULT_POINTS, clean_leftovers
from actor_mimic.storage.naming import checkpoint_name
from actor_mimic.storage.retention import prune
from benchmarks.faults.mutants import write_in_place

SAVES = [
    (point, step)
    for point in FAULT_POINTS
    if point.startswith("save-")
    for step in (2, 3)
    if (point, step) != ("save-old-set-aside", 3)  # there is none of that step
]


def save_over_everything(directory, step):
    """A save that passes every point; one of step 2 replaces another, one of step 3 does not."""
    old = read_checkpoint(directory / checkpoint_name(1))
    return save(
        directory,
        step,
        state={"counter": "new"},
        link_segments=segments(old),
        replay_segments={"b": segment(9)},
    )


def assert_whole_after(directory, point, step):
    """The new checkpoint counts from the moment it has its name; until then the old one does."""
    clean_leftovers(directory)
    newest = newest_valid(directory, lambda path, reason: pytest.fail(f"{path}: {reason}"))
    assert newest is not None
    committed = point in ("save-renamed", "save-parent-synced")
    assert newest.step == (step if committed else 2)
    assert newest.load_state() == {"counter": "new" if committed else 2}
    assert all(name.startswith("step-") for name in names(directory))


@pytest.mark.parametrize(("point", "step"), SAVES)
def test_a_kill_at_every_point_of_a_save(tmp_path, monkeypatch, point, step):
    save(tmp_path, 1, replay_segments={"a": segment(1)})
    save(tmp_path, 2)
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"{point}:1:kill")

    assert in_child(lambda: save_over_everything(tmp_path, step)) == 137

    assert_whole_after(tmp_path, point, step)


@pytest.mark.parametrize("point", ["save-tensors-written", "save-state-written"])
def test_a_kill_of_a_writer_that_works_in_place_is_noticed(tmp_path, monkeypatch, point):
    save(tmp_path, 1)
    save(tmp_path, 2)
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"{point}:1:kill")
    monkeypatch.setattr("saving.write_checkpoint", write_in_place)

    assert in_child(lambda: save(tmp_path, 3)) == 137

    with pytest.raises(pytest.fail.Exception, match="step-000000003"):
        assert_whole_after(tmp_path, point, 3)


@pytest.mark.parametrize(("point", "step"), SAVES)
def test_a_full_disk_at_every_point_of_a_save(tmp_path, monkeypatch, point, step):
    save(tmp_path, 1, replay_segments={"a": segment(1)})
    save(tmp_path, 2)
    monkeypatch.setattr(durable, "_passages", {})
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"{point}:1:{'enospc' if step == 2 else 'eio'}")

    with pytest.raises(StorageError, match=r"step-00000000\d.*the newest checkpoint there is step"):
        save_over_everything(tmp_path, step)

    assert not [name for name in names(tmp_path) if name.startswith(".tmp")]
    assert checkpoint_name(2) in names(tmp_path)  # at once, by the writer that met the fault
    assert_whole_after(tmp_path, point, step)


@pytest.mark.parametrize("limit", [0, 7, 100, 1500, 4000, 6000, 7900])
def test_the_system_refuses_to_write_on(tmp_path, limit):
    """RLIMIT_FSIZE ends a write part-way, inside the tensor library as well."""
    save(tmp_path, 1)

    def fail():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(StorageError, match="newest checkpoint there is step-000000001"):
            save(tmp_path, 2, tensors={"model": {"w": torch.zeros(2000)}})

    assert in_child(fail) == 0
    assert names(tmp_path) == ["step-000000001"]
    read_checkpoint(tmp_path / "step-000000001")


@pytest.mark.parametrize("in_place", [False, True])
def test_random_kills_lose_no_acknowledged_save(tmp_path, monkeypatch, in_place):
    """... and the same test finds a writer that works in place, so it can find something."""

    def save_well(step):
        save(tmp_path, step)
        prune(tmp_path)

    def save_in_place(step):
        monkeypatch.setattr("saving.write_checkpoint", write_in_place)
        save(tmp_path, step)

    rng = random.Random(0)
    save_once = save_in_place if in_place else save_well
    lost = sum(kill_while_saving(tmp_path, save_once, rng.uniform(0.004, 0.03)) for _ in range(15))

    assert lost > 0 if in_place else lost == 0


def kill_while_saving(directory, save_once, seconds):
    """Whether the newest checkpoint is older than the newest acknowledged, or none is whole."""
    shutil.rmtree(directory)
    directory.mkdir()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        for step in range(1, 10_000):
            save_once(step)
            os.write(writing, b".")
        os._exit(0)
    os.close(writing)
    first = os.read(reading, 1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as pipe:
        acknowledged = len(first + pipe.read())
    clean_leftovers(directory)
    try:
        newest = newest_valid(directory, ignore)
    except DataError:
        return True
    return newest is None or newest.load_state()["counter"] < acknowledged
