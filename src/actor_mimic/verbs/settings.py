"""A stage's settings on the command line: where each value may come from, and where it came from.

The first that has a value decides: the setting's own option, ``--set NAME=VALUE``, the environment
(``ACTOR_MIMIC_NAME``), the preset, the default. The environment is for what a machine or a batch of
jobs has in common, so it may name settings that this stage or its learner does not have; a name
that no stage has is refused. Recipes say everything themselves, and never read it.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actor_mimic.config import NETWORK_SETTINGS, Config, EvaluateConfig
from actor_mimic.errors import ConfigError, UsageError, did_you_mean
from actor_mimic.flat_config import STAGES, build_config, setting_names, to_json
from actor_mimic.learner_config import ALGORITHMS
from actor_mimic.presets import preset_name, presets_of
from actor_mimic.report.printable import printable
from actor_mimic.storage.run_dir import RUN
from actor_mimic.verbs.arguments import named_value

if TYPE_CHECKING:
    from actor_mimic.recipes.recipe import Recipe

VARIABLES = "ACTOR_MIMIC_"
# Makes the storage fail, for tests.
OTHER_VARIABLES = frozenset({"fault"})
COMPUTE = ("device", "precision", "threads", "compiled")
LEFT_OPEN = ("auto", 0)
# Settings that have an argument of their own, with a default that --set would contradict unseen.
OWN_ARGUMENTS = {
    "algorithm": "--algorithm",
    "head": "--head",
    "preset": "--preset",
    "protocol": "--protocol",
    "seed": "--seed",
    "task": "TASK",
    "tasks": "the tasks as arguments",
}


@dataclass(frozen=True)
class Settings:
    """What a stage is to do.

    Attributes:
        stage: expert, transfer, distill or multitask-dqn.
        config: its hyper-parameters.
        sources: by name, where each came from.
        preset: beneath the other values, if there is one.
    """

    stage: str
    config: Config
    sources: Mapping[str, str]
    preset: str | None

    def taken_from(self, config: Config, names: Iterable[str], source: str) -> "Settings":
        """With another configuration, in which these settings came from there."""
        return replace(
            self, config=config, sources={**self.sources, **dict.fromkeys(names, source)}
        )


def read_settings(
    stage: str, options: Mapping[str, Any], sets: Sequence[str], environ: Mapping[str, str]
) -> Settings:
    """Puts a stage's configuration together.

    Args:
        stage: expert, transfer, distill or multitask-dqn.
        options: values of the settings' own arguments by name; None where one was left out.
        sets: every NAME=VALUE.
        environ: the environment's variables.

    Raises:
        ConfigError: if a name is unknown, given twice, or has an argument of its own.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    sources = {name: OWN_ARGUMENTS.get(name, _option(name)) for name in asked}
    if "steps_per_task" in asked:
        sources["steps_per_task"] = "--total-steps"
    for text in sets:
        name, value = named_value(text, "NAME=VALUE")
        own = OWN_ARGUMENTS.get(name)
        if own is not None:
            raise ConfigError(f"--set {name}: write {own} instead")
        if name in asked:
            raise ConfigError(f"{name} is given twice, and one of them is --set {text}")
        asked[name], sources[name] = value, "--set"
    for name, value in _from_environment(stage, asked, environ).items():
        asked[name], sources[name] = value, f"{VARIABLES}{name.upper()}"
    config = build_config(stage, asked)
    preset = preset_name(stage, asked)
    beneath = {} if preset is None else presets_of(stage)[preset]
    below = {name: f"preset {preset}" if name in beneath else "default" for name in to_json(config)}
    above = {name: source for name, source in sources.items() if name in below}
    return Settings(stage, config, below | above, preset)


