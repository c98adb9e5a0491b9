"""verify: every file of a run that is damaged is named, and nothing else."""

import errno
import json
import os
import random
import shutil

import pytest
from saving import save, segment

from actor_mimic.errors import DataError
from actor_mimic.storage import verify as module
from actor_mimic.storage.checkpoint import resolve_checkpoint, write_best
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import open_run
from actor_mimic.storage.verify import verify
from actor_mimic.verbs.check import Verify


@pytest.fixture
def run(tmp_path):
    """A finished run below a recipe's directory."""
    with open_run(tmp_path / "recipe" / "expert" / "seed-0", stage="expert", config={}) as run:
        save(run.checkpoints, 1)
        save(run.checkpoints, 2, replay_segments={"a": segment(1)})
        write_best(run.path, step=1, score=3.0)
        run.write_json("evaluations/x.json", {"a": 1})
        run.records.write(Record("train", 1, 1, {"loss": 1.0}, 0.1))
        run.mark_complete({"seconds": 1.0})
    return run.path


def files(run):
    return sorted(p for p in run.rglob("*") if p.is_file() and not p.name.startswith("."))


def names_of(findings):
    return sorted(finding.path.name for finding in findings)


FILES = ["best.json", "complete.json", "records.jsonl", "run.json", "x.json"]
EVERYTHING = sorted([*FILES, "step-000000001", "step-000000002"])


def test_a_whole_run_from_every_level(run):
    for directory in (run, run.parents[1]):
        findings = list(verify(directory))
        assert names_of(findings) == EVERYTHING
        assert not [finding.problem for finding in findings if finding.problem]
    (one,) = verify(run / "checkpoints" / "step-000000002")
    assert one.facts == "4 files, 0.0 MB"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"{\n", b"\x00\n"])
def test_a_damaged_file_is_named(run, name, content):
    (path,) = run.rglob(name)
    path.write_bytes(content or b"[\n")

    (bad,) = [finding for finding in verify(run) if finding.problem]
    assert bad.path == path
    assert str(path) in bad.problem


def test_a_flipped_bit_of_any_checkpoint_is_found(run):
    rng = random.Random(0)
    for path in files(run / "checkpoints"):
        whole = bytearray(path.read_bytes())
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        kept = path.read_bytes()
        path.write_bytes(whole)
        (bad,) = [finding for finding in verify(run) if finding.problem]
        assert bad.path in path.parents, path
        path.write_bytes(kept)


def test_a_reader_that_does_not_hash_finds_less(run, monkeypatch):
    read = module.read_checkpoint
    monkeypatch.setattr(module, "read_checkpoint", lambda path: read(path, verify=False))
    path = run / "checkpoints" / "step-000000001" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    assert not [finding for finding in verify(run) if finding.problem]


def test_a_best_that_is_gone_is_named(run):
    shutil.rmtree(run / "checkpoints" / "step-000000001")

    (bad,) = [finding for finding in verify(run) if finding.problem]
    assert "names step 1, of which there is no checkpoint" in bad.problem


def test_what_is_hidden_or_no_data_is_passed_over(run):
    (run / "checkpoints" / ".tmp-1-step-000000003").mkdir()
    (run / ".tmp-1-run.json").write_text("{")
    (run / "report.html").write_text("<")

    assert names_of(verify(run)) == EVERYTHING


def test_links_are_not_followed(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    os.rename(run / "checkpoints" / "step-000000002", elsewhere)
    (run / "checkpoints" / "step-000000002").symlink_to(elsewhere)

    (bad,) = [finding for finding in verify(run) if finding.problem]
    assert "symbolic link" in bad.problem


def test_checkpoints_that_are_elsewhere_are_not_those_of_the_run(run, tmp_path):
    os.rename(run / "checkpoints", tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "elsewhere")

    problems = [finding.problem for finding in verify(run) if finding.problem]
    assert f"{run / 'checkpoints'}: is a symbolic link" in problems
    with pytest.raises(DataError, match=r"checkpoints: expected a directory, got a symbolic link"):
        resolve_checkpoint(run)


def test_a_directory_that_cannot_be_read_is_named(run, monkeypatch):
    """Root may read any, so the system call is replaced."""
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("checkpoints"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)

    (bad,) = [finding for finding in verify(run) if finding.problem]
    assert bad.problem == f"{run / 'checkpoints'}: cannot be read: Permission denied"


def test_what_is_pruned_meanwhile_is_no_damage(run, monkeypatch):
    read = module.read_checkpoint

    def prune_first(path):
        if path.name == "step-000000002":
            shutil.rmtree(path)
        return read(path)

    monkeypatch.setattr(module, "read_checkpoint", prune_first)
    assert names_of(verify(run)) == [name for name in EVERYTHING if name != "step-000000002"]


def test_the_verb_says_what_is_whole_and_what_is_not(run, capsys):
    assert Verify(str(run)).run() == 0
    assert capsys.readouterr().out.count("whole ") == len(EVERYTHING)

    (run / "complete.json").write_text("{")
    assert Verify(str(run)).run() == 65
    shown = capsys.readouterr()
    assert f"damaged  {run / 'complete.json'}: expected JSON" in shown.out
    assert shown.err == "6 whole, 1 damaged\n"

    assert Verify(str(run), json=True).run() == 65
    shown = json.loads(capsys.readouterr().out)
    assert list(shown["damaged"]) == [str(run / "complete.json")]
    assert len(shown["whole"]) == 6


def test_what_is_no_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="expected a run or a checkpoint"):
            Verify(str(path)).run()
    assert Verify("zoo:pong").run() == 0
