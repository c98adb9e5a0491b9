"""From a TOML file to a checked recipe; every mistake is found before anything runs.

::

    name = "mine"                    # letters, digits, ._-
    description = "..."              # optional
    seeds = [0]                      # each stage runs once per seed
    scale = 1.0                      # optional: multiplies total_steps and steps_per_task
    films = true                     # optional: false leaves out the films of what was learnt

    [defaults.expert]                # optional: settings of all stages of a kind
    total_steps = 400_000

    [[stage]]
    name = "pong-expert"
    kind = "expert"                  # expert, distill, multitask-dqn, transfer or evaluate
    task = "pong"                    # any hyper-parameter of the stage stands here, by its name
    preset = "nature"                # optional, one of PRESETS: beneath the other values

    [[stage]]
    name = "student"
    kind = "distill"
    teachers = { pong = "pong-expert", boxing = "runs/boxing", freeway = "zoo:freeway" }
    preset = "paper"                 # optional: paper or authors-code

    [[stage]]
    name = "without-teachers"
    kind = "multitask-dqn"
    tasks = ["pong", "boxing"]
    head = "branched"                # optional: shared, per_task or branched
    preset = "nature"                # optional: nature or sb3

    [[stage]]
    name = "breakout-from-student"
    kind = "transfer"
    task = "breakout"
    parent = "student"               # likewise; without it, random weights

    [[stage]]
    name = "random-play"
    kind = "evaluate"
    checkpoint = "random"            # or likewise
    tasks = ["breakout"]
    episodes = 30

A parent is a stage above, a path, or an expert that comes with the package (``zoo:NAME``). Of a
stage it is the repetition with the same seed; one that runs only once serves all seeds. Of a
parent the last checkpoint is taken; ``"student@best"`` takes the best one. A transfer with a parent
has its network; ``network``, ``width``, ``norm`` and ``centred`` among the defaults are for random
weights.
"""

import os
import re
import tomllib
from importlib import resources
from pathlib import Path

from actor_mimic.errors import ConfigError, DataError, UsageError, did_you_mean
from actor_mimic.recipes.check import RecipeReader
from actor_mimic.recipes.lines import Lines
from actor_mimic.recipes.recipe import Recipe
from actor_mimic.storage.durable import read_regular

MAX_BYTES = 1 << 16
MAX_PARTS = 16

_NAME = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_PART = re.compile(_NAME)
_DOTTED = re.compile(rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    files = resources.files("actor_mimic.recipes").iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Reads and checks a recipe.

    Args:
        name_or_path: of a shipped recipe (``demo``), or a TOML file.

    Raises:
        UsageError: if there is no shipped recipe of that name.
        DataError: if there is no such file, or an expert that it names is damaged.
        ConfigError: if something in it is unknown, missing or contradictory; names file, line
            (where it can be found) and key.
    """
    source = str(name_or_path)
    if "/" in source or source.endswith(".toml") or Path(source).is_file():
        return parse_recipe(_read(Path(source)), source)
    if source not in shipped_recipes():
        raise UsageError(
            f"unknown recipe {source!r}{did_you_mean(source, shipped_recipes())}; expected one of "
            f"{', '.join(shipped_recipes())}, or a TOML file"
        )
    text = resources.files("actor_mimic.recipes").joinpath(f"{source}.toml").read_bytes()
    return parse_recipe(text, source)


def parse_recipe(content: bytes, source: str) -> Recipe:
    """Checks a recipe that has been read.

    Args:
        content: TOML.
        source: where it is from, for messages and for the command that repeats it.

    Raises:
        ConfigError, DataError: as `load_recipe`.
    """
    try:
        text = content.decode()
        _check_depth(text, source)
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: expected TOML, but {error!s:.300}") from error
    try:
        return RecipeReader(source, Lines(text)).recipe(table)
    except RecursionError as error:  # of a message that shows tables in tables in tables
        raise ConfigError(f"{source}: expected a few levels of tables, got far more") from error


def _check_depth(text: str, source: str) -> None:
    """Refuses names with many dots, over which Python's reader of TOML takes quadratic time.

    Raises:
        ConfigError: if there is one; text between quotes counts as well.
    """
    for chain in _DOTTED.finditer(text):
        parts = len(_PART.findall(chain[0]))
        if parts > MAX_PARTS:
            raise ConfigError(
                f"{source}: expected at most {MAX_PARTS} names with dots between, got {parts}: "
                f"{chain[0]:.60}..."
            )


def _read(path: Path) -> bytes:
    if not os.path.lexists(path):
        raise DataError(f"{path}: there is no such recipe")
    # A link that the user named is followed; what it leads to must be a file, and no pipe.
    try:
        return read_regular(path.resolve(), max_bytes=MAX_BYTES)
    except (DataError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: expected a recipe, but {error}") from error
