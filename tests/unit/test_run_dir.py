"""Run directories: one owner, one configuration, and JSON that is the old one or the new one."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from saving import in_child

import actor_mimic
from actor_mimic.errors import (
    CannotCreateError,
    ConfigError,
    DataError,
    Interrupted,
    LockedError,
    StorageError,
    UnavailableError,
    UsageError,
)
from actor_mimic.storage import durable, run_lock
from actor_mimic.storage.records import Record, read_records
from actor_mimic.storage.run_dir import (
    installed_versions,
    is_complete,
    open_run,
    read_run_json,
    slug,
    validate_run_name,
)

NOBODY = 65534
CONFIG = {"seed": 3, "total_steps": 100, "network": {"width": 0.5, "norm": True}, "games": ["a"]}


def test_a_new_run(tmp_path):
    path = tmp_path / "runs" / "one"
    with open_run(path, stage="expert", config=CONFIG) as run:
        run.records.write(Record("train", 1, 1, {}, 0.0))
        assert run.checkpoints == path / "checkpoints"
        assert run.checkpoints.is_dir()

    content = json.loads((path / "run.json").read_bytes())
    assert (content["schema"], content["stage"], content["seed"]) == (1, "expert", 3)
    assert content["config"] == CONFIG
    assert content["versions"] == installed_versions()
    assert content["versions"]["python"].split(".")[:2] == [str(n) for n in sys.version_info[:2]]
    assert content["created"].endswith("+00:00")
    assert "command" not in content
    assert [one.step for one in read_records(path / "records.jsonl")] == [1]


def test_the_same_configuration_takes_it_up_again(tmp_path):
    open_run(tmp_path, stage="expert", config=CONFIG, command="what was typed").close()
    before = (tmp_path / "run.json").read_bytes()
    as_tuple = CONFIG | {"games": ("a",)}  # JSON has lists only

    open_run(tmp_path, stage="expert", config=as_tuple, command="and typed again").close()

    assert (tmp_path / "run.json").read_bytes() == before
    assert json.loads(before)["command"] == "what was typed"


def test_another_configuration_is_refused_key_by_key(tmp_path):
    open_run(tmp_path, stage="expert", config=CONFIG).close()
    before = (tmp_path / "run.json").read_bytes()
    changed = {"seed": 4, "total_steps": 200, "network": {"width": 1.0}, "games": ["a"], "new": 1}

    with pytest.raises(ConfigError) as caught:
        open_run(
            tmp_path, stage="expert", config=changed, resumable_keys=frozenset({"total_steps"})
        )

    message = str(caught.value)
    assert "seed (stored: 3, asked: 4)" in message
    assert "network.width (stored: 0.5, asked: 1.0)" in message
    assert "network.norm (stored: true, asked: absent)" in message
    assert "new (stored: absent, asked: 1)" in message
    assert "total_steps" not in message
    assert "games" not in message
    assert (tmp_path / "run.json").read_bytes() == before
    with pytest.raises(ConfigError, match="begun as expert, asked: distill"):
        open_run(tmp_path, stage="distill", config=CONFIG)
    open_run(tmp_path, stage="expert", config=CONFIG).close()  # a refusal frees the lock


def refuse(path, error, *, leave=""):
    """A run that leaves a file, if any, and then fails."""

    def fail():
        with open_run(path, stage="expert", config={"gamma": 0.5}) as run:
            if leave:
                run.write_json(leave, {})
            raise error

    with pytest.raises(type(error)):
        fail()


@pytest.mark.parametrize("error", [ConfigError("too large"), UnavailableError("not installed")])
def test_what_was_refused_before_it_began_can_be_corrected(tmp_path, error):
    refuse(tmp_path, error)
    with open_run(tmp_path, stage="expert", config={"gamma": 0.9}):
        assert read_run_json(tmp_path, "run.json")["config"] == {"gamma": 0.9}

    refuse(tmp_path / "again", error)
    assert not (tmp_path / "again").exists()


def test_a_refusal_takes_back_no_more_than_the_run_has_made(tmp_path):
    (tmp_path / "mine").mkdir()
    refuse(tmp_path / "mine", ConfigError("too large"))
    for kept in ("teachers", "evaluations"):
        refuse(tmp_path / kept, ConfigError("too large"), leave=f"{kept}/pong.json")
    refuse(tmp_path / "learnt", ConfigError("too large"), leave="films/pong.json")

    assert sorted(os.listdir(tmp_path / "mine")) == [".lock", "checkpoints"]
    for kept in ("teachers", "evaluations"):
        assert sorted(os.listdir(tmp_path / kept)) == [".lock", "checkpoints", kept]
    assert "run.json" in os.listdir(tmp_path / "learnt")


def test_a_directory_that_somebody_else_begins_to_use_stays(tmp_path, monkeypatch):
    """Between removing the lock and the directory another process makes a lock of its own."""
    unlink = Path.unlink

    def and_another(path, **options):
        unlink(path, **options)
        if path.name == ".lock":
            path.touch()

    monkeypatch.setattr(Path, "unlink", and_another)
    refuse(tmp_path / "run", ConfigError("too large"))

    assert os.listdir(tmp_path / "run") == [".lock"]


@pytest.mark.parametrize(("third", "error"), [(False, CannotCreateError), (True, LockedError)])
def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch, third, error):
    """Between opening and locking its owner removes it and lets go; a third may make another."""
    path = tmp_path / ".lock"

    def removed(*_):
        path.unlink()
        if third:
            path.touch()

    monkeypatch.setattr(run_lock.fcntl, "flock", removed)
    with pytest.raises(error, match=r"cannot lock|in use by"):
        run_lock.take_lock(path)


@pytest.mark.parametrize(
    ("error", "leave"),
    [
        (Interrupted(15), ""),  # it may go on
        (ValueError("a mistake of ours"), ""),
        (ConfigError("too late"), "films/x.json"),
        (ConfigError("too late"), "checkpoints/x.json"),
    ],
)
def test_a_run_that_may_go_on_keeps_its_configuration(tmp_path, error, leave):
    refuse(tmp_path, error, leave=leave)

    with pytest.raises(ConfigError, match="gamma"):
        open_run(tmp_path, stage="expert", config={"gamma": 0.9})


def test_a_run_that_was_begun_earlier_is_not_taken_back(tmp_path):
    open_run(tmp_path, stage="expert", config={"gamma": 0.5}).close()
    refuse(tmp_path, ConfigError("another machine has less memory"))

    assert (tmp_path / "run.json").exists()


def test_keys_that_may_differ_are_updated(tmp_path):
    open_run(tmp_path, stage="expert", config=CONFIG).close()
    stored = json.loads((tmp_path / "run.json").read_bytes())
    changed = CONFIG | {"total_steps": 200, "network": {"width": 1.0, "norm": True}}

    keys = frozenset({"total_steps", "network"})
    with open_run(tmp_path, stage="expert", config=changed, resumable_keys=keys) as run:
        assert json.loads((tmp_path / "run.json").read_bytes()) == stored  # nothing is done yet
        assert run.go_on()["total_steps"] == "total_steps (stored: 100, asked: 200)"

    now = json.loads((tmp_path / "run.json").read_bytes())
    (change,) = now.pop("changed")
    assert now == stored | {"config": changed}
    assert change["settings"] == {
        "network.width": {"before": 0.5, "after": 1.0},
        "total_steps": {"before": 100, "after": 200},
    }
    assert change["versions"] == stored["versions"]
    with pytest.raises(ConfigError, match="total_steps"):
        open_run(tmp_path, stage="expert", config=CONFIG)


def go_on(path, **changed):
    """A run that goes on with changed settings, which may be new ones; its changes."""
    keys = frozenset(changed)
    with open_run(path, stage="expert", config=CONFIG | changed, resumable_keys=keys) as run:
        return dict(run.go_on())


def test_every_change_is_kept_and_a_run_that_is_done_has_none(tmp_path):
    for steps in (100, 200, 200, 300):
        go_on(tmp_path, total_steps=steps)
    assert go_on(tmp_path, total_steps=300, new=1) == {"new": "new (stored: absent, asked: 1)"}
    before = json.loads((tmp_path / "run.json").read_bytes())
    assert [change["settings"] for change in before["changed"]] == [
        {"total_steps": {"before": 100, "after": 200}},
        {"total_steps": {"before": 200, "after": 300}},
        {"new": {"after": 1}},
    ]

    config = CONFIG | {"total_steps": 300, "new": 1}
    with open_run(tmp_path, stage="expert", config=config) as run:
        run.mark_complete({})
    assert go_on(tmp_path, total_steps=100, new=2) == {}
    assert json.loads((tmp_path / "run.json").read_bytes()) == before


def test_a_move_that_is_refused_is_none(tmp_path):
    go_on(tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    config, keys = CONFIG | {"total_steps": 7}, frozenset({"total_steps"})
    with (
        pytest.raises(ConfigError, match="memory"),
        open_run(tmp_path, stage="expert", config=config, resumable_keys=keys),
    ):
        raise ConfigError("this machine has too little memory")

    assert (tmp_path / "run.json").read_bytes() == before


def test_a_damaged_history_of_changes_is_named(tmp_path):
    go_on(tmp_path)
    stored = json.loads((tmp_path / "run.json").read_bytes())
    (tmp_path / "run.json").write_text(json.dumps(stored | {"changed": "twice"}))
    with pytest.raises(DataError, match="expected a list of changes, got 'twice'"):
        go_on(tmp_path, total_steps=200)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected JSON"),
        ("[]", "description of a run"),
        ('{"config": {}, "stage": "expert"}', "expected schema 1"),
        ('{"config": {}, "stage": "expert", "schema": 9}', "reads schema 9"),
    ],
)
def test_a_damaged_run_is_not_begun_again(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(DataError, match=message):
        open_run(tmp_path, stage="expert", config={})
    assert (tmp_path / "run.json").read_text() == content


OTHER_PROCESS = """
import sys
from pathlib import Path
from actor_mimic.storage.run_dir import open_run
with open_run(Path(sys.argv[1]), stage="expert", config={}):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_hold_one_run(tmp_path):
    """Also with the first one stopped; the lock ends with its owner, however that ends."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(LockedError) as caught:
            open_run(tmp_path, stage="expert", config={})
        assert f"process {other.pid} on {socket.gethostname()}" in str(caught.value)
        other.kill()

    open_run(tmp_path, stage="expert", config={}).close()


def test_without_the_lock_two_would_write(tmp_path, monkeypatch):
    """The mutant of the one before."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    with open_run(tmp_path, stage="expert", config={}):
        open_run(tmp_path, stage="expert", config={}).close()


