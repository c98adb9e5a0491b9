"""The Actor-Mimic objective: policy regression plus feature regression, over several tasks.

Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, section 3; other objectives of the policy
are those of Rusu et al. (2016), arXiv:1511.06295.

Axes: batch = examples of one task, alphabet = the student's action slots, features = units of a
last hidden layer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from actor_mimic.compute import Workers
from actor_mimic.learners.gradient_step import (
    gradient_step,
    optimizer_tensors,
    restore_optimizer,
)
from actor_mimic.losses import (
    Temperature,
    agreement,
    feature_regression_loss,
    policy_divergence,
    policy_regression_loss,
)
from actor_mimic.networks.student import Student
from actor_mimic.networks.working_copy import WorkingCopy
from actor_mimic.objectives import (
    FEATURE_TARGETS,
    OBJECTIVES,
    best_action_loss,
    normalised_features,
    score_regression_loss,
)


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


@dataclass(frozen=True)
class Objective:
    """What the student is pulled towards.

    Attributes:
        policy: ``cross_entropy`` (the paper), ``kl``, ``nll`` or ``mse``.
        temperatures: of each teacher's softmax, in units of its scores; in the order of the
            student's tasks. Without effect on the losses ``nll`` and ``mse``.
        feature_weight: beta of the paper; 0 leaves the feature loss out.
        feature_target: the teacher's features ``raw`` (the paper) or ``normalised``.
        summed: the loss of an update is the sum over its examples of all tasks (the authors'
            code), and not their mean.

    Raises:
        ValueError: if a name is unknown or a temperature not positive and finite.
    """

    policy: str
    temperatures: tuple[float, ...]
    feature_weight: float
    feature_target: str = "raw"
    summed: bool = False

    def __post_init__(self) -> None:
        if self.policy not in OBJECTIVES or self.feature_target not in FEATURE_TARGETS:
            raise ValueError(f"unknown objective {self.policy!r} or target {self.feature_target!r}")
        if not all(t > 0.0 and math.isfinite(t) for t in self.temperatures):
            raise ValueError(f"temperatures must be positive, got {self.temperatures}")

    def target(
        self, teacher_features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch features"]:
        """What a regressor's output is compared with."""
        if self.feature_target == "normalised":
            return normalised_features(teacher_features)
        return teacher_features

    def logits(
        self, student_scores: Float[Tensor, "batch actions"], temperature: Temperature
    ) -> Float[Tensor, "batch actions"]:
        """The student's policy: under ``mse`` its scores are values, and softened as such."""
        if self.policy != "mse":
            return student_scores
        return student_scores / (
            temperature[:, None] if isinstance(temperature, Tensor) else temperature
        )


