"""Event files, read by TensorBoard's own reader."""

import os
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actor_mimic.errors import StorageError
from actor_mimic.storage.event_file import EventFile
from actor_mimic.storage.metric_names import named_values
from actor_mimic.storage.records import Record, RecordWriter


def train(step):
    return Record("train", step, step // 10, {"loss": step / 8, "pong/score": -1.0}, step / 100)


def evaluation(step):
    return Record("evaluation", step, step // 10, {"pong/mean": step / 4}, step / 100)


def follow(directory):
    directory.mkdir(exist_ok=True)
    follower = EventFile(directory)
    return RecordWriter(directory / "records.jsonl", [follower]), follower


def scalars(directory):
    """By tag, steps with their values, in the order in which they are stored."""
    reader = EventAccumulator(str(directory), size_guidance={"scalars": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_every_number_is_there_at_its_step(tmp_path):
    writer, follower = follow(tmp_path)
    writer.rewind(-1)
    records = [evaluation(0), *map(train, (100, 200)), evaluation(200)]
    for record in records:
        writer.write(record)

    found = scalars(tmp_path)  # while the run goes on
    follower.close()
    expected = {}
    for record in records:
        for tag, value in named_values(record).items():
            expected.setdefault(tag, []).append((record.step, pytest.approx(value)))
    assert found == expected
    assert found["train/loss"] == [(100, 12.5), (200, 25.0)]


def test_no_step_is_there_twice_after_a_resume(tmp_path):
    writer, follower = follow(tmp_path)
    writer.rewind(-1)
    for step in range(100, 700, 100):
        writer.write(train(step))
    # A TensorBoard that looks on has read all six, and meets the new file later.
    looking_on = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    looking_on.Reload()
    assert len(looking_on.Scalars("train/loss")) == 6
    follower.close()

    writer, follower = follow(tmp_path)
    writer.rewind(300)
    for step in (400, 500):
        writer.write(train(step))
    follower.close()

    steps = [100, 200, 300, 400, 500]
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == steps
    looking_on.Reload()
    assert [event.step for event in looking_on.Scalars("train/loss")] == steps
    sizes = [path.stat().st_size for path in sorted(tmp_path.glob("events.*"))]
    assert len(sizes) == 2
    assert sizes[0] == 0 < sizes[1]
    writer, follower = follow(tmp_path)
    writer.rewind(500)
    follower.close()
    assert len(list(tmp_path.glob("events.*"))) == 2


def test_other_event_files_are_left_alone(tmp_path):
    other = tmp_path / "events.out.tfevents.1.host"
    other.write_bytes(b"")
    writer, follower = follow(tmp_path)
    writer.rewind(-1)
    follower.close()

    assert other.exists()


def test_a_torn_event_does_not_outlive_a_resume(tmp_path):
    writer, follower = follow(tmp_path)
    writer.rewind(-1)
    writer.write(train(100))
    follower.close()
    (path,) = tmp_path.glob("events.*")
    path.write_bytes(path.read_bytes()[:-3])

    writer, follower = follow(tmp_path)
    writer.rewind(100)
    writer.write(train(200))
    follower.close()
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == [100, 200]


def test_a_full_disk_is_named(tmp_path):
    writer, follower = follow(tmp_path)
    writer.rewind(-1)
    assert follower._file is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, follower._file.fileno())
    with pytest.raises(StorageError, match="No space left"):
        writer.write(train(100))
    follower.close()


def test_nothing_of_tensorboard_is_loaded_before_a_run_begins():
    code = "import actor_mimic.stages.launch, sys; sys.exit('tensorboard' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