@pytest.mark.parametrize(("free", "refused"), [(999, True), (1000, False)])
def test_checkpoints_that_cannot_fit_are_foreseen(tmp_path, monkeypatch, free, refused):
    """A thousand bytes more than what is there already, under two names."""
    with open_run(tmp_path, stage="expert", config={}) as run:
        (run.checkpoints / "a").write_bytes(b"x" * 4096)
        os.link(run.checkpoints / "a", run.checkpoints / "b")
        there = (run.checkpoints / "a").stat().st_blocks * 512
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        if refused:
            with pytest.raises(StorageError, match=f"{tmp_path} need up to 0 MiB"):
                run.require_space(there + 1000)
        else:
            run.require_space(there + 1000)


def test_a_second_opener_in_the_same_process_is_refused_as_well(tmp_path):
    with open_run(tmp_path, stage="expert", config={}) as run:
        with pytest.raises(LockedError, match=f"process {os.getpid()} on"):
            open_run(tmp_path, stage="expert", config={})
        run.close()
        open_run(tmp_path, stage="expert", config={}).close()


def test_leftovers_of_dead_writers_are_cleaned(tmp_path):
    run = open_run(tmp_path, stage="expert", config={})
    run.close()
    (run.checkpoints / f".tmp-{os.getpid()}-step-000000001").mkdir()
    (run.checkpoints / ".trash-1-step-000000002").mkdir()
    (tmp_path / f".tmp-{os.getpid()}-run.json").write_text("{")
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / f".tmp-{os.getpid()}-a.json").write_text("{")

    open_run(tmp_path, stage="expert", config={}).close()

    assert os.listdir(run.checkpoints) == os.listdir(tmp_path / "evaluations") == []
    assert sorted(os.listdir(tmp_path)) == [".lock", "checkpoints", "evaluations", "run.json"]


