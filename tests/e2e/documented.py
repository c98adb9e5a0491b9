"""Runs what the documents show, as it stands there, on budgets of a test.

What is run, and how:

* A block marked ``sh`` holds commands, one a line. ``actor-mimic`` runs in this process, in the
  page's directory; the line is read as it stands, then what it asks for is cut down (`small`), and
  ``--episodes`` to two.
* ``make TARGET``: the target must be there; those of its lines that call ``actor-mimic`` are run.
* ``pip install 'actor-mimic[EXTRA]'``: the extra must be there. ``python examples/NAME.py`` is run.
  ``python -m benchmarks.NAME`` must be there. ``. .venv/bin/activate`` is what ``make`` has made.
  Any other command is an error.
* A block marked ``python`` is run, in the same directory, a loop over a ``range`` three times. One
  that begins with ``# NAME.py`` is that file; a block marked ``toml`` that has a ``name`` is
  NAME.toml.
* Behind ``<!-- not run: REASON -->`` what a block calls of ``actor-mimic`` is read, options too,
  and nothing is run.
"""

import dataclasses
import inspect
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import actor_mimic.envs.atari
from actor_mimic import cli, compute
from actor_mimic.config import DistillConfig, EvaluateConfig, ExpertConfig, MultitaskDQNConfig
from actor_mimic.learner_config import PQNConfig
from actor_mimic.recipes import load, run
from actor_mimic.stages import launch
from actor_mimic.verbs import functions

