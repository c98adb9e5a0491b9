"""A recipe's stage that only plays: its settings, checked."""

from collections.abc import Mapping
from typing import Any

from actor_mimic.config import EvaluateConfig
from actor_mimic.errors import ConfigError, check_choice, did_you_mean
from actor_mimic.protocols import PROTOCOLS

KEYS = ("tasks", "episodes", "protocol")


def build_evaluation(values: Mapping[str, Any]) -> EvaluateConfig:
    """The configuration of an ``evaluate`` stage.

    Args:
        values: as they stand in the file, of any type.

    Raises:
        ConfigError: naming the key, what was expected and what came.
    """
    for key in values:
        if key not in KEYS:
            raise ConfigError(f"unknown setting {key!r} of stage evaluate{did_you_mean(key, KEYS)}")
    tasks = values.get("tasks", [])
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ConfigError(f"tasks must be a list of names, got {tasks!r:.100}")
    if len(set(tasks)) != len(tasks):
        raise ConfigError(f"tasks must be different, got {tasks!r:.100}")
    episodes = values.get("episodes", 30)
    if type(episodes) is not int or episodes < 1:
        raise ConfigError(f"episodes must be a positive whole number, got {episodes!r:.100}")
    protocol = values.get("protocol", "paper")
    check_choice("protocol", protocol, PROTOCOLS)
    return EvaluateConfig(tuple(tasks), episodes, protocol)