class MimicLearner:
    """Fits one student to several teachers.

    Every task contributes the same number of examples, so the mean over examples weighs the
    tasks equally, unless `weigh` says otherwise.

    Args:
        student: already on its device.
        regressors: one per task, in the order of the student's tasks; on the same device.
        optimizer: over the student's and the regressors' parameters.
        objective: what is minimised.
        max_gradient_norm: larger gradients are scaled down to it; 0 leaves them as they are.
        workers: who computes.

    Raises:
        ValueError: if there is not one temperature for each task.
    """

    def __init__(
        self,
        student: Student,
        regressors: nn.ModuleList,
        optimizer: torch.optim.Optimizer,
        *,
        objective: Objective,
        max_gradient_norm: float,
        workers: Workers,
    ) -> None:
        if len(objective.temperatures) != len(student.action_maps):
            raise ValueError(
                f"expected a temperature for each of {list(student.action_maps)}, "
                f"got {objective.temperatures}"
            )
        self.student = student
        self.working = WorkingCopy(student)
        self._workers = workers
        self.regressors = regressors
        self.optimizer = optimizer
        self.updates = 0
        self.objective = objective
        self._weights: tuple[float, ...] | None = None
        self._max_gradient_norm = max_gradient_norm
        self._device = next(student.parameters()).device
        self._legal = torch.stack(
            [action_map.legal() for action_map in student.action_maps.values()]
        ).to(self._device)

    @property
    def weights(self) -> tuple[float, ...]:
        """What each task's losses are multiplied by; all 1 at first."""
        return self._weights or (1.0,) * len(self.student.action_maps)

    def weigh(self, weights: Sequence[float]) -> None:
        """Changes the weights of the tasks, in their order.

        Raises:
            ValueError: if there is not one for each task.
        """
        if len(weights) != len(self.student.action_maps):
            raise ValueError(f"expected {len(self.student.action_maps)} weights, got {weights}")
        self._weights = None if set(weights) == {1.0} else tuple(weights)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Changes it for all updates to come; it is not part of `state_dict`."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def update(self, batches: Sequence[TaskBatch]) -> dict[str, Float[Tensor, ""]]:
        """One optimiser step on one equal batch per task.

        Args:
            batches: in the order of the student's tasks, all of the same size.

        Returns:
            ``loss``, and per task ``TASK/policy_loss`` (unweighted), ``TASK/divergence`` (in nats),
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
            if self.objective.feature_weight:
                losses = losses + self.objective.feature_weight * columns["feature_loss"]
            columns = {
                name: column.detach().unflatten(0, (tasks, -1)).transpose(0, 1)
                for name, column in columns.items()
            }
            losses = losses.view(tasks, -1)
            if self._weights is not None:
                losses = losses * losses.new_tensor(self._weights)[:, None]
            if self.objective.summed:
                # The step divides by the rows, which makes a mean of what is not to be one.
                return losses.sum(dim=0) * size, columns
            return losses.mean(dim=0), columns

        loss, columns = gradient_step(
            example_losses,
            size,
            self.optimizer,
            self._workers,
            max_norm=self._max_gradient_norm,
            working=self.working,
        )
        self.updates += 1
        columns |= self._measures(columns.pop("scores"), batches)
        return {"loss": loss} | {
            f"{task}/{name}": mean
            for name, column in columns.items()
            for task, mean in zip(self.student.action_maps, column.mean(dim=0), strict=True)
        }

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser; student and regressors are saved apart."""
        return optimizer_tensors(self.optimizer), {
            "updates": self.updates,
            "task_weights": list(self.weights),
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.working.refresh()
        restore_optimizer(self.optimizer, tensors)
        self.updates = int(state["updates"])
        self.weigh([float(weight) for weight in state["task_weights"]])

    def _columns(self, batches: Sequence[TaskBatch]) -> dict[str, Float[Tensor, "examples ..."]]:
        """Losses of every example, task by task, and the student's scores."""
        size = len(batches[0].obs)
        student = self.working.network
        output = student(student.encode_all([batch.obs for batch in batches]))
        teacher_scores = torch.cat([batch.teacher_scores for batch in batches])
        legal = self._legal.repeat_interleave(size, dim=0)
        temperature = self._temperature(size)
        columns = {
            "policy_loss": self._policy_losses(output.scores, teacher_scores, legal, temperature),
            "scores": output.scores,
        }
        if self.objective.feature_weight:
            parts = zip(self.regressors, output.features.split(size), batches, strict=True)
            columns["feature_loss"] = torch.cat(
                [
                    feature_regression_loss(
                        regressor(part), self.objective.target(batch.teacher_features)
                    )
                    for regressor, part, batch in parts
                ]
            )
        return columns

    def _measures(
        self, scores: Float[Tensor, "batch tasks alphabet"], batches: Sequence[TaskBatch]
    ) -> dict[str, Float[Tensor, "batch tasks"]]:
        """How near the student is to its teachers, measured once and not by every worker.

        Small operations hold Python's lock, and workers wait for each other's.
        """
        size = len(scores)
        by_task = scores.transpose(0, 1).flatten(0, 1)
        teacher_scores = torch.cat([batch.teacher_scores for batch in batches]).to(self._device)
        legal = self._legal.repeat_interleave(size, dim=0)
        temperature = self._temperature(size)
        logits = self.objective.logits(by_task, temperature)
        measures = {
            "divergence": policy_divergence(logits, teacher_scores, legal, temperature=temperature),
            "agreement": agreement(by_task, teacher_scores, legal).float(),
        }
        return {name: column.view(-1, size).T for name, column in measures.items()}

    def _temperature(self, size: int) -> Temperature:
        """One number if it serves all tasks, else one for each example, task by task."""
        first, *others = self.objective.temperatures
        if all(other == first for other in others):
            return first
        return torch.tensor(self.objective.temperatures).repeat_interleave(size).to(self._device)

    def _policy_losses(
        self,
        scores: Float[Tensor, "examples alphabet"],
        teacher_scores: Float[Tensor, "examples alphabet"],
        legal: Bool[Tensor, "examples alphabet"],
        temperature: Temperature,
    ) -> Float[Tensor, " examples"]:
        match self.objective.policy:
            case "kl":
                return policy_divergence(scores, teacher_scores, legal, temperature=temperature)
            case "nll":
                return best_action_loss(scores, teacher_scores, legal)
            case "mse":
                return score_regression_loss(scores, teacher_scores, legal)
            case _:
                return policy_regression_loss(
                    scores, teacher_scores, legal, temperature=temperature
                )
