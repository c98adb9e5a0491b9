"""Stage: one network learns several tasks by Q-learning, all at once and without teachers.

The baseline of Parisotto, Ba and Salakhutdinov (2016), arXiv:1511.06342: what the same network
reaches on the same games where nothing is distilled into it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.config import MultitaskDQNConfig
from actor_mimic.envs.vector_step import VectorEnv
from actor_mimic.learners.multitask_dqn import MultitaskDQNLearner
from actor_mimic.networks.student import Student
from actor_mimic.stages.background import see_backgrounds
from actor_mimic.stages.configured import dqn_optimizer, epsilon_at
from actor_mimic.stages.lockstep import Lockstep, fresh_student
from actor_mimic.stages.replays import replay_layout
from actor_mimic.stages.training import Snapshot, mean_metrics


class MultitaskDQNState:
    """Deep Q-learning in several tasks at once, which step together.

    Args:
        config: what to do.
        compute: where.
        envs: of the tasks, in the configuration's order; the state owns them from now on.

    Raises:
        ConfigError: if convolutions are to be shared by a network that has none, or the replays
            do not fit.
    """

    def __init__(
        self, config: MultitaskDQNConfig, compute: Compute, envs: Sequence[VectorEnv]
    ) -> None:
        settings = config.learner
        self.total_steps = config.total_steps
        self._config = config
        self._settings = settings
        self._compute = compute
        self.network = fresh_student(config, envs, scores_are_logits=False)
        compute.place(self.network)
        self._workers = compute.workers()
        self._learner = MultitaskDQNLearner(
            self.network,
            dqn_optimizer(settings, self.network),
            double=settings.double,
            target_period_updates=settings.target_period_updates,
            max_gradient_norm=settings.max_gradient_norm,
            workers=self._workers,
        )
        layouts = [replay_layout(env, settings.replay_capacity_steps) for env in envs]
        self._games = Lockstep(config, envs, layouts, compute.device)
        self.recent = self._games.recent
        self.replay_bytes = self._games.replay_bytes

    @property
    def steps(self) -> int:
        """Over all tasks."""
        return self._games.steps

    @property
    def updates(self) -> int:
        """Optimiser steps so far."""
        return self._learner.updates

    @property
    def acting(self) -> Student:
        """The network as it is to be called."""
        return self._learner.working.network

    def start(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Measures what the network's backgrounds are, and resets the environments."""
        see_backgrounds(self.network, self._config, self._compute.threads, stop)
        self._games.rollout.start()

    def advance(self) -> dict[str, Tensor | float]:
        """As many steps as one update waits for, and the update; or one step, and its updates."""
        settings = self._settings
        metrics: dict[str, Tensor | float] = {}
        steps_of_each = self.steps // len(self._config.tasks)
        epsilon = epsilon_at(settings, steps_of_each, self._config.steps_per_task)
        for turn in range(settings.turns_per_update):
            self._games.rollout.send(self._greedy(), epsilon)
            # Updates run beside the emulators, on what the replays held before this step.
            if turn == 0 and self._games.steps_of_each >= settings.learning_starts_steps:
                updates = [self._update() for _ in range(settings.updates_per_turn)]
                metrics |= mean_metrics(updates)
            self._games.receive()
        return {**metrics, "epsilon": epsilon, "learning_rate": settings.learning_rate}

    def snapshot(self) -> Snapshot:
        """Network, optimiser, environments, generators, counters, replays."""
        moments, learner = self._learner.state_dict()
        return self._games.snapshot(
            {"model": self.network.state_dict(), "optimizer": moments}, {"learner": learner}
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
        self._learner.load_state_dict(tensors["optimizer"], state["learner"])
        self._games.restore(tensors, state, replays)

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Plays the unfinished games of a snapshot again."""
        self._games.rollout.catch_up(stop)

    def close(self) -> None:
        """Stops the emulators."""
        self._games.close()

    def _greedy(self) -> Int64[np.ndarray, " envs"]:
        """The best action of each environment, one task after the other."""
        obs = self._games.rollout.task_observations

        @torch.no_grad()  # it holds for the thread that calls
        def best(rows: slice) -> list[Tensor]:
            """Some environments of every task."""
            outputs = self._learner.working.network.play_all([part[rows] for part in obs])
            return [output.scores.argmax(dim=1) for output in outputs]

        parts = self._workers.map(best, self._settings.num_envs)
        return torch.cat([torch.cat(task) for task in zip(*parts, strict=True)]).cpu().numpy()

    def _update(self) -> dict[str, Tensor]:
        settings = self._settings
        return self._learner.update(
            self._games.draw(
                lambda replay, rng: replay.sample_transitions(
                    settings.batch_size, n_step=settings.n_step, gamma=settings.gamma, rng=rng
                )
            )
        )
