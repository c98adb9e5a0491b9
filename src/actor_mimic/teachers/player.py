"""A checkpoint that plays: what a user's own loop needs and no more."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, Shaped

from actor_mimic.compute import Compute
from actor_mimic.errors import UsageError
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint
from actor_mimic.teachers.own import load_teachers


class Player:
    """An expert or a student, ready to be asked for actions.

    Args:
        checkpoint: where its weights are.
        device: where it computes.

    Attributes:
        tasks: what it plays.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str = "cpu") -> None:
        compute = Compute(device, precision="float32", threads=torch.get_num_threads())
        self.tasks = tuple(checkpoint.tasks)
        self._teachers = load_teachers(checkpoint, self.tasks, compute)

    def act(
        self, obs: Shaped[np.ndarray, "..."], task: str | None = None
    ) -> int | Int64[np.ndarray, " batch"]:
        """The best action, as an index into the task's own actions (what ``env.step`` takes).

        Args:
            obs: one observation (uint8 ``[4, 84, 84]`` on Atari, oldest frame first) or a batch.
            task: which of `tasks`; may be left out where there is only one.

        Returns:
            An integer for one observation, an array for a batch.

        Raises:
            UsageError: if the task is none of its tasks, or left out where there are several.
            ValueError: if the observation has another shape than the network reads.
        """
        if task is None and len(self.tasks) == 1:
            (task,) = self.tasks
        if task not in self._teachers:
            raise UsageError(f"say which task: one of {', '.join(self.tasks)}; got {task!r}")
        teacher = self._teachers[task]
        batch = np.asarray(obs)
        single = batch.shape == teacher.obs_shape
        if not single and batch.shape[1:] != teacher.obs_shape:
            raise ValueError(
                f"expected an observation of shape {teacher.obs_shape} or a batch of them, "
                f"got {batch.shape}"
            )
        if batch.dtype != np.uint8:
            batch = batch.astype(np.float32)
        actions = teacher.act(torch.from_numpy(batch[None] if single else batch))
        return int(actions[0]) if single else actions


def load(path: str | Path, *, device: str = "cpu") -> Player:
    """Loads a run, a checkpoint directory or ``zoo:NAME`` as a player.

    Raises:
        DataError: if there is no valid checkpoint there.
        UsageError: if no expert of that name is shipped.
    """
    return Player(resolve_checkpoint(Path(path)), device=device)
