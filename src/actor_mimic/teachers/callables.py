"""Any Python function as a teacher, named on the command line and nowhere else.

Naming a function runs the code of its module. So a name is never taken from a recipe, a
checkpoint or any other file, and nothing that is written here could be loaded again.
"""

import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.envs.make import make_envs
from actor_mimic.errors import DataError, UsageError
from actor_mimic.networks.q_network import Output
from actor_mimic.protocols import protocol_named
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.teacher import Teacher

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_RESERVED = ("gym", "hf", "zoo")  # prefixes with a meaning of their own


def is_callable_name(name: str) -> bool:
    """Whether a name has the form ``module:function``."""
    return _NAME.fullmatch(name) is not None and name.partition(":")[0] not in _RESERVED


@dataclass(frozen=True)
class CallableTeacher:
    """A function that scores observations; it stands where a teacher's checkpoint does.

    Attributes:
        name: ``module:function``.
        function: NumPy observations (uint8 ``[batch, 4, 84, 84]`` on Atari, float32
            ``[batch, length]`` elsewhere) to scores ``[batch, actions]``, or to a pair of scores
            and features ``[batch, width]``; NumPy arrays or tensors. If it has an attribute
            ``scores_are_logits`` that is true, its scores are a policy's.
        tasks: the one that it plays, with the names of its actions.
        obs_shape: of one observation.
        num_features: their width; where it gives none, its scores stand for them.
        has_features: whether it gives some.
        model_sha256: of its name and its module's source: another source is another teacher.
    """

    name: str
    function: Callable[..., Any]
    tasks: dict[str, list[str]]
    obs_shape: tuple[int, ...]
    num_features: int
    has_features: bool
    model_sha256: str
    run: None = None

    @property
    def path(self) -> str:
        """Its name, where a checkpoint has its directory."""
        return self.name

    def as_parent(self) -> dict[str, Any]:
        """How the manifest of a student names it."""
        return {
            "kind": "callable",
            "name": self.name,
            "model_sha256": self.model_sha256,
            "step": 0,
            "tasks": list(self.tasks),
        }

    def load(self, compute: Compute) -> Teacher:
        """The teacher; the function itself computes where it likes."""
        ((task, names),) = self.tasks.items()

        def label(obs: Shaped[Tensor, "batch ..."]) -> Output:
            output = _ask(self, obs)
            return Output(*(part.to(compute.device) for part in output))

        return Teacher(
            task=task,
            action_names=tuple(names),
            obs_shape=self.obs_shape,
            num_features=self.num_features,
            model_sha256=self.model_sha256,
            network=label,
            device="cpu",
            scores_are_logits=bool(getattr(self.function, "scores_are_logits", False)),
            thread_safe=False,
        )


TeacherSource = Checkpoint | CallableTeacher


def load_callable(name: str, task: str) -> CallableTeacher:
    """Imports a function and asks it once.

    Args:
        name: ``module:function``; the module may lie in the working directory.
        task: what it plays.

    Raises:
        UsageError: if there is no such module or function.
        DataError: if what it gives are not scores of the task's actions.
    """
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever its first lines do
        raise UsageError(f"{name}: cannot import {module_name}: {_told(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UsageError(f"{name}: expected a function in {module_name}, got {function!r:.100}")
    env = make_envs(task, num_envs=2, run_seed=0, protocol=protocol_named("paper"))
    try:
        frames = torch.from_numpy(env.reset())
        if frames.ndim > 2:
            frames = frames.unsqueeze(1).repeat(1, env.stack_size, *[1] * (frames.ndim - 1))
        tasks, obs_shape = {task: list(env.action_names)}, tuple(frames.shape[1:])
    finally:
        env.close()
    source = inspect.getsourcefile(module)
    digest = hashlib.sha256(name.encode())
    if source is not None:
        digest.update(Path(source).read_bytes())
    first = CallableTeacher(name, function, tasks, obs_shape, 0, False, digest.hexdigest())
    given = _call(first, frames)
    width = _part(first, "features", given[1], None).shape[1] if _is_pair(given) else 0
    teacher = CallableTeacher(
        name, function, tasks, obs_shape, width or len(tasks[task]), width > 0, digest.hexdigest()
    )
    _ask(teacher, frames)
    return teacher


def _ask(teacher: CallableTeacher, obs: Tensor) -> Output:
    (actions,) = teacher.tasks.values()
    given = _call(teacher, obs)
    pair = given if _is_pair(given) else (given, given)
    scores = _part(teacher, "scores", pair[0], (len(obs), len(actions)))
    return Output(scores, _part(teacher, "features", pair[1], (len(obs), teacher.num_features)))


def _call(teacher: CallableTeacher, obs: Tensor) -> Any:
    try:
        # A copy: what the function does to it in place must not change what the student sees.
        return teacher.function(obs.cpu().numpy().copy())
    except Exception as error:
        raise DataError(f"{teacher.name}: the function failed: {_told(error)}") from error


def _told(error: Exception) -> str:
    """What went wrong in somebody's own code, and where."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple) and len(given) == 2


def _part(teacher: CallableTeacher, what: str, given: Any, shape: Any) -> Tensor:
    try:
        values = torch.as_tensor(given).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{teacher.name}: expected {what}, got {given!r:.100}: {error}") from error
    if values.ndim != 2 or (shape is not None and tuple(values.shape) != shape):
        expected = "a row for each observation" if shape is None else f"shape {shape}"
        raise DataError(f"{teacher.name}: expected {what} of {expected}, got {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise DataError(f"{teacher.name}: expected finite {what}, got NaN or infinity")
    return values
