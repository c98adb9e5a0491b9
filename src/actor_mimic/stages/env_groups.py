"""Groups of one task's environments that do not wait for each other within a rollout.

A step takes a hundred times as long where a game has to be started anew, and of many games one
nearly always has. The order in which groups answer has no influence on what comes of it: the
network rests meanwhile, and each group has games and random numbers of its own::

    emulators of group 0   | step | step | step, reset ......... | step |
    emulators of group 1          | step | step | step | step |     (done)
    the caller's thread    act  act act act act act act act  ... act
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from torch import Tensor

from actor_mimic.compute import Compute
from actor_mimic.config import ExpertConfig, TransferConfig
from actor_mimic.envs.make import make_envs
from actor_mimic.envs.vector_step import (
    VectorEnv,
    catch_up_all,
    close_all,
    closed_on_error,
)
from actor_mimic.errors import ConfigError
from actor_mimic.learner_config import PQNConfig
from actor_mimic.protocols import protocol_named
from actor_mimic.rollout import Episode, Rollout
from actor_mimic.seeding import derive_seed
from actor_mimic.tasks import is_atari


def make_task_envs(config: ExpertConfig | TransferConfig, compute: Compute) -> list[VectorEnv]:
    """The environments that a configuration asks for, in equal groups that share the threads.

    Raises:
        ConfigError: if there are to be several groups of what is not made to run in threads.
    """
    learner = config.learner
    groups = learner.env_groups if isinstance(learner, PQNConfig) else 1
    if groups > 1 and not is_atari(config.task):
        raise ConfigError(
            f"env_groups must be 1 for {config.task}, got {groups}: only Atari's emulators run in "
            "threads of their own"
        )
    envs: list[VectorEnv] = []
    with closed_on_error(envs):
        for group in range(groups):
            envs.append(
                make_envs(
                    config.task,
                    num_envs=learner.num_envs // groups,
                    run_seed=derive_seed(config.seed, "group", group) if group else config.seed,
                    protocol=protocol_named(config.protocol),
                    num_threads=max(1, compute.threads // groups),
                )
            )
    return envs


class EnvGroups:
    """Equal groups, each a rollout; a single one is played without any threads.

    Args:
        rollouts: one per group, with equally many environments.

    Attributes:
        rollouts: the same.
    """

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self.rollouts = list(rollouts)
        self._size = rollouts[0].num_envs
        self._pool = ThreadPoolExecutor(len(rollouts), "emulators") if len(rollouts) > 1 else None

    def rows(self, group: int) -> slice:
        """Of a group's environments among all."""
        return slice(group * self._size, (group + 1) * self._size)

    def start(self) -> None:
        """Resets every environment."""
        started = (map if self._pool is None else self._pool.map)(Rollout.start, self.rollouts)
        for _ in started:
            pass  # raises what went wrong there

    def play(
        self,
        num_steps: int,
        act: Callable[[int, int], None],
        take_in: Callable[[int, int], None],
    ) -> None:
        """Steps every environment so many times.

        Args:
            num_steps: of each.
            act: sends a group's step; called with the group and the step, in this thread.
            take_in: receives it; likewise, once there is nothing to wait for.

        Raises:
            Exception: what an environment raises, when the others have answered.
        """
        if self._pool is None:
            for step in range(num_steps):
                act(0, step)
                take_in(0, step)
            return
        steps = [0] * len(self.rollouts)
        playing: dict[Future[None], int] = {}
        ready = list(range(len(self.rollouts)))
        try:
            while ready or playing:
                for group in ready:
                    act(group, steps[group])
                    playing[self._pool.submit(self.rollouts[group].wait)] = group
                done, _ = wait(playing, return_when=FIRST_COMPLETED)
                answered = [(playing.pop(future), future.result()) for future in done]
                ready = []
                for group, _ in answered:
                    take_in(group, steps[group])
                    steps[group] += 1
                    if steps[group] < num_steps:
                        ready.append(group)
        finally:
            wait(playing)  # nobody may still be at an environment that is about to be closed

    def take_finished(self) -> list[Episode]:
        """Games that ended since the last call, group by group."""
        return [episode for rollout in self.rollouts for episode in rollout.take_finished()]

    def state_dict(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """What `Rollout.state_dict` says of every group: tensors by ``GROUP.NAME``, and a list."""
        tensors, states = zip(*(rollout.state_dict() for rollout in self.rollouts), strict=True)
        return {
            f"{group}.{name}": tensor
            for group, pieces in enumerate(tensors)
            for name, tensor in pieces.items()
        }, list(states)

    def load_state_dict(
        self, tensors: Mapping[str, Tensor], states: Sequence[Mapping[str, Any]]
    ) -> None:
        """Goes back to where `state_dict` was taken, but for the environments: see `catch_up`.

        Raises:
            DataError: if it was taken from another number of tasks or environments.
        """
        for group, rollout in enumerate(self.rollouts):
            prefix = f"{group}."
            pieces = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            rollout.load_state_dict(pieces, states[group])

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Brings the environments to a state that was loaded; see `catch_up_all`."""
        catch_up_all([env for rollout in self.rollouts for env in rollout.envs], stop)

    def close(self) -> None:
        """Closes the environments, each even if another fails to."""
        if self._pool is not None:
            self._pool.shutdown()  # waits: nobody may be at an environment any more
        close_all(self.rollouts)
