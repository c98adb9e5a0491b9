"""Names of shipped experts: in verbs, in recipes, in lists and in messages."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from expert_runs import CARTPOLE, NAME, make_run, ship

from actor_mimic import cli
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.recipes.load import parse_recipe
from actor_mimic.recipes.recipe import Parent
from actor_mimic.recipes.run import run_recipe
from actor_mimic.report.aggregate import collect
from actor_mimic.report.tables import score_rows
from actor_mimic.stages.shipping import MEASURED
from actor_mimic.storage import shipped as module
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.storage.shipped import read_shipped, shipped_names
from actor_mimic.teachers.player import load

ROOT = Path(__file__).parents[2]
ZOO_NAME = Path(f"zoo:{NAME}")


@pytest.fixture
def empty_zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ZOO", tmp_path / "zoo")
    return tmp_path / "zoo"


@pytest.fixture
def zoo(empty_zoo, tmp_path):
    """One expert, of the run beside it."""
    ship(make_run(tmp_path / "run"))
    return empty_zoo


@pytest.fixture
def call(monkeypatch, tmp_path, capfd):
    """A verb in this process: the exit code, and both streams."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers[signal.SIGUSR1] = signal.getsignal(signal.SIGUSR1)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main([str(argument) for argument in arguments])
        streams = capfd.readouterr()
        return left.value.code, streams.out, streams.err

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("file_name", ["model.safetensors", "MANIFEST.json"])
def test_a_flipped_bit_is_refused(file_name, zoo, call):
    path = zoo / NAME / file_name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    code, out, err = call("show", ZOO_NAME)
    assert (code, out) == (65, "")
    assert file_name in err


@pytest.mark.usefixtures("zoo")
def test_a_misspelt_name_is_answered_with_what_there_is(call):
    for verb in (["evaluate"], ["show"], ["transfer", CARTPOLE, "--from"]):
        code, _, err = call(*verb, "zoo:gym-CartPole-v0")
        assert code == 2, err
        assert f"did you mean '{ZOO_NAME}'; expected one of {ZOO_NAME}" in err.replace("?", "")
    assert call("distill", f"{CARTPOLE}=zoo:../zoo")[0] == 2


@pytest.mark.usefixtures("empty_zoo")
def test_an_empty_zoo_says_how_to_fill_it(call):
    code, _, err = call("evaluate", "zoo:pong")
    assert code == 2
    assert "actor-mimic zoo --add RUN" in err
    assert "--add RUN" in call("zoo")[1]
    assert json.loads(call("zoo", "--json")[1]) == {}


