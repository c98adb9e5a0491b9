"""The Actor-Mimic objective: policy regression plus feature regression, over several tasks.

Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, section 3.

Axes: batch = examples of one task, alphabet = the student's action slots, features = units of a
last hidden layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from actor_mimic.compute import Workers
from actor_mimic.learners.gradient_step import (
    gradient_step,
    optimizer_tensors,
    restore_optimizer,
)
from actor_mimic.losses import (
    agreement,
    feature_regression_loss,
    policy_divergence,
    policy_regression_loss,
)
from actor_mimic.networks.student import Student


@dataclass(frozen=True)
class TaskBatch:
    """Labelled observations of one task; teacher scores stand at their alphabet slots.

    Without a feature weight the features are not looked at, and may have any width.
    """

    obs: Shaped[Tensor, "batch ..."]
    teacher_scores: Float[Tensor, "batch alphabet"]
    teacher_features: Float[Tensor, "batch features"]

    def rows(self, rows: slice) -> "TaskBatch":
        """Some of the examples."""
        return TaskBatch(self.obs[rows], self.teacher_scores[rows], self.teacher_features[rows])

    def to(self, device: torch.device) -> "TaskBatch":
        """The same on another device."""
        return TaskBatch(
            self.obs.to(device), self.teacher_scores.to(device), self.teacher_features.to(device)
        )


class MimicLearner:
    """Fits one student to several teachers.

    Every task contributes the same number of examples, so the mean over examples weighs the
    tasks equally.

    Args:
        student: already on its device.
        regressors: one per task, in the order of the student's tasks; on the same device.
        optimizer: over the student's and the regressors' parameters.
        temperature: of the teachers' softmax, in the units of their scores.
        feature_weight: beta of the paper; 0 leaves the feature loss out of the objective.
        max_gradient_norm: larger gradients are scaled down to it.
        workers: who computes.
    """

    def __init__(
        self,
        student: Student,
        regressors: nn.ModuleList,
        optimizer: torch.optim.Optimizer,
        *,
        temperature: float,
        feature_weight: float,
        max_gradient_norm: float,
        workers: Workers,
    ) -> None:
        self.student = student
        self._workers = workers
        self.regressors = regressors
        self.optimizer = optimizer
        self.updates = 0
        self._temperature = temperature
        self._feature_weight = feature_weight
        self._max_gradient_norm = max_gradient_norm
        self._device = next(student.parameters()).device
        self._legal = torch.stack(
            [action_map.legal() for action_map in student.action_maps.values()]
        ).to(self._device)

    def update(self, batches: Sequence[TaskBatch]) -> dict[str, Float[Tensor, ""]]:
        """One optimiser step on one equal batch per task.

        Args:
            batches: in the order of the student's tasks, all of the same size.

        Returns:
            ``loss``, and per task ``TASK/policy_loss``, ``TASK/divergence`` (in nats),
            ``TASK/feature_loss`` (only with a feature weight) and ``TASK/agreement`` (fraction of
            examples where student and teacher prefer the same action), as tensors on the device.

        Raises:
            ValueError: if there is not one batch per task, or their sizes differ.
            DivergenceError: if the loss or a gradient is not finite; nothing has changed then.
        """
        sizes = [len(batch.obs) for batch in batches]
        if len(sizes) != len(self.student.action_maps) or len(set(sizes)) != 1:
            raise ValueError(
                f"expected one batch of equal size for each of {list(self.student.action_maps)}, "
                f"got sizes {sizes}"
            )
        size, tasks = sizes[0], len(batches)

        def example_losses(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
            """Each row stands for one example of every task, so every worker has all tasks."""
            mine = [batch.rows(rows).to(self._device) for batch in batches]
            columns = self._columns(mine)
            losses = columns["policy_loss"]
            if self._feature_weight:
                losses = losses + self._feature_weight * columns["feature_loss"]
            metrics = {name: column.detach().view(tasks, -1).T for name, column in columns.items()}
            return losses.view(tasks, -1).mean(dim=0), metrics

        loss, columns = gradient_step(
            example_losses, size, self.optimizer, self._workers, max_norm=self._max_gradient_norm
        )
        self.updates += 1
        return {"loss": loss} | {
            f"{task}/{name}": column[:, index].mean()
            for name, column in columns.items()
            for index, task in enumerate(self.student.action_maps)
        }

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser; student and regressors are saved apart."""
        return optimizer_tensors(self.optimizer), {"updates": self.updates}

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        restore_optimizer(self.optimizer, tensors)
        self.updates = int(state["updates"])

    def _columns(self, batches: Sequence[TaskBatch]) -> dict[str, Float[Tensor, " examples"]]:
        """Losses and measures of every example, task by task."""
        size = len(batches[0].obs)
        output = self.student(torch.cat([batch.obs for batch in batches]))
        teacher_scores = torch.cat([batch.teacher_scores for batch in batches])
        legal = self._legal.repeat_interleave(size, dim=0)
        policy = policy_regression_loss(
            output.scores, teacher_scores, legal, temperature=self._temperature
        )
        scores = output.scores.detach()
        columns = {
            "policy_loss": policy,
            "divergence": policy_divergence(
                scores, teacher_scores, legal, temperature=self._temperature
            ),
            "agreement": agreement(scores, teacher_scores, legal).float(),
        }
        if self._feature_weight:
            parts = zip(self.regressors, output.features.split(size), batches, strict=True)
            columns["feature_loss"] = torch.cat(
                [
                    feature_regression_loss(regressor(part), batch.teacher_features)
                    for regressor, part, batch in parts
                ]
            )
        return columns
