"""Configurations by flat names: from ``--set``, a recipe or `run.json`, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from actor_mimic.config import (
    Config,
    DistillConfig,
    ExpertConfig,
    MultitaskDQNConfig,
    NetworkConfig,
    ScheduleConfig,
    TransferConfig,
    leaves,
)
from actor_mimic.errors import ConfigError, check_choice, did_you_mean
from actor_mimic.learner_config import ALGORITHMS, DQNConfig
from actor_mimic.presets import with_preset
from actor_mimic.setting_types import as_type

STAGES: dict[str, type[Config]] = {
    "expert": ExpertConfig,
    "transfer": TransferConfig,
    "distill": DistillConfig,
    "multitask-dqn": MultitaskDQNConfig,
}


def to_json(config: Config) -> dict[str, Any]:
    """Flat and plain, as `run.json` and every manifest store it."""
    flat = {name: list(v) if isinstance(v, tuple) else v for name, v in leaves(config)}
    if isinstance(config, ExpertConfig | TransferConfig):
        learner = type(config.learner)
        flat["algorithm"] = next(name for name, c in ALGORITHMS.items() if c is learner)
    return flat


def build_config(stage: str, values: Mapping[str, Any]) -> Config:
    """A stage's configuration from flat names.

    Args:
        stage: ``expert``, ``transfer``, ``distill`` or ``multitask-dqn``.
        values: hyper-parameters by name; strings are read as the type that the name asks for.
            ``preset`` names a set of values that the others override. Of an expert or a transfer,
            ``algorithm`` (``pqn`` or ``dqn``) chooses the learner. An expert that asks for neither
            a preset nor ``dqn`` has the preset ``fast``, or ``classic`` if its task is no Atari
            game; a transfer has DQN's own defaults.

    Raises:
        ConfigError: for an unknown name (with the nearest known one), a value of the wrong type,
            or settings that contradict each other.
    """
    cls = STAGES[stage]
    values, sections = _sections(stage, values)
    arguments: dict[str, Any] = {}
    known: set[str] = set()
    for section, section_cls in sections.items():
        names = {entry.name: entry.type for entry in dataclasses.fields(section_cls)}
        known |= names.keys()
        given = {n: as_type(n, values.pop(n), t) for n, t in names.items() if n in values}
        arguments[section] = section_cls(**given)
    own = {e.name: e.type for e in dataclasses.fields(cls) if e.name not in sections}
    known |= own.keys()
    arguments |= {n: as_type(n, values.pop(n), t) for n, t in own.items() if n in values}
    if values:
        name = next(iter(values))
        raise ConfigError(
            f"unknown setting {name!r} of stage {stage}{did_you_mean(name, sorted(known))}"
        )
    return cls(**arguments)


def setting_names(stage: str, values: Mapping[str, Any]) -> set[str]:
    """Every name that `build_config` knows, given these values: the learner has its own.

    Raises:
        ConfigError: if there is no such preset or algorithm.
    """
    _, sections = _sections(stage, values)
    classes = (STAGES[stage], *sections.values())
    names = {entry.name for cls in classes for entry in dataclasses.fields(cls)} - sections.keys()
    return names | {"preset"} | ({"algorithm"} if stage in ("expert", "transfer") else set())


def _sections(stage: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values with those of their preset, and the nested sections' classes."""
    whole = with_preset(stage, values)
    sections: dict[str, Any] = {"network": NetworkConfig, "schedule": ScheduleConfig}
    if stage == "multitask-dqn":
        sections["learner"] = DQNConfig
    elif stage != "distill":
        algorithm = whole.pop("algorithm", "dqn")
        check_choice("algorithm", algorithm, ALGORITHMS)
        sections["learner"] = ALGORITHMS[algorithm]
    return whole, sections
