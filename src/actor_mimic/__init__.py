"""actor-mimic: experts into one network that plays all their games, and on to new ones.

The names below are the public interface; everything else may move between versions. They are
imported when first used, so that ``actor-mimic --help`` need not wait for PyTorch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ActionMap": "actor_mimic.actions",
    "ActorMimicError": "actor_mimic.errors",
    "DQNLearner": "actor_mimic.learners.dqn",
    "FrameReplay": "actor_mimic.replay.frame_replay",
    "MimicLearner": "actor_mimic.learners.mimic",
    "Objective": "actor_mimic.learners.mimic",
    "PQNLearner": "actor_mimic.learners.pqn",
    "Player": "actor_mimic.teachers.player",
    "QNetwork": "actor_mimic.networks.q_network",
    "Student": "actor_mimic.networks.student",
    "TaskBatch": "actor_mimic.learners.mimic",
    "Teacher": "actor_mimic.teachers.teacher",
    "Trajectories": "actor_mimic.learners.pqn",
    "Workers": "actor_mimic.compute",
    "distill": "actor_mimic.verbs.functions",
    "feature_regression_loss": "actor_mimic.losses",
    "load": "actor_mimic.teachers.player",
    "make_envs": "actor_mimic.envs.make",
    "policy_regression_loss": "actor_mimic.losses",
    "train_expert": "actor_mimic.verbs.functions",
    "transfer": "actor_mimic.verbs.functions",
}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604  (the names are the keys above)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