def compute_settings(
    given: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Device, precision, threads, compiled: as given, else as the environment says.

    Args:
        given: by name; ``auto`` and 0 leave it open.
        environ: the environment's variables.

    Returns:
        Values by name, and where those came from that are not left open.

    Raises:
        ConfigError: if a number of threads is none.
    """
    values = dict(given)
    sources = {name: _option(name) for name in given if given[name] not in LEFT_OPEN}
    for name in given.keys() - sources.keys():
        variable = f"{VARIABLES}{name.upper()}"
        if variable in environ:
            values[name], sources[name] = environ[variable], variable
    if not str(values["threads"]).isdecimal():
        raise ConfigError(f"threads must be a whole number, got {values['threads']!r:.100}")
    return {**values, "threads": int(values["threads"])}, sources


def describe(
    settings: Settings,
    path: Path,
    compute: Mapping[str, Any],
    compute_sources: Mapping[str, str],
    *,
    kept: Mapping[str, Any],
    as_json: bool,
) -> str:
    """What ``--print-config`` prints.

    Args:
        settings: of the stage.
        path: the run directory.
        compute: device, precision, threads and compiled, as they will be.
        compute_sources: where those came from that somebody gave.
        kept: what the run had, of those that somebody did not give.
        as_json: as one JSON object.
    """
    flat = to_json(settings.config)
    rows = {name: (value, settings.sources[name]) for name, value in flat.items()}
    for name, value in compute.items():
        decided_by = str(path / RUN) if kept.get(name) == value else "this machine"
        rows[name] = value, compute_sources.get(name, decided_by)
    if as_json:
        about = {"stage": settings.stage, "run_dir": str(path)}
        return json.dumps(about | {"settings": _with_sources(rows)})
    return "\n".join([f"# {settings.stage}, {printable(path)}", *table(rows)])


def describe_recipe(recipe: "Recipe", *, as_json: bool) -> str:
    """What ``run --print-config`` prints: the settings of every stage.

    Args:
        recipe: checked.
        as_json: as one JSON object.
    """
    stages: list[dict[str, Any]] = []
    lines = [f"# recipe {recipe.name}"]
    for stage in recipe.stages:
        flat = (
            asdict(stage.config)
            if isinstance(stage.config, EvaluateConfig)
            else to_json(stage.config)
        )
        inherited = NETWORK_SETTINGS if stage.kind == "transfer" and stage.parent else ()
        for name in ("seed", *inherited):  # of each repetition, and of the parent
            del flat[name]
        rows = {name: (value, stage.sources.get(name, "default")) for name, value in flat.items()}
        parents = {name: str(parent) for name, parent in stage.parents.items()}
        about = {"name": stage.name, "kind": stage.kind, "seeds": stage.seeds, "parents": parents}
        stages.append(about | {"settings": _with_sources(rows)})
        title = f"# {stage.name} ({stage.kind}), seeds {', '.join(map(str, stage.seeds))}"
        named = [f"#   {task}: {parent}" for task, parent in parents.items()]
        lines += ["", *map(printable, [title, *named]), *table(rows)]
    if as_json:
        return json.dumps({"recipe": recipe.name, "source": recipe.source, "stages": stages})
    return "\n".join(lines)


def _with_sources(rows: Mapping[str, tuple[Any, str]]) -> dict[str, dict[str, Any]]:
    return {name: {"value": value, "from": source} for name, (value, source) in rows.items()}


def table(rows: Mapping[str, tuple[Any, str]]) -> list[str]:
    """Lines ``NAME = VALUE  # SOURCE``, values as TOML writes them."""
    texts = {name: f"{name} = {json.dumps(value)}" for name, (value, _) in rows.items()}
    width = max(map(len, texts.values()))
    return [
        f"{text:{min(width, 48)}}  # {printable(rows[name][1])}" for name, text in texts.items()
    ]


def refuse_as_options(stage: str, arguments: Sequence[str], options: Container[str]) -> None:
    """Refuses a setting that is written as an option, which other libraries have for all of theirs.

    Args:
        stage: whose settings they are.
        arguments: of its verb, as typed.
        options: of the verb, by the names of its fields.

    Raises:
        UsageError: saying how the setting is written here.
    """
    names = {name for each in ALGORITHMS for name in setting_names(stage, {"algorithm": each})}
    known = names - OWN_ARGUMENTS.keys()
    for argument in arguments:
        name, equals, value = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if argument.startswith("--") and name in known and name not in options:
            raise UsageError(
                f"{argument}: {name} is a setting without an option of its own; write "
                f"--set {name}={value if equals else 'VALUE'}"
            )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _from_environment(
    stage: str, asked: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, str]:
    """The settings of this stage that nothing else gives."""
    found = {
        name.removeprefix(VARIABLES).lower(): value
        for name, value in environ.items()
        if name.startswith(VARIABLES)
    }
    everywhere = {*COMPUTE, *OTHER_VARIABLES}
    for other in STAGES:
        everywhere |= setting_names(other, {})
    everywhere |= setting_names("expert", {"algorithm": "dqn"})
    for name in found:
        if name not in everywhere:
            variable = f"{VARIABLES}{name.upper()}"
            raise ConfigError(f"{variable}: no such setting{did_you_mean(name, everywhere)}")
    # They decide which others there are.
    first = {n: found[n] for n in ("preset", "algorithm") if n in found and n not in asked}
    if stage not in ("expert", "transfer"):
        first.pop("algorithm", None)
    known = setting_names(stage, {**first, **asked}) - {"task", "tasks"}
    return {n: v for n, v in found.items() if n in known and n not in asked}
