"""Teachers from elsewhere in a distillation: files, the Hugging Face Hub, functions."""

import contextlib
import hashlib
import inspect
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_agents import VECTOR_TASK, Named, cleanrl_mlp, sb3_agent

from actor_mimic.compute import Compute, Workers
from actor_mimic.config import DistillConfig, EvaluateConfig
from actor_mimic.errors import (
    ActorMimicError,
    ConfigError,
    DataError,
    UnavailableError,
    UnsafeError,
    UsageError,
)
from actor_mimic.flat_config import build_config
from actor_mimic.progress import describe_scores
from actor_mimic.protocols import protocol_named
from actor_mimic.recipes.load import load_recipe
from actor_mimic.report.aggregate import collect
from actor_mimic.report.tables import score_rows, show_mean, show_score
from actor_mimic.report.terminal import text_table
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.evaluate import play_games
from actor_mimic.stages.launch import run_distill, run_evaluate
from actor_mimic.stages.players import load_each_once, player_of
from actor_mimic.stages.stage_run import Launch
from actor_mimic.stages.transfer import with_network_of
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.teachers import foreign
from actor_mimic.teachers.callables import is_callable_name, load_callable
from actor_mimic.teachers.foreign import ImportOptions, import_teacher
from actor_mimic.teachers.hub import download
from actor_mimic.teachers.own import check_plays, load_network, tasks_in_file
from actor_mimic.teachers.player import load
from actor_mimic.verbs.foreign import Import, check_features, import_file, teacher_argument

COMMIT = "0123456789abcdef" * 2 + "01234567"
CPU = Compute("cpu", "float32", 1)
SMALL = {
    "tasks": [VECTOR_TASK],
    "steps_per_task": 640,
    "envs_per_task": 4,
    "learning_starts_steps": 64,
    "replay_capacity_steps": 500,
    "batch_size_per_task": 32,
    "eval_every_steps": 0,
    "final_episodes": 2,
    "network": "mlp",
}

pytestmark = pytest.mark.usefixtures("decoded_here")


def distilled(path: Path, teachers, **settings):
    config = build_config("distill", SMALL | settings)
    assert isinstance(config, DistillConfig)
    launch = Launch(path, device="cpu", precision="float32", threads=1)
    return list(run_distill(config, launch, teachers)), resolve_checkpoint(path)


@pytest.fixture
def agent(tmp_path) -> Path:
    sb3_agent("A2C", "MlpPolicy", tmp_path / "agent.zip")
    return tmp_path / "agent.zip"


def test_a_file_is_imported_into_the_run_and_measured_before_it_teaches(tmp_path, agent):
    run = tmp_path / "run"
    teacher = teacher_argument(str(agent), VECTOR_TASK, run)

    records, student = distilled(run, {VECTOR_TASK: teacher})

    digest = hashlib.sha256(agent.read_bytes()).hexdigest()[:16]
    assert teacher.run == run / "teachers" / f"gym-CartPole-v1-{digest}"
    (parent,) = student.parents
    assert parent["kind"] == "import"
    assert parent["model_sha256"] == teacher.model_sha256
    (measured,) = [r for r in records if r.values.get("who") == "teacher"]
    assert measured.values[f"{VECTOR_TASK}/episodes"] == 2
    assert list((run / "evaluations").glob(f"{teacher.model_sha256[:16]}-*.json"))


@pytest.mark.parametrize(("algorithm", "temperature"), [("PPO", 1.0), ("A2C", 1.0), ("DQN", 0.02)])
def test_logits_are_taken_as_a_policy_and_values_are_not(tmp_path, algorithm, temperature):
    """Dropping the mark anywhere on the way, in the import or in the loading, gives 0.02."""
    sb3_agent(algorithm, "MlpPolicy", tmp_path / "agent.zip")
    source = teacher_argument(str(tmp_path / "agent.zip"), VECTOR_TASK, tmp_path / "run")
    config = build_config("distill", SMALL | {"temperature": 0.02, "logit_temperature": 1.0})

    teachers = load_each_once([VECTOR_TASK], {VECTOR_TASK: source}, CPU)
    with contextlib.closing(DistillState(config, CPU, teachers)) as state:
        assert state.learner.objective.temperatures == (temperature,)


