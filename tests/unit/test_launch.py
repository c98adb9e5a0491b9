"""Launching stages: what is refused at once, what is loaded when, what is counted."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from actor_mimic.compute import Compute
from actor_mimic.config import EvaluateConfig
from actor_mimic.envs.gymnasium import GymnasiumEnvs
from actor_mimic.errors import ConfigError, DataError, StorageError, UnavailableError
from actor_mimic.flat_config import build_config
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages import distill, players, references
from actor_mimic.stages import launch as module
from actor_mimic.stages.launch import (
    run_distill,
    run_evaluate,
    run_expert,
    run_multitask_dqn,
    run_transfer,
)
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage import durable
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint, write_checkpoint
from actor_mimic.teachers import own
from actor_mimic.teachers.player import Player

TASK, OTHER = "gym:CartPole-v1", "gym:MountainCar-v0"
CPU = Compute("cpu", "float32", 1)
SMALL = {
    "record_every_steps": 64,
    "eval_every_steps": 128,
    "eval_episodes": 1,
    "final_episodes": 2,
    "checkpoint_every_steps": 128,
}
STUDENT = SMALL | {
    "tasks": [TASK],
    "steps_per_task": 128,
    "envs_per_task": 4,
    "learning_starts_steps": 16,
    "replay_capacity_steps": 400,
    "batch_size_per_task": 8,
}


def launched(path: Path, **options: object) -> Launch:
    return Launch(path, device="cpu", precision="float32", threads=1, **options)


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("launch") / "expert"
    small = {"num_envs": 4, "rollout_steps": 8, "minibatch_size": 16, "total_steps": 128}
    config = build_config("expert", SMALL | small | {"task": TASK})
    list(run_expert(config, launched(path)))
    return resolve_checkpoint(path)


@pytest.fixture
def never_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("measured before what cannot work was refused")

    monkeypatch.setattr(references, "measure_references", refuse)


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regressor": "identity", "width": 0.25}, "needs equal widths"),
        ({"replay_capacity_steps": 10**13}, "GiB"),
    ],
)
def test_what_cannot_work_is_refused_before_games_are_played(
    tmp_path: Path, expert: Checkpoint, changes: dict, said: str
) -> None:
    config = build_config("distill", STUDENT | changes)

    with pytest.raises(ConfigError, match=said):
        list(run_distill(config, launched(tmp_path / "student"), {TASK: expert}))


@pytest.mark.usefixtures("never_measured")
@pytest.mark.parametrize("stage", ["distill", "expert"])
def test_a_disk_too_small_is_refused_before_anything(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    said: list[str] = []
    launch = launched(tmp_path / "run", notice=said.append)
    if stage == "distill":
        config = build_config("distill", STUDENT | {"checkpoint_replay": "none"})
        records = run_distill(config, launch, {TASK: expert})
    else:
        records = run_expert(build_config("expert", {"task": TASK, "num_envs": 4}), launch)

    with pytest.raises(StorageError, match=r"need up to .* MiB, 0 MiB are free there"):
        next(records)
    assert not (tmp_path / "run" / "run.json").exists()  # so that it can be corrected
    assert any("resume will not be exact" in text for text in said) == (stage == "distill")


@pytest.mark.parametrize("stage", ["expert", "transfer", "multitask-dqn", "distill", "unlike"])
def test_no_environment_stays_open_where_a_stage_is_refused(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    made: list[object] = []
    closed: list[object] = []
    init, close = GymnasiumEnvs.__init__, GymnasiumEnvs.close
    monkeypatch.setattr(
        GymnasiumEnvs, "__init__", lambda env, *a, **k: made.append(env) or init(env, *a, **k)
    )
    monkeypatch.setattr(GymnasiumEnvs, "close", lambda env: closed.append(env) or close(env))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    launch = launched(tmp_path / "run")
    match stage:
        case "expert":
            records = run_expert(build_config("expert", {"task": TASK, "num_envs": 4}), launch)
        case "transfer":
            records = run_transfer(build_config("transfer", {"task": TASK}), launch, None)
        case "multitask-dqn":
            values = {"tasks": (TASK, "gym:Acrobot-v1")}
            records = run_multitask_dqn(build_config("multitask-dqn", values), launch)
        case "unlike":  # refused before there is a state
            refuse = Mock(side_effect=ConfigError("unlike"))
            monkeypatch.setattr(distill, "_check_teachers", refuse)
            records = run_distill(build_config("distill", STUDENT), launch, {TASK: expert})
        case _:
            records = run_distill(build_config("distill", STUDENT), launch, {TASK: expert})

    with pytest.raises(StorageError if stage != "unlike" else ConfigError):
        list(records)
    assert len(made) >= 2
    assert [env for env in made if env not in closed] == []


def test_the_emulators_stop_when_measuring_fails(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    original = module.DistillState.close
    monkeypatch.setattr(
        module.DistillState, "close", lambda state: closed.append(1) or original(state)
    )

    def fail(*_: object) -> None:
        raise DataError("no scores")

    monkeypatch.setattr(references, "measure_references", fail)
    with pytest.raises(DataError, match="no scores"):
        list(run_distill(build_config("distill", STUDENT), launched(tmp_path), {TASK: expert}))
    assert closed == [1]


def test_seconds_include_measuring_and_a_poor_teacher_is_said_once(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = references.measure_references

    def slow_and_poor(*arguments: object) -> object:
        time.sleep(0.5)
        for record in original(*arguments):
            if record.values["who"] == "teacher":
                record.values[f"{TASK}/mean"] = 1.0
            yield record

    monkeypatch.setattr(references, "measure_references", slow_and_poor)
    notices: list[str] = []
    path = tmp_path / "student"
    before = time.monotonic()
    records = list(
        run_distill(
            build_config("distill", STUDENT), launched(path, notice=notices.append), {TASK: expert}
        )
    )
    whole = time.monotonic() - before

    trained = [record.wall_s for record in records if record.kind == "train"]
    seconds = json.loads((path / "complete.json").read_text())["seconds"]
    assert trained[-1] + 0.5 <= seconds <= whole
    assert len([text for text in notices if "counts as 0" in text]) == 1
    assert records[-1].values["merit"] == 0.0


def test_a_network_is_loaded_once_and_only_to_play(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    original = players.load_teachers
    monkeypatch.setattr(
        players, "load_teachers", lambda *given: loads.append(given[1]) or original(*given)
    )
    path = tmp_path / "played"
    config = EvaluateConfig(tasks=(TASK,), episodes=2)
    (first,) = run_evaluate(config, launched(path), expert)
    assert loads == [(TASK,)]

    (path / "complete.json").unlink()
    (second,) = run_evaluate(config, launched(path), expert)
    assert loads == [(TASK,)]
    assert first.values == second.values


def test_a_task_that_is_not_played_is_refused_before_anything(
    tmp_path: Path, expert: Checkpoint
) -> None:
    with pytest.raises(DataError, match=f"not '{OTHER}'"):
        list(run_evaluate(EvaluateConfig(tasks=(TASK, OTHER)), launched(tmp_path / "x"), expert))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", '{"config": 3}', '{"config": {"compute": {"device": "cpu"}}}', "not JSON"],
)
def test_a_damaged_description_of_a_run_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)

    with pytest.raises(DataError, match=r"run\.json"):
        Launch(tmp_path).compute()


def test_a_run_keeps_where_it_computes(tmp_path: Path, expert: Checkpoint) -> None:
    run = launched(tmp_path / "played")
    with contextlib.closing(run_evaluate(EvaluateConfig((TASK,), episodes=1), run, expert)) as r:
        next(iter(r))

    compute = Launch(tmp_path / "played").compute()
    assert (compute.device, compute.precision, compute.threads) == ("cpu", "float32", 1)


def test_only_an_unfinished_run_keeps_its_replay(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config("distill", STUDENT | {"checkpoint_every_steps": 64})
    with contextlib.closing(run_distill(config, launched(tmp_path), {TASK: expert})) as records:
        next(record for record in records if record.kind == "checkpoint" and record.step)
    assert resolve_checkpoint(tmp_path).manifest["segments"]

    # Stopped while replays go, it is not done yet, and the same command goes on.
    monkeypatch.setattr(durable, "_passages", {})
    monkeypatch.setenv("ACTOR_MIMIC_FAULT", "save-old-set-aside:1:enospc")
    with pytest.raises(StorageError, match="cannot take the replay out"):
        list(run_distill(config, launched(tmp_path), {TASK: expert}))
    assert not (tmp_path / "complete.json").exists()
    monkeypatch.delenv("ACTOR_MIMIC_FAULT")

    *_, last = run_distill(config, launched(tmp_path), {TASK: expert})
    assert (last.kind, last.step) == ("final", 128)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} >= {"step-000000064"}
    assert list(tmp_path.rglob("replay")) == []
    assert resolve_checkpoint(tmp_path).step == 128


def test_who_asks_for_it_keeps_the_replay_of_a_run_that_is_done(
    tmp_path: Path, expert: Checkpoint
) -> None:
    config = build_config("distill", STUDENT | {"checkpoint_replay": "full"})
    list(run_distill(config, launched(tmp_path), {TASK: expert}))

    assert resolve_checkpoint(tmp_path).manifest["segments"]


THERE = {"device": "cuda", "precision": "bfloat16", "threads": 16, "compiled": True}


def computed_there(path: Path, there: dict[str, object] = THERE) -> dict[str, object]:
    """Lets the description of a run say that it computed elsewhere; what it says now."""
    description = json.loads((path / "run.json").read_bytes())
    description["config"]["compute"] = there
    (path / "run.json").write_text(json.dumps(description))
    return description


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("actor_mimic.compute.cpu_multiplies_bfloat16", lambda: False)
    monkeypatch.setattr("actor_mimic.compute.available_cores", lambda: 1)


@pytest.mark.usefixtures("no_cuda")
def test_a_run_goes_on_elsewhere_only_if_that_is_asked_for(tmp_path: Path) -> None:
    small = {"num_envs": 4, "rollout_steps": 8, "minibatch_size": 16, "total_steps": 128}
    small |= {"checkpoint_every_steps": 64, "eval_every_steps": 0, "final_episodes": 0}
    config = build_config("expert", SMALL | {"task": TASK} | small)
    said: list[str] = []
    with contextlib.closing(run_expert(config, launched(tmp_path))) as begun:
        assert next(r for r in begun if r.kind == "checkpoint").step == 64
    description = computed_there(tmp_path)

    with pytest.raises(UnavailableError, match=r"computed on cuda: .* --device cpu it goes on"):
        list(run_expert(config, Launch(tmp_path)))
    assert json.loads((tmp_path / "run.json").read_bytes()) == description

    records = list(run_expert(config, Launch(tmp_path, device="cpu", notice=said.append)))

    assert [record.step for record in records if record.kind == "train"] == [128]  # and not 64
    assert Launch(tmp_path).compute() == CPU
    (change,) = json.loads((tmp_path / "run.json").read_bytes())["changed"]
    assert change["settings"] == {
        "compute.compiled": {"before": True, "after": False},
        "compute.device": {"before": "cuda", "after": "cpu"},
        "compute.precision": {"before": "bfloat16", "after": "float32"},
        "compute.threads": {"before": 16, "after": 1},
    }
    assert [line for line in said if 'compute.device (stored: "cuda", asked: "cpu")' in line]


@pytest.mark.usefixtures("no_cuda")
def test_a_run_that_is_done_can_be_looked_at_anywhere(tmp_path: Path) -> None:
    config = EvaluateConfig((TASK,), episodes=1)
    list(run_evaluate(config, launched(tmp_path), None))
    description = computed_there(tmp_path)

    for launch in (Launch(tmp_path), launched(tmp_path), Launch(tmp_path, threads=3)):
        assert list(run_evaluate(config, launch, None)) == []
    assert json.loads((tmp_path / "run.json").read_bytes()) == description


@pytest.mark.usefixtures("no_cuda")
def test_an_unfinished_evaluation_goes_on_elsewhere(tmp_path: Path, expert: Checkpoint) -> None:
    config = EvaluateConfig((TASK,), episodes=1)
    list(run_evaluate(config, launched(tmp_path), expert))
    (tmp_path / "complete.json").unlink()
    computed_there(tmp_path)

    said: list[str] = []
    (record,) = run_evaluate(config, Launch(tmp_path, device="cpu", notice=said.append), expert)
    assert record.kind == "final"
    assert "computes otherwise than before" in said[0]
    assert Launch(tmp_path).compute() == CPU


GPU = {"device": "cuda", "precision": "float32", "threads": 7, "compiled": False}


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [
        (GPU | {"device": "cpu"}, "cpu", Compute("cpu", "float32", 7)),
        (GPU, "cuda", Compute("cuda", "float32", 7)),
        (GPU, "cuda:1", Compute("cuda:1", "float32", 7)),
        (GPU, "auto", Compute("cuda", "float32", 7)),
        (GPU, "cpu", Compute("cpu", "bfloat16", 2)),
        (GPU | {"device": "cpu"}, "cuda", Compute("cuda", "bfloat16", 2, compiled=True)),
        (GPU | {"device": "cpu"}, "auto", Compute("cpu", "float32", 7)),
    ],
)
def test_what_is_left_open_is_kept_unless_a_run_moves_between_cpu_and_gpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, object],
    asked: str,
    found: Compute,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    for name in ("cpu_multiplies_bfloat16", "available_cores", "_compiles"):
        answer = 2 if name == "available_cores" else True
        monkeypatch.setattr(f"actor_mimic.compute.{name}", lambda *_, answer=answer: answer)
    (tmp_path / "run.json").write_text(json.dumps({"config": {"compute": there}}))

    launch = Launch(tmp_path, device=asked)
    assert launch.compute() == found
    assert bool(launch.kept) == (found.threads == 7)


def test_tasks_of_one_checkpoint_share_its_network(
    tmp_path: Path, expert: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student as the teacher of both of its tasks is in memory once."""
    twin = "gym:Twin-v1"
    network = Student(
        TorsoSpec("mlp", (4,)),
        {twin: (f"{twin}/0", f"{twin}/1"), TASK: (f"{TASK}/0", f"{TASK}/1")},
        generator=torch.Generator().manual_seed(0),
    )
    both = write_checkpoint(
        tmp_path / "student",
        step=1,
        tensors={"model": network.state_dict()},
        state={},
        manifest={
            "kind": "student",
            "tasks": {task: list(names) for task, names in network.task_actions.items()},
            "network": network.to_json(),
            "config": {},
            "parents": [],
        },
    )
    loads = []
    original = own.load_network
    monkeypatch.setattr(own, "load_network", lambda c: loads.append(c.path) or original(c))

    teachers = players.load_each_once([TASK, twin], {TASK: both, twin: both}, CPU)
    assert [teacher.task for teacher in teachers] == [TASK, twin]
    assert loads == [both.path]
    other = players.load_each_once([twin, TASK], {TASK: expert, twin: both}, CPU)
    assert [teacher.model_sha256 for teacher in other] == [both.model_sha256, expert.model_sha256]
    Player(both)
    assert loads == [both.path, both.path, expert.path, both.path]