ROOT = Path(__file__).parents[2]
NOT_RUN = re.compile(r"<!-- not run: .+ -->")
EXAMPLES = {
    "distil_your_sb3_agents.py": ["--agent-steps=200", "--student-steps=2048"],
    "add_a_gymnasium_task.py": ["--steps=256"],
    "use_a_student.py": ["--steps=64"],
}
STAGES = ("run_expert", "run_distill", "run_multitask_dqn", "run_transfer", "run_evaluate")
GAME_FRAMES = 100  # after which an Atari game ends


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    run: bool


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that have a language, nested ones too."""
    found, reason = [], False
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence" and re.fullmatch(r"\w+", token.info):
            assert token.map is not None
            found.append(Block(token.info, token.content, token.map[0] + 1, run=not reason))
        if token.type in ("fence", "html_block"):
            reason = bool(NOT_RUN.match(token.content))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line; a backslash continues one, a # begins a comment."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def small(config, *, measured: bool = False):
    """The same stage on the budget of a test.

    Figures are left out that nothing needs: experts have ``@best``, and two settings of a
    distillation are refused without evaluations.
    """
    if isinstance(config, EvaluateConfig):
        return dataclasses.replace(config, episodes=1)
    asks = isinstance(config, DistillConfig) and (
        config.teacher_entropy > 0.0 or config.task_weights == "gap"
    )
    evaluated = asks or isinstance(config, ExpertConfig)
    schedule = dataclasses.replace(
        config.schedule,
        record_every_steps=32,
        eval_every_steps=config.schedule.eval_every_steps if evaluated else 0,
        eval_episodes=1,
        final_episodes=int(measured or asks),
    )
    # Centred, an expert of a few steps without reward values all actions alike: it teaches nothing.
    network = dataclasses.replace(config.network, width=0.125, centred=False)
    parts = {"schedule": schedule, "network": network}
    tiny = {"batch_size": 8, "replay_capacity_steps": 200, "learning_starts_steps": 32}
    if isinstance(config, DistillConfig):
        tiny["batch_size_per_task"] = tiny.pop("batch_size")
        return dataclasses.replace(config, **parts, **tiny, steps_per_task=64, envs_per_task=2)
    if isinstance(config.learner, PQNConfig):
        groups = min(2, config.learner.env_groups)
        tiny = {"env_groups": groups, "rollout_steps": 8, "minibatch_size": 8}
    else:
        tiny["update_every_steps"] = 16
    learner = dataclasses.replace(config.learner, num_envs=2, **tiny)
    budget = "steps_per_task" if isinstance(config, MultitaskDQNConfig) else "total_steps"
    return dataclasses.replace(config, **parts, learner=learner, **{budget: 64})


class Runner:
    """Runs pages in one directory.

    Args:
        directory: where the commands of a page find what earlier ones left.
        patch: undone when the caller is done.
    """

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.done = 0
        self._patch = patch
        patch.chdir(directory)
        patch.syspath_prepend(directory)
        patch.setattr(compute, "available_cores", lambda: 1)
        patch.setattr(run, "predict", lambda *_, **__: [])
        defaults = inspect.unwrap(actor_mimic.envs.atari.AtariEnvs.__init__).__kwdefaults__
        patch.setitem(defaults, "max_episode_frames", GAME_FRAMES)
        for stage in STAGES:
            original = getattr(launch, stage)
            shrunk = _on_small(original)
            for module in (launch, functions):
                if hasattr(module, stage):
                    patch.setattr(module, stage, shrunk)
        original_load = load.load_recipe
        patch.setattr(load, "load_recipe", lambda name: _small_recipe(original_load(name)))

    def page(self, page: Path) -> None:
        """Everything that a page shows, from top to bottom."""
        found = blocks(page)
        for block in found:
            self._keep_file(block)
        for block in found:
            place = f"{page.relative_to(ROOT)}:{block.line}"
            if block.language == "sh":
                for words in commands(block.text):
                    try:
                        self.command(words, block.run)
                    except Exception as error:
                        raise AssertionError(f"{place}: {shlex.join(words)}") from error
            elif block.language == "python" and block.run and not _file_name(block):
                code = re.sub(r"\brange\(\d+\)", "range(3)", block.text)
                exec(compile(code, place, "exec"), {"__name__": "__main__"})
                self.done += 1

    def example(self, name: str, *arguments: str) -> None:
        """One of the scripts, on a small budget."""
        self._patch.setattr(sys, "argv", [name, *arguments, *EXAMPLES[name]])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        self.done += 1

    def _keep_file(self, block: Block) -> None:
        name = _file_name(block)
        if name:
            (self.directory / name).write_text(block.text)

    def command(self, words: list[str], run: bool = True) -> None:
        """One command; with ``run`` false it is only read."""
        match words:
            case ["actor-mimic", *arguments]:
                self._actor_mimic(arguments, run)
            case ["make", target]:
                for line in _makefile(target):
                    self._actor_mimic(line, run)
            case ["python", script, *arguments] if script.startswith("examples/"):
                self.example(script.removeprefix("examples/"), *arguments)
            case ["pip", "install", what]:
                extras = re.fullmatch(r"actor-mimic\[([\w,]+)\]", what)
                assert extras, what
                assert _extras().issuperset(extras[1].split(","))
            case ["python" | ".venv/bin/python", "-m", module, *_]:
                place = ROOT / module.replace(".", "/")
                assert module.startswith("benchmarks")
                assert place.is_dir() or place.with_suffix(".py").is_file()
            case [".", ".venv/bin/activate"]:
                pass
            case _ if run:
                raise AssertionError("a command that the tests do not know")

    def _actor_mimic(self, arguments: list[str], run: bool) -> None:
        arguments = [*arguments]
        if "--episodes" in arguments:
            arguments[arguments.index("--episodes") + 1] = "2"
        elif arguments[0] == "evaluate":
            arguments += ["--episodes", "2"]
        with pytest.MonkeyPatch.context() as patch:
            if not run:
                patch.setattr(cli.VERBS[arguments[0]], "run", lambda _: 0)
            with pytest.raises(SystemExit) as left:
                cli.main(arguments)
        assert left.value.code == 0, f"exit code {left.value.code}"
        self.done += 1


def _on_small(stage):
    return lambda config, *rest: stage(small(config), *rest)


def _small_recipe(recipe):
    measured = recipe.name == "demo"  # the others need no figures
    stages = tuple(
        dataclasses.replace(
            stage, config=small(stage.config, measured=measured), seeds=stage.seeds[:1]
        )
        for stage in recipe.stages
    )
    return dataclasses.replace(recipe, stages=stages)


def _file_name(block: Block) -> str | None:
    if block.language == "python":
        named = re.match(r"# (\w+\.py)\n", block.text)
        return named and named[1]
    if block.language == "toml":
        name = tomllib.loads(block.text).get("name")
        return name and f"{name}.toml"
    return None


def _makefile(target: str) -> list[list[str]]:
    text = (ROOT / "Makefile").read_text()
    (body,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)*)", text, re.MULTILINE)
    lines = [line.removeprefix("$(BIN)/") for line in body.split("\t")[1:]]
    return [shlex.split(line)[1:] for line in lines if line.startswith("actor-mimic ")]


def _extras() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])