def test_a_claimed_score_stands_beside_the_measured_one(tmp_path, agent):
    options = ImportOptions(VECTOR_TASK, claimed_score=500.0)
    teacher = import_teacher(agent, tmp_path / "imported", options)

    records, _ = distilled(tmp_path / "run", {VECTOR_TASK: teacher})

    (measured,) = [r.values for r in records if r.values.get("who") == "teacher"]
    mean = measured[f"{VECTOR_TASK}/mean"]
    assert measured[f"{VECTOR_TASK}/claimed"] == 500.0
    assert measured[f"{VECTOR_TASK}/drop"] == pytest.approx(500.0 - mean)
    (row,) = score_rows(collect(tmp_path / "run"))
    told = f" (claimed 500.0, drop {500 - mean:.1f})"
    assert show_score(row.expert).endswith(told)
    assert show_mean(row.expert) == f"{mean:.1f}{told}"
    assert describe_scores(measured).endswith(told)
    assert told in text_table(tmp_path / "run")
    assert "claimed" not in show_score(row.student)
    assert "claimed" not in show_score(row.random)


def test_what_was_claimed_is_kept_of_games_that_gave_a_temperature(tmp_path):
    sb3_agent("DQN", "MlpPolicy", tmp_path / "agent.zip")
    options = ImportOptions(VECTOR_TASK, claimed_score=500.0)
    teacher = import_teacher(tmp_path / "agent.zip", tmp_path / "imported", options)

    distilled(tmp_path / "run", {VECTOR_TASK: teacher}, teacher_entropy=0.5)

    (row,) = score_rows(collect(tmp_path / "run"))
    assert "(claimed 500.0, drop" in show_score(row.expert)


def test_what_was_claimed_is_kept_by_an_evaluation(tmp_path, agent):
    options = ImportOptions(VECTOR_TASK, claimed_score=500.0)
    teacher = import_teacher(agent, tmp_path / "imported", options)
    config = EvaluateConfig(episodes=2)

    list(run_evaluate(config, Launch(tmp_path / "run", device="cpu", threads=1), teacher))

    (kept,) = (tmp_path / "run" / "evaluations").iterdir()
    assert json.loads(kept.read_text())["claimed_score"] == 500.0
    assert "(claimed 500.0, drop" in text_table(tmp_path / "run")


def test_a_run_that_could_not_begin_takes_a_corrected_configuration(tmp_path, agent):
    run = tmp_path / "run"
    teachers = {VECTOR_TASK: teacher_argument(str(agent), VECTOR_TASK, run)}
    with pytest.raises(ConfigError, match="gives the logits of a policy"):
        distilled(run, teachers, objective="mse")

    _, student = distilled(run, teachers, objective="kl")

    assert student.config["objective"] == "kl"


def test_a_file_that_got_another_name_is_the_same_teacher(tmp_path, agent):
    run = tmp_path / "run"
    one = teacher_argument(str(agent), VECTOR_TASK, run)
    distilled(run, {VECTOR_TASK: one})

    two = teacher_argument(str(agent.rename(tmp_path / "renamed.zip")), VECTOR_TASK, run)

    assert two.path == one.path
    assert distilled(run, {VECTOR_TASK: two})[0] == []  # it is done


def test_nothing_is_written_into_a_run_of_other_teachers(tmp_path, agent):
    run = tmp_path / "run"
    distilled(run, {VECTOR_TASK: teacher_argument(str(agent), VECTOR_TASK, run)})
    before = sorted(run.rglob("*"))
    sb3_agent("A2C", "MlpPolicy", agent, net_arch=[8])

    with pytest.raises(ConfigError, match=r"was begun without .*agent\.zip as a teacher"):
        teacher_argument(str(agent), VECTOR_TASK, run)
    assert sorted(run.rglob("*")) == before


