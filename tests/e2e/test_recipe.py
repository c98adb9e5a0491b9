"""A whole recipe on CartPole: expert, student, three arms, report; stopped, killed, run again."""

import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv

from actor_mimic.errors import ConfigError, DataError, Interrupted, UsageError
from actor_mimic.progress import StageProgress
from actor_mimic.recipes import run as recipes_run
from actor_mimic.recipes.load import parse_recipe
from actor_mimic.recipes.probe import Prediction, describe, network_of
from actor_mimic.recipes.run import run_recipe
from actor_mimic.report.page import write_report
from actor_mimic.report.terminal import text_table
from actor_mimic.storage.checkpoint import resolve_checkpoint

TASK = "gym:CartPole-v1"
LEARNING = """
total_steps = 1024
algorithm = "pqn"
num_envs = 8
rollout_steps = 16
minibatch_size = 64
record_every_steps = 128
eval_every_steps = 512
checkpoint_every_steps = 256
eval_episodes = 2
final_episodes = 4
width = 0.25
"""
RECIPE = f"""
name = "tiny"

[defaults.expert]{LEARNING}
[defaults.transfer]{LEARNING}

[[stage]]
name = "expert"
kind = "expert"
task = "{TASK}"

[[stage]]
name = "student"
kind = "distill"
network = "mlp"
steps_per_task = 512
envs_per_task = 4
learning_starts_steps = 100
batch_size_per_task = 16
replay_capacity_steps = 1000
record_every_steps = 64
eval_every_steps = 256
checkpoint_every_steps = 128
eval_episodes = 2
final_episodes = 4
width = 0.25
teachers = {{ "{TASK}" = "expert" }}

[[stage]]
name = "baseline"
kind = "multitask-dqn"
steps_per_task = 512
num_envs = 4
update_every_steps = 8
batch_size = 16
learning_starts_steps = 100
replay_capacity_steps = 1000
record_every_steps = 64
eval_every_steps = 256
checkpoint_every_steps = 128
eval_episodes = 2
final_episodes = 4
width = 0.25
tasks = ["{TASK}"]

[[stage]]
name = "random-play"
kind = "evaluate"
checkpoint = "random"
tasks = ["{TASK}"]
episodes = 4

[[stage]]
name = "student-play"
kind = "evaluate"
checkpoint = "student"
episodes = 4

[[stage]]
name = "from-random"
kind = "transfer"
task = "{TASK}"

[[stage]]
name = "from-student"
kind = "transfer"
task = "{TASK}"
parent = "student"

[[stage]]
name = "from-expert"
kind = "transfer"
task = "{TASK}"
parent = "expert"
"""
STAGES = [line.split('"')[1] for line in RECIPE.splitlines() if line.startswith("name")][1:]


class File(io.StringIO):
    # What every open file has and StringIO lacks.
    mode = "w"
    name = "file"


def run(where, text=RECIPE, **settings):
    """Runs a recipe; its result, what was shown, and what was noticed."""
    shown, notices = File(), []
    recipe = parse_recipe(text.encode(), "tiny.toml")
    result = run_recipe(
        recipe,
        where,
        **{
            "device": "cpu",
            "threads": 1,
            "notice": notices.append,
            "show": partial(StageProgress, stream=shown),
            "probe_s": 0.01,
            **settings,
        },
    )
    return result, shown.getvalue(), notices


def stop_after(calls):
    """A stop that is asked for on the N-th question."""
    left = iter(range(calls))
    return lambda: None if next(left, None) is not None else signal.SIGTERM


