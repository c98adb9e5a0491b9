"""What the documents say, held against the code."""

import dataclasses
import importlib
import inspect
import operator
import re
import tomllib
from pathlib import Path

import pytest

import actor_mimic
from actor_mimic.config import (
    DistillConfig,
    EvaluateConfig,
    ExpertConfig,
    MultitaskDQNConfig,
    NetworkConfig,
    ScheduleConfig,
    TransferConfig,
    leaves,
)
from actor_mimic.learner_config import DQNConfig, PQNConfig
from actor_mimic.networks.regressors import REGRESSORS
from actor_mimic.objectives import FEATURE_TARGETS, OBJECTIVES
from actor_mimic.presets import DISTILL_PRESETS, PRESETS
from actor_mimic.recipes.load import load_recipe, shipped_recipes

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "expert": ExpertConfig("pong"),
    "transfer": TransferConfig("pong"),
    "pqn": PQNConfig(),
    "dqn": DQNConfig(),
    "distill": DistillConfig(("pong",)),
    "multitask-dqn": MultitaskDQNConfig(("pong",)),
    "network": NetworkConfig(),
    "schedule": ScheduleConfig(),
    "evaluate": EvaluateConfig(),
}
WITHOUT_DEFAULT = ("task", "tasks")


def documented(section: str) -> dict[str, str]:
    """Names and defaults of a section's table."""
    text = (ROOT / "docs/settings.md").read_text()
    (body,) = re.findall(rf"^##+ {section}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \| \S", body, re.MULTILINE))


def own(config) -> dict[str, object]:
    """Settings without those of nested sections."""
    nested = {
        name
        for entry in dataclasses.fields(config)
        if dataclasses.is_dataclass(getattr(config, entry.name))
        for name, _ in leaves(getattr(config, entry.name))
    }
    return {name: value for name, value in leaves(config) if name not in nested}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_documented_with_its_default(section):
    expected = {
        name: "-" if name in WITHOUT_DEFAULT else value
        for name, value in own(SECTIONS[section]).items()
    }
    shown = documented(section)

    assert shown.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float):
            assert float(shown[name]) == value, name
        else:
            assert shown[name] == str(value), name


@pytest.mark.parametrize(
    ("section", "presets"), [("presets", PRESETS), ("distillation presets", DISTILL_PRESETS)]
)
def test_every_preset_is_documented_with_its_values(section, presets):
    text = (ROOT / "docs/settings.md").read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    head, *rows = (
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in body.splitlines()
        if line.startswith("|") and "---" not in line
    )
    shown = {
        name: {row[0]: row[column] for row in rows if row[column] != "-"}
        for column, name in enumerate(head)
        if column
    }

    assert shown == {
        name: {setting: str(value) for setting, value in preset.items()}
        for name, preset in presets.items()
    }


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.stem)
def test_a_link_to_code_names_what_its_file_defines(page):
    text = page.read_text()
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./src/(actor_mimic/[\w/]+)\.py\)", text)
    assert len(links) == text.count("](../src/")
    assert len(links) > 20 or page.stem != "method"
    for name, path in links:
        module = importlib.import_module(path.replace("/", "."))
        found = operator.attrgetter(name)(module)
        where = getattr(found, "__module__", module.__name__)
        assert where == module.__name__, f"{name} is defined in {where}"


def test_the_derivations_show_lines_of_the_functions_that_they_name():
    text = (ROOT / "docs/method.md").read_text()
    shown = re.findall(r"\[`([\w.]+)`\]\(\.\./src/(actor_mimic/[\w/]+)\.py\):\s+`([^`]+)`", text)
    assert {name for name, _, _ in shown} == {
        *("softened_policy", "policy_cross_entropy", "policy_divergence", "best_action_loss"),
        *("score_regression_loss", "feature_regression_loss", "normalised_features"),
        *("MimicLearner.update", "gradient_step", "td_targets", "td_loss"),
    }
    for name, path, line in shown:
        found = operator.attrgetter(name)(importlib.import_module(path.replace("/", ".")))
        assert line in inspect.getsource(found), line


def test_the_derivations_name_settings_that_exist():
    text = (ROOT / "docs/method.md").read_text()
    known = {name for name, _ in leaves(DistillConfig(("pong",)))}
    named = set(re.findall(r"`(\w+) = \w+`", text)) | set(re.findall(r"setting `(\w+)`", text))
    assert named
    assert named - {"preset"} <= known


def test_every_objective_is_derived():
    text = (ROOT / "docs/method.md").read_text()
    for name in (*OBJECTIVES, *FEATURE_TARGETS, *REGRESSORS, *DISTILL_PRESETS):
        assert re.search(rf"`(\w+ = )?{name}`", text), name


def test_public_names_resolve_and_are_documented():
    text = (ROOT / "docs/api.md").read_text()
    shown = re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text, re.MULTILINE)
    for name in actor_mimic.__all__:
        assert getattr(actor_mimic, name) is not None, name
    assert sorted([*shown, "ActorMimicError", "__version__"]) == sorted(actor_mimic.__all__)


def test_every_shipped_recipe_is_on_their_page():
    text = (ROOT / "docs/recipes.md").read_text()
    shown = re.findall(r"literalinclude\} \.\./src/actor_mimic/recipes/([\w-]+)\.toml", text)
    assert sorted(shown) == shipped_recipes()


def test_the_readme_asks_the_student_of_the_demo_for_what_it_plays():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    recipe = load_recipe("demo")
    (student,) = [stage for stage in recipe.stages if stage.kind == "distill"]

    (path,) = re.findall(r'load\("(.*?)"\)', code)
    (task,) = re.findall(r'task="(.*?)"', code)
    assert path == f"runs/demo/{student.name}/seed-{student.seeds[0]}"
    assert task in student.teachers
    assert f"ALE/{''.join(part.title() for part in task.split('_'))}-v5" in code
    assert len(re.findall(r"^(?!import|\s*$)", code, re.MULTILINE)) <= 10


def test_the_readme_has_the_figures_of_the_demo():
    """Every score of the committed table that has an interval, in the row of its game."""
    text = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| ([A-Z][\w ]+) \| (.*) \|$", text, re.MULTILINE))
    table = (ROOT / "results/demo/table.txt").read_text()
    stages = load_recipe("demo").stages
    for task in {task for stage in stages for task in stage.tasks}:
        found = re.findall(rf"^.*\b{task}\b.*?  (\S+ \[.+?\])", table, re.MULTILINE)
        shown = [score for score in found if score in rows[task.replace("_", " ").title()]]
        assert shown, task
        # Of the new game, each arm; its random play stands there without an interval.
        assert len(shown) == (1 if task in stages[0].tasks else 2), task


def test_the_readme_uses_the_games_of_from_scratch():
    text = (ROOT / "README.md").read_text()
    recipe = load_recipe("from-scratch")
    for stage in recipe.stages:
        if stage.kind == "expert":
            assert f"train-expert {stage.config.task}" in text
        if stage.kind == "transfer":
            assert f"transfer {stage.config.task}" in text


def test_every_extra_is_used():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))

    for extra in extras.keys() - {"all", "dev", "docs"}:
        assert f"actor-mimic[{extra}]" in source, extra
    pins = {
        re.split(r"[=]", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = [*project["dependencies"], *(entry for many in extras.values() for entry in many)]
    for entry in wanted:
        name = re.split(r"[\[>=<]", entry)[0].lower()
        assert name == "actor-mimic" or name in pins, entry
