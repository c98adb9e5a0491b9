"""What is sent to Weights & Biases, seen by a stand-in for its library."""

import json
import sys
import types

import pytest

from actor_mimic.errors import DataError, UnavailableError
from actor_mimic.storage.records import Record, RecordWriter
from actor_mimic.storage.wandb_run import SETTINGS, WandbRun


class Run:
    def __init__(self, run_id):
        self.id = run_id
        self.rows = []
        self.metrics = []
        self.finished = 0

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.rows.append(values)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.calls, module.runs = [], {}

    def init(**arguments):
        module.calls.append(arguments)
        run_id = arguments["id"] or f"run{len(module.runs)}"
        return module.runs.setdefault(run_id, Run(run_id))

    module.init, module.Settings = init, lambda **settings: settings
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def train(step):
    return Record("train", step, step // 10, {"loss": step / 8}, step / 100)


def evaluation(step):
    return Record("evaluation", step, step // 10, {"pong/mean": step / 4}, step / 100)


def follow(directory):
    follower = WandbRun(directory, "project", {"gamma": 0.99})
    return RecordWriter(directory / "records.jsonl", [follower]), follower


def sent(run):
    """Steps of the losses and of the scores."""
    return [
        [row["global_step"] for row in run.rows if tag in row]
        for tag in ("train/loss", "eval/mean_reward")
    ]


def test_no_code_goes_along(wandb, tmp_path):
    _, follower = follow(tmp_path)
    follower.close()

    (call,) = wandb.calls
    assert call["settings"] == {
        "save_code": False,
        "disable_code": True,
        "disable_git": True,
        "disable_job_creation": True,
        "console": "off",
    }
    assert (call["project"], call["config"], call["id"]) == ("project", {"gamma": 0.99}, None)
    assert call["resume"] == "allow"
    assert "mode" not in call, "WANDB_MODE decides"
    (run,) = wandb.runs.values()
    assert run.metrics == [("*", "global_step")]
    assert run.finished == 1
    assert SETTINGS["save_code"] is False


def test_a_resumed_run_sends_every_step_once(wandb, tmp_path):
    writer, _ = follow(tmp_path)
    writer.rewind(-1)
    for record in (evaluation(0), train(100), train(200), evaluation(200), train(300)):
        writer.write(record)
    # Killed; the last checkpoint is that of step 200, before its evaluation.
    writer, _ = follow(tmp_path)
    writer.rewind(200)
    for record in (train(300), train(400), evaluation(400)):
        writer.write(record)

    assert [call["id"] for call in wandb.calls] == [None, "run0"]
    assert sent(wandb.runs["run0"]) == [[100, 200, 300, 400], [0, 200, 400]]


def test_a_run_that_is_tracked_from_the_middle_on_sends_what_was_before(wandb, tmp_path):
    writer = RecordWriter(tmp_path / "records.jsonl")
    for record in (evaluation(0), train(100), train(200)):
        writer.write(record)
    writer.close()

    writer, _ = follow(tmp_path)
    writer.rewind(100)
    writer.write(train(200))
    assert sent(wandb.runs["run0"]) == [[100, 200], [0]]


def test_what_is_not_a_number_is_not_sent(wandb, tmp_path):
    writer, _ = follow(tmp_path)
    writer.rewind(-1)
    writer.write(Record("train", 1, 1, {"note": "secret", "loss": 1.0}, 0.0))
    writer.write(Record("checkpoint", 1, 1, {"model_sha256": "ab"}, 0.0))

    (row,) = wandb.runs["run0"].rows
    assert all(isinstance(value, int | float) for value in row.values())
    assert "secret" not in json.dumps(row)


def test_a_damaged_note_is_refused(wandb, tmp_path):
    (tmp_path / "wandb.json").write_text('{"id": 3, "sent": [0]}')
    with pytest.raises(DataError, match="which run is tracked"):
        follow(tmp_path)
    assert not wandb.calls


def test_a_refusal_says_how_to_log_in(wandb, tmp_path):
    def refuse(**_):
        raise RuntimeError("api_key not configured")

    wandb.init = refuse
    with pytest.raises(UnavailableError, match=r"api_key not configured.*WANDB_MODE=offline"):
        follow(tmp_path)


def test_without_the_library_the_install_line_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[wandb\]'"):
        follow(tmp_path)