def test_complete(tmp_path):
    with open_run(tmp_path, stage="expert", config={}) as run:
        assert not run.complete
        run.mark_complete({"scores": {"pong": 1.5}})
        assert run.complete
        assert run.read_json("complete.json") == {"schema": 1, "scores": {"pong": 1.5}}
    assert is_complete(tmp_path)


def test_json_is_replaced_as_a_whole(tmp_path, monkeypatch):
    with open_run(tmp_path, stage="expert", config={}) as run:
        run.write_json("evaluations/a.json", {"score": 1})
        events = []
        fsync, replace = os.fsync, os.replace
        monkeypatch.setattr(
            os,
            "fsync",
            lambda fd: (
                events.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))) or fsync(fd)
            ),
        )
        monkeypatch.setattr(
            os, "replace", lambda old, new: events.append(f"-> {new.name}") or replace(old, new)
        )
        run.write_json("evaluations/a.json", {"score": 2})

        assert run.read_json("evaluations/a.json") == {"score": 2}
    assert events == [f".tmp-{os.getpid()}-a.json", "-> a.json", "evaluations"]
    assert os.listdir(tmp_path / "evaluations") == ["a.json"]


@pytest.mark.parametrize("name", ["../a.json", "/a.json", "a/b/c.json", "", ".lock", "a\n"])
def test_json_stays_inside_the_run(tmp_path, name):
    with open_run(tmp_path / "run", stage="expert", config={}) as run:
        with pytest.raises(ValueError, match="plain file name"):
            run.write_json(name, {})
        with pytest.raises(ValueError, match="plain file name"):
            run.read_json(name)


