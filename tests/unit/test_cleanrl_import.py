"""State dicts with the layouts that CleanRL's scripts publish, built and saved here."""

import numpy as np
import pytest
import torch
from foreign_agents import (
    IMAGE_TASK,
    VECTOR_TASK,
    Named,
    cleanrl_impala,
    cleanrl_mlp,
    cleanrl_nature,
    observations,
)
from safetensors.torch import save_file

from actor_mimic.compute import Compute
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.teachers.foreign import ImportOptions, import_teacher
from actor_mimic.teachers.own import load_teacher

NETWORKS = {
    "cleanrl-mlp": (cleanrl_mlp, VECTOR_TASK, "MlpPolicy", 84),
    "cleanrl-atari": (cleanrl_nature, IMAGE_TASK, "CnnPolicy", 512),
    "cleanrl-impala": (cleanrl_impala, IMAGE_TASK, "CnnPolicy", 256),
}
ACTIONS = {VECTOR_TASK: 2, IMAGE_TASK: 6}

pytestmark = pytest.mark.usefixtures("decoded_here")


def imported(tmp_path, task, file="agent.cleanrl_model", options=None):
    checkpoint = import_teacher(
        tmp_path / file, tmp_path / "imported", options or ImportOptions(task)
    )
    return checkpoint, load_teacher(checkpoint, task, Compute("cpu", "float32", 1))


@pytest.mark.parametrize("layout", NETWORKS)
def test_scores_are_those_of_the_network_that_was_saved(tmp_path, layout):
    make, task, policy, features = NETWORKS[layout]
    network = Named(make(ACTIONS[task]))
    torch.save(network.state_dict(), tmp_path / "agent.cleanrl_model")

    checkpoint, teacher = imported(tmp_path, task)

    obs = torch.from_numpy(observations(policy, 4))
    output = teacher.label(obs)
    with torch.no_grad():
        seen = obs / 255.0 if obs.dtype == torch.uint8 else obs
        expected = network.network(seen)
        hidden = network.network[:-1](seen)
    torch.testing.assert_close(output.scores, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.features, hidden, atol=1e-5, rtol=0)
    assert (checkpoint.config["layout"], teacher.num_features) == (layout, features)


@pytest.mark.parametrize("layout", ["cleanrl-mlp", "cleanrl-atari"])
def test_a_distributions_score_is_its_expectation(tmp_path, layout):
    make, task, policy, _ = NETWORKS[layout]
    atoms = torch.linspace(-10, 10, 51)
    network = Named(make(ACTIONS[task] * 51), atoms)
    saved = {
        "model_weights": network.state_dict(),
        "args": {"v_min": -10.0, "seed": 1, "track": False},
    }
    torch.save(saved, tmp_path / "agent.cleanrl_model")

    checkpoint, teacher = imported(tmp_path, task)

    obs = torch.from_numpy(observations(policy, 4))
    with torch.no_grad():
        logits = network.network(obs / 255.0 if obs.dtype == torch.uint8 else obs).double()
    rows = logits.reshape(4, ACTIONS[task], 51).exp().numpy()
    expected = (rows * atoms.numpy()).sum(axis=2) / rows.sum(axis=2)
    np.testing.assert_allclose(teacher.label(obs).scores, expected, atol=1e-5, rtol=0)
    assert checkpoint.config["layout"] == f"{layout}-c51"


def test_the_names_decide_and_not_the_extension(tmp_path):
    network = Named(cleanrl_mlp(2))
    save_file(network.state_dict(), tmp_path / "agent.zip")

    checkpoint, _ = imported(tmp_path, VECTOR_TASK, "agent.zip")

    assert checkpoint.config["layout"] == "cleanrl-mlp"


def test_an_image_in_bfloat16_keeps_its_best_action(tmp_path):
    torch.save(Named(cleanrl_nature(6)).state_dict(), tmp_path / "agent.cleanrl_model")
    checkpoint, exact = imported(tmp_path, IMAGE_TASK)
    rough = load_teacher(checkpoint, IMAGE_TASK, Compute("cpu", "bfloat16", 1))
    obs = torch.from_numpy(observations("CnnPolicy", 8))

    difference = exact.label(obs).scores - rough.label(obs).scores

    assert 0 < difference.abs().max() < 1e-2
    assert rough.label(obs).scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (Named(cleanrl_mlp(3)).state_dict(), "the task's 2 actions, got one for 3"),
        (Named(cleanrl_mlp(2 * 51), torch.zeros(50)).state_dict(), "got one for 2.04"),
        ({"network.0.weight": torch.ones(2, 4)}, "network.0.bias, which is not there"),
        ({"network.1.weight": torch.ones(2, 4)}, "expected the layers of CleanRL"),
        ({"network.0.weight": torch.ones(2, 4, dtype=torch.int64)}, "of torch.int64"),
        ({"actor.weight": torch.ones(2, 4)}, r"got actor\.weight"),
        (Named(cleanrl_nature(2)).state_dict(), "does not fit the task's observations"),
    ],
)
def test_what_fits_nothing_is_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "agent.cleanrl_model")

    with pytest.raises(DataError, match=message):
        imported(tmp_path, VECTOR_TASK)
    assert not (tmp_path / "imported").exists()


def test_there_are_no_quantiles(tmp_path):
    torch.save(Named(cleanrl_mlp(2)).state_dict(), tmp_path / "agent.cleanrl_model")

    with pytest.raises(ConfigError, match="no QR-DQN agent"):
        imported(tmp_path, VECTOR_TASK, options=ImportOptions(VECTOR_TASK, quantiles=200))


def test_activations_are_relu(tmp_path):
    torch.save(Named(cleanrl_mlp(2)).state_dict(), tmp_path / "agent.cleanrl_model")

    with pytest.raises(ConfigError, match="all have relu"):
        imported(tmp_path, VECTOR_TASK, options=ImportOptions(VECTOR_TASK, "tanh"))
