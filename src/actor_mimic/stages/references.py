"""What a student is measured against: scores of its teachers and of random play; temperatures.

All of it is found before the student's first step, and kept in the run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.errors import DataError, StorageError
from actor_mimic.stages.distill import DistillState
from actor_mimic.stages.evaluate import expert_normalised
from actor_mimic.stages.fidelity import remaining_gaps
from actor_mimic.stages.measure import (
    Measuring,
    claimed_score,
    measure,
    measure_references,
)
from actor_mimic.stages.players import best_actions
from actor_mimic.storage.durable import json_bytes, replace_file
from actor_mimic.storage.records import Record
from actor_mimic.storage.run_dir import read_run_json
from actor_mimic.storage.shipped import RANDOM
from actor_mimic.teachers.callables import TeacherSource
from actor_mimic.teachers.teacher import Teacher, label_all
from actor_mimic.temperatures import mean_entropy, temperature_for_entropy

TEMPERATURES = "temperatures.json"


@dataclass
class References:
    """Mean scores of the teachers and of random play, by task."""

    teachers: dict[str, float] = field(default_factory=dict)
    randoms: dict[str, float] = field(default_factory=dict)

    def measured(
        self,
        state: DistillState,
        checkpoints: Mapping[str, TeacherSource],
        measuring: Measuring,
        workers: Workers,
    ) -> Iterator[Record]:
        """Measures what can be told before the student's first step, and records it.

        Args:
            state: whose teachers they are; it is given its measured temperatures, if it wants any.
            checkpoints: where the teachers come from, by task.
            measuring: how games are played.
            workers: who compute.

        Raises:
            DataError, Interrupted, StorageError: as `measured_temperatures` and `measure`.
        """
        share = state.config.teacher_entropy
        if share:
            found = measured_temperatures(state.teachers, checkpoints, share, measuring, workers)
            state.soften(found)
            values = {f"{task}/temperature": value for task, value in found.items()}
            yield Record("temperatures", 0, 0, {**values}, 0.0)
        for record in measure_references(state.teachers, checkpoints, measuring, workers):
            task = str(record.values["task"])
            means = self.randoms if record.values["who"] == RANDOM else self.teachers
            means[task] = float(record.values[f"{task}/mean"] or 0.0)
            yield record

    def complaints(self) -> list[str]:
        """About teachers that are no better than random play."""
        return [
            f"the teacher of {task} scores {mean:g}, random play {self.randoms[task]:g}: "
            "the task counts as 0 in the student's merit"
            for task, mean in self.teachers.items()
            if mean <= self.randoms[task]
        ]

    def merit(self, scores: Mapping[str, float]) -> float:
        """The student's scores in one number: 0 at random play, 1 at its teachers."""
        return expert_normalised(scores, self.teachers, self.randoms)

    def compare(self, state: DistillState, scores: Mapping[str, float]) -> dict[str, float]:
        """Tells the state what its student lacks; the values to be recorded with an evaluation.

        Returns:
            ``TASK/gap``, the teacher's mean score less the student's, and what
            `DistillState.per_task` gives.
        """
        state.take_gaps(remaining_gaps(scores, self.teachers, self.randoms))
        gaps = {f"{task}/gap": self.teachers[task] - score for task, score in scores.items()}
        return gaps | state.per_task()


def measured_temperatures(
    teachers: Sequence[Teacher],
    checkpoints: Mapping[str, TeacherSource],
    share: float,
    measuring: Measuring,
    workers: Workers,
) -> dict[str, float]:
    """The temperature of each teacher of values at which its policy is as soft as wanted.

    Found once, from its scores in the games that it is measured by, and kept in the run.

    Args:
        teachers: those whose scores are logits have their policies already, and are left out.
        checkpoints: where the teachers come from, by task.
        share: of log(actions), which the mean entropy of its policy is to be.
        measuring: how games are played, and where the run is.
        workers: who compute.

    Returns:
        Temperatures by task, in units of each teacher's scores.

    Raises:
        DataError: if no temperature will do for a teacher, or what was kept is damaged.
        Interrupted: if a stop was asked for.
        StorageError: if the result cannot be kept.
    """
    directory = measuring.directory
    of_values = [teacher for teacher in teachers if not teacher.scores_are_logits]
    if (directory / TEMPERATURES).exists():
        tasks = [teacher.task for teacher in of_values]
        return _kept(read_run_json(directory, TEMPERATURES), tasks, directory / TEMPERATURES)
    found = {}
    for teacher in of_values:
        scores = _scores_in_games(teacher, checkpoints[teacher.task], measuring, workers)
        try:
            temperature = temperature_for_entropy(scores, share)
        except DataError as error:
            raise DataError(f"teacher of {teacher.task}, teacher_entropy: {error}") from error
        found[teacher.task] = {
            "temperature": temperature,
            "entropy_nats": mean_entropy(scores, temperature),
            "observations": len(scores),
            "model_sha256": teacher.model_sha256,
        }
    try:
        replace_file(directory / TEMPERATURES, json_bytes({"share": share, "tasks": found}))
    except OSError as error:
        raise StorageError(f"cannot write {directory / TEMPERATURES}: {error}") from error
    return {task: float(values["temperature"]) for task, values in found.items()}


def _scores_in_games(
    teacher: Teacher, source: TeacherSource, measuring: Measuring, workers: Workers
) -> Float[Tensor, "observations actions"]:
    heard: list[Tensor] = []

    def act(obs: Mapping[str, Shaped[Tensor, "_ ..."]]) -> dict[str, Int64[np.ndarray, " _"]]:
        (said,) = label_all([teacher], list(obs.values()), workers)
        heard.append(said.scores.float().cpu())
        return best_actions({teacher.task: said})

    measure(
        act,
        teacher.model_sha256,
        [teacher.task],
        measuring,
        also_look_in=source.run,
        claimed=claimed_score(source),
    )
    if not heard:  # its figure was known: the same games are played again for the scores
        dict(measuring.play(act, [teacher.task], measuring.episodes))
    return torch.cat(heard)


def _kept(content: Any, tasks: Sequence[str], path: Path) -> dict[str, float]:
    try:
        found = {task: float(content["tasks"][task]["temperature"]) for task in tasks}
        if not all(0.0 < value < math.inf for value in found.values()):
            raise ValueError("a temperature is positive and finite")
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: expected a temperature for each of {', '.join(tasks)}, got {content!r:.200}"
        ) from error
    return found