def test_weights_of_a_checkpoint_are_named_by_its_directory(tmp_path, agent):
    imported = import_teacher(agent, tmp_path / "imported", ImportOptions(VECTOR_TASK))

    with pytest.raises(UsageError, match=re.escape(f"name {imported.path} instead")):
        import_file(str(imported.path / "model.safetensors"), VECTOR_TASK, tmp_path / "again")


def test_no_hint_names_a_strangers_module(tmp_path, agent):
    imported = import_teacher(agent, tmp_path / "imported", ImportOptions(VECTOR_TASK))
    imported.manifest["tasks"] = {"gym:evil:CartPole-v1": ["a", "b"], "gym:CartPole-v0": ["a"]}

    with pytest.raises(DataError) as raised:
        check_plays(imported, [VECTOR_TASK])
    assert str(raised.value).endswith("; did you mean 'gym:CartPole-v0'?")


def test_a_module_that_only_a_checkpoint_names_is_not_imported(tmp_path, agent):
    imported = import_teacher(agent, tmp_path / "imported", ImportOptions(VECTOR_TASK))
    assert tasks_in_file(imported) == (VECTOR_TASK,)
    imported.manifest["tasks"] = {"gym:evil_module:Env-v0": ["a", "b"]}

    with pytest.raises(DataError, match="whose module would be imported"):
        tasks_in_file(imported)


def test_the_same_command_finds_the_same_import(tmp_path, agent):
    one = teacher_argument(str(agent), VECTOR_TASK, tmp_path / "run")
    two = teacher_argument(str(agent), VECTOR_TASK, tmp_path / "run")
    link = tmp_path / "link"
    link.symlink_to(agent)
    three = teacher_argument(str(link), VECTOR_TASK, tmp_path / "run")

    assert one.path == two.path == three.path
    sb3_agent("A2C", "MlpPolicy", agent, net_arch=[8])
    assert teacher_argument(str(agent), VECTOR_TASK, tmp_path / "run").path != one.path


def test_an_import_plays_in_a_loop_of_ones_own(tmp_path, agent):
    import_teacher(agent, tmp_path / "imported", ImportOptions(VECTOR_TASK))

    player = load(tmp_path / "imported")

    assert player.tasks == (VECTOR_TASK,)
    assert player.act(np.zeros(4, np.float32)) in (0, 1)


def test_an_import_is_no_start_of_a_transfer(tmp_path, agent):
    imported = import_teacher(agent, tmp_path / "imported", ImportOptions(VECTOR_TASK))
    config = build_config("transfer", {"task": VECTOR_TASK})

    with pytest.raises(DataError, match="it can teach"):
        with_network_of(config, imported)


def test_the_verb_says_what_it_made(tmp_path, agent, capsys):
    Import(str(agent), VECTOR_TASK, tmp_path / "imported", claimed_score=9.5, json=True).run()

    said = json.loads(capsys.readouterr().out)
    checkpoint = resolve_checkpoint(Path(said["path"]))
    assert checkpoint.model_sha256 == said["model_sha256"]
    assert checkpoint.config["claimed_score"] == 9.5
    with pytest.raises(DataError, match="got nothing of that name"):
        import_file(str(tmp_path / "absent"), VECTOR_TASK, tmp_path / "i")
    with pytest.raises(DataError, match="got a directory"):
        import_file(str(tmp_path), VECTOR_TASK, tmp_path / "i")


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [{"kind": "linear", "size": 1 << 40}]},
        {"layers": [{"kind": "relu"}] * 65},
        {"layers": [{"kind": "exec", "size": 3}]},
        {"layers": [{"kind": "linear", "size": 64, "code": "x"}]},
        {"layers": [{"kind": "conv", "size": 64, "kernel": 3, "stride": 1}]},
        {"layers": "relu"},
        {"bins": 1 << 60},
        {"num_outputs": -1},
        {"head": "eval"},
        {"clip": -1.0},
        {"clip": 1e39},
        {"obs_shape": [4, 4]},
        {"obs_shape": [65536, 65536, 65536]},
        {"extra": 1},
    ],
)
def test_a_manifest_that_describes_no_network_is_refused(tmp_path, agent, change):
    imported = import_teacher(agent, tmp_path / "imported", ImportOptions(VECTOR_TASK))
    imported.manifest["network"] |= change

    with pytest.raises(DataError):
        load_network(imported)