def models(where):
    """Hashes of the weights that every finished stage ended with."""
    return {
        path.parent.parent.name: json.loads(path.read_text())["model_sha256"]
        for path in where.glob("*/seed-0/complete.json")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    where = tmp_path_factory.mktemp("recipe") / "tiny"
    return where, *run(where)


def test_the_result_names_every_stage(finished):
    where, result, shown, notices = finished

    assert (result["recipe"], result["run_dir"]) == ("tiny", str(where))
    assert list(result["stages"]) == [f"{name}/seed-0" for name in STAGES]
    for title, stage in result["stages"].items():
        assert stage.keys() == {"kind", "run_dir", "checkpoint", "seconds", "scores"}
        assert stage["run_dir"] == str(where / title)
        assert stage["scores"][TASK]["episodes"] == 4
        assert len(stage["scores"][TASK]["scores"]) == 4
        assert f"{title}: final: {TASK}" in shown
    kinds = [stage["kind"] for stage in result["stages"].values()]
    learned, played = ["expert", "distill", "multitask-dqn"], ["evaluate"] * 2
    assert kinds == [*learned, *played, *["transfer"] * 3]
    assert result["stages"]["random-play/seed-0"]["checkpoint"] == "random"
    checkpoint = Path(result["stages"]["student/seed-0"]["checkpoint"])
    assert (checkpoint / "MANIFEST.json").is_file()
    assert result["stages"]["student-play/seed-0"]["checkpoint"] == str(checkpoint)
    assert json.loads(json.dumps(result)) == result
    assert "measuring how fast" in notices[0]
    assert "predicted: 0.0 hours" in notices[1]


def test_arms_name_their_parents(finished):
    where = finished[0]
    models_of = models(where)

    for arm, parent in (("from-student", "student"), ("from-expert", "expert")):
        config = json.loads((where / arm / "seed-0/run.json").read_text())["config"]
        assert config["parents"] == [models_of[parent]]
        assert config["width"] == 0.25
    assert models_of["student-play"] == models_of["student"]
    assert len({models_of[arm] for arm in STAGES if arm.startswith("from")}) == 3


def test_again_is_done_at_once_and_changes_nothing(finished):
    where, result, _, _ = finished
    before = {path: path.stat().st_mtime_ns for path in where.rglob("*.json*")}

    again, shown, notices = run(where)

    assert again == result
    assert shown == ""
    assert notices == [f"{name}/seed-0: already done" for name in STAGES]
    after = {path: path.stat().st_mtime_ns for path in where.rglob("*.json*")}
    del before[where / "recipe.json"], after[where / "recipe.json"]
    assert after == before


def test_the_report_of_a_run(finished):
    where = finished[0]

    text = write_report(where).read_text()
    table = text_table(where)

    assert "actor-mimic run tiny.toml --run-dir" in text
    for name in STAGES:
        assert name in text
        assert name in table
    assert "Not read" not in text
    assert "8 of 10 tensors copied from student, not head.weight, head.bias" in text
    assert "1.41k beside 1.41k in 1 expert" in text
    assert "of states with its expert&#39;s action" in text


def test_what_a_report_needs_is_in_the_summaries(finished):
    where = finished[0]

    done = {
        name: json.loads((where / name / "seed-0/complete.json").read_text()) for name in STAGES
    }
    for name in ("expert", "student", "from-student"):
        checkpoint = resolve_checkpoint(where / name / "seed-0")
        sizes = [tensor.numel() for tensor in checkpoint.load_tensors("model").values()]
        assert done[name]["parameters"] == sum(sizes)
    assert done["student"]["teacher_parameters"] == {TASK: done["expert"]["parameters"]}
    origins = {entry["name"]: entry["origin"] for entry in done["from-student"]["tensor_origins"]}
    manifest = resolve_checkpoint(where / "from-student/seed-0").manifest
    assert done["from-student"]["tensor_origins"] == manifest["tensor_origins"]
    assert {name for name, origin in origins.items() if origin != "copied"} == {
        "head.weight", "head.bias"}  # fmt: skip
    assert {e["origin"] for e in done["from-random"]["tensor_origins"]} == {"fresh"}


class DrawnCartPole(CartPoleEnv):
    """Draws itself without a library."""

    def render(self):
        picture = np.zeros((40, 60, 3), dtype=np.uint8)
        picture[:, int(np.clip(30 + 10 * self.state[0], 0, 58)) :][:, :2] = 255
        return picture


def test_what_was_learnt_is_filmed_once(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes_run, "FILM_STEPS", 8)
    gymnasium.register("DrawnCartPole-v0", DrawnCartPole, max_episode_steps=500)
    head, *stages = RECIPE.split("[[stage]]")
    wanted = ('"expert"', '"student"', '"student-play"')
    chosen = [stage for stage in stages if any(f"name = {name}" in stage for name in wanted)]
    text = "[[stage]]".join([head, *chosen]).replace(TASK, "gym:DrawnCartPole-v0")
    where, film = tmp_path / "tiny", "gym-DrawnCartPole-v0"
    run(where, f"films = false\n{text}")
    assert not list(where.rglob("films"))

    _, shown, _ = run(where, text)

    made = {str(path.relative_to(where)): path.stat().st_mtime_ns for path in where.rglob("*.mp4")}
    assert made.keys() == {
        f"expert/seed-0/films/{film}.mp4",
        f"student/seed-0/films/{film}.mp4",
        f"student/seed-0/films/{film}-beside.mp4",
        f"student-play/seed-0/films/{film}.mp4",
    }
    assert "student/seed-0: films: 1 / 16 steps" in shown
    expert, student = (models(where)[name] for name in ("expert", "student"))
    beside = json.loads((where / f"student/seed-0/films/{film}-beside.json").read_text())
    assert [one["model_sha256"] for one in beside["players"]] == [student, expert]
    _, shown, _ = run(where, text)
    assert shown == ""
    assert made == {name: (where / name).stat().st_mtime_ns for name in made}


def test_what_cannot_be_filmed_is_said_once(finished):
    """The real CartPole is drawn by pygame, which the tests do without."""
    said = [notice for notice in finished[3] if notice.startswith("no films: ")]
    assert len(said) == (find_spec("pygame") is None)
    assert not list(finished[0].rglob("films/.tmp-*"))


def test_another_configuration_or_recipe_is_refused(finished):
    where = finished[0]

    with pytest.raises(ConfigError, match=r"total_steps \(stored: 1024, asked: 2048\)"):
        run(where, RECIPE.replace("total_steps = 1024", "total_steps = 2048"))
    with pytest.raises(ConfigError, match="holds the runs of recipe 'tiny', asked: 'other'"):
        run(where, RECIPE.replace('name = "tiny"', 'name = "other"'))


def test_stopped_and_continued_ends_with_the_same_weights(finished, tmp_path):
    where = tmp_path / "tiny"
    asked = []
    run(tmp_path / "whole", stop=lambda: asked.append(None))
    for _ in range(3):
        with pytest.raises(Interrupted) as stopped:
            run(where, stop=stop_after(len(asked) // 4))
        assert stopped.value.exit_code == 143
    assert models(where).keys() != models(finished[0]).keys()

    run(where)

    assert models(where) == models(finished[0])


KILLED = """
import sys
from pathlib import Path
from actor_mimic.recipes.load import load_recipe
from actor_mimic.recipes.run import run_recipe
run_recipe(load_recipe(sys.argv[1]), Path(sys.argv[2]), device="cpu", threads=1, probe_s=0.01)
"""


def test_killed_and_continued_ends_with_the_same_weights(finished, tmp_path):
    recipe, where = tmp_path / "tiny.toml", tmp_path / "tiny"
    recipe.write_text(RECIPE)
    settings = {
        "ACTOR_MIMIC_FAULT": "save-manifest-written:3:kill",
        "PYTHONPATH": str(Path(recipes_run.__file__).parents[2]),
    }

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, recipe, where],
        env=os.environ | settings,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == 137, killed.stderr.decode()
    assert models(where) == {}
    run(where)

    assert models(where) == models(finished[0])


def test_long_recipes_want_a_yes(tmp_path, monkeypatch):
    hours = [Prediction("expert/seed-0", 3600 * 13, 1.0)]
    monkeypatch.setattr(recipes_run, "predict", lambda *_, **__: hours)

    with pytest.raises(UsageError, match=r"predicted to take 13 hours.*--yes"):
        run(tmp_path / "tiny")
    assert not (tmp_path / "tiny").exists()


def test_mistakes_are_found_before_anything_runs(tmp_path):
    with pytest.raises(UsageError, match=r"unknown game 'pnog'; did you mean 'pong'"):
        run(tmp_path / "a", RECIPE.replace(f'tasks = ["{TASK}"]', 'tasks = ["pnog"]'))
    with pytest.raises(DataError, match="expected a run or a checkpoint directory"):
        run(tmp_path / "b", RECIPE.replace('parent = "expert"', 'parent = "./nothing"'))
    assert list(tmp_path.iterdir()) == []


def test_a_stop_during_the_probe_passes_through(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path / "tiny", stop=lambda: signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_trains_the_network_of_its_parent():
    recipe = parse_recipe(RECIPE.replace("width = 0.25\nteachers", "teachers").encode(), "x")

    assert network_of(recipe, recipe.stage("student")).width == 0.5
    assert network_of(recipe, recipe.stage("from-student")).width == 0.5
    assert network_of(recipe, recipe.stage("from-random")).width == 0.25


def test_predicted_hours_are_steps_over_rate():
    rows = [Prediction("a/seed-0", 3_600_000, 1_000.0), Prediction("b/seed-0", 0, None)]

    assert [row.hours for row in rows] == [1.0, 0.0]
    table = describe(rows)
    assert "3,600,000" in table
    assert "predicted: 1.0 hours" in table
