"""What a game looks like when nothing in particular happens: the mean frame of random play.

Most of a frame is the same at all times, and the constant part of what a network makes of it is
many times as large as the part that tells one situation from another: 98 % of the first layer's
output on Boxing, 99 % on Pong. While there is little to learn, a network with norms then learns to
give the same values to everything, and its hidden units die: docs/decisions/0011.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from actor_mimic.config import Config, tasks_of
from actor_mimic.envs.make import make_envs
from actor_mimic.errors import Interrupted
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.protocols import Protocol, protocol_named
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import derive_seed, numpy_generator

NUM_ENVS = 8
STEPS = 1_000  # of each environment; a game of Boxing has 1,800
EVERY = 5  # neighbours are much the same


@torch.no_grad()
def see_backgrounds(
    network: QNetwork | Student,
    config: Config,
    num_threads: int,
    stop: Callable[[], int | None],
) -> None:
    """Gives a network that is to be centred what it takes away from the frames of its tasks.

    It takes some seconds a task, so it is not done for weights that are to be loaded.

    Args:
        network: a student of the configuration's tasks, in their order, or a network of its one.
        config: of the run.
        num_threads: of the emulators.
        stop: as `mean_frames` has it.

    Raises:
        Interrupted: if a stop was asked for.
    """
    if isinstance(network, Student):
        backgrounds = network.backgrounds
    else:
        backgrounds = network.torso.background if network.torso.spec.centred else None
    if backgrounds is None:
        return
    protocol = protocol_named(config.protocol)
    looks = mean_frames(
        tasks_of(config), seed=config.seed, protocol=protocol, num_threads=num_threads, stop=stop
    )
    backgrounds.copy_(torch.stack(looks).view_as(backgrounds))


def mean_frames(
    tasks: Sequence[str],
    *,
    seed: int,
    protocol: Protocol,
    num_threads: int = 1,
    stop: Callable[[], int | None] = lambda: None,
) -> list[Float32[Tensor, "height width"]]:
    """The mean of the frames that random play sees, scaled to 0..1, of each task.

    Args:
        tasks: whose observations are images; they are played side by side.
        seed: of the games, which nothing else is played with.
        protocol: how games start.
        num_threads: that the emulators share.
        stop: asked after every step; the number of a signal, or None.

    Raises:
        Interrupted: if a stop was asked for.
    """
    with ExitStack() as made:
        envs = [
            made.enter_context(
                closing(
                    make_envs(
                        task,
                        num_envs=NUM_ENVS,
                        run_seed=derive_seed(seed, "background"),
                        protocol=protocol,
                        num_threads=max(1, num_threads // len(tasks)),
                    )
                )
            )
            for task in tasks
        ]
        rngs = [numpy_generator(seed, task, "background") for task in tasks]
        rollout = Rollout(envs, life_loss_is_terminal=False, rngs=rngs)
        totals = [np.zeros(env.frame_shape, dtype=np.float64) for env in envs]
        rollout.start()
        for step in range(STEPS):
            signal_number = stop()
            if signal_number is not None:
                raise Interrupted(signal_number)
            rollout.send(np.zeros(rollout.num_envs, dtype=np.int64), epsilon=1.0)
            transitions = rollout.recv()
            rollout.take_finished()
            if step % EVERY == 0:
                for total, transition in zip(totals, transitions, strict=True):
                    np.add(total, transition.frames.mean(axis=0), out=total)
    return [torch.from_numpy(total / (STEPS / EVERY) / 255.0).float() for total in totals]