@pytest.mark.parametrize(
    ("task", "options", "error"),
    [
        ("gym:NoSuchTask-v0", {}, ActorMimicError),
        (VECTOR_TASK, {"activation": "sine"}, ConfigError),
        (VECTOR_TASK, {"quantiles": 0}, ConfigError),
        (VECTOR_TASK, {"claimed_score": float("nan")}, ConfigError),
    ],
)
def test_what_takes_a_moment_is_looked_at_before_the_file(
    tmp_path, agent, monkeypatch, task, options, error
):
    monkeypatch.setattr(foreign, "read_weights", lambda _: pytest.fail("decoded"))
    with pytest.raises(error):
        import_teacher(agent, tmp_path / "imported", ImportOptions(task, **options))


class Hub(types.ModuleType):
    """A hub of one file, in place of the library's."""

    def __init__(self, path: Path, size: int | None, *, cached: bool = False) -> None:
        super().__init__("huggingface_hub")
        self.path, self.size, self.cached = path, size, cached
        self.asked: list[tuple[str, str, str]] = []

    def try_to_load_from_cache(self, repo_id, filename, *, revision):
        assert (repo_id, filename, revision) == ("a/b", "c.zip", COMMIT) or not self.cached
        return str(self.path) if self.cached else None

    def hf_hub_url(self, repo_id, filename, *, revision):
        return f"{repo_id}/{filename}/{revision}"

    def get_hf_file_metadata(self, url):
        if "absent" in url:
            raise RuntimeError("404")
        return types.SimpleNamespace(size=self.size)

    def hf_hub_download(self, repo_id, filename, *, revision):
        self.asked.append((repo_id, filename, revision))
        return str(self.path)


def test_a_file_of_the_hub_is_fetched_at_its_commit(tmp_path, agent, monkeypatch):
    cached = tmp_path / "snapshot"
    cached.symlink_to(agent)  # as the library's cache does
    hub = Hub(cached, agent.stat().st_size)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    name = f"hf:sb3/a2c-CartPole-v1/a2c-CartPole-v1.zip@{COMMIT}"

    checkpoint = teacher_argument(name, VECTOR_TASK, tmp_path / "run")

    assert hub.asked == [("sb3/a2c-CartPole-v1", "a2c-CartPole-v1.zip", COMMIT)]
    assert checkpoint.config["source"] == name
    assert checkpoint.config["layout"] == "sb3-actor-critic"


def test_a_file_that_was_fetched_before_needs_no_network(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "kept", None, cached=True)  # a size that would be refused
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)

    assert download(f"hf:a/b/c.zip@{COMMIT}") == tmp_path / "kept"
    assert not hub.asked


@pytest.mark.parametrize("size", [None, (1 << 30) + 1])
def test_a_file_of_unknown_or_unlikely_size_is_not_fetched(tmp_path, monkeypatch, size):
    hub = Hub(tmp_path, size)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)

    with pytest.raises(UnsafeError, match="at most"):
        download(f"hf:a/b/c.zip@{COMMIT}")
    assert not hub.asked


@pytest.mark.parametrize(
    "name",
    [
        "hf:a/b/c.zip",
        "hf:a/b/c.zip@main",
        f"hf:a/b/c.zip@{COMMIT[:7]}",
        f"hf:a/b/c.zip@{COMMIT.upper()}",
        f"hf:a/b@{COMMIT}",
        f"hf:a/b/../c@{COMMIT}",
        f"hf:../b/c@{COMMIT}",
        f"hf:a/b/c\n@{COMMIT}",
        f"hf:a/b/c@{COMMIT}\n",
        f"hf:a/b/c@{COMMIT}0",
        f"hf:a/b/c@{COMMIT}/d",
    ],
)
def test_only_a_file_of_a_pinned_commit_is_taken(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(Path(), 1))

    with pytest.raises(UsageError, match="expected"):
        download(name)


