"""The Actor-Mimic objective: policy regression plus feature regression, over several tasks.

Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342, section 3; other objectives of the policy
are those of Rusu et al. (2016), arXiv:1511.06295.

Axes: batch = examples of one task, tasks = in the student's order, alphabet = the student's action
slots, features = units of a last hidden layer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    policy_cross_entropy,
    policy_entropy,
    softened_policy,
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
        self, student_scores: Float[Tensor, "*batch actions"], temperature: Temperature
    ) -> Float[Tensor, "*batch actions"]:
        """The student's policy: under ``mse`` its scores are values, and softened as such."""
        if self.policy != "mse":
            return student_scores
        return student_scores / (
            temperature[..., None] if isinstance(temperature, Tensor) else temperature
        )


@dataclass(frozen=True)
class _Lesson:
    """What the teachers say of one batch: made ready once, and every worker takes its rows of it.

    Small operations hold Python's lock, and workers would wait for each other's.
    """

    objective: Objective
    scores: Float[Tensor, "batch tasks alphabet"]
    policy: Float[Tensor, "batch tasks alphabet"]
    entropy: Float[Tensor, "batch tasks"]
    legal: Bool[Tensor, "tasks alphabet"]
    temperature: float | Float[Tensor, " tasks"]

    def rows(self, rows: slice) -> "_Lesson":
        """Some of the examples."""
        return replace(
            self,
            scores=self.scores[rows],
            policy=self.policy[rows],
            entropy=self.entropy[rows],
        )

    def losses(
        self, student_scores: Float[Tensor, "batch tasks alphabet"]
    ) -> Float[Tensor, "batch tasks"]:
        """The loss of every example: of the student's policy, or under ``mse`` of its values."""
        match self.objective.policy:
            case "kl":
                return self.divergence(student_scores)
            case "nll":
                return best_action_loss(student_scores, self.scores, self.legal)
            case "mse":
                return score_regression_loss(student_scores, self.scores, self.legal)
            case _:
                return policy_cross_entropy(student_scores, self.policy, self.legal)

    def divergence(
        self, student_scores: Float[Tensor, "batch tasks alphabet"]
    ) -> Float[Tensor, "batch tasks"]:
        """KL(teacher || student) in nats."""
        logits = self.objective.logits(student_scores, self.temperature)
        return policy_cross_entropy(logits, self.policy, self.legal) - self.entropy

    def agreement(
        self, student_scores: Float[Tensor, "batch tasks alphabet"]
    ) -> Float[Tensor, "batch tasks"]:
        """1 where student and teacher prefer the same action, else 0."""
        return agreement(student_scores, self.scores, self.legal).float()


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
        batches = [batch.to(self._device) for batch in batches]
        lesson = self._lesson(batches)

        def example_losses(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
            """Each row stands for one example of every task, so every worker has all tasks."""
            student = self.working.network
            output = student(student.encode_all([batch.obs[rows] for batch in batches]))
            scores = output.scores.unflatten(0, (tasks, -1)).transpose(0, 1)
            losses = lesson.rows(rows).losses(scores)
            columns = {"scores": scores.detach(), "policy_loss": losses.detach()}
            if self.objective.feature_weight:
                of_teachers = [batch.teacher_features[rows] for batch in batches]
                feature_losses = self._feature_losses(output.features.chunk(tasks), of_teachers)
                losses = losses + self.objective.feature_weight * feature_losses
                columns["feature_loss"] = feature_losses.detach()
            if self._weights is not None:
                losses = losses * losses.new_tensor(self._weights)
            if self.objective.summed:
                # The step divides by the rows, which makes a mean of what is not to be one.
                return losses.sum(dim=1) * size, columns
            return losses.mean(dim=1), columns

        loss, columns = gradient_step(
            example_losses,
            size,
            self.optimizer,
            self._workers,
            max_norm=self._max_gradient_norm,
            working=self.working,
        )
        self.updates += 1
        scores = columns.pop("scores")
        columns["divergence"] = lesson.divergence(scores)
        columns["agreement"] = lesson.agreement(scores)
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

    def _lesson(self, batches: Sequence[TaskBatch]) -> _Lesson:
        scores = torch.stack([batch.teacher_scores for batch in batches], dim=1)
        temperature = self._temperature()
        policy = softened_policy(scores, self._legal, temperature)
        entropy = policy_entropy(policy)
        return _Lesson(self.objective, scores, policy, entropy, self._legal, temperature)

    def _temperature(self) -> float | Float[Tensor, " tasks"]:
        """One number if it serves all tasks, else one for each."""
        first, *others = self.objective.temperatures
        if all(other == first for other in others):
            return first
        return torch.tensor(self.objective.temperatures).to(self._device)

    def _feature_losses(
        self,
        features: Sequence[Float[Tensor, "batch features"]],
        teacher_features: Sequence[Float[Tensor, "batch _"]],
    ) -> Float[Tensor, "batch tasks"]:
        """Task by task: teachers' features differ in number."""
        parts = zip(self.regressors, features, teacher_features, strict=True)
        return torch.stack(
            [
                feature_regression_loss(regressor(own), self.objective.target(of_teacher))
                for regressor, own, of_teacher in parts
            ],
            dim=1,
        )
