"""Stage: one network learns one task by reinforcement, with replay (DQN) or without (PQN)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.config import ExpertConfig, TransferConfig
from actor_mimic.envs.vector_step import VectorEnv, observation_shape
from actor_mimic.exploration import spread_argmax
from actor_mimic.learner_config import DQNConfig, PQNConfig
from actor_mimic.learners.dqn import DQNLearner
from actor_mimic.learners.pqn import PQNLearner, Trajectories
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.protocols import protocol_named
from actor_mimic.rollout import Rollout
from actor_mimic.schedules import linear
from actor_mimic.seeding import numpy_generator, torch_generator
from actor_mimic.stages.background import see_backgrounds
from actor_mimic.stages.configured import dqn_optimizer, epsilon_at, torso_spec
from actor_mimic.stages.env_groups import EnvGroups
from actor_mimic.stages.lockstep import Lockstep
from actor_mimic.stages.replays import replay_layout
from actor_mimic.stages.training import RecentEpisodes, Snapshot, mean_metrics


@torch.no_grad()
def fresh_network(config: ExpertConfig | TransferConfig, env: VectorEnv) -> QNetwork:
    """A randomly initialised network for the task; the run's seed decides the weights.

    A centred one has no background yet (see `see_backgrounds`), and its outputs begin at zero
    (deviation 46). That of a transfer is as large as a student's, with which it will be compared.
    """
    learner = config.learner
    shape, as_student = observation_shape(env), isinstance(config, TransferConfig)
    network = QNetwork(
        torso_spec(config.network, shape, shared=as_student),
        len(env.action_names),
        num_quantiles=learner.num_quantiles if isinstance(learner, DQNConfig) else 1,
        generator=torch_generator(config.seed, config.task, "network"),
    )
    if network.torso.spec.centred:
        # Values that differ at random are an error, and the first thing that is learnt is to make
        # them equal, at the cost of what tells observations apart.
        network.head.weight.zero_()
        network.head.bias.zero_()
    return network


def expert_state(
    config: ExpertConfig | TransferConfig,
    compute: Compute,
    envs: Sequence[VectorEnv],
    network: QNetwork,
) -> "PQNState | DQNState":
    """The state of an expert or a transfer before its first step.

    Args:
        config: what to do.
        compute: where; the network is moved there.
        envs: the task's, as `make_task_envs` gives them; the state owns them from now on.
        network: what to start from.

    Raises:
        ConfigError: if the replay does not fit into memory.
    """
    compute.place(network)
    if isinstance(config.learner, PQNConfig):
        return PQNState(config, config.learner, compute, envs, network)
    (env,) = envs
    return DQNState(config, config.learner, compute, env, network)


class PQNState:
    """Parallel Q-learning: rollouts of all environments, then a few epochs on each."""

    def __init__(
        self,
        config: ExpertConfig | TransferConfig,
        settings: PQNConfig,
        compute: Compute,
        envs: Sequence[VectorEnv],
        network: QNetwork,
    ) -> None:
        self.network = network
        self.total_steps = config.total_steps
        self.steps = 0
        self.recent = RecentEpisodes([config.task])
        self.replay_bytes = 0
        self._config = config
        self._settings = settings
        self._compute = compute
        self._workers = compute.workers()
        self._groups = EnvGroups(
            [_make_rollout(config, env, compute, group) for group, env in enumerate(envs)]
        )
        self._learner = PQNLearner(
            network,
            learning_rate=settings.learning_rate,
            gamma=settings.gamma,
            lam=settings.lam,
            epochs=settings.epochs,
            minibatch_size=settings.minibatch_size,
            max_gradient_norm=settings.max_gradient_norm,
            rng=numpy_generator(config.seed, config.task, "minibatches"),
            workers=self._workers,
            fixed_shape=compute.fixed_shape,
        )
        self._trajectories = Trajectories(
            settings.rollout_steps, settings.num_envs, self._groups.rollouts[0].observations
        )

    @property
    def updates(self) -> int:
        """Optimiser steps so far."""
        return self._learner.updates

    @property
    def acting(self) -> QNetwork:
        """The network as it is to be called."""
        return self._learner.working.network

    def start(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Measures what the network's background is, and resets the environments."""
        see_backgrounds(self.network, self._config, self._compute.threads, stop)
        self._groups.start()

    def advance(self) -> dict[str, Tensor | float]:
        """One rollout and the epochs on it."""
        settings = self._settings
        epsilon = epsilon_at(settings, self.steps, self.total_steps)
        self._groups.play(
            settings.rollout_steps, partial(self._act, epsilon=epsilon), self._take_in
        )
        last_values = torch.cat(
            [self._scores(group.observations).amax(dim=1) for group in self._groups.rollouts]
        )
        rate = linear(
            min(self.steps, self.total_steps),
            start=settings.learning_rate,
            end=0.0,
            duration_steps=self.total_steps,
        )
        self.steps += settings.rollout_steps * settings.num_envs
        self.recent.extend(self._groups.take_finished())
        metrics = self._learner.update(self._trajectories, last_values, learning_rate=rate)
        return {**metrics, "epsilon": epsilon, "learning_rate": rate}

    def snapshot(self) -> Snapshot:
        """Network, optimiser, environments, generators, counters."""
        moments, learner = self._learner.state_dict()
        tensors, rollout = self._groups.state_dict()
        return Snapshot(
            {"model": self.network.state_dict(), "optimizer": moments, "rollout": tensors},
            {
                "steps": self.steps,
                "learner": learner,
                "rollout": rollout,
                "recent": self.recent.state_dict(),
            },
        )

    def restore(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        replays: Mapping[str, Iterable[Mapping[str, Tensor]]],
    ) -> None:
        """Goes back to where a snapshot was taken, but for the environments: see `catch_up`."""
        assert not replays, "PQN keeps no replay"
        self.network.load_state_dict(tensors["model"])
        self._learner.load_state_dict(tensors["optimizer"], state["learner"])
        self._groups.load_state_dict(tensors["rollout"], state["rollout"])
        self.recent.load_state_dict(state["recent"])
        self.steps = int(state["steps"])

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Plays the unfinished games of a snapshot again."""
        self._groups.catch_up(stop)

    def close(self) -> None:
        """Stops the emulators."""
        self._groups.close()

    def _act(self, group: int, time: int, epsilon: float) -> None:
        """Starts a step of a group's environments."""
        rollout, rows = self._groups.rollouts[group], self._groups.rows(group)
        store = self._trajectories
        scores = self._workers.infer(
            lambda obs: self._learner.forward(obs).scores, rollout.observations
        )
        rollout.send(spread_argmax(scores.cpu().numpy(), first=rows.start), epsilon)
        # Beside the emulators, and before `recv` overwrites what was seen.
        store.put_observations(time, rows, rollout.observations)
        store.values[time, rows] = scores.amax(dim=1)

    def _take_in(self, group: int, time: int) -> None:
        """What came of the step that `_act` started."""
        rows, store = self._groups.rows(group), self._trajectories
        (transition,) = self._groups.rollouts[group].recv()
        store.actions[time, rows] = transition.actions
        store.rewards[time, rows] = transition.rewards
        store.terminal[time, rows] = transition.terminal
        store.cut[time, rows] = transition.truncated
        if transition.truncated.any():
            cut = torch.from_numpy(rows.start + np.flatnonzero(transition.truncated))
            final = self._scores(transition.final_observations).amax(dim=1)
            store.cut_values[time, cut.to(final.device)] = final

    def _scores(self, obs: Shaped[Tensor, "rows ..."]) -> Float[Tensor, "rows actions"]:
        network = self._learner.working.network
        return self._workers.infer(lambda rows: network(rows).scores, obs)


