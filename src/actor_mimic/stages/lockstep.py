"""The games of one network: they step together, and each has a replay of its own.

::

    network --acts in all of them--> game i --frame--> replay i --equal batch of each--> network
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.config import Config, SeveralTasks, tasks_of
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import VectorEnv, closed_on_error, observation_shape
from actor_mimic.errors import ConfigError
from actor_mimic.networks.student import Student
from actor_mimic.protocols import protocol_named
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import (
    generator_state,
    numpy_generator,
    restore_generator,
    torch_generator,
)
from actor_mimic.stages.configured import torso_spec
from actor_mimic.stages.replays import add_transition, make_replays
from actor_mimic.stages.training import RecentEpisodes, Snapshot

Batch = TypeVar("Batch")


class Lockstep:
    """Collects from several tasks at once, and remembers.

    Args:
        config: whose seed, tasks and protocol they are.
        envs: one object per task, in the configuration's order.
        layouts: what the replay of each task is made of; see `replay_layout`.
        device: of the learner: stacks of frames are kept there, and replays where they fit.

    Attributes:
        rollout: plays them.
        replays: one per task.
        recent: scores of the games that have ended.
        steps: over all tasks.

    Raises:
        ConfigError: if the replays do not fit into memory.
    """

    def __init__(
        self,
        config: Config,
        envs: Sequence[VectorEnv],
        layouts: Sequence[Mapping[str, Any]],
        device: str,
    ) -> None:
        tasks = tasks_of(config)
        self.steps = 0
        self.recent = RecentEpisodes(tasks)
        self.rollout = Rollout(
            envs,
            life_loss_is_terminal=protocol_named(config.protocol).life_loss_ends_training_episodes,
            rngs=[numpy_generator(config.seed, task, "exploration") for task in tasks],
            device=device,
        )
        self.replays = make_replays(layouts, device)
        self._rngs = [numpy_generator(config.seed, task, "replay") for task in tasks]

    @property
    def replay_bytes(self) -> int:
        """Memory of all replays when they are full."""
        return sum(replay.nbytes for replay in self.replays)

    @property
    def steps_of_each(self) -> int:
        """Steps that every replay has been given."""
        return min(replay.steps_added for replay in self.replays)

    def receive(self, labels: Sequence[Mapping[str, Tensor]] | None = None) -> None:
        """Takes in the step that was sent: into the replays, with its labels if it has any."""
        none: list[Mapping[str, Tensor]] = [{}] * len(self.replays)
        for replay, transition, label in zip(
            self.replays, self.rollout.recv(), labels or none, strict=True
        ):
            add_transition(replay, transition, **label)
        self.steps += self.rollout.num_envs
        self.recent.extend(self.rollout.take_finished())

    def draw(self, sample: Callable[[FrameReplay, np.random.Generator], Batch]) -> list[Batch]:
        """What a function draws from each replay, with the generator that belongs to it."""
        return [sample(*pair) for pair in zip(self.replays, self._rngs, strict=True)]

    def snapshot(
        self, tensors: Mapping[str, dict[str, Tensor]], state: Mapping[str, Any]
    ) -> Snapshot:
        """A stage's tensors and data, and beside them all that is needed to go on from here."""
        pieces, rollout = self.rollout.state_dict()
        return Snapshot(
            {**tensors, "rollout": pieces},
            {
                **state,
                "steps": self.steps,
                "rollout": rollout,
                "recent": self.recent.state_dict(),
                "replay_rngs": [generator_state(rng) for rng in self._rngs],
            },
            {_name(index): replay for index, replay in enumerate(self.replays)},
        )

    def restore(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        replays: Mapping[str, Iterable[Mapping[str, Tensor]]],
    ) -> None:
        """Goes back to where a snapshot was taken, but for the environments, which catch up later.

        Without replays it starts to refill them.
        """
        self.rollout.load_state_dict(tensors["rollout"], state["rollout"])
        self.recent.load_state_dict(state["recent"])
        self._rngs = [restore_generator(rng) for rng in state["replay_rngs"]]
        self.steps = int(state["steps"])
        for index, replay in enumerate(self.replays):
            if _name(index) in replays:
                replay.restore(replays[_name(index)])

    def close(self) -> None:
        """Stops the emulators."""
        self.rollout.close()


def make_all_envs(config: SeveralTasks, envs_per_task: int, compute: Compute) -> list[VectorEnv]:
    """The environments of every task, which share the threads among them.

    Raises:
        ConfigError: if images of different shapes, or images and vectors, are to share a student.
    """
    # Several games share the cores: with all threads each, they would fight for them.
    threads = max(1, compute.threads // len(config.tasks))
    envs: list[VectorEnv] = []
    with closed_on_error(envs):
        for task in config.tasks:
            envs.append(
                make_envs(
                    task,
                    num_envs=envs_per_task,
                    run_seed=config.seed,
                    protocol=protocol_named(config.protocol),
                    num_threads=threads,
                )
            )
        shapes = {env.task: env.frame_shape for env in envs}
        if len(set(shapes.values())) > 1 and any(len(shape) > 1 for shape in shapes.values()):
            raise ConfigError(
                "the tasks of one student must all give vectors, or all images of one shape, "
                f"got {shapes}"
            )
    return envs


def fresh_student(
    config: SeveralTasks, envs: Sequence[VectorEnv], *, scores_are_logits: bool
) -> Student:
    """A randomly initialised student of all tasks; the run's seed decides the weights.

    One that is to be centred has no backgrounds yet: see `see_backgrounds`.
    """
    shapes = [env.frame_shape for env in envs]
    return Student(
        torso_spec(config.network, observation_shape(envs[0]), shared=True),
        {env.task: env.action_names for env in envs},
        generator=torch_generator(config.seed, "student"),
        head=config.head,
        # Where lengths differ, each task needs an encoder.
        vectors=[] if len(set(shapes)) == 1 else [length for (length,) in shapes],
        scores_are_logits=scores_are_logits,
    )


def _name(index: int) -> str:
    return f"task-{index:02d}"
