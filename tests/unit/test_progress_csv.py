"""``progress.csv``: read back by Python's own reader, after every way that a run may go on."""

import csv

import pytest

from actor_mimic.errors import StorageError
from actor_mimic.storage.progress_csv import ProgressCsv
from actor_mimic.storage.records import Record, RecordWriter


def train(step, **values):
    return Record("train", step, step // 10, values, step / 100)


def rows(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def header(path):
    return path.read_text().split("\n", 1)[0].split(",")


def follow(tmp_path):
    path = tmp_path / "progress.csv"
    writer = RecordWriter(tmp_path / "records.jsonl", [ProgressCsv(path)])
    return writer, path


def test_a_row_for_each_record_and_columns_that_never_move(tmp_path):
    writer, path = follow(tmp_path)
    writer.rewind(-1)
    writer.write(train(100, epsilon=1.0))
    first = header(path)
    writer.write(train(200, epsilon=0.5, loss=0.25))
    writer.write(Record("checkpoint", 200, 20, {"model_sha256": "ab"}, 2.0))
    writer.write(Record("evaluation", 200, 20, {"pong/mean": -1.5}, 2.0))
    writer.close()

    assert first == [
        "time/total_timesteps",
        "train/n_updates",
        "time/time_elapsed",
        "rollout/exploration_rate",
    ]
    assert header(path)[: len(first)] == first
    place = ("time/total_timesteps", "train/n_updates", "time/time_elapsed")
    assert rows(path) == [
        dict(zip(place, ("100", "10", "1.0"), strict=True)) | {"rollout/exploration_rate": "1.0"},
        dict(zip(place, ("200", "20", "2.0"), strict=True))
        | {"rollout/exploration_rate": "0.5", "train/loss": "0.25"},
        dict(zip(place, ("200", "20", "2.0"), strict=True))
        | {"eval/mean_reward": "-1.5", "task/pong/eval_mean_reward": "-1.5"},
    ]


def test_a_resumed_run_leaves_the_file_that_an_unbroken_one_leaves(tmp_path):
    records = [train(step, loss=1 / step) for step in range(100, 1_000, 100)]
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    writer, whole = follow(tmp_path / "whole")
    writer.rewind(-1)
    for record in records:
        writer.write(record)
    writer.close()

    writer, broken = follow(tmp_path / "broken")
    writer.rewind(-1)
    for record in records[:6]:
        writer.write(record)
    writer.close()
    broken.write_text(broken.read_text()[:-5])  # a kill in the middle of a line
    writer, broken = follow(tmp_path / "broken")
    assert writer.rewind(400) == 2
    for record in records[4:]:
        writer.write(record)
    writer.close()

    assert broken.read_bytes() == whole.read_bytes()


def test_who_follows_from_the_middle_on_is_told_of_what_was_before(tmp_path):
    writer = RecordWriter(tmp_path / "records.jsonl")
    writer.write(train(100, loss=1.0))
    writer.close()

    writer, path = follow(tmp_path)
    writer.write(train(200, loss=0.5))
    writer.write(train(300, loss=0.25))
    writer.close()
    assert [row["train/loss"] for row in rows(path)] == ["1.0", "0.5", "0.25"]


def test_every_cell_is_a_number_or_nothing(tmp_path):
    writer, path = follow(tmp_path)
    writer.rewind(-1)
    values = {"=cmd()/score": 1.0, "note": "=HYPERLINK()", "loss": float("nan"), "q": None}
    writer.write(Record("train", 1, 1, values, 0.0))
    writer.close()

    for row in rows(path):
        for cell in row.values():
            float(cell)
    assert not any(cell[:1] in "=+-@\t\r'\"" for cell in header(path))
    assert "HYPERLINK" not in path.read_text()


def test_a_link_is_not_written_through(tmp_path):
    writer, path = follow(tmp_path)
    writer.rewind(-1)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match=r"progress\.csv"):
        writer.write(Record("checkpoint", 1, 1, {}, 0.0)) or writer.write(train(1))
    assert not (tmp_path / "elsewhere").exists()
    writer.close()
