"""What a recipe must be; every mistake is found before anything runs, and named with its line."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from actor_mimic.config import NETWORK_SETTINGS, Config, EvaluateConfig
from actor_mimic.errors import (
    ActorMimicError,
    ConfigError,
    UsageError,
    check_choice,
    did_you_mean,
)
from actor_mimic.flat_config import build_config
from actor_mimic.presets import preset_name, presets_of
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.recipes.evaluation import build_evaluation
from actor_mimic.recipes.lines import Lines
from actor_mimic.recipes.recipe import (
    BEST_SUFFIX,
    Parent,
    Recipe,
    Stage,
    seed_of_parent,
)
from actor_mimic.storage.run_dir import validate_run_name
from actor_mimic.storage.shipped import PREFIX, RANDOM, read_shipped, shipped_path
from actor_mimic.tasks import TASK_PREFIX, names_module

KINDS = ("expert", "distill", "multitask-dqn", "transfer", "evaluate")
TOP_KEYS = ("name", "description", "seeds", "scale", "films", "defaults", "stage")
STAGE_KEYS = ("name", "kind", "seeds")
PARENT_KEYS = {"distill": "teachers", "transfer": "parent", "evaluate": "checkpoint"}
BUDGETS = {
    "expert": "total_steps",
    "distill": "steps_per_task",
    "multitask-dqn": "steps_per_task",
    "transfer": "total_steps",
}


class RecipeReader:
    """Checks one recipe; knows where to point.

    Args:
        source: of the text, for messages and for the command that repeats it.
        lines: of the text.
    """

    def __init__(self, source: str, lines: Lines) -> None:
        self._source = source
        self._lines = lines
        self._scale = 1.0
        self._stages: dict[str, Stage] = {}
        self._all_names: list[str] = []

    def recipe(self, table: Mapping[str, Any]) -> Recipe:
        """The checked recipe of a parsed file.

        Raises:
            ConfigError: naming source, line (where it can be found) and key.
            DataError: if an expert that it names is damaged.
        """
        self._check_keys("", table, TOP_KEYS, "recipe")
        name = self._name("", table)
        seeds = self._seeds("", table, default=[0])
        self._scale = self._check_scale(table.get("scale", 1.0))
        description = table.get("description", "")
        if not isinstance(description, str):
            self._fail("", ["description"], f"description must be text, got {description!r:.100}")
        films = table.get("films", True)
        if not isinstance(films, bool):
            self._fail("", ["films"], f"films must be true or false, got {films!r:.100}")
        defaults = self._defaults(table.get("defaults", {}))
        stages = table.get("stage", [])
        if not isinstance(stages, list) or not stages:
            self._fail("", ["stage"], "a recipe needs at least one [[stage]]")
        if not all(isinstance(stage, dict) for stage in stages):
            self._fail("", ["stage"], "stage must be written as tables: [[stage]]")
        self._all_names = [str(stage.get("name", "")) for stage in stages]
        for index, stage in enumerate(stages):
            checked = self._stage(f"stage.{index}", stage, seeds, defaults)
            self._stages[checked.name] = checked
        found = tuple(self._stages.values())
        return Recipe(name, description, self._source, self._scale, seeds, found, films)

    def _stage(
        self,
        where: str,
        table: Mapping[str, Any],
        seeds: tuple[int, ...],
        defaults: Mapping[str, Mapping[str, Any]],
    ) -> Stage:
        name = self._name(where, table)
        if name == RANDOM or name.casefold() in (known.casefold() for known in self._stages):
            self._fail(where, ["name"], f"name {name!r} is taken; every stage needs its own")
        kind = table.get("kind")
        if kind not in KINDS:
            self._fail(
                where,
                ["kind"],
                f"stage {name!r}: kind must be one of {', '.join(KINDS)}, "
                f"got {kind!r:.100}{did_you_mean(str(kind), KINDS)}",
            )
        stage = Stage(
            name,
            kind,
            self._seeds(where, table, default=list(seeds)),
            EvaluateConfig(),
            teachers=self._teachers(where, name, table) if kind == "distill" else {},
            parent=self._parent_of(where, name, kind, table),
        )
        reserved = {*STAGE_KEYS, PARENT_KEYS.get(kind, "")}
        own = {key: value for key, value in table.items() if key not in reserved}
        stage = dataclasses.replace(
            stage,
            config=self._config(where, stage, own, defaults[kind]),
            sources=self._sources(where, stage, own, defaults[kind]),
        )
        self._check_tasks(where, stage)
        self._check_seeds(where, stage)
        return stage

    def _config(
        self,
        where: str,
        stage: Stage,
        own: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> Config | EvaluateConfig:
        values = {**defaults, **own}
        try:
            _check_network(stage, own)
            return self._build(stage, values)
        except ActorMimicError as error:
            named = _named(values, str(error))
            mine = [key for key in named if key in own]
            table = where if mine or not named else f"defaults.{stage.kind}"
            hint = ""
            unknown = str(error).startswith("unknown setting") and "did you mean" not in str(error)
            if unknown and named:
                # The settings know nothing of what a recipe adds to them.
                hint = did_you_mean((mine or named)[0], (*STAGE_KEYS, *PARENT_KEYS.values()))
            self._fail(table, mine or named, f"stage {stage.name!r}: {error}{hint}")

    def _sources(
        self, where: str, stage: Stage, own: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> dict[str, str]:
        """Where the settings came from that are not their defaults."""
        preset = None
        if stage.kind != "evaluate":
            preset = preset_name(stage.kind, {**defaults, **own})
        found = dict.fromkeys(presets_of(stage.kind)[preset] if preset else (), f"preset {preset}")
        found |= {name: self._place(f"defaults.{stage.kind}", [name]) for name in defaults}
        found |= {name: self._place(where, [name]) for name in own}
        if stage.teachers:
            found["tasks"] = self._place(where, ["teachers"])
        if self._scale != 1.0 and stage.kind in BUDGETS:
            budget = BUDGETS[stage.kind]
            found[budget] = f"{found.get(budget, 'default')} x scale {self._scale:g}"
        return found

    def _build(self, stage: Stage, values: dict[str, Any]) -> Config | EvaluateConfig:
        if "seed" in values:
            raise ConfigError("seed is not a setting of a stage; write seeds = [...]")
        if stage.kind == "evaluate":
            return build_evaluation(values)
        if stage.kind == "distill":
            if "tasks" in values:
                raise ConfigError("tasks is given by the keys of teachers")
            config = build_config("distill", values | {"tasks": list(stage.teachers)})
        elif stage.kind == "multitask-dqn":
            if "tasks" not in values:
                raise ConfigError("tasks must be a list of names, and is missing")
            config = build_config(stage.kind, values)
        else:
            if not isinstance(values.get("task"), str):
                raise ConfigError(f"task must be the name of a game, got {values.get('task')!r}")
            config = build_config(stage.kind, values)
        check_choice("protocol", config.protocol, PROTOCOLS)
        return self._scaled(config, BUDGETS[stage.kind])

    def _scaled(self, config: Config, budget: str) -> Config:
        steps = max(1, round(getattr(config, budget) * self._scale))
        return dataclasses.replace(config, **{budget: steps})

    def _teachers(self, where: str, name: str, table: Mapping[str, Any]) -> dict[str, Parent]:
        teachers = table.get("teachers")
        if not isinstance(teachers, dict) or not teachers:
            self._fail(
                where, ["teachers"], f"stage {name!r}: teachers must be {{ TASK = PARENT, ... }}"
            )
        found = {}
        for task, value in teachers.items():
            keys = [f"teachers.{task}", "teachers"]
            parent = self._parent(where, keys, name, value)
            if parent is None:
                self._fail(where, keys, f"stage {name!r}: random play teaches nothing")
            self._check_plays(where, keys, name, parent, [task])
            found[task] = parent
        return found

    def _parent_of(
        self, where: str, name: str, kind: str, table: Mapping[str, Any]
    ) -> Parent | None:
        key = PARENT_KEYS.get(kind)
        if key is None or kind == "distill":
            return None
        if key not in table and kind == "evaluate":
            self._fail(
                where, [], f"stage {name!r}: checkpoint is missing (a stage, a path, random)"
            )
        return self._parent(where, [key], name, table.get(key, RANDOM))

    def _parent(self, where: str, keys: list[str], name: str, value: Any) -> Parent | None:
        """A stage above, a path, an expert of the zoo, or None for random."""
        if not isinstance(value, str) or not value:
            self._fail(
                where,
                keys,
                f"stage {name!r}: {keys[-1]} must name a stage or a path, got {value!r:.100}",
            )
        if value == RANDOM:
            return None
        best = value.endswith(BEST_SUFFIX)
        wanted = value.removesuffix(BEST_SUFFIX)
        if wanted in self._stages:
            if self._stages[wanted].kind == "evaluate":
                self._fail(where, keys, f"stage {name!r}: {wanted!r} only plays, it has no weights")
            return Parent(stage=wanted, best=best)
        if wanted == name or wanted in self._all_names:
            self._fail(where, keys, f"stage {name!r}: its parent {wanted!r} must stand above it")
        if wanted.startswith(PREFIX):
            try:
                shipped_path(wanted)
            except UsageError as error:
                self._fail(where, keys, f"stage {name!r}: {error}")
            return Parent(path=Path(wanted), best=best)
        if Path(wanted).is_file():
            self._fail(
                where,
                keys,
                f"stage {name!r}: {wanted!r} is a file, and a recipe names checkpoints: turn it "
                "into one with actor-mimic import",
            )
        if "/" in wanted or Path(wanted).exists():
            return Parent(path=Path(wanted), best=best)
        self._fail(
            where,
            keys,
            f"stage {name!r}: unknown parent {wanted!r}{did_you_mean(wanted, self._stages)}; "
            "expected a stage above it, a path, or zoo:NAME",
        )

    def _check_tasks(self, where: str, stage: Stage) -> None:
        keys = ["task", "tasks", "teachers"]
        for task in stage.tasks:
            if not task or names_module(task):
                self._fail(
                    where,
                    keys,
                    f"stage {stage.name!r}: task {task!r} is neither an Atari game "
                    f"nor {TASK_PREFIX} and a Gymnasium id",
                )
        if stage.kind != "evaluate":
            return
        if stage.parent is None:
            if not stage.tasks:
                self._fail(where, keys, f"stage {stage.name!r}: random plays anything: name tasks")
        else:
            self._check_plays(where, keys, stage.name, stage.parent, stage.tasks)

    def _check_plays(
        self, where: str, keys: list[str], name: str, parent: Parent, tasks: Iterable[str]
    ) -> None:
        known = self._played_by(parent)
        for task in tasks:
            if known and task not in known:
                who = parent.stage or str(parent.path)
                self._fail(
                    where, keys, f"stage {name!r}: {who!r} plays {', '.join(known)}, not {task}"
                )

    def _played_by(self, parent: Parent) -> tuple[str, ...]:
        """The tasks of a parent; empty where only its checkpoint knows, not opened here."""
        if parent.stage is not None:
            return self._stages[parent.stage].tasks
        name = str(parent.path)
        return (read_shipped(name.removeprefix(PREFIX)).task,) if name.startswith(PREFIX) else ()

    def _check_seeds(self, where: str, stage: Stage) -> None:
        for parent in stage.parents.values():
            if parent.stage is None:
                continue
            seeds = self._stages[parent.stage].seeds
            for seed in stage.seeds:
                if seed_of_parent(self._stages[parent.stage], seed) is None:
                    self._fail(
                        where,
                        ["seeds"],
                        f"stage {stage.name!r}: its parent {parent.stage!r} "
                        f"runs with the seeds {list(seeds)}, not with {seed}",
                    )

    def _defaults(self, table: Any) -> dict[str, dict[str, Any]]:
        if not isinstance(table, dict):
            self._fail("", ["defaults"], "defaults must be tables: [defaults.expert]")
        self._check_keys("defaults", table, KINDS, "defaults")
        for kind, values in table.items():
            if not isinstance(values, dict):
                self._fail("defaults", [kind], f"defaults.{kind} must be a table")
            for key in (*STAGE_KEYS, PARENT_KEYS.get(kind, "")):
                if key in values:
                    self._fail(
                        f"defaults.{kind}", [key], f"{key} belongs into a [[stage]], not defaults"
                    )
        return {kind: dict(table.get(kind, {})) for kind in KINDS}

    def _name(self, where: str, table: Mapping[str, Any]) -> str:
        name = table.get("name")
        what = f"the {'recipe' if not where else '[[stage]]'}"
        if not isinstance(name, str):
            self._fail(where, ["name"], f"name: {what} needs one, got {name!r:.100}")
        try:
            return validate_run_name(name)
        except UsageError as error:
            self._fail(where, ["name"], f"name of {what}: {error}")

    def _seeds(
        self, where: str, table: Mapping[str, Any], *, default: list[int]
    ) -> tuple[int, ...]:
        seeds = table.get("seeds", default)
        if (
            not isinstance(seeds, list)
            or not seeds
            or any(type(seed) is not int or not 0 <= seed < 2**63 for seed in seeds)
            or len(set(seeds)) != len(seeds)
        ):
            self._fail(
                where,
                ["seeds"],
                f"seeds must be different whole numbers from 0, got {seeds!r:.100}",
            )
        return tuple(seeds)

    def _check_scale(self, scale: Any) -> float:
        if (
            isinstance(scale, bool)
            or not isinstance(scale, int | float)
            or not 0.0 < scale < math.inf
        ):
            self._fail("", ["scale"], f"scale must be a positive number, got {scale!r:.100}")
        return float(scale)

    def _check_keys(
        self, where: str, table: Mapping[str, Any], known: Iterable[str], what: str
    ) -> None:
        for key in table:
            if key not in known:
                self._fail(
                    where, [key], f"unknown key {key!r:.100} of {what}{did_you_mean(key, known)}"
                )

    def _fail(self, where: str, keys: Iterable[str], message: str) -> NoReturn:
        raise ConfigError(f"{self._place(where, keys)}: {message}") from None

    def _place(self, where: str, keys: Iterable[str]) -> str:
        line = self._lines.find(where, list(keys))
        return self._source if line is None else f"{self._source}:{line}"


def _check_network(stage: Stage, own: Iterable[str]) -> None:
    """Refuses a shape beside a parent; one among the defaults is for arms with random weights."""
    if stage.kind != "transfer" or stage.parent is None:
        return
    for name in own:
        if name in NETWORK_SETTINGS:
            raise ConfigError(f"{name} with a parent: the parent's weights decide the network")


def _named(keys: Iterable[str], message: str) -> list[str]:
    """Those of the keys that a message names, in the message's order."""
    found = {key: re.search(rf"\b{re.escape(key)}\b", message) for key in keys}
    places = {key: match.start() for key, match in found.items() if match is not None}
    return sorted(places, key=places.__getitem__)
