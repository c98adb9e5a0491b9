"""Stopped between two steps and taken up again: the same weights, unless something is forgotten."""

from pathlib import Path

import numpy as np
import pytest

from actor_mimic import rollout
from actor_mimic.errors import Interrupted
from actor_mimic.flat_config import build_config
from actor_mimic.stages.launch import Launch, run_expert
from benchmarks.faults.runs import final_weights, same_content

SETTINGS = {
    "task": "gym:CartPole-v1",
    "total_steps": 512,
    "record_every_steps": 128,
    "eval_every_steps": 0,
    "final_episodes": 0,
    "checkpoint_every_steps": 256,
    "checkpoint_replay": "full",  # so that the replays of what is done can be compared
}
LEARNERS = {
    "pqn": {"num_envs": 8, "rollout_steps": 16, "minibatch_size": 64},
    "pqn-groups": {
        "task": "pong",
        "num_envs": 4,
        "env_groups": 2,
        "rollout_steps": 32,
        "minibatch_size": 64,
        "width": 0.1,
        "centred": False,
    },
    "dqn": {
        "algorithm": "dqn",
        "num_envs": 4,
        "update_every_steps": 8,
        "batch_size": 32,
        "learning_starts_steps": 64,
        "replay_capacity_steps": 300,  # less than the run: the oldest slots are written over
    },
}
# How often a run asks whether it is to stop until it is told to: early, in the middle, late.
STOPS = {"pqn": (1, 3, 5), "pqn-groups": (1, 3, 5), "dqn": (1, 30, 55)}


def train(path: Path, settings: dict, *, stop_at: int = 10**9) -> None:
    asked = iter(range(1, 10**9))

    def stop() -> int | None:
        return 15 if next(asked) >= stop_at else None

    config = build_config("expert", SETTINGS | settings)
    for _ in run_expert(config, Launch(path, "cpu", "float32", 1, stop=stop)):
        pass


@pytest.fixture(scope="module", params=LEARNERS)
def whole(request, tmp_path_factory) -> tuple[str, Path]:
    """A learner, and a directory with a whole run; the stopped ones go beside it."""
    root = tmp_path_factory.mktemp(request.param)
    train(root / "whole", LEARNERS[request.param])
    return request.param, root


def resumed(path: Path, settings: dict, stop_at: int) -> Path:
    with pytest.raises(Interrupted):
        train(path, settings, stop_at=stop_at)
    train(path, settings)
    return path


@pytest.mark.parametrize("place", range(3))
def test_it_ends_bit_for_bit_the_same(whole, place):
    learner, root = whole
    run = resumed(root / f"at-{place}", LEARNERS[learner], STOPS[learner][place])

    assert same_content(run, root / "whole")


def test_a_forgotten_generator_is_noticed(whole, monkeypatch):
    learner, root = whole
    monkeypatch.setattr(rollout, "restore_generator", lambda _: np.random.default_rng(0))
    run = resumed(root / "forgetful", LEARNERS[learner], STOPS[learner][1])

    assert not same_content(run, root / "whole")


def test_a_run_that_hardly_saves_ends_the_same(whole):
    """A checkpoint changes nothing in the run that takes it."""
    learner, root = whole
    train(root / "seldom", LEARNERS[learner] | {"checkpoint_every_steps": 10**6})

    assert same_content(root / "seldom", root / "whole")


def test_another_seed_is_noticed(whole):
    learner, root = whole
    settings = LEARNERS[learner]
    train(root / "other", settings | {"seed": 1})

    assert not same_content(root / "other", root / "whole")


@pytest.mark.parametrize("whole", ["dqn"], indirect=True)
def test_without_the_replay_resume_is_not_exact(whole):
    learner, root = whole
    settings = LEARNERS[learner] | {"checkpoint_replay": "none"}
    run = resumed(root / "none", settings, STOPS[learner][1])

    assert final_weights(run) != final_weights(root / "whole")