def test_without_the_hub_or_its_library_the_answer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[hub\]'"):
        download(f"hf:a/b/c.zip@{COMMIT}")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path, 1))
    with pytest.raises(UnavailableError, match="cannot ask for its size: 404"):
        download(f"hf:a/b/absent@{COMMIT}")


def test_the_librarys_own_functions_take_what_we_give_them():
    import huggingface_hub

    named = {"repo_id": "a/b", "filename": "c", "revision": COMMIT}
    inspect.signature(huggingface_hub.hf_hub_download).bind(**named)
    inspect.signature(huggingface_hub.get_hf_file_metadata).bind("url")
    assert COMMIT in huggingface_hub.hf_hub_url(**named)


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A module of a user's, in the working directory."""
    (tmp_path / "my_agents.py").write_text(
        "import numpy as np, torch\n"
        "def left(obs):\n"
        "    assert obs.dtype == np.float32 and obs.shape[1] == 4, obs.shape\n"
        "    return np.stack([np.ones(len(obs)), obs[:, 2]], axis=1)\n"
        "def wide(obs):\n"
        "    return torch.from_numpy(obs[:, :2] * 2), obs * 3\n"
        "wide.scores_are_logits = True\n"
        "def greedy(obs):\n"
        "    obs *= 0\n"
        "    return obs[:, :2]\n"
        "def narrow(obs): return obs[:, :1]\n"
        "def broken(obs): return obs[:, :2] * np.nan\n"
        "def text(obs): return 'left'\n"
        "def failing(obs): return {}['key']\n"
        "def huge(obs): return obs[:, :2], np.full((len(obs), 2), 1e5)\n"
        "number = 3\n"
    )
    (tmp_path / "not_python.py").write_text("def f(obs:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("my_agents", None)


@pytest.mark.usefixtures("functions")
def test_a_function_teaches(tmp_path):
    teacher = teacher_argument("my_agents:wide", VECTOR_TASK, tmp_path / "run")
    check_features({VECTOR_TASK: teacher}, 0.01)

    _, student = distilled(tmp_path / "run", {VECTOR_TASK: teacher})

    (parent,) = student.parents
    assert parent["kind"] == "callable"
    assert parent["name"] == "my_agents:wide"
    loaded = teacher.load(CPU)
    obs = torch.randn(5, 4)
    output = loaded.label(obs)
    torch.testing.assert_close(output.scores, obs[:, :2] * 2)
    torch.testing.assert_close(output.features, obs * 3)
    assert loaded.scores_are_logits
    assert loaded.num_features == 4


@pytest.mark.usefixtures("functions")
def test_a_function_without_features_teaches_scores_alone(tmp_path):
    teacher = teacher_argument("my_agents:left", VECTOR_TASK, tmp_path / "run")

    with pytest.raises(ConfigError, match="feature_weight=0"):
        check_features({VECTOR_TASK: teacher}, 0.01)
    check_features({VECTOR_TASK: teacher}, 0.0)
    distilled(tmp_path / "run", {VECTOR_TASK: teacher}, feature_weight=0.0)

    assert not teacher.load(CPU).scores_are_logits


@pytest.mark.usefixtures("functions")
def test_what_a_function_does_in_place_is_nobody_elses_matter(tmp_path):
    teacher = teacher_argument("my_agents:greedy", VECTOR_TASK, tmp_path / "run")
    obs = torch.ones(3, 4)

    teacher.load(CPU).label(obs)

    assert (obs == 1).all()


@pytest.mark.usefixtures("functions")
def test_features_too_large_for_the_replay_are_refused_and_not_made_infinite(tmp_path):
    teacher = teacher_argument("my_agents:huge", VECTOR_TASK, tmp_path / "run")

    with pytest.raises(DataError, match=r"features up to 100000, .* up to 65,504"):
        distilled(tmp_path / "run", {VECTOR_TASK: teacher})


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("my_agents:narrow", DataError, r"scores of shape \(2, 2\), got \(2, 1\)"),
        ("my_agents:broken", DataError, "finite scores"),
        ("my_agents:text", DataError, "expected scores, got 'left'"),
        ("my_agents:failing", DataError, r"KeyError: 'key' \(.*my_agents.py, line 14\)"),
        ("not_python:f", UsageError, "cannot import not_python: SyntaxError"),
        ("my_agents:number", UsageError, "expected a function in my_agents, got 3"),
        ("my_agents:absent", UsageError, "got None"),
        ("no_such_module:f", UsageError, "cannot import no_such_module"),
    ],
)
def test_what_gives_no_scores_is_refused(name, error, match):
    with pytest.raises(error, match=match):
        load_callable(name, VECTOR_TASK)


