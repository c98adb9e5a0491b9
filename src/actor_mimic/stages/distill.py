"""Stage: one student learns several tasks from their teachers, on games that it plays itself."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from actor_mimic.compute import Compute, Workers
from actor_mimic.config import DistillConfig
from actor_mimic.envs.vector_step import VectorEnv, closed_on_error, observation_shape
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.learners.mimic import MimicLearner, Objective, TaskBatch
from actor_mimic.networks.q_network import Output
from actor_mimic.networks.regressors import build_regressor
from actor_mimic.networks.student import Student
from actor_mimic.schedules import linear
from actor_mimic.seeding import (
    generator_state,
    numpy_generator,
    restore_generator,
    torch_generator,
)
from actor_mimic.stages.background import see_backgrounds
from actor_mimic.stages.configured import student_optimizer
from actor_mimic.stages.fidelity import gap_weights
from actor_mimic.stages.lockstep import Lockstep, fresh_student, make_all_envs
from actor_mimic.stages.replays import replay_layout
from actor_mimic.stages.training import Snapshot, mean_metrics
from actor_mimic.teachers.teacher import Teacher, joined, label_all


class DistillState:
    """All games step together; the student acts in all of them with one forward pass.

    ::

        student --acts--> game i --frame--> replay i <--labels once-- teacher i
           ^                                   |
           '--------- equal batch of each -----'

    Where the configuration says so, teacher i acts in game i instead, always or, step by step and
    environment by environment, with a probability that falls (the mixture of Ross, Gordon and
    Bagnell 2011, DAgger, arXiv:1011.0686).

    Args:
        config: what to do.
        compute: where.
        teachers: one per task, in the configuration's order, which is the student's.

    Raises:
        ConfigError: if images of different shapes, or images and vectors, are to share a student,
            the replays do not fit, or values are to be learnt from a teacher that has none.
        DataError: if a teacher's actions are not its task's.
    """

    def __init__(
        self, config: DistillConfig, compute: Compute, teachers: Sequence[Teacher]
    ) -> None:
        self.total_steps = config.total_steps
        self.config = config
        self._compute = compute
        self.teachers = list(teachers)
        envs = make_all_envs(config, config.envs_per_task, compute)
        with closed_on_error(envs):
            _check_teachers(config, teachers, envs)
            self.network = fresh_student(config, envs, scores_are_logits=config.objective != "mse")
            assert [teacher.task for teacher in teachers] == list(self.network.action_maps)
            self._regressors = nn.ModuleList(
                build_regressor(
                    config.regressor,
                    self.network.num_features,
                    teacher.num_features,
                    generator=torch_generator(config.seed, teacher.task, "regressor"),
                )
                for teacher in teachers
            )
            compute.place(self.network)
            compute.place(self._regressors)
            self._workers = compute.workers()
            self.learner = MimicLearner(
                self.network,
                self._regressors,
                student_optimizer(
                    config, [*self.network.parameters(), *self._regressors.parameters()]
                ),
                objective=_objective(config, teachers),
                max_gradient_norm=config.max_gradient_norm,
                workers=self._workers,
            )
            self._games = Lockstep(
                config,
                envs,
                [
                    replay_layout(
                        env,
                        config.replay_capacity_steps,
                        label_scores=len(self.network.alphabet),
                        label_features=teacher.num_features if config.feature_weight else 0,
                    )
                    for env, teacher in zip(envs, teachers, strict=True)
                ],
                compute.device,
            )
        self._rollout = self._games.rollout
        self.recent = self._games.recent
        self.replay_bytes = self._games.replay_bytes
        self._actor_rngs = [numpy_generator(config.seed, task, "actor") for task in config.tasks]
        self._samples_per_step = config.samples_per_step or default_samples_per_step(envs)
        self._samples_due = 0.0

    @property
    def steps(self) -> int:
        """Over all tasks."""
        return self._games.steps

    @property
    def updates(self) -> int:
        """Optimiser steps so far."""
        return self.learner.updates

    @property
    def acting(self) -> Student:
        """The network as it is to be called."""
        return self.learner.working.network

    def start(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Measures what the student's backgrounds are, and resets the environments."""
        see_backgrounds(self.network, self.config, self._compute.threads, stop)
        self._rollout.start()

    def advance(self) -> dict[str, Tensor | float]:
        """One step of every environment, its labels, and the updates that are due."""
        greedy, labels = self._act_and_label()
        self._rollout.send(greedy, self.config.epsilon)
        # Beside the emulators: learning from what is stored.
        rate = self._learning_rate()
        self.learner.set_learning_rate(rate)
        metrics = self._learn()
        self._games.receive([self._as_labels(*pair) for pair in enumerate(labels)])
        return {**metrics, "learning_rate": rate} if metrics else {}

    def soften(self, temperatures: Mapping[str, float]) -> None:
        """Sets the temperatures of some tasks' teachers, for good: snapshots have them."""
        objective = self.learner.objective
        self.learner.objective = dataclasses.replace(
            objective,
            temperatures=tuple(
                temperatures.get(task, before)
                for task, before in zip(self.config.tasks, objective.temperatures, strict=True)
            ),
        )

    @property
    def temperatures(self) -> tuple[float, ...]:
        """Of the teachers' policies, in the order of the tasks."""
        return self.learner.objective.temperatures

    def per_task(self) -> dict[str, float]:
        """What tasks may differ in: ``TASK/weight`` and ``TASK/temperature``, where they can."""
        values: dict[str, float] = {}
        for index, task in enumerate(self.config.tasks):
            if self.config.task_weights == "gap":
                values[f"{task}/weight"] = self.learner.weights[index]
            if self.config.teacher_entropy:
                values[f"{task}/temperature"] = self.temperatures[index]
        return values

    def take_gaps(self, gaps: Mapping[str, float]) -> None:
        """Weighs the tasks by what the student lacks in them, if the configuration says so.

        Args:
            gaps: of every task, as `remaining_gaps` gives them.
        """
        if self.config.task_weights == "gap":
            self.learner.weigh(gap_weights([gaps[task] for task in self.config.tasks]))

    def snapshot(self) -> Snapshot:
        """Student, regressors, optimiser, environments, generators, counters, replays."""
        moments, learner = self.learner.state_dict()
        return self._games.snapshot(
            {
                "model": self.network.state_dict(),
                "regressors": self._regressors.state_dict(),
                "optimizer": moments,
            },
            {
                "samples_due": self._samples_due,
                "learner": learner,
                "actor_rngs": [generator_state(rng) for rng in self._actor_rngs],
                "temperatures": list(self.learner.objective.temperatures),
            },
        )

    def restore(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        replays: Mapping[str, Iterable[Mapping[str, Tensor]]],
    ) -> None:
        """Goes back to where a snapshot was taken, but for the environments: see `catch_up`.

        Without replays it starts to refill them.
        """
        self.network.load_state_dict(tensors["model"])
        self._regressors.load_state_dict(tensors["regressors"])
        self.learner.load_state_dict(tensors["optimizer"], state["learner"])
        self._games.restore(tensors, state, replays)
        self._actor_rngs = [restore_generator(rng) for rng in state["actor_rngs"]]
        self.soften(dict(zip(self.config.tasks, state["temperatures"], strict=True)))
        self._samples_due = float(state["samples_due"])

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Plays the unfinished games of a snapshot again."""
        self._rollout.catch_up(stop)

    def close(self) -> None:
        """Stops the emulators."""
        self._games.close()

    def _act_and_label(self) -> tuple[Int64[np.ndarray, " envs"], list[Output]]:
        """What is done in every environment, and what the teachers say of what is seen there.

        All networks look at once. On two cores one of them has the student's rows and the other
        the teachers', or whoever ends first the last of those: half of the rows through each
        network in turn takes a third longer.
        """
        obs = self._rollout.task_observations
        if self.config.actor == "teacher":
            labels = label_all(self.teachers, obs, self._workers)
            return np.concatenate([_best(output.scores) for output in labels]), labels
        student = self.learner.working.network

        @torch.no_grad()  # it holds for the thread that calls
        def own(rows: range) -> Output:
            return student(student.encode_all(obs, rows))

        environments = range(self._rollout.num_envs)
        networks = [own, *(teacher.label for teacher in self.teachers)]
        workers = self._workers if all(t.thread_safe for t in self.teachers) else Workers()
        mine, *labels = map(joined, workers.map_each(networks, [environments, *obs]))
        greedy = self._greedy(mine.scores)
        return greedy if self.config.actor == "student" else self._mixed(greedy, labels), labels

    def _greedy(self, scores: Float[Tensor, "envs alphabet"]) -> Int64[np.ndarray, " envs"]:
        return np.concatenate(
            [
                _best(self.network.task_scores(env.task, scores[part]))
                for env, part in zip(self._rollout.envs, self._rollout.slices, strict=True)
            ]
        )

    def _mixed(
        self, own: Int64[np.ndarray, " envs"], labels: Sequence[Output]
    ) -> Int64[np.ndarray, " envs"]:
        """The student's best action, or in some environments the teacher's."""
        share = linear(
            self.steps,
            start=self.config.teacher_share_start,
            end=self.config.teacher_share_end,
            duration_steps=max(1, round(self.config.teacher_share_fraction * self.total_steps)),
        )
        by_teacher = np.concatenate(
            [
                rng.random(env.num_envs) < share
                for env, rng in zip(self._rollout.envs, self._actor_rngs, strict=True)
            ]
        )
        taught = np.concatenate([_best(output.scores) for output in labels])
        return np.where(by_teacher, taught, own)

    def _as_labels(self, index: int, output: Output) -> dict[str, Tensor]:
        """What the replay stores of a teacher's output."""
        action_map = self.network.action_maps[self.config.tasks[index]]
        labels = {"label_scores": action_map.scatter(output.scores).cpu()}
        if self.config.feature_weight:
            labels["label_features"] = _halved(self.teachers[index].task, output.features).cpu()
        return labels

    def _learning_rate(self) -> float:
        annealed_steps = round(self.config.annealing_fraction * self.total_steps)
        if not annealed_steps:
            return self.config.learning_rate
        return linear(
            max(0, self.steps - (self.total_steps - annealed_steps)),
            start=self.config.learning_rate,
            end=0.0,
            duration_steps=annealed_steps,
        )

    def _learn(self) -> dict[str, Tensor]:
        """The updates that are due; the means of their metrics."""
        config = self.config
        if self._games.steps_of_each < config.learning_starts_steps:
            return {}
        self._samples_due += self._samples_per_step * self._rollout.num_envs
        batch = config.batch_size_per_task * len(config.tasks)
        updates: list[dict[str, Tensor]] = []
        while self._samples_due >= batch:
            self._samples_due -= batch
            drawn = self._games.draw(
                lambda replay, rng: replay.sample_labelled(config.batch_size_per_task, rng=rng)
            )
            batches = [TaskBatch(d.obs, d.label_scores, d.label_features) for d in drawn]
            updates.append(self.learner.update(batches))
        return mean_metrics(updates)