def test_the_list_comes_without_pytorch(zoo):
    code = (
        "import pathlib, sys; from actor_mimic.storage import shipped; "
        f"shipped.ZOO = pathlib.Path({str(zoo)!r}); import atexit; "
        "atexit.register(lambda: sys.stderr.write(str('torch' in sys.modules))); "
        "from actor_mimic.verbs.zoo import Zoo; Zoo().run(); Zoo(json=True).run()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, timeout=60, check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert result.stderr == "False"
    *lines, last = result.stdout.splitlines()
    table, facts = "\n".join(lines), json.loads(last)
    assert f"{ZOO_NAME}  2.5M" in table
    assert max(map(len, table.splitlines())) <= 100
    assert facts[NAME]["model_sha256"] == read_shipped(NAME).model_sha256
    assert {(e["protocol"], e["epsilon"]) for e in facts[NAME]["evaluations"]} == set(MEASURED)


def test_a_damaged_expert_does_not_hide_the_others(zoo, call):
    shutil.copytree(zoo / NAME, zoo / "damaged")
    (zoo / "damaged" / "scores.json").unlink()

    for arguments in ([], ["--json"]):
        code, out, err = call("zoo", *arguments)
        assert code == 65
        assert str(ZOO_NAME).removeprefix("zoo:") in out
        assert "damaged/scores.json" in err


@pytest.mark.usefixtures("zoo")
def test_an_option_of_add_without_it_is_refused(call):
    assert call("zoo", "--episodes=5")[0] == 2
    assert call("zoo", "--threads=1")[0] == 2


@pytest.mark.usefixtures("zoo")
def test_show_says_how_a_shipped_expert_was_trained(call):
    code, out, _ = call("show", ZOO_NAME)

    assert code == 0
    assert f"actor-mimic train-expert {CARTPOLE}" in out


@pytest.mark.usefixtures("empty_zoo")
def test_the_verb_adds_a_run(tmp_path, call):
    run = make_run(tmp_path / "run")
    (run / "complete.json").unlink()
    code, out, err = call("zoo", "--add", run, "--episodes=2", "--threads=1", "--json")

    assert code == 0
    assert list(json.loads(out)) == [NAME] == shipped_names()
    assert "not finished" in err
    assert call("zoo", "--add", ZOO_NAME)[0] == 2


@pytest.mark.usefixtures("zoo")
def test_a_name_stands_for_a_checkpoint_in_every_verb(tmp_path, call):
    sha256 = read_shipped(NAME).model_sha256
    code, out, err = call("evaluate", ZOO_NAME, "--episodes=2", "--json")
    assert code == 0, err
    assert json.loads(out)["checkpoint"] == str(ZOO_NAME)
    shown = json.loads(call("show", ZOO_NAME, "--json")[1])
    assert shown["model_sha256"] == sha256
    assert [scores["epsilon"] for scores in shown["scores"]] == [e for _, e in MEASURED]
    assert load(ZOO_NAME).tasks == (CARTPOLE,)
    small = [
        "--threads=1",
        "--eval-every-steps=0",
        "--set=final_episodes=0",
        "--set=learning_starts_steps=64",
        "--set=replay_capacity_steps=2000",
    ]
    few = ["--set=envs_per_task=4", "--total-steps=256", "--run-dir=student"]
    code, _, err = call("distill", f"{CARTPOLE}={ZOO_NAME}", *small, *few)
    assert code == 0, err
    code, _, err = call(
        "transfer", CARTPOLE, f"--from={ZOO_NAME}", *small, "--total-steps=256", "--run-dir=warm",
        "--head=copy", "--set=num_envs=4",
    )  # fmt: skip
    assert code == 0, err
    for child in ("student", "warm"):
        (parent,) = resolve_checkpoint(tmp_path / child).parents
        assert parent["model_sha256"] == sha256, child


RECIPE = f"""\
name = "mine"

[[stage]]
name = "student"
kind = "distill"
teachers = {{ "{CARTPOLE}" = "{ZOO_NAME}" }}

[[stage]]
name = "score"
kind = "evaluate"
checkpoint = "{ZOO_NAME}"
episodes = 2
"""


@pytest.mark.usefixtures("zoo")
def test_recipes_take_names_too(tmp_path):
    student, score = parse_recipe(RECIPE.encode(), "mine.toml").stages
    assert student.teachers == {CARTPOLE: Parent(path=ZOO_NAME)}
    assert str(score.parent) == str(ZOO_NAME)

    with pytest.raises(ConfigError, match=rf"mine.toml:6: .*did you mean '{ZOO_NAME}'"):
        parse_recipe(RECIPE.replace('v1" }', 'v2" }').encode(), "mine.toml")
    only = RECIPE[: RECIPE.index("[[stage]]")] + RECIPE[RECIPE.rindex("[[stage]]") :]
    result = run_recipe(parse_recipe(only.encode(), "mine.toml"), tmp_path / "recipe", threads=1)
    assert result["stages"]["score/seed-0"]["checkpoint"] == str(ZOO_NAME)
    wrong = RECIPE.replace(f'{{ "{CARTPOLE}" =', "{ pong =")
    with pytest.raises(ConfigError, match=rf"mine.toml:6: .*'{ZOO_NAME}' plays {CARTPOLE}, not"):
        parse_recipe(wrong.encode(), "mine.toml")
    wrong = RECIPE.replace("episodes = 2", 'tasks = ["pong"]')
    with pytest.raises(ConfigError, match=rf"mine.toml:12: .*'{ZOO_NAME}' plays {CARTPOLE}, not"):
        parse_recipe(wrong.encode(), "mine.toml")
    wrong = RECIPE.replace(f'{{ "{CARTPOLE}" = "{ZOO_NAME}" }}', f'{{ pong = "{tmp_path}/run" }}')
    with pytest.raises(DataError, match="not pong"):
        run_recipe(parse_recipe(wrong.encode(), "mine.toml"), tmp_path / "wrong", threads=1)


def test_a_damaged_expert_is_found_with_the_recipe(zoo):
    (zoo / NAME / "scores.json").write_text("{}")

    with pytest.raises(DataError, match=r"scores\.json"):
        parse_recipe(RECIPE.encode(), "mine.toml")


SMALL = """films = false

[defaults.distill]
steps_per_task = 256
envs_per_task = 4
learning_starts_steps = 64
replay_capacity_steps = 2_000
eval_every_steps = 0
final_episodes = 2
"""


@pytest.mark.usefixtures("zoo")
def test_a_student_is_reported_beside_the_expert_that_came_with_the_package(tmp_path):
    text = RECIPE.replace("\n\n", f"\n{SMALL}\n", 1)
    recipe = parse_recipe(text.encode(), "mine.toml")
    run_recipe(recipe, tmp_path / "recipe", threads=1, probe_s=0.01)

    collection = collect(tmp_path / "recipe")
    student, expert = score_rows(collection)
    shipped = read_shipped(NAME).scores("paper", 0.05)
    assert shipped is not None
    assert (student.stage, student.of_student, expert.stage) == ("student", True, "score")
    assert student.expert is not None
    assert student.expert.scores == tuple(shipped["scores"])
    assert student.expert.ci95 == tuple(shipped["ci95"])
    assert student.random is not None
    (run, _) = collection.runs
    assert run.teacher_parameters.keys() == {CARTPOLE}
    told = (tmp_path / "recipe/recipe.json").read_text()
    assert json.loads(told)["stages"][0]["parents"] == {CARTPOLE: str(ZOO_NAME)}
