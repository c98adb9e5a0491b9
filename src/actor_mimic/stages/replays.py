"""The replays of a stage: what they are made of, what they may take, how a step gets into one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actor_mimic.compute import free_bytes, require_memory
from actor_mimic.envs.vector_step import VectorEnv
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.rollout import Transition

FRAME_DTYPES = {np.uint8: torch.uint8, np.float32: torch.float32}


def replay_layout(
    env: VectorEnv, capacity_steps: int, *, label_scores: int = 0, label_features: int = 0
) -> dict[str, Any]:
    """What `FrameReplay` is made of for a task's observations."""
    return {
        "num_envs": env.num_envs,
        "capacity_steps": capacity_steps,
        "frame_shape": env.frame_shape,
        "frame_dtype": FRAME_DTYPES[env.frame_dtype],
        "stack_size": env.stack_size,
        "label_scores": label_scores,
        "label_features": label_features,
    }


def make_replays(layouts: Sequence[Mapping[str, Any]], device: str) -> list[FrameReplay]:
    """The replays of a stage, under one budget.

    Main memory is taken only as steps arrive, so that each alone would seem to fit.

    Args:
        layouts: of each; see `replay_layout`.
        device: of the learner. Frames that are kept there need not travel again for every batch
            that has them; see `place_of_replays`.

    Raises:
        ConfigError: if together they would not fit into main memory either.
    """
    needed = sum(FrameReplay.bytes_needed(**layout) for layout in layouts)
    place = place_of_replays(needed, f"the replay of {len(layouts)} task(s)", device)
    return [FrameReplay(**layout, device=place) for layout in layouts]


def place_of_replays(needed_bytes: int, purpose: str, device: str) -> str:
    """Where frames are to be kept: on the device, if they leave half of it free, or in main memory.

    Raises:
        ConfigError: if they fit into neither.
    """
    if free_bytes(device) < 2 * needed_bytes:
        device = "cpu"
    require_memory(needed_bytes, purpose, device=device)
    return device


def add_transition(replay: FrameReplay, transition: Transition, **labels: Tensor) -> None:
    """Puts one step of all environments into the replay."""
    replay.add(
        transition.frames,
        transition.actions,
        transition.rewards,
        transition.terminal,
        transition.truncated,
        transition.first,
        final_frames=transition.final_frames,
        **labels,
    )
