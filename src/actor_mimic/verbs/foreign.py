"""The verb import, and how foreign files are named where a teacher is asked for.

Imports that need PyTorch wait until a verb runs, and until a foreign file has been looked through.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional

from actor_mimic.errors import ConfigError, DataError, UsageError
from actor_mimic.storage.manifest import MANIFEST
from actor_mimic.verbs.arguments import (
    LEFT_OUT,
    OptionalActivation,
    OptionalNumber,
    OptionalPath,
    Quiet,
    Switch,
    Task,
    checkpoint_argument,
    notice,
    numeric,
)

if TYPE_CHECKING:
    from actor_mimic.storage.checkpoint import Checkpoint
    from actor_mimic.teachers.callables import TeacherSource

HUB = "hf:"


@dataclass(frozen=True)
class Import:
    """Turn another library's agent into a checkpoint: Stable-Baselines3, CleanRL.

    For example:
      actor-mimic import dqn.zip --task gym:CartPole-v1 -o imports/cartpole
      actor-mimic import dqn_atari.cleanrl_model --task breakout -o imports/breakout
    """

    file: Positional[Annotated[str, tyro.conf.arg(metavar="FILE")]]
    """What Stable-Baselines3 saved (.zip), or CleanRL (.cleanrl_model); or, on the Hugging Face
    Hub, hf:OWNER/REPO/FILE@COMMIT."""
    task: Task
    """What it plays: an Atari game, or gym: and a Gymnasium id."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="PATH")]
    """The directory to make."""
    activation: OptionalActivation = None
    """Of the hidden layers. Left out: relu for DQN and QR-DQN, tanh for PPO and A2C."""
    obs_stats: OptionalPath = None
    """JSON with mean, var, epsilon and clip, if observations were normalised (VecNormalize)."""
    quantiles: OptionalNumber = None
    """Of each action, if it is a QR-DQN agent, whose file does not say. Left out: 200."""
    claimed_score: Annotated[float | None, numeric(float, "SCORE", "a number"), LEFT_OUT] = None
    """What its author says that it scores: kept, to be shown beside what it scores here."""
    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        given = {
            "activation": self.activation,
            "obs_stats": self.obs_stats,
            "quantiles": self.quantiles,
            "claimed_score": self.claimed_score,
        }
        checkpoint = import_file(self.file, self.task, self.output, given)
        if self.json:
            facts = {
                "path": str(self.output),
                "checkpoint": str(checkpoint.path),
                "model_sha256": checkpoint.model_sha256,
                "task": self.task,
                "layout": checkpoint.config["layout"],
            }
            print(json.dumps(facts))
        else:
            notice(f"{checkpoint.config['layout']}, plays {self.task}")
            print(self.output)
        return 0


def import_file(
    name: str, task: str, directory: Path, options: Mapping[str, Any] = MappingProxyType({})
) -> "Checkpoint":
    """Imports what a user named as a foreign file.

    Args:
        name: a path, or ``hf:OWNER/REPO/FILE@COMMIT``.
        task: what the agent plays.
        directory: where the import goes.
        options: the other fields of `ImportOptions`.

    Raises:
        ActorMimicError: as `import_teacher`.
    """
    from actor_mimic.teachers.archives import open_foreign

    path, origin = Path(name), None
    if name.startswith(HUB):
        from actor_mimic.teachers.hub import download

        path, origin = download(name), name
    if not path.is_file():
        came = "a directory" if path.is_dir() else "nothing of that name"
        raise DataError(f"{name}: expected a file to import, got {came}")
    # A link that the user named is followed; what it leads to is a file like any other.
    path = path.resolve()
    if (path.parent / MANIFEST).is_file():
        raise UsageError(f"{name} is part of a checkpoint of ours: name {path.parent} instead")
    # Before PyTorch is loaded, which takes seconds and most of the code that could go wrong.
    open_foreign(path)
    from actor_mimic.teachers.foreign import ImportOptions, import_teacher

    return import_teacher(path, directory, ImportOptions(task, **options), origin=origin)


def teacher_argument(name: str, task: str, run_dir: Path) -> "TeacherSource":
    """What a user names as the teacher of a task: a checkpoint, a foreign file, a function.

    A foreign file is imported into the run's ``teachers``, under its own hash: the same command on
    an unfinished run finds the same import there.

    Raises:
        ConfigError: if the run was begun without that file: nothing is written into such a one.
        ActorMimicError: as `checkpoint_argument`, `import_file` and `load_callable`.
    """
    if name.startswith(HUB) or Path(name).is_file():
        from actor_mimic.storage.run_dir import RUN, TEACHERS, slug

        home = run_dir / TEACHERS / f"{slug(task)[:60]}-{_digest(name)[:16]}"
        if os.path.lexists(run_dir / RUN) and not home.exists():
            raise ConfigError(
                f"{run_dir} was begun without {name} as a teacher of {task}: {home} is not there; "
                "choose another directory"
            )
        return import_file(name, task, home)
    if not os.path.lexists(name):
        from actor_mimic.teachers.callables import is_callable_name, load_callable

        if is_callable_name(name):
            return load_callable(name, task)
    return checkpoint_argument(name)


def check_foreign(names: Iterable[str]) -> None:
    """Looks through those teachers that are files, before PyTorch is loaded for any of them.

    Raises:
        DataError, UnsafeError: naming the first that is damaged or dangerous.
    """
    from actor_mimic.teachers.archives import open_foreign

    for name in names:
        if not name.startswith(HUB) and Path(name).is_file():
            open_foreign(Path(name).resolve())


def _digest(name: str) -> str:
    from actor_mimic.teachers.archives import open_foreign

    if name.startswith(HUB):
        # Of one commit: the name decides what is in the file.
        return hashlib.sha256(name.encode()).hexdigest()
    return open_foreign(Path(name).resolve()).sha256


def check_features(teachers: Mapping[str, "TeacherSource"], feature_weight: float) -> None:
    """Refuses to regress on the features of a teacher that gives none.

    Raises:
        ConfigError: naming it.
    """
    from actor_mimic.teachers.callables import CallableTeacher

    for teacher in teachers.values():
        if feature_weight and isinstance(teacher, CallableTeacher) and not teacher.has_features:
            raise ConfigError(
                f"{teacher.name} gives no features, and feature_weight is {feature_weight:g}: let "
                "it return scores and features, or add --set feature_weight=0"
            )
