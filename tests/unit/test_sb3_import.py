"""Agents that Stable-Baselines3 itself saved, held against its own networks."""

import json

import numpy as np
import pytest
import torch
from foreign_agents import (
    IMAGE_TASK,
    VECTOR_TASK,
    observations,
    sb3_agent,
    sb3_scores,
)
from torch import nn

from actor_mimic.compute import Compute
from actor_mimic.errors import CannotCreateError, ConfigError, DataError
from actor_mimic.storage.checkpoint import read_checkpoint, resolve_checkpoint
from actor_mimic.teachers.foreign import ImportOptions, build, import_teacher
from actor_mimic.teachers.own import load_teacher
from actor_mimic.teachers.sb3 import from_sb3
from actor_mimic.teachers.weights import read_weights

COMPUTE = Compute("cpu", "float32", 1)
TASKS = {"MlpPolicy": VECTOR_TASK, "CnnPolicy": IMAGE_TASK}
pytestmark = pytest.mark.usefixtures("decoded_here")


def scores_of(directory, task, obs):
    """From the directory alone, as `evaluate` and `distill` read it."""
    teacher = load_teacher(resolve_checkpoint(directory), task, COMPUTE)
    return teacher, teacher.label(torch.from_numpy(obs))


def from_shape(path, obs_shape):
    """The import for a task that shows something else."""
    weights = read_weights(path)
    known = {"actions": "ab", "activation": None, "quantiles": None}
    imported = from_sb3(weights.tensors, str(path), obs_shape=obs_shape, **known)
    return build(imported, str(path))


@pytest.mark.parametrize("policy", TASKS)
@pytest.mark.parametrize("algorithm", ["DQN", "QRDQN", "PPO", "A2C"])
def test_scores_are_those_of_the_librarys_own_network(tmp_path, algorithm, policy):
    agent = sb3_agent(algorithm, policy, tmp_path / "agent.zip")
    task, obs = TASKS[policy], observations(policy)

    import_teacher(tmp_path / "agent.zip", tmp_path / "imported", ImportOptions(task))

    teacher, output = scores_of(tmp_path / "imported", task, obs)
    scores, expected = output.scores.numpy(), sb3_scores(agent, obs)
    if algorithm in ("PPO", "A2C"):
        assert teacher.scores_are_logits
        scores = torch.log_softmax(output.scores, dim=1).numpy()
    else:
        assert not teacher.scores_are_logits
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    assert np.abs(expected).max() > 1e-3
    assert output.features.shape == (len(obs), teacher.num_features)
    assert teacher.num_features == (64 if policy == "MlpPolicy" else 512)