def test_json_that_is_not_there_or_says_nan(tmp_path):
    with open_run(tmp_path, stage="expert", config={}) as run:
        with pytest.raises(DataError, match=r"a\.json"):
            run.read_json("a.json")
        with pytest.raises(ValueError, match="JSON"):
            run.write_json("a.json", {"score": float("nan")})
        assert not (tmp_path / "a.json").exists()


def test_places_where_no_run_can_be(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for place in ("file", "file/run", "link"):
        with pytest.raises(CannotCreateError, match=place):
            open_run(tmp_path / place, stage="expert", config={})


@pytest.mark.parametrize("name", ["checkpoints", "evaluations", ".lock", "records.jsonl"])
def test_links_in_a_run_lead_nowhere(tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(outside if "." not in name else outside / "new")

    def use():
        with open_run(tmp_path / "run", stage="expert", config={}) as run:
            run.records.sync()
            run.write_json("evaluations/a.json", {})

    with pytest.raises((CannotCreateError, StorageError), match=name):
        use()
    assert os.listdir(outside) == []


def test_json_behind_a_link_is_not_read(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.json").write_text("{}")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluations").symlink_to(tmp_path / "outside")

    with pytest.raises(DataError, match="evaluations: expected a directory, got a symbolic link"):
        read_run_json(tmp_path / "run", "evaluations/a.json")


def test_all_that_leads_to_a_new_run_survives_a_power_failure(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync_path", synced.append)

    open_run(tmp_path / "runs" / "recipe" / "seed-0", stage="expert", config={}).close()

    new = [tmp_path, tmp_path / "runs", tmp_path / "runs" / "recipe"]
    assert set(new) <= set(synced)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(tmp_path, number):
    (tmp_path / "a.json").write_text(f'{{"score": {number}}}')

    with pytest.raises(DataError, match="no finite number"):
        read_run_json(tmp_path, "a.json")


@pytest.mark.parametrize(("mode", "refused"), [(0o555, True), (0o777, False)])
@pytest.mark.parametrize("place", ["run", "run/below"])
def test_a_directory_without_write_permission(mode, refused, place):
    """As ordinary users see it: root may write anywhere, and is given up first."""
    with tempfile.TemporaryDirectory() as scratch:  # where everybody may look, unlike `tmp_path`
        os.chmod(scratch, 0o755)
        (Path(scratch) / "run").mkdir()
        (Path(scratch) / "run").chmod(mode)

        def as_nobody():
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with pytest.raises(CannotCreateError, match="run"):
                open_run(Path(scratch) / place, stage="expert", config={})

        assert (in_child(as_nobody) == 0) == refused


def test_run_names():
    for name in ("demo", "a", "A1._-", "x" * 100):
        assert validate_run_name(name) == name
    hostile = ["", ".", "..", "../../x", "a/b", "-rf", "a\0", "a\n", "$(id)", "x" * 101, ".git"]
    hostile += ["caf\u00e9", "a b", "a;b", "\\\\host", "~", "*", "a\r", "\u2025", "\u0661"]
    for name in hostile:
        with pytest.raises(UsageError, match="expected a letter or digit"):
            validate_run_name(name)


def test_slugs():
    assert slug("ALE/Pong-v5") == "ALE-Pong-v5"
    assert slug("gym:CartPole-v1") == "gym-CartPole-v1"
    assert slug("pong") == "pong"
    assert slug("../../etc/passwd") == "etc-passwd"
    with pytest.raises(UsageError):
        slug("::")


def test_from_source_our_own_version_is_known(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)

    versions = installed_versions()

    assert versions["actor-mimic"] == actor_mimic.__version__
    assert versions["torch"] is None
