"""Experts, a student of both, a transfer and a film, on real Atari, tiny."""

from pathlib import Path

import pytest
from test_verbs import call, model

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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("atari")
    for game in GAMES:
        call("train-expert", game, *TINY, *PQN, f"--run-dir={game}", cwd=root)
    teachers = [f"{game}={game}" for game in GAMES]
    student = "--run-dir=runs/demo/student/seed-0"
    call("distill", *teachers, *TINY, *DISTILL, student, cwd=root)
    return root


def test_the_student_has_one_output_per_ale_action(runs: Path) -> None:
    tensors = model(runs / "runs/demo/student/seed-0")

    assert tensors["network.head.weight"].shape[0] == 18
    assert not any("regressor" in name for name in tensors)


@pytest.mark.parametrize("source", ["runs/demo/student/seed-0", "assault"])
@pytest.mark.parametrize("head", ["fresh", "copy"])
def test_a_new_game_starts_from_the_torso(source: str, head: str, runs: Path) -> None:
    """With no updates the weights are what the warm start made of them."""
    name = f"transfer-{head}-{source.replace('/', '-')}"
    never = ["--set=learning_starts_steps=400", "--total-steps=256"]
    call(
        *["transfer", "space_invaders", f"--from={source}", f"--head={head}", f"--run-dir={name}"],
        *[option for option in TINY if "width" not in option and "total" not in option],
        *[option for option in DQN if "starts" not in option],
        *never,
        cwd=runs,
    )

    parent, child = model(runs / source), model(runs / name)
    parent = {key.removeprefix("network."): value for key, value in parent.items()}
    for key, value in child.items():
        if key.startswith("torso."):
            assert value.equal(parent[key]), key
    # Space Invaders has NOOP FIRE RIGHT LEFT RIGHTFIRE LEFTFIRE: slots 0 1 3 4 11 12 of the
    # alphabet. Assault has them too, and UP between FIRE and RIGHT.
    rows = [0, 1, 3, 4, 11, 12] if "student" in source else [0, 1, 3, 4, 5, 6]
    same = child["head.weight"].equal(parent["head.weight"][rows])
    assert same == (head == "copy")


def test_a_film_of_the_student(runs: Path) -> None:
    call(
        *["play", "runs/demo/student/seed-0", "--task=assault", "--video=film.mp4"],
        "--max-steps=30",
        cwd=runs,
    )

    assert (runs / "film.mp4").read_bytes()[4:8] == b"ftyp"
    assert not list(runs.glob(".film*"))


def test_a_finished_pipeline_is_a_teacher_again(runs: Path) -> None:
    """The student teaches the next student."""
    student = "runs/demo/student/seed-0"
    teachers = [f"{game}={student}" for game in GAMES]
    call("distill", *teachers, *TINY, *DISTILL, "--run-dir=second", cwd=runs)

    assert model(runs / "second").keys() == model(runs / student).keys()


def test_a_teacher_of_another_game_is_refused(runs: Path) -> None:
    result = call("distill", "assault=demon_attack", *TINY, "--run-dir=wrong", cwd=runs, expect=65)

    assert "demon_attack" in result.stderr
    assert "assault" in result.stderr
    assert not (runs / "wrong").exists()