@pytest.mark.parametrize(
    ("algorithm", "net_arch", "features"),
    [("DQN", [24, 16, 8], 8), ("PPO", {"pi": [32], "vf": [8, 8]}, 32), ("A2C", [], 4)],
)
def test_any_hidden_layers(tmp_path, algorithm, net_arch, features):
    agent = sb3_agent(algorithm, "MlpPolicy", tmp_path / "agent.zip", net_arch=net_arch)
    obs = observations("MlpPolicy")

    import_teacher(tmp_path / "agent.zip", tmp_path / "imported", ImportOptions(VECTOR_TASK))

    teacher, output = scores_of(tmp_path / "imported", VECTOR_TASK, obs)
    ours, theirs = output.scores.numpy(), sb3_scores(agent, obs)
    if algorithm != "DQN":
        ours = torch.log_softmax(output.scores, dim=1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    assert teacher.num_features == features


def test_hidden_layers_behind_convolutions_have_the_other_activation(tmp_path):
    agent = sb3_agent("PPO", "CnnPolicy", tmp_path / "agent.zip", net_arch=[16])
    obs = observations("CnnPolicy", 4)

    import_teacher(tmp_path / "agent.zip", tmp_path / "imported", ImportOptions(IMAGE_TASK))

    _, output = scores_of(tmp_path / "imported", IMAGE_TASK, obs)
    ours = torch.log_softmax(output.scores, dim=1).numpy()
    np.testing.assert_allclose(ours, sb3_scores(agent, obs), atol=1e-5, rtol=0)


def test_the_actors_own_features_are_taken_where_the_critic_has_others(tmp_path):
    agent = sb3_agent("PPO", "CnnPolicy", tmp_path / "agent.zip", share_features_extractor=False)
    obs = observations("CnnPolicy", 4)

    import_teacher(tmp_path / "agent.zip", tmp_path / "imported", ImportOptions(IMAGE_TASK))

    _, output = scores_of(tmp_path / "imported", IMAGE_TASK, obs)
    ours = torch.log_softmax(output.scores, dim=1).numpy()
    np.testing.assert_allclose(ours, sb3_scores(agent, obs), atol=1e-5, rtol=0)


def test_an_activation_that_the_file_does_not_tell(tmp_path):
    agent = sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip", activation_fn=nn.Tanh)
    obs = observations("MlpPolicy")
    for activation in ("tanh", None):
        options = ImportOptions(VECTOR_TASK, activation)
        import_teacher(tmp_path / "agent.zip", tmp_path / str(activation), options)

    def error(name):
        _, output = scores_of(tmp_path / name, VECTOR_TASK, obs)
        return np.abs(output.scores.numpy() - sb3_scores(agent, obs)).max()

    assert error("tanh") < 1e-5
    assert error("None") > 1e-2


def test_observations_are_normalised_as_vecnormalize_does(tmp_path):
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    agent = sb3_agent("PPO", "MlpPolicy", tmp_path / "agent.zip")
    rng = np.random.default_rng(1)
    normaliser = VecNormalize(
        DummyVecEnv([lambda: agent.get_env().envs[0]]), clip_obs=1.5, epsilon=1e-3
    )
    normaliser.obs_rms.mean = rng.normal(size=4)
    normaliser.obs_rms.var = rng.uniform(0, 0.1, size=4)
    stats = {
        "mean": normaliser.obs_rms.mean.tolist(),
        "var": normaliser.obs_rms.var.tolist(),
        "epsilon": normaliser.epsilon,
        "clip": normaliser.clip_obs,
    }
    (tmp_path / "stats.json").write_text(json.dumps(stats))
    obs = observations("MlpPolicy")
    normal = normaliser.normalize_obs(obs)
    assert (np.abs(normal) == np.float32(1.5)).any()

    options = ImportOptions(VECTOR_TASK, obs_stats=tmp_path / "stats.json")
    import_teacher(tmp_path / "agent.zip", tmp_path / "imported", options)

    _, output = scores_of(tmp_path / "imported", VECTOR_TASK, obs)
    ours = torch.log_softmax(output.scores, dim=1).numpy()
    np.testing.assert_allclose(ours, sb3_scores(agent, normal), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.0]},
        {"var": [-1.0, 1, 1, 1]},
        {"mean": [0.0, 0, 0, float("nan")]},
        {"clip": 0},
        {"clip": 1e39},  # infinite in float32
        {"clip": 10**400},
        {"epsilon": "1e-8"},
        {"extra": 1},
        {"var": [0.0] * 4, "epsilon": 1e-100},  # zero in float32
    ],
)
def test_statistics_that_cannot_be_meant_are_refused(tmp_path, change):
    sb3_agent("PPO", "MlpPolicy", tmp_path / "agent.zip")
    stats = {"mean": [0.0] * 4, "var": [1.0] * 4, "epsilon": 1e-8, "clip": 10.0} | change
    (tmp_path / "stats.json").write_text(json.dumps(stats))

    with pytest.raises(DataError, match=r"stats\.json: expected"):
        import_teacher(
            tmp_path / "agent.zip",
            tmp_path / "imported",
            ImportOptions(VECTOR_TASK, obs_stats=tmp_path / "stats.json"),
        )
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("policy", "task", "message"),
    [
        ("MlpPolicy", "gym:Acrobot-v1", "the task's 3 actions, got one for 2"),
        (
            "CnnPolicy",
            "boxing",
            "the task's 18 actions, got one for 6; the task's are NOOP, FIRE, UP",
        ),
        ("MlpPolicy", "gym:MountainCar-v0", "the task's 3 actions, got one for 2"),
        ("CnnPolicy", VECTOR_TASK, "the task's 2 actions, got one for 6"),
    ],
)
def test_another_tasks_agent_is_refused(tmp_path, policy, task, message):
    sb3_agent("DQN", policy, tmp_path / "agent.zip")

    with pytest.raises(DataError, match=message):
        import_teacher(tmp_path / "agent.zip", tmp_path / "imported", ImportOptions(task))


def test_quantiles_of_an_agent_that_has_none_are_refused(tmp_path):
    sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip")
    options = ImportOptions(VECTOR_TASK, quantiles=50)

    with pytest.raises(ConfigError, match="is no QR-DQN agent"):
        import_teacher(tmp_path / "agent.zip", tmp_path / "imported", options)


