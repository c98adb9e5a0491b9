"""How near a student is to its teachers: where they act alike, and what it still lacks.

Measured on the states of evaluation games, which are never trained on: their seeds are others'
than those of the games that fill the replay.

Axes: envs = environments of an evaluation, actions = a task's own actions, features = units of
the teacher's last hidden layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.learners.mimic import MimicLearner
from actor_mimic.losses import agreement, feature_regression_loss, policy_divergence
from actor_mimic.networks.q_network import Output
from actor_mimic.stages.players import best_actions, play_together
from actor_mimic.teachers.teacher import Teacher, label_all

HELD_OUT_EVERY = 4  # steps of an evaluation: neighbours are much alike, and teachers cost time
GAP_FLOOR = 0.1  # of a weight before normalisation: what is mastered must not be forgotten


def remaining_gaps(
    scores: Mapping[str, float], teachers: Mapping[str, float], randoms: Mapping[str, float]
) -> dict[str, float]:
    """What the student lacks in each task: 0 as good as its teacher, 1 as poor as random play.

    Better than the teacher counts as 0, worse than random play as 1: one task that goes
    badly must not take all the weight. A task whose teacher is no better than random play has
    nothing to be learnt, and counts as 0.
    """
    return {
        task: min(1.0, max(0.0, (teachers[task] - score) / (teachers[task] - randoms[task])))
        if teachers[task] > randoms[task]
        else 0.0
        for task, score in scores.items()
    }


def gap_weights(gaps: Sequence[float]) -> list[float]:
    """Weights of the tasks in proportion to their gaps, at least `GAP_FLOOR`, of mean 1."""
    floored = [max(GAP_FLOOR, gap) for gap in gaps]
    mean = sum(floored) / len(floored)
    return [weight / mean for weight in floored]


@dataclass
class _Sums:
    """Over the states that were looked at, in double precision."""

    count: int = 0
    agreement: float = 0.0
    divergence: float = 0.0
    squared_error: float = 0.0
    features: Tensor = field(default_factory=lambda: torch.zeros(()))  # per unit
    squared_features: Tensor = field(default_factory=lambda: torch.zeros(()))


class Fidelity:
    """Plays evaluation games with a student and compares it with its teachers on the way.

    Args:
        learner: whose student, regressors and objective they are.
        teachers: in the order of the student's tasks.
        workers: who computes.
    """

    def __init__(
        self, learner: MimicLearner, teachers: Sequence[Teacher], workers: Workers
    ) -> None:
        self._learner = learner
        self._workers = workers
        self._teachers = {teacher.task: teacher for teacher in teachers}
        self._sums = {task: _Sums() for task in self._teachers}
        self._calls = dict.fromkeys(self._teachers, 0)

    @torch.no_grad()
    def act(self, obs: Mapping[str, Shaped[Tensor, "_ ..."]]) -> dict[str, Int64[np.ndarray, " _"]]:
        """The live student as a policy of its tasks; it acts as that of `live_player` does."""
        said = play_together(self._learner.working.network, obs, self._workers)
        self._compare(said, [task for task in obs if self._calls[task] % HELD_OUT_EVERY == 0], obs)
        for task in obs:
            self._calls[task] += 1
        return best_actions(said)

    def take(self) -> dict[str, float]:
        """What was seen since the last call; nothing of a task that was not played.

        Returns:
            ``TASK/held_out_agreement``: share of states where both prefer the same action;
            ``TASK/held_out_divergence``: KL(teacher || student) in nats; and, with a feature
            weight, ``TASK/feature_error``: the regression's squared error as a share of the
            variance of the teacher's features (1 is what their mean would reach).
        """
        values: dict[str, float] = {}
        for task, sums in self._sums.items():
            if not sums.count:
                continue
            values[f"{task}/held_out_agreement"] = sums.agreement / sums.count
            values[f"{task}/held_out_divergence"] = sums.divergence / sums.count
            if self._learner.objective.feature_weight:
                # The sum over states and units of the squared distances from the mean.
                spread = sums.squared_features - sums.features.square() / sums.count
                variance = float(spread.clamp_min(0.0).sum())
                if variance > 0.0:
                    values[f"{task}/feature_error"] = sums.squared_error / variance
        self._sums = {task: _Sums() for task in self._teachers}
        self._calls = dict.fromkeys(self._teachers, 0)
        return values

    def _compare(
        self,
        student: Mapping[str, Output],
        tasks: Sequence[str],
        obs: Mapping[str, Shaped[Tensor, "_ ..."]],
    ) -> None:
        if not tasks:
            return
        teachers = [self._teachers[task] for task in tasks]
        labels = label_all(teachers, [obs[task] for task in tasks], self._workers)
        for task, label in zip(tasks, labels, strict=True):
            self._add(task, student[task], label)

    def _add(self, task: str, student: Output, teacher: Output) -> None:
        objective, sums = self._learner.objective, self._sums[task]
        index = list(self._teachers).index(task)
        temperature = objective.temperatures[index]
        legal: Bool[Tensor, " actions"] = torch.ones_like(student.scores[0], dtype=torch.bool)
        logits = objective.logits(student.scores, temperature)
        divergence = policy_divergence(logits, teacher.scores, legal, temperature=temperature)
        sums.count += len(student.scores)
        sums.agreement += float(agreement(student.scores, teacher.scores, legal).sum())
        sums.divergence += float(divergence.double().sum())
        if objective.feature_weight:
            target: Float[Tensor, "envs features"] = objective.target(teacher.features)
            predicted = self._learner.regressors[index](student.features)
            error = feature_regression_loss(predicted, target).double().sum()
            sums.squared_error += float(error)
            sums.features = sums.features + target.double().sum(dim=0).cpu()
            sums.squared_features = sums.squared_features + target.double().square().sum(0).cpu()
