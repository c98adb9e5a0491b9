"""Experts, a student of both, a transfer and a film, on real Atari, tiny."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once
from test_verbs import call, model

from actor_mimic.compute import Compute
from actor_mimic.errors import Interrupted
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.stages.films import Rules
from actor_mimic.stages.run_films import RunFilms
from actor_mimic.storage.checkpoint import resolve_checkpoint

TINY = [
    "--total-steps=512",
    "--eval-every-steps=0",
    "--set=record_every_steps=128",
    "--set=final_episodes=0",
    "--set=width=0.125",
]
PQN = ["--set=num_envs=4", "--set=rollout_steps=16", "--set=minibatch_size=32"]
DISTILL = ["--set=envs_per_task=2", "--set=learning_starts_steps=64", "--set=regressor=hidden"]
DQN = [
    "--set=num_envs=4",
    "--set=update_every_steps=16",
    "--set=batch_size=16",
    "--set=learning_starts_steps=64",
    "--set=replay_capacity_steps=400",
]
GAMES = ("demon_attack", "assault")
STUDENT = "runs/demo/student/seed-0"
COMPUTE = Compute("cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "atari", make_runs)


def make_runs(root: Path) -> None:
    for game in GAMES:
        call("train-expert", game, *TINY, *PQN, f"--run-dir={game}", cwd=root)
    teachers = [f"{game}={game}" for game in GAMES]
    student = "--run-dir=runs/demo/student/seed-0"
    call("distill", *teachers, *TINY, *DISTILL, student, cwd=root)


def test_the_student_has_one_output_per_ale_action(runs: Path) -> None:
    tensors = model(runs / "runs/demo/student/seed-0")

    assert tensors["network.head.weight"].shape[0] == 18
    assert tensors["backgrounds"].shape == (len(GAMES), 84, 84)
    assert tensors["backgrounds"].flatten(1).any(dim=1).all()
    assert model(runs / "assault")["torso.background"].any()
    assert not any("regressor" in name for name in tensors)


@pytest.mark.parametrize("source", ["runs/demo/student/seed-0", "assault"])
@pytest.mark.parametrize("head", ["fresh", "copy"])
def test_a_new_game_starts_from_the_torso(source: str, head: str, runs: Path) -> None:
    """With steps too small to move a weight they are what the warm start made of them."""
    name = f"transfer-{head}-{source.replace('/', '-')}"
    still = ["--set=learning_rate=1e-30", "--total-steps=256"]
    call(
        *["transfer", "space_invaders", f"--from={source}", f"--head={head}", f"--run-dir={name}"],
        *[option for option in TINY if "width" not in option and "total" not in option],
        *DQN,
        *still,
        cwd=runs,
    )

    parent, child = model(runs / source), model(runs / name)
    parent = {key.removeprefix("network."): value for key, value in parent.items()}
    for key, value in child.items():
        if key == "torso.background":  # of the new game
            mine = parent.get(key, parent.get("backgrounds"))
            assert value.any()
            assert not (value == mine).flatten(-2).all(-1).any()
        elif key.startswith("torso."):
            assert value.equal(parent[key]), key
    # Space Invaders has NOOP FIRE RIGHT LEFT RIGHTFIRE LEFTFIRE: slots 0 1 3 4 11 12 of the
    # alphabet. Assault has them too, and UP between FIRE and RIGHT.
    rows = [0, 1, 3, 4, 11, 12] if "student" in source else [0, 1, 3, 4, 5, 6]
    # Where a weight is zero even such a step is seen.
    same = child["head.weight"].allclose(parent["head.weight"][rows], rtol=0.0, atol=1e-20)
    assert same == (head == "copy")


def test_a_film_of_the_student(runs: Path) -> None:
    files = ["--video=film.mp4", "--gif=film.gif"]
    result = call(
        *["play", STUDENT, "--task=assault", "--beside=assault", *files, "--max-steps=30"],
        cwd=runs,
    )
    shown, paths = result.stderr, result.stdout.splitlines()

    assert (runs / "film.mp4").read_bytes()[4:8] == b"ftyp"
    assert (runs / "film.gif").read_bytes()[:6] == b"GIF89a"
    assert paths == ["film.mp4", "film.gif"]
    assert "assault, seed-0: score" in shown
    assert "assault, assault: score" in shown
    assert not list(runs.glob(".tmp-*"))


def test_a_film_of_all_games(runs: Path) -> None:
    shown = call("play", STUDENT, "--video=all.mp4", "--max-steps=5", cwd=runs).stderr

    assert (runs / "all.mp4").read_bytes()[4:8] == b"ftyp"
    for game in GAMES:
        assert f"{game}, seed-0: score 0 in 5 steps, not over yet" in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_film_that_is_killed_is_none(number: signal.Signals, code: int, runs: Path) -> None:
    folder = runs / f"killed-{number}"
    folder.mkdir()
    (folder / "film.mp4").write_bytes(b"before")
    process = subprocess.Popen(
        [sys.executable, "-m", "actor_mimic", "play", "assault", "--video", folder / "film.mp4"],
        cwd=runs,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob(".tmp-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)

    assert process.wait(timeout=60) == code
    assert (folder / "film.mp4").read_bytes() == b"before"
    # A killed process cannot clean up; what it leaves bears no name of a film.
    left = [path.name for path in folder.iterdir() if path.name != "film.mp4"]
    assert left == [] if code == 143 else all(name.startswith(".tmp-") for name in left)


def films_of(runs: Path, **settings: Any) -> RunFilms:
    checkpoint = resolve_checkpoint(runs / STUDENT)
    rules = Rules(PROTOCOLS["paper"], epsilon=0.05, seed=0, max_steps=6)
    return dataclasses.replace(RunFilms(runs / STUDENT, checkpoint, GAMES, rules), **settings)


def test_a_run_keeps_its_films_and_makes_no_other_twice(runs: Path) -> None:
    experts = {game: resolve_checkpoint(runs / game) for game in GAMES}
    films = films_of(runs, experts=experts)
    folder = runs / STUDENT / "films"

    missing = films.missing()
    names = ["demon_attack", "assault", "demon_attack-beside", "assault-beside", "grid"]
    assert [plan.name for plan in missing] == names
    records = list(films.make(missing, COMPUTE, stop=lambda: None))

    assert [record.step for record in records] == list(range(1, 31))
    seconds = [record.wall_s for record in records]
    assert sorted(seconds) == seconds  # of all films, for the time that is left of them
    assert {path.name for path in folder.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("mp4", "json")
    }
    beside = json.loads((folder / "assault-beside.json").read_text())
    assert [one["who"] for one in beside["players"]] == ["student", "expert"]
    assert [one["task"] for one in beside["players"]] == ["assault", "assault"]
    sha256 = [films.checkpoint.model_sha256, experts["assault"].model_sha256]
    assert [one["model_sha256"] for one in beside["players"]] == sha256
    grid = json.loads((folder / "grid.json").read_text())
    assert [one["task"] for one in grid["players"]] == list(GAMES)
    assert grid["rules"] == {
        "protocol": "paper",
        "epsilon": 0.05,
        "seed": 0,
        "max_steps": 6,
        "temperature": 0.1,
    }

    assert films.missing() == []
    # Other rules make other films; so does a film that is gone, or that nobody can say a thing of.
    other = dataclasses.replace(films, rules=dataclasses.replace(films.rules, seed=1))
    assert [plan.name for plan in other.missing()] == names
    (folder / "grid.json").write_text("{")
    (folder / "assault.mp4").unlink()
    assert [plan.name for plan in films.missing()] == ["assault", "grid"]
    asked = iter([None] * 8)
    with pytest.raises(Interrupted):
        list(films.make(films.missing(), COMPUTE, stop=lambda: next(asked, 15)))
    assert [plan.name for plan in films.missing()] == ["grid"]
    assert not list(folder.glob(".tmp-*"))


def test_an_evaluation_films_what_it_measures(runs: Path) -> None:
    folder = runs / "assault" / "films"
    options = ["--episodes=1", "--films", "--json"]
    result = call("evaluate", "assault", *options, cwd=runs)

    assert json.loads(result.stdout)["tasks"]["assault"]["episodes"] == 1
    assert "films: assault/films" in result.stderr
    assert {path.name for path in folder.iterdir()} == {"assault.mp4", "assault.json"}
    (played,) = json.loads((folder / "assault.json").read_text())["players"]
    if played["over"]:
        assert [played["score"]] == json.loads(result.stdout)["tasks"]["assault"]["scores"]
    assert (folder / "assault.mp4").stat().st_size < 500_000
    call("evaluate", "zoo:pong", "--films", cwd=runs, expect=2)


def test_a_finished_pipeline_is_a_teacher_again(runs: Path) -> None:
    """The student teaches the next student."""
    student = "runs/demo/student/seed-0"
    teachers = [f"{game}={student}" for game in GAMES]
    call("distill", *teachers, *TINY, *DISTILL, "--run-dir=second", cwd=runs)

    assert model(runs / "second").keys() == model(runs / student).keys()


def test_a_teacher_of_another_game_is_refused(runs: Path) -> None:
    wrong = ["assault=demon_attack", *TINY, *DISTILL, "--run-dir=wrong"]
    result = call("distill", *wrong, cwd=runs, expect=65)

    assert "demon_attack" in result.stderr
    assert "assault" in result.stderr
    assert not (runs / "wrong").exists()
