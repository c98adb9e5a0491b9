"""Stage: one student learns several tasks from their teachers, on games that it plays itself."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor, nn

from actor_mimic.compute import Compute
from actor_mimic.config import DistillConfig
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import VectorEnv
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.learners.mimic import MimicLearner, TaskBatch
from actor_mimic.networks.regressors import build_regressor
from actor_mimic.networks.student import Student
from actor_mimic.protocols import protocol_named
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import (
    generator_state,
    numpy_generator,
    restore_generator,
    torch_generator,
)
from actor_mimic.stages.expert import (
    add_transition,
    make_replays,
    replay_layout,
    torso_spec,
)
from actor_mimic.stages.training import RecentEpisodes, Snapshot
from actor_mimic.teachers.teacher import Teacher


class DistillState:
    """All games step together; the student acts in all of them with one forward pass.

    ::

        student --acts--> game i --frame--> replay i <--labels once-- teacher i
           ^                                   |
           '--------- equal batch of each -----'

    Args:
        config: what to do.
        compute: where.
        teachers: one per task, in the configuration's order, which is the student's.

    Raises:
        ConfigError: if the tasks' observations differ in shape, or the replays do not fit.
        DataError: if a teacher's actions are not its task's.
    """

    def __init__(
        self, config: DistillConfig, compute: Compute, teachers: Sequence[Teacher]
    ) -> None:
        self.steps = 0
        self.total_steps = config.total_steps
        self.recent = RecentEpisodes(config.tasks)
        self._config = config
        self._device = compute.device
        self._teachers = list(teachers)
        envs = _make_envs(config, compute)
        _check_teachers(teachers, envs)
        self.network = Student(
            torso_spec(config.network, envs[0]),
            {env.task: env.action_names for env in envs},
            generator=torch_generator(config.seed, "student"),
        )
        assert [teacher.task for teacher in teachers] == list(self.network.action_maps)
        self._regressors = nn.ModuleList(
            build_regressor(
                config.regressor,
                self.network.network.torso.num_features,
                teacher.num_features,
                generator=torch_generator(config.seed, teacher.task, "regressor"),
            )
            for teacher in teachers
        )
        compute.place(self.network)
        compute.place(self._regressors)
        self._workers = compute.workers()
        self._learner = MimicLearner(
            self.network,
            self._regressors,
            torch.optim.Adam(
                [*self.network.parameters(), *self._regressors.parameters()],
                lr=config.learning_rate,
                fused=True,
            ),
            temperature=config.temperature,
            feature_weight=config.feature_weight,
            max_gradient_norm=config.max_gradient_norm,
            workers=self._workers,
        )
        self._rollout = Rollout(
            envs,
            life_loss_is_terminal=protocol_named(config.protocol).life_loss_ends_training_episodes,
            rngs=[numpy_generator(config.seed, task, "exploration") for task in config.tasks],
        )
        self._replays = make_replays(
            [
                replay_layout(
                    env,
                    config.replay_capacity_steps,
                    label_scores=len(self.network.alphabet),
                    label_features=teacher.num_features if config.feature_weight else 0,
                )
                for env, teacher in zip(envs, teachers, strict=True)
            ]
        )
        self.replay_bytes = sum(replay.nbytes for replay in self._replays)
        self._rngs = [numpy_generator(config.seed, task, "replay") for task in config.tasks]
        self._samples_due = 0.0

    @property
    def updates(self) -> int:
        """Optimiser steps so far."""
        return self._learner.updates

    def start(self) -> None:
        """Resets the environments."""
        self._rollout.start()

    def advance(self) -> dict[str, Tensor]:
        """One step of every environment, its labels, and the updates that are due."""
        obs = self._rollout.observations.to(self._device)
        self._rollout.send(self._greedy(obs), self._config.epsilon)
        # Beside the emulators: labels of what is seen now, and learning from what is stored.
        labels = [self._label(index, obs) for index in range(len(self._teachers))]
        metrics = self._learn()
        for replay, label, transition in zip(
            self._replays, labels, self._rollout.recv(), strict=True
        ):
            add_transition(replay, transition, **label)
        self.steps += self._rollout.num_envs
        self.recent.extend(self._rollout.take_finished())
        return metrics

    def snapshot(self) -> Snapshot:
        """Student, regressors, optimiser, environments, generators, counters, replays."""
        moments, learner = self._learner.state_dict()
        tensors, rollout = self._rollout.state_dict()
        return Snapshot(
            {
                "model": self.network.state_dict(),
                "regressors": self._regressors.state_dict(),
                "optimizer": moments,
                "rollout": tensors,
            },
            {
                "steps": self.steps,
                "samples_due": self._samples_due,
                "learner": learner,
                "rollout": rollout,
                "recent": self.recent.state_dict(),
                "replay_rngs": [generator_state(rng) for rng in self._rngs],
            },
            {f"task-{index:02d}": replay for index, replay in enumerate(self._replays)},
        )

    def restore(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        replays: Mapping[str, Iterable[Mapping[str, Tensor]]],
    ) -> None:
        """Goes back to where a snapshot was taken; without replays it starts to refill them."""
        self.network.load_state_dict(tensors["model"])
        self._regressors.load_state_dict(tensors["regressors"])
        self._learner.load_state_dict(tensors["optimizer"], state["learner"])
        self._rollout.load_state_dict(tensors["rollout"], state["rollout"])
        self.recent.load_state_dict(state["recent"])
        self._rngs = [restore_generator(rng) for rng in state["replay_rngs"]]
        self.steps = int(state["steps"])
        self._samples_due = float(state["samples_due"])
        for index, replay in enumerate(self._replays):
            if f"task-{index:02d}" in replays:
                replay.restore(replays[f"task-{index:02d}"])

    def close(self) -> None:
        """Stops the emulators."""
        self._rollout.close()

    def _greedy(self, obs: Shaped[Tensor, "envs ..."]) -> Int64[np.ndarray, " envs"]:
        scores = self._workers.infer(lambda rows: self.network(rows).scores, obs)
        return np.concatenate(
            [
                self.network.task_scores(env.task, scores[part]).argmax(dim=1).cpu().numpy()
                for env, part in zip(self._rollout.envs, self._rollout.slices, strict=True)
            ]
        )

    def _label(self, index: int, obs: Shaped[Tensor, "envs ..."]) -> dict[str, Tensor]:
        teacher = self._teachers[index]
        output = teacher.label(obs[self._rollout.slices[index]])
        action_map = self.network.action_maps[teacher.task]
        labels = {"label_scores": action_map.scatter(output.scores).cpu()}
        if self._config.feature_weight:
            labels["label_features"] = output.features.half().cpu()
        return labels

    def _learn(self) -> dict[str, Tensor]:
        """The updates that are due; the means of their metrics."""
        config = self._config
        if min(replay.steps_added for replay in self._replays) < config.learning_starts_steps:
            return {}
        self._samples_due += config.samples_per_step * self._rollout.num_envs
        batch = config.batch_size_per_task * len(self._replays)
        updates: list[dict[str, Tensor]] = []
        while self._samples_due >= batch:
            self._samples_due -= batch
            metrics = self._learner.update(
                [
                    TaskBatch(drawn.obs, drawn.label_scores, drawn.label_features)
                    for drawn in (
                        replay.sample_labelled(config.batch_size_per_task, rng=rng)
                        for replay, rng in zip(self._replays, self._rngs, strict=True)
                    )
                ]
            )
            updates.append(metrics)
        if len(updates) < 2:
            return updates[0] if updates else {}
        return {name: torch.stack([m[name] for m in updates]).mean() for name in updates[0]}


def _make_envs(config: DistillConfig, compute: Compute) -> list[VectorEnv]:
    # Several games share the cores: with all threads each, they would fight for them.
    threads = max(1, compute.threads // len(config.tasks))
    envs = [
        make_envs(
            task,
            num_envs=config.envs_per_task,
            run_seed=config.seed,
            protocol=protocol_named(config.protocol),
            num_threads=threads,
        )
        for task in config.tasks
    ]
    shapes = {env.task: env.frame_shape for env in envs}
    if len(set(shapes.values())) > 1:
        raise ConfigError(f"the tasks of one student must share a shape of frames, got {shapes}")
    return envs


def _check_teachers(teachers: Sequence[Teacher], envs: Sequence[VectorEnv]) -> None:
    for teacher, env in zip(teachers, envs, strict=True):
        if teacher.action_names != env.action_names:
            raise DataError(
                f"the teacher of {env.task} has the actions {teacher.action_names}, "
                f"the task has {env.action_names}"
            )
