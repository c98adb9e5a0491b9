"""Our own checkpoints from strangers, every hash right: what does not fit is refused and told.

What they do to memory, names and numbers is row D6 (`test_hostile_rows`).
"""

import contextlib
import itertools
import json
import shutil

import pytest
import torch

from actor_mimic.config import EvaluateConfig
from actor_mimic.errors import DataError
from actor_mimic.flat_config import build_config
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.stages.launch import run_evaluate, run_expert
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage.checkpoint import read_checkpoint, resolve_checkpoint
from actor_mimic.teachers.own import load_network
from actor_mimic.verbs.look import Evaluate
from actor_mimic.verbs.play import Play
from benchmarks.faults.forgery import ACTIONS, CARTPOLE, expert, forge, student

ACROBOT = "gym:Acrobot-v1"
THREE = [f"{ACROBOT}/{index}" for index in range(3)]


def evaluated(path, tmp_path):
    return list(run_evaluate(EvaluateConfig(episodes=1), Launch(tmp_path / "run"), path))


@pytest.mark.parametrize(
    ("manifest", "came", "expected"),
    [
        ({"tasks": {CARTPOLE: ACTIONS[::-1]}}, "CartPole-v1/1', 'gym:CartPole-v1/0'", "CartPole"),
        ({"tasks": {ACROBOT: ACTIONS}}, r"reads \(4,\).*CartPole-v1/1'", r"shows \(6,\).*bot-v1/2"),
    ],
)
def test_a_network_for_other_actions_or_observations_is_not_played(
    tmp_path, manifest, came, expected
):
    path = forge(expert(tmp_path / "honest"), tmp_path / "forged", manifest=manifest)
    match = f"the checkpoint .*{came}.*the task .*{expected}"

    with pytest.raises(DataError, match=match):
        evaluated(read_checkpoint(path), tmp_path)
    with pytest.raises(DataError, match=match):
        Evaluate(str(path), episodes=1).run()
    with pytest.raises(DataError, match=match):
        Play(str(path), tmp_path / "film.mp4").run()
    assert not (tmp_path / "film.mp4").exists()


def test_an_honest_one_is_played(tmp_path):
    (record,) = evaluated(read_checkpoint(expert(tmp_path / "honest")), tmp_path)

    assert record.values[f"{CARTPOLE}/episodes"] == 1


def test_a_student_plays_the_tasks_that_it_names(tmp_path):
    honest = student(tmp_path / "honest")
    two = {CARTPOLE: ACTIONS, ACROBOT: THREE}
    path = forge(honest, tmp_path / "forged", manifest={"tasks": two})

    with pytest.raises(DataError, match="plays other tasks than it names"):
        load_network(read_checkpoint(path))


def test_a_state_that_was_made_up_is_refused_or_harmless(tmp_path):
    """Everything in state.json left out, or replaced by something else, with all hashes right."""
    settings = {"task": CARTPOLE, "algorithm": "dqn", "total_steps": 64, "num_envs": 2}
    settings |= {"learning_starts_steps": 16, "replay_capacity_steps": 64, "width": 0.25}
    settings |= {"batch_size": 32}
    settings |= {"checkpoint_every_steps": 32, "eval_every_steps": 0, "final_episodes": 0}
    config = build_config("expert", settings)
    run = tmp_path / "run"

    def go_on():
        list(run_expert(config, Launch(run, device="cpu", precision="float32", threads=1)))

    go_on()
    honest = tmp_path / "honest"
    (run / "complete.json").unlink()
    shutil.move(resolve_checkpoint(run).path, honest)
    state = json.loads((honest / "state.json").read_text())
    refused = 0
    for name, wrong in itertools.product(state, ("left out", None, -1, "x", [], {}, [{}], [["x"]])):
        (run / "complete.json").unlink(missing_ok=True)
        shutil.rmtree(run / "checkpoints")
        made_up = {k: v for k, v in state.items() if k != name}
        if wrong != "left out":
            made_up[name] = wrong
        forge(honest, run / "checkpoints" / "step-000000064", state=made_up)
        with contextlib.suppress(DataError):
            go_on()
            refused -= 1
        refused += 1
    assert refused > 3 * len(state)
    segments = [{"name": "../../../x", "replay": "replay", "written": [1, 1]}]
    shutil.rmtree(run / "checkpoints")
    forge(honest, run / "checkpoints" / "step-000000064", state=state | {"segments": segments})
    (run / "complete.json").unlink(missing_ok=True)
    with pytest.raises(DataError, match="expected a segment of the manifest"):
        go_on()


def test_what_is_described_gets_memory_only_when_its_weights_fit(tmp_path, monkeypatch):
    """A width of 1,000 would take 66 GB, and drawing its weights minutes."""
    torso = {"kind": "mlp", "obs_shape": [4], "width": 1000.0, "norm": "none"}
    described = {"torso": torso, "num_outputs": 2, "task_actions": {CARTPOLE: ACTIONS}}
    forged = []
    for make in (expert, student):
        path = make(tmp_path / make.__name__)
        forged.append(forge(path, tmp_path / f"forged-{make.__name__}", network={"torso": torso}))
    given = []
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda *_, **__: given.append(1))

    for cls in (QNetwork, Student):
        network = cls.from_json(described)
        assert all(parameter.is_meta for parameter in network.parameters())
    for path in forged:
        with pytest.raises(DataError, match="do not fit the network"):
            load_network(read_checkpoint(path))
    assert not given
