"""From a TOML file to a checked recipe; every mistake is found before anything runs.

::

    name = "demo"                    # letters, digits, ._-
    description = "..."              # optional
    seeds = [0]                      # each stage runs once per seed
    scale = 1.0                      # optional: multiplies total_steps and steps_per_task
    films = true                     # optional: false leaves out the films of what was learnt

    [defaults.expert]                # optional: settings of all stages of a kind
    total_steps = 400_000

    [[stage]]
    name = "pong-expert"
    kind = "expert"                  # expert, distill, transfer or evaluate
    task = "pong"                    # any hyper-parameter of the stage stands here, by its name
    preset = "nature"                # optional: fast, nature or sb3, beneath the other values

    [[stage]]
    name = "student"
    kind = "distill"
    teachers = { pong = "pong-expert", boxing = "runs/boxing", enduro = "zoo:enduro" }
    preset = "paper"                 # optional: paper or authors-code

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
has its network; ``network``, ``width`` and ``norm`` among the defaults are for random weights.
"""

import tomllib
from importlib import resources
from pathlib import Path

from actor_mimic.errors import ConfigError, DataError, UsageError, did_you_mean
from actor_mimic.recipes.check import RecipeReader
from actor_mimic.recipes.lines import Lines
from actor_mimic.recipes.recipe import Recipe

MAX_BYTES = 1 << 20


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
        DataError: if there is no such file.
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
        ConfigError: as `load_recipe`.
    """
    try:
        text = content.decode()
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: expected TOML, but {error}") from error
    return RecipeReader(source, Lines(text)).recipe(table)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: expected a recipe, got: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: expected a recipe of at most {MAX_BYTES} bytes, got more")
    return content
