"""The learning verbs as functions: what they leave is what the verbs leave, bit for bit."""

import json
from pathlib import Path

import pytest
from in_process import restore_process
from test_verbs import SMALL_DISTILL, SMALL_DQN, SMALL_PQN, TASK, call

import actor_mimic
from actor_mimic.errors import ConfigError

SHORT = ["--total-steps=512", "--eval-every-steps=0", "--set=final_episodes=2"]


def settings(options: list[str]) -> dict[str, str]:
    """Options of a verb as keyword arguments."""
    pairs = [option.removeprefix("--set=").removeprefix("--").split("=") for option in options]
    return {name.replace("-", "_"): value for name, value in pairs}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expert, a student and a transfer, made by the functions."""
    home = tmp_path_factory.mktemp("functions")
    short = settings(SHORT)
    expert = actor_mimic.train_expert(TASK, home / "expert", **short, **settings(SMALL_PQN))
    short["steps_per_task"] = short.pop("total_steps")
    student = actor_mimic.distill(
        {TASK: home / "expert"}, home / "student", **short, **settings(SMALL_DISTILL)
    )
    moved = actor_mimic.transfer(
        TASK, home / "moved", parent=home / "student", **settings([*SHORT, *SMALL_DQN])
    )
    restore_process()
    for player in (expert, student, moved):
        assert player.tasks == (TASK,)
    return home


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("expert", ["train-expert", TASK, *SHORT, *SMALL_PQN]),
        ("student", ["distill", f"{TASK}=expert", *SHORT, *SMALL_DISTILL]),
        ("moved", ["transfer", TASK, "--from=student", *SHORT, *SMALL_DQN]),
    ],
)
def test_the_verb_makes_the_same_weights(name: str, command: list[str], home: Path) -> None:
    call(*command, f"--run-dir={name}-by-verb", cwd=home)

    made = [
        json.loads((home / run / "complete.json").read_text()) for run in (name, f"{name}-by-verb")
    ]
    assert made[0]["model_sha256"] == made[1]["model_sha256"]


def test_called_again_it_only_loads(home: Path) -> None:
    before = (home / "expert/complete.json").stat().st_mtime_ns
    again = actor_mimic.train_expert(
        TASK, home / "expert", **settings(SHORT), **settings(SMALL_PQN)
    )

    assert again.tasks == (TASK,)
    assert (home / "expert/complete.json").stat().st_mtime_ns == before


def test_a_parent_decides_the_network(home: Path) -> None:
    with pytest.raises(ConfigError, match="width with a parent"):
        actor_mimic.transfer(TASK, home / "wide", parent=home / "student", width=1.0)
    assert not (home / "wide").exists()


def test_an_unknown_setting_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'total_steps'"):
        actor_mimic.train_expert(TASK, tmp_path / "run", total_step=10)
    assert not (tmp_path / "run").exists()
