"""One DQN for several tasks: the baseline that Actor-Mimic was compared with.

Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, and the Q-learner of the authors' code,
which learns from an equal minibatch of every game at once.

Axes: batch = replayed steps of one task, examples = those of all tasks, actions = a task's own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.learners.gradient_step import gradient_step
from actor_mimic.learners.target_network import TargetNetwork
from actor_mimic.losses import td_loss, td_targets
from actor_mimic.networks.student import Student
from actor_mimic.networks.working_copy import WorkingCopy
from actor_mimic.replay.frame_replay import TransitionBatch


class MultitaskDQNLearner:
    """Fits the scores of one student to bootstrapped returns of several tasks.

    Every task contributes the same number of examples, and the mean over all of them is
    minimised. A task's target is the best of the next values of *its own* actions: an output that
    only other tasks use is neither looked at nor given a gradient.

    Args:
        student: whose scores are values; already on its device.
        optimizer: over the student's parameters.
        double: the online network chooses the next action and the target network values it.
        target_period_updates: the target network becomes a copy of the online one this often.
        max_gradient_norm: larger gradients are scaled down to it; 0 leaves them as they are.
        workers: who computes.
    """

    def __init__(
        self,
        student: Student,
        optimizer: torch.optim.Optimizer,
        *,
        double: bool,
        target_period_updates: int,
        max_gradient_norm: float,
        workers: Workers,
    ) -> None:
        self.student = student
        self.optimizer = optimizer
        self.updates = 0
        self.working = WorkingCopy(student)
        self._target = TargetNetwork(student, period_updates=target_period_updates)
        self.target_student = self._target.network
        self._double = double
        self._max_gradient_norm = max_gradient_norm
        self._workers = workers
        self._device = next(student.parameters()).device

    def update(self, batches: Sequence[TransitionBatch]) -> dict[str, Float[Tensor, ""]]:
        """One optimiser step on one equal batch per task.

        Args:
            batches: in the order of the student's tasks, all of the same size; actions are the
                task's own.

        Returns:
            ``loss``, and per task ``TASK/td_loss`` and ``TASK/q_value``, as tensors on the device.

        Raises:
            ValueError: if there is not one batch per task, or their sizes differ.
            DivergenceError: if the loss or a gradient is not finite; nothing has changed then.
        """
        tasks = self.student.tasks
        sizes = [len(batch.actions) for batch in batches]
        if len(sizes) != len(tasks) or len(set(sizes)) != 1:
            raise ValueError(
                f"expected one batch of equal size for each of {list(tasks)}, got sizes {sizes}"
            )

        def example_losses(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
            """Each row stands for one example of every task, so every worker has all tasks."""
            outputs = self.working.network.play_all(self._on_device([b.obs for b in batches], rows))
            targets = self._targets(batches, rows)
            actions = self._on_device([batch.actions for batch in batches], rows)
            losses = torch.stack(
                [
                    td_loss(output.scores, taken, target)
                    for output, taken, target in zip(outputs, actions, targets, strict=True)
                ],
                dim=1,
            )
            means = [output.scores.detach().mean(dim=1) for output in outputs]
            columns = {"td_loss": losses.detach(), "q_value": torch.stack(means, dim=1)}
            return losses.mean(dim=1), columns

        loss, columns = gradient_step(
            example_losses,
            sizes[0],
            self.optimizer,
            self._workers,
            max_norm=self._max_gradient_norm,
            working=self.working,
        )
        self.updates += 1
        self._target.follow(self.updates)
        return {"loss": loss} | {
            f"{task}/{name}": column[:, index].mean()
            for name, column in columns.items()
            for index, task in enumerate(tasks)
        }

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser and the target network; the student is saved apart."""
        return self._target.tensors(self.optimizer), {"updates": self.updates}

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.working.refresh()
        self._target.restore(self.optimizer, tensors)
        self.updates = int(state["updates"])

    @torch.no_grad()
    def _targets(
        self, batches: Sequence[TransitionBatch], rows: slice
    ) -> list[Float32[Tensor, " batch"]]:
        """What the taken actions' values should be, task by task."""
        next_obs = self._on_device([batch.next_obs for batch in batches], rows)
        valued = [output.scores for output in self._target.working.network.play_all(next_obs)]
        chosen: list[Tensor] | list[None] = [None] * len(batches)
        if self._double:
            chosen = [output.scores for output in self.working.network.play_all(next_obs)]
        returns = self._on_device([batch.returns for batch in batches], rows)
        discounts = self._on_device([batch.discounts for batch in batches], rows)
        return list(map(td_targets, returns, discounts, valued, chosen))

    def _on_device(self, tensors: Sequence[Tensor], rows: slice) -> list[Tensor]:
        return [tensor[rows].to(self._device) for tensor in tensors]