@pytest.mark.usefixtures("functions")
def test_the_function_of_the_documentation_balances_the_pole_a_while(tmp_path):
    text = (Path(__file__).parents[2] / "docs/bring-your-own-teacher.md").read_text()
    (code,) = re.findall(r"```python\n# my_agents.py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_agents.py").write_text(code)

    teacher = load_callable("my_agents:lean", VECTOR_TASK).load(CPU)

    scores = play_games(
        player_of([teacher], Workers()),
        [VECTOR_TASK],
        episodes=4,
        protocol=protocol_named("paper"),
        epsilon=0.0,
        seed=0,
        num_threads=1,
    )
    *_, result = scores
    assert result[VECTOR_TASK].mean > 30  # random play: about 22
    assert not teacher.scores_are_logits


@pytest.mark.usefixtures("functions")
def test_another_source_is_another_teacher(tmp_path):
    one = load_callable("my_agents:left", VECTOR_TASK)
    with (tmp_path / "my_agents.py").open("a") as file:
        file.write("# another\n")
    two = load_callable("my_agents:left", VECTOR_TASK)
    three = load_callable("my_agents:wide", VECTOR_TASK)

    assert len({one.model_sha256, two.model_sha256, three.model_sha256}) == 3


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("module:function", True),
        ("a.b.c:f", True),
        ("zoo:pong", False),
        ("gym:CartPole", False),
        ("hf:x", False),
        ("runs/a:b", False),
        ("a:b:c", False),
        ("a:b()", False),
        ("a:", False),
    ],
)
def test_what_looks_like_a_function(name, expected):
    assert is_callable_name(name) is expected


RECIPE = """
name = "x"
[[stage]]
name = "student"
kind = "distill"
teachers = {{ "{task}" = "{teacher}" }}
"""


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("task", "teacher", "match"),
    [
        (VECTOR_TASK, "my_agents:left", "unknown parent"),
        (VECTOR_TASK, "os:system", "unknown parent"),
        ("gym:my_agents:Env-v0", "./x", "neither an Atari game"),
        ("my_agents:Env-v0", "./x", "neither an Atari game"),
    ],
)
def test_recipes_name_no_code(tmp_path, task, teacher, match):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(task=task, teacher=teacher))

    with pytest.raises(ConfigError, match=match):
        load_recipe(str(path))
    assert "my_agents" not in sys.modules


def test_a_file_for_a_teacher_is_told_from_a_checkpoint(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="expected a run"):
        teacher_argument(str(tmp_path / "empty"), VECTOR_TASK, tmp_path / "run")
    torch.save(Named(cleanrl_mlp(2)).state_dict(), tmp_path / "weights")

    checkpoint = teacher_argument(str(tmp_path / "weights"), VECTOR_TASK, tmp_path / "run")

    assert checkpoint.config["layout"] == "cleanrl-mlp"
