"""What a game looks like when nothing in particular happens: the mean frame of random play.

Most of a frame is the same at all times, and the constant part of what a network makes of it is
many times as large as the part that tells one situation from another: 98 % of the first layer's
output on Boxing, 99 % on Pong. While there is little to learn, a network with norms then learns to
give the same values to everything, and its hidden units die: docs/decisions/0011.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from actor_mimic.envs.make import make_envs
from actor_mimic.errors import Interrupted
from actor_mimic.protocols import Protocol
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import derive_seed, numpy_generator

NUM_ENVS = 8
STEPS = 1_000  # of each environment; a game of Boxing has 1,800
EVERY = 5  # neighbours are much the same


def mean_frame(
    task: str, *, seed: int, protocol: Protocol, stop: Callable[[], int | None] = lambda: None
) -> Float32[Tensor, "height width"]:
    """The mean of the frames that random play sees, scaled to 0..1; takes some seconds.

    Args:
        task: whose observations are images.
        seed: of the games, which nothing else is played with.
        protocol: how games start.
        stop: asked after every step; the number of a signal, or None.

    Raises:
        Interrupted: if a stop was asked for.
    """
    env = make_envs(
        task,
        num_envs=NUM_ENVS,
        run_seed=derive_seed(seed, "background"),
        protocol=protocol,
        num_threads=1,
    )
    rollout = Rollout(
        [env], life_loss_is_terminal=False, rngs=[numpy_generator(seed, task, "background")]
    )
    total = np.zeros(env.frame_shape, dtype=np.float64)
    try:
        rollout.start()
        for step in range(STEPS):
            signal_number = stop()
            if signal_number is not None:
                raise Interrupted(signal_number)
            rollout.send(np.zeros(NUM_ENVS, dtype=np.int64), epsilon=1.0)
            (transition,) = rollout.recv()
            rollout.take_finished()
            if step % EVERY == 0:
                total += transition.frames.mean(axis=0)
    finally:
        rollout.close()
    return torch.from_numpy(total / (STEPS / EVERY) / 255.0).float()
