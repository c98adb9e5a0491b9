"""``run`` and ``report`` as a user calls them."""

import json
from pathlib import Path

import pytest
from test_verbs import TASK, call

RECIPE = f"""
name = "tiny"

[[stage]]
name = "expert"
kind = "expert"
task = "{TASK}"
total_steps = 1024
num_envs = 8
rollout_steps = 16
minibatch_size = 64
eval_every_steps = 512
eval_episodes = 2
final_episodes = 4
width = 0.25

[[stage]]
name = "random-play"
kind = "evaluate"
checkpoint = "random"
tasks = ["{TASK}"]
episodes = 4
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("run")
    (where / "tiny.toml").write_text(RECIPE)
    return where


def test_run_prints_the_table_or_one_object_with_the_table_beside_it(root: Path) -> None:
    command = ["run", "tiny.toml", "--json", "--device=cpu", "--threads=1"]
    result = call(*command, cwd=root)

    shown = json.loads(result.stdout)
    assert shown["run_dir"] == "runs/tiny"
    assert list(shown["stages"]) == ["expert/seed-0", "random-play/seed-0"]
    assert shown["stages"]["expert/seed-0"]["scores"][TASK]["episodes"] == 4
    assert (root / "runs/tiny/report.html").is_file()
    assert "report: runs/tiny/report.html" in result.stderr
    assert "Evaluations while learning" in result.stderr
    assert "evaluation epsilon 0.05" in result.stderr

    again = call(*command, cwd=root)

    assert json.loads(again.stdout) == shown
    assert "expert/seed-0: already done" in again.stderr
    assert "measuring how fast" not in again.stderr

    told = call(*(word for word in command if word != "--json"), cwd=root)
    assert "Evaluations while learning" in told.stdout
    assert "Evaluations while learning" not in told.stderr

    page = root / "runs/tiny/report.html"
    before = page.read_text()
    page.unlink()
    assert call("report", "runs/tiny", cwd=root).stdout.strip() == "runs/tiny/report.html"
    assert page.read_text() == before


def test_a_mistake_in_a_recipe_is_named_with_its_line(root: Path) -> None:
    (root / "bad.toml").write_text(RECIPE.replace("num_envs", "num_env"))
    line = RECIPE.split("num_envs", maxsplit=1)[0].count("\n") + 1

    result = call("run", "bad.toml", cwd=root, expect=78)

    assert f"bad.toml:{line}: " in result.stderr
    assert "did you mean 'num_envs'" in result.stderr
    assert result.stdout == ""


def test_a_report_of_nothing_is_refused(root: Path) -> None:
    call("report", "nowhere", cwd=root, expect=65)