def test_layers_without_a_number_of_that_library_are_told():
    tensors = {"q_net.q_net.99999.weight": torch.ones(2, 4)}

    with pytest.raises(DataError, match=r"expected layers q_net\.q_net\.0 and on"):
        from_sb3(
            tensors, "agent.zip", obs_shape=(4,), actions="ab", activation=None, quantiles=None
        )


def test_quantiles_that_could_be_another_tasks_are_refused_unless_their_number_is_said(tmp_path):
    agent = sb3_agent("QRDQN", "MlpPolicy", tmp_path / "agent.zip", n_quantiles=300)
    obs = observations("MlpPolicy")
    # 600 outputs are 200 quantiles of three actions as well.
    with pytest.raises(DataError, match="2 actions of 200 quantiles each, got 600 outputs"):
        import_teacher(tmp_path / "agent.zip", tmp_path / "i", ImportOptions(VECTOR_TASK))

    options = ImportOptions(VECTOR_TASK, quantiles=300)
    import_teacher(tmp_path / "agent.zip", tmp_path / "imported", options)

    _, output = scores_of(tmp_path / "imported", VECTOR_TASK, obs)
    np.testing.assert_allclose(output.scores, sb3_scores(agent, obs), atol=1e-5, rtol=0)


def test_an_agent_of_the_same_actions_and_other_observations_is_refused(tmp_path):
    sb3_agent("DQN", "CnnPolicy", tmp_path / "images.zip", num_actions=2)
    sb3_agent("DQN", "MlpPolicy", tmp_path / "vector.zip")

    with pytest.raises(DataError, match="does not fit the task's observations"):
        import_teacher(tmp_path / "images.zip", tmp_path / "i", ImportOptions(VECTOR_TASK))
    with pytest.raises(DataError, match=r"layers.0.weight: expected \(64, 2\), got \(64, 4\)"):
        from_shape(tmp_path / "vector.zip", (2,))


def test_layers_that_the_librarys_own_policies_have_not_are_refused(tmp_path):
    sb3_agent("PPO", "MlpPolicy", tmp_path / "agent.zip", net_arch={"pi": [8], "vf": [8]})
    tensors = read_weights(tmp_path / "agent.zip").tensors
    known = {"obs_shape": (4,), "actions": "ab", "activation": None, "quantiles": None}
    with pytest.raises(DataError, match=r"others beside them: norm\.weight"):
        from_sb3(tensors | {"norm.weight": torch.ones(8)}, "x", **known)
    with pytest.raises(DataError, match="for discrete actions"):
        from_sb3(tensors | {"log_std": torch.ones(2)}, "x", **known)
    odd = {"features_extractor.cnn.0.weight": torch.ones(8, 4, 5, 5)}
    with pytest.raises(DataError, match=r"kernel of 8 x 8"):
        from_sb3(tensors | odd, "x", **known)


def test_the_manifest_says_where_it_came_from_and_the_hash_depends_on_the_weights(tmp_path):
    sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip")
    options = ImportOptions(VECTOR_TASK, claimed_score=499.5)

    one = import_teacher(tmp_path / "agent.zip", tmp_path / "one", options)
    two = import_teacher(tmp_path / "agent.zip", tmp_path / "two", options)

    assert read_checkpoint(one.path).kind == "import"
    assert one.config["layout"] == "sb3-dqn"
    assert one.config["source"] == "agent.zip"
    assert one.config["claimed_score"] == 499.5
    assert one.model_sha256 == two.model_sha256
    assert one.run == tmp_path / "one"


def test_the_same_import_again_is_found_and_another_is_refused(tmp_path):
    sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip")
    target = tmp_path / "imported"
    one = import_teacher(tmp_path / "agent.zip", target, ImportOptions(VECTOR_TASK))
    written = (one.path / "MANIFEST.json").stat().st_mtime_ns

    two = import_teacher(tmp_path / "agent.zip", target, ImportOptions(VECTOR_TASK))

    assert two == one
    assert (one.path / "MANIFEST.json").stat().st_mtime_ns == written
    with pytest.raises(CannotCreateError, match="another import"):
        import_teacher(tmp_path / "agent.zip", target, ImportOptions(VECTOR_TASK, "tanh"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(CannotCreateError, match=r"thesis\.tex"):
        import_teacher(tmp_path / "agent.zip", tmp_path / "mine", ImportOptions(VECTOR_TASK))


def test_an_unknown_activation_is_refused(tmp_path):
    sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip")

    with pytest.raises(ConfigError, match="did you mean 'tanh'"):
        import_teacher(tmp_path / "agent.zip", tmp_path / "i", ImportOptions(VECTOR_TASK, "tahn"))
