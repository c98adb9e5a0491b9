"""Networks with quantiles, and what such an expert is for: teaching, and transfer."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.envs.make import make_envs
from actor_mimic.flat_config import build_config
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.protocols import protocol_named
from actor_mimic.stages.transfer import transfer_network
from actor_mimic.storage.checkpoint import Checkpoint, write_checkpoint
from actor_mimic.teachers.own import load_teacher

TASK = "gym:CartPole-v1"
ACTIONS = (f"{TASK}/0", f"{TASK}/1")
SPEC = TorsoSpec("mlp", (4,), 0.25, "none")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def observations(size: int = 5) -> Tensor:
    return torch.randn(2, size, generator=generator())


def quantile_net(outputs: int = 3, quantiles: int = 4) -> QNetwork:
    spec = TorsoSpec("mlp", (5,), 0.25)
    return QNetwork(spec, outputs, num_quantiles=quantiles, generator=generator())


def test_scores_are_the_means_of_the_quantiles_of_each_action():
    network = quantile_net()
    obs = observations()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.arange(12.0))

    assert network.num_outputs == 3
    assert (
        network.quantiles(obs).tolist()
        == [[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]] * 2
    )
    scores, features = network(obs)
    assert scores.tolist() == [[1.5, 5.5, 9.5]] * 2
    assert features.shape == (2, network.torso.num_features)


def test_one_quantile_is_the_score():
    network = quantile_net(quantiles=1)
    obs = observations()

    assert torch.equal(network.quantiles(obs).squeeze(2), network(obs).scores)


def test_a_quantile_network_survives_json():
    network = quantile_net()
    data = json.loads(json.dumps(network.to_json()))
    again = QNetwork.from_json(data)
    again.load_state_dict(network.state_dict(), assign=True)
    obs = observations()

    assert (again.num_outputs, again.num_quantiles) == (3, 4)
    assert torch.equal(again.quantiles(obs), network.quantiles(obs))


def test_a_description_from_before_there_were_quantiles_is_read():
    data = quantile_net(6, 1).to_json()
    del data["num_quantiles"]
    again = QNetwork.from_json(data)

    assert (again.num_outputs, again.num_quantiles) == (6, 1)


def test_a_network_without_quantiles_is_refused():
    with pytest.raises(ValueError, match="num_quantiles must be at least 1, got 0"):
        quantile_net(quantiles=0)


# An expert with quantiles


def written(path: Path, network: QNetwork | Student) -> Checkpoint:
    return write_checkpoint(
        path,
        step=1,
        tensors={"model": network.state_dict()},
        state={},
        manifest={
            "kind": "student" if isinstance(network, Student) else "expert",
            "tasks": {TASK: list(ACTIONS)},
            "network": network.to_json(),
            "config": {},
            "parents": [],
        },
    )


def expert(quantiles: int) -> QNetwork:
    return QNetwork(SPEC, 2, num_quantiles=quantiles, generator=generator())


def test_it_teaches_the_means_of_its_quantiles(tmp_path):
    network = expert(4)
    teacher = load_teacher(written(tmp_path, network), TASK, Compute("cpu", "float32", 1))

    labels = teacher.network(observations(4))

    assert torch.equal(labels.scores, network.quantiles(observations(4)).mean(2))
    assert labels.scores.shape == (2, 2)
    assert torch.equal(labels.features, network(observations(4)).features)


@pytest.mark.parametrize("head", ["copy", "fresh"])
@pytest.mark.parametrize(
    ("parent", "settings", "quantiles"),
    [
        (expert(4), {"num_quantiles": 4}, 4),
        (expert(4), {"algorithm": "dqn"}, 1),
        (expert(1), {"num_quantiles": 3}, 3),
        (Student(SPEC, {TASK: ACTIONS}, generator=generator()), {"num_quantiles": 3}, 3),
    ],
    ids=["same", "onto a plain head", "from a plain head", "from a student"],
)
def test_a_transfer_starts_from_or_with_quantiles(tmp_path, head, parent, settings, quantiles):
    network_settings = {"network": "mlp", "width": 0.25, "norm": "none"}
    config = build_config("transfer", {"task": TASK, "head": head} | network_settings | settings)
    protocol = protocol_named("paper")
    env = make_envs(TASK, num_envs=1, run_seed=0, protocol=protocol, num_threads=1)
    try:
        network, origins = transfer_network(config, env, written(tmp_path, parent))
    finally:
        env.close()

    assert network.num_quantiles == quantiles
    assert origins[-1].rows == (2 * quantiles if head == "copy" else 0)
    obs = observations(4)
    theirs = parent(obs)
    if isinstance(parent, Student):
        theirs = theirs._replace(scores=parent.task_scores(TASK, theirs.scores))
    assert torch.equal(network(obs).features, theirs.features)
    same = torch.allclose(network(obs).scores, theirs.scores, atol=1e-6)
    assert same == (head == "copy")