def _best(scores: Float[Tensor, "envs actions"]) -> Int64[np.ndarray, " envs"]:
    return scores.argmax(dim=1).cpu().numpy()


def _halved(task: str, features: Float[Tensor, "envs features"]) -> Float[Tensor, "envs features"]:
    """Features as the replay stores them, in 16 bits.

    Raises:
        DataError: if one is too large for that.
    """
    halved = features.half()
    if not bool(torch.isfinite(halved).all()):
        raise DataError(
            f"the teacher of {task} gives features up to {features.abs().max():g}, and the replay "
            f"holds them up to {torch.finfo(torch.float16).max:,.0f}: let it give smaller ones, or "
            "set feature_weight=0"
        )
    return halved


def default_samples_per_step(envs: Sequence[VectorEnv]) -> float:
    """How often each step is trained on, where the configuration leaves it open."""
    return 2.0 if any(len(env.frame_shape) > 1 for env in envs) else 8.0


def _objective(config: DistillConfig, teachers: Sequence[Teacher]) -> Objective:
    """With the fixed temperatures; those that are measured are not known yet."""
    return Objective(
        policy=config.objective,
        temperatures=tuple(
            config.logit_temperature if teacher.scores_are_logits else config.temperature
            for teacher in teachers
        ),
        feature_weight=config.feature_weight,
        feature_target=config.feature_target,
        summed=config.reduction == "sum",
    )


def _check_teachers(
    config: DistillConfig, teachers: Sequence[Teacher], envs: Sequence[VectorEnv]
) -> None:
    for teacher, env in zip(teachers, envs, strict=True):
        if config.objective == "mse" and teacher.scores_are_logits:
            raise ConfigError(
                f"objective mse teaches values, and the teacher of {env.task} gives the logits of "
                "a policy; take cross_entropy, kl or nll"
            )
        if teacher.obs_shape != observation_shape(env):
            raise DataError(
                f"the teacher of {env.task} reads observations of shape {teacher.obs_shape}, "
                f"the task shows {observation_shape(env)}"
            )
        if teacher.action_names != env.action_names:
            raise DataError(
                f"the teacher of {env.task} has the actions {teacher.action_names}, "
                f"the task has {env.action_names}"
            )
