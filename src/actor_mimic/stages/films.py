"""Films of a policy at play, in the game's own colours."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from actor_mimic.envs.make import make_envs
from actor_mimic.errors import UnavailableError
from actor_mimic.protocols import Protocol
from actor_mimic.rollout import Rollout
from actor_mimic.seeding import derive_seed, numpy_generator
from actor_mimic.stages.evaluate import Act

EMULATOR_FRAMES_PER_S = 60
MACRO_BLOCK = 2  # H.264 wants even sides


def record_film(
    act: Act,
    task: str,
    path: Path,
    *,
    protocol: Protocol,
    epsilon: float,
    seed: int,
    max_steps: int,
) -> Generator[tuple[int, float | None]]:
    """Plays one game and films it; yields the steps so far and, once the game is over, its score.

    Args:
        act: the policy.
        task: what to play.
        path: an MP4 file; an existing one is replaced.
        protocol: how the game starts and how noisy it is.
        epsilon: probability of a random action at each step.
        seed: of the game and of epsilon.
        max_steps: the film ends here if the game does not.

    Raises:
        UnavailableError: if imageio-ffmpeg is not installed.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise UnavailableError(
            "films need imageio-ffmpeg; install it with: pip install 'actor-mimic[video]'"
        ) from error
    env = make_envs(
        task,
        num_envs=1,
        run_seed=derive_seed(seed, "film"),
        protocol=protocol,
        with_picture=True,
    )
    rollout = Rollout(
        [env], life_loss_is_terminal=False, rngs=[numpy_generator(seed, task, "film")]
    )
    rollout.start()
    picture = _even(env.picture())
    temporary = path.with_name(f".{path.name}.partial{path.suffix}")
    writer: Any = imageio_ffmpeg.write_frames(
        str(temporary),
        (picture.shape[1], picture.shape[0]),
        fps=EMULATOR_FRAMES_PER_S // env.frame_skip,
        macro_block_size=MACRO_BLOCK,
    )
    writer.send(None)
    try:
        for step in range(max_steps):
            writer.send(np.ascontiguousarray(picture))
            rollout.send(act(rollout.observations), epsilon)
            rollout.recv()
            finished = rollout.take_finished()
            picture = _even(env.picture())
            yield step + 1, finished[0].score if finished else None
            if finished:
                break
        writer.close()
        temporary.replace(path)
    finally:
        writer.close()
        rollout.close()
        temporary.unlink(missing_ok=True)


def _even(picture: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    height, width = picture.shape[:2]
    return picture[: height - height % MACRO_BLOCK, : width - width % MACRO_BLOCK]
