"""Records: what was written is read, torn lines are dropped, damage is reported."""

import json
import math
import os
import resource

import pytest
from saving import in_child

from actor_mimic.errors import CannotCreateError, DataError, StorageError
from actor_mimic.storage.records import Record, RecordWriter, encode_record, read_records


def record(step, **values):
    return Record(kind="train", step=step, update=2 * step, values=values, wall_s=0.125)


def write(path, *records):
    writer = RecordWriter(path)
    for one in records:
        writer.write(one)
    writer.close()


def test_round_trip(tmp_path):
    path = tmp_path / "records.jsonl"
    values = {"loss": 0.1, "episodes": 3, "name": "pong \u2603\n", "none": None, "best": True}
    write(path, record(1, **values), record(2))

    assert read_records(path) == [record(1, **values), record(2)]
    assert [json.loads(line)["step"] for line in path.read_bytes().splitlines()] == [1, 2]


def test_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "records.jsonl"
    write(path, record(1, a=math.nan, b=math.inf, c=-math.inf))

    def refuse(constant):
        raise AssertionError(constant)

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert line["values"] == {"a": "nan", "b": "inf", "c": "-inf"}
    values = read_records(path)[0].values
    assert math.isnan(values["a"])
    assert (values["b"], values["c"]) == (math.inf, -math.inf)
    with pytest.raises(ValueError, match="read back as a number"):
        encode_record(record(1, a="nan"))


def test_each_record_is_there_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    for step in range(3):
        writer.write(record(step))
        assert len(read_records(path)) == step + 1
    writer.close()
    writer.close()


def test_a_line_torn_anywhere_is_skipped_and_then_cut_off(tmp_path):
    path = tmp_path / "records.jsonl"
    whole = encode_record(record(1)) + encode_record(record(2))
    start = len(encode_record(record(1)))
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        assert read_records(path) == [record(1)]
        write(path, record(3))
        assert read_records(path) == [record(1), record(3)]


def test_a_torn_line_longer_than_one_look_back(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(encode_record(record(1)) + b"x" * 200_000)
    write(path, record(2))
    assert read_records(path) == [record(1), record(2)]

    path.write_bytes(b"\0" * 200_000)
    write(path, record(2))
    assert read_records(path) == [record(2)]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        encode_record(record(2)).replace(b'"step": 2', b'"step": 2.5').strip(),
        encode_record(record(2)).replace(b'"step": 2', b'"step": true').strip(),
        encode_record(record(2)).replace(b'"values": {}', b'"values": {"a": []}').strip(),
        encode_record(record(2)).replace(b'"kind"', b'"sort"').strip(),
        encode_record(record(2)).replace(b'"step": 2', b'"step": 1' + b"0" * 400).strip(),
        encode_record(record(2)).replace(b'"wall_s": 0.125', b'"wall_s": 1' + b"0" * 400).strip(),
        encode_record(record(2)).replace(b'"wall_s": 0.125', b'"wall_s": 1e999').strip(),
        encode_record(record(2, a=1)).replace(b'"a": 1', b'"a": NaN').strip(),
        encode_record(record(2, a=1)).replace(b'"a": 1', b'"a": -Infinity').strip(),
        encode_record(record(2, a=1)).replace(b'"a": 1', b'"a": 1' + b"0" * 400).strip(),
        encode_record(record(2, a="x" * (1 << 20))).strip(),
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "records.jsonl"
    path.write_bytes(encode_record(record(1)) + line + b"\n" + encode_record(record(3)))

    with pytest.raises(DataError, match=r"records\.jsonl:2: expected"):
        read_records(path)


def test_a_file_of_records_is_bounded_before_it_is_read(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"")
    os.truncate(path, (1 << 30) + 1)  # sparse: takes no room

    with pytest.raises(DataError, match="at most 1073741824 bytes of records"):
        read_records(path)


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9, 100])
def test_a_resumed_run_records_nothing_twice(tmp_path, step):
    """Killed at 10, resumed from a checkpoint: the file is the uninterrupted run's."""
    path = tmp_path / "records.jsonl"
    steps = [1, 2, 4, 4, 7, 9, 10]
    write(path, *map(record, steps))
    uninterrupted = path.read_bytes()

    writer = RecordWriter(path)
    dropped = writer.rewind(step)
    assert dropped == sum(one > step for one in steps)
    assert [one.step for one in read_records(path)] == [one for one in steps if one <= step]
    for one in steps:
        if one > step:
            writer.write(record(one))
    writer.close()
    assert path.read_bytes() == uninterrupted
    assert os.listdir(tmp_path) == ["records.jsonl"]


def test_rewinding_a_damaged_file_changes_nothing(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"damaged\n" + encode_record(record(3)))
    before = path.read_bytes()
    writer = RecordWriter(path)

    with pytest.raises(DataError, match="jsonl:1"):
        writer.rewind(1)
    writer.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize("fault", ["enospc", "kill"])
def test_a_rewind_that_fails_changes_nothing(tmp_path, monkeypatch, fault):
    path = tmp_path / "records.jsonl"
    write(path, *map(record, range(5)))
    monkeypatch.setattr("actor_mimic.storage.durable._passages", {})
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", f"replace-written:1:{fault}")

    def rewind():
        with pytest.raises(StorageError, match=r"records\.jsonl"):
            RecordWriter(path).rewind(2)

    if fault == "kill":
        assert in_child(rewind) == 137
    else:
        writer = RecordWriter(path)
        with pytest.raises(StorageError, match=r"records\.jsonl"):
            writer.rewind(2)
        writer.close()
        assert os.listdir(tmp_path) == ["records.jsonl"]
    assert read_records(path) == [record(step) for step in range(5)]


def test_a_rewind_that_is_killed_behind_its_last_step_is_done(tmp_path, monkeypatch):
    path = tmp_path / "records.jsonl"
    write(path, *map(record, range(5)))
    monkeypatch.setattr("actor_mimic.storage.durable._passages", {})
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", "replace-renamed:1:kill")

    assert in_child(lambda: RecordWriter(path).rewind(2)) == 137
    assert read_records(path) == [record(step) for step in range(3)]
    assert os.listdir(tmp_path) == ["records.jsonl"]


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path):
    path = tmp_path / "records.jsonl"
    write(path, record(1))
    size = path.stat().st_size

    def fail():
        writer = RecordWriter(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
        with pytest.raises(StorageError, match=r"records\.jsonl"):
            writer.write(record(2))

    assert in_child(fail) == 0
    assert path.read_bytes() == encode_record(record(1))


def test_places_where_no_record_can_be(tmp_path):
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        read_records(tmp_path / "missing.jsonl")
    with pytest.raises(CannotCreateError, match="missing"):
        RecordWriter(tmp_path / "missing" / "records.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(CannotCreateError, match="link"):
        RecordWriter(tmp_path / "link")
    assert not (tmp_path / "target").exists()
