"""Images of any Gymnasium environment as those of Atari are: grey, 84 x 84."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import GrayscaleObservation, ReshapeObservation, ResizeObservation

from actor_mimic.errors import UnavailableError

IMAGE_SHAPE = (84, 84)  # as on Atari, so that every network reads both


def is_image(space: Any) -> bool:
    """Whether it is one of grey or RGB images in bytes."""
    return (
        isinstance(space, Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
        and space.shape[2:] in ((), (1,), (3,))
        and bool(np.all(space.low == 0) and np.all(space.high == 255))
    )


def in_grey(env: Any) -> Any:
    """An environment of images with grey ones of 84 x 84; any other as it is.

    Raises:
        UnavailableError: if they are of another size, and OpenCV is not installed.
    """
    space = env.observation_space
    if not is_image(space):
        return env
    if space.shape[2:] == (3,):
        env = GrayscaleObservation(env)
    elif space.shape[2:] == (1,):
        env = ReshapeObservation(env, space.shape[:2])
    if space.shape[:2] == IMAGE_SHAPE:
        return env
    try:
        return ResizeObservation(env, IMAGE_SHAPE)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UnavailableError(
            f"images of {space.shape[0]} x {space.shape[1]} are resized by OpenCV, which is not "
            "installed; install it with: pip install 'actor-mimic[images]'"
        ) from error