class DQNState:
    """Deep Q-learning: environments fill a replay, the learner samples from it."""

    def __init__(
        self,
        config: ExpertConfig | TransferConfig,
        settings: DQNConfig,
        compute: Compute,
        env: VectorEnv,
        network: QNetwork,
    ) -> None:
        self.network = network
        self.total_steps = config.total_steps
        self._config = config
        self._settings = settings
        self._compute = compute
        self._workers = compute.workers()
        self._learner = DQNLearner(
            network,
            dqn_optimizer(settings, network),
            double=settings.double,
            target_period_updates=settings.target_period_updates,
            max_gradient_norm=settings.max_gradient_norm,
            workers=self._workers,
            fixed_shape=compute.fixed_shape,
        )
        layout = replay_layout(env, settings.replay_capacity_steps)
        self._games = Lockstep(config, [env], [layout], compute.device)
        self._rollout = self._games.rollout
        self.recent = self._games.recent
        self.replay_bytes = self._games.replay_bytes

    @property
    def steps(self) -> int:
        """Over all environments."""
        return self._games.steps

    @property
    def updates(self) -> int:
        """Optimiser steps so far."""
        return self._learner.updates

    @property
    def acting(self) -> QNetwork:
        """The network as it is to be called."""
        return self._learner.working.network

    def start(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Measures what the network's background is, and resets the environments."""
        see_backgrounds(self.network, self._config, self._compute.threads, stop)
        self._rollout.start()

    def advance(self) -> dict[str, Tensor | float]:
        """As many steps as one update waits for, and the update; or one step, and its updates."""
        settings = self._settings
        metrics: dict[str, Tensor | float] = {}
        epsilon = epsilon_at(settings, self.steps, self.total_steps)
        for turn in range(settings.turns_per_update):
            self._rollout.send(self._greedy(), epsilon)
            # Updates run beside the emulators, on what the replay held before this step.
            if turn == 0 and self._games.steps_of_each >= settings.learning_starts_steps:
                updates = [self._update() for _ in range(settings.updates_per_turn)]
                metrics |= mean_metrics(updates)
            self._games.receive()
        return {**metrics, "epsilon": epsilon, "learning_rate": settings.learning_rate}

    def snapshot(self) -> Snapshot:
        """Network, optimiser, environments, generators, counters, replay."""
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

        Without a replay it starts to refill one.
        """
        self.network.load_state_dict(tensors["model"])
        self._learner.load_state_dict(tensors["optimizer"], state["learner"])
        self._games.restore(tensors, state, replays)

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Plays the unfinished games of a snapshot again."""
        self._rollout.catch_up(stop)

    def close(self) -> None:
        """Stops the emulators."""
        self._games.close()

    def _greedy(self) -> Int64[Any, " envs"]:
        obs = self._rollout.observations
        network = self._learner.working.network
        return spread_argmax(
            self._workers.infer(lambda rows: network(rows).scores, obs).cpu().numpy()
        )

    def _update(self) -> dict[str, Tensor]:
        settings = self._settings
        (batch,) = self._games.draw(
            lambda replay, rng: replay.sample_transitions(
                settings.batch_size, n_step=settings.n_step, gamma=settings.gamma, rng=rng
            )
        )
        return self._learner.update(
            obs=batch.obs,
            actions=batch.actions,
            returns=batch.returns,
            next_obs=batch.next_obs,
            discounts=batch.discounts,
        )


def _make_rollout(
    config: ExpertConfig | TransferConfig, env: VectorEnv, compute: Compute, group: int
) -> Rollout:
    stream = ("exploration", group) if group else ("exploration",)
    return Rollout(
        [env],
        life_loss_is_terminal=protocol_named(config.protocol).life_loss_ends_training_episodes,
        rngs=[numpy_generator(config.seed, config.task, *stream)],
        device=compute.device,
    )
