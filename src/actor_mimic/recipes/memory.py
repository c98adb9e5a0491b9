"""What the replays of a recipe's stages will take, known before the first of them starts."""

import functools
from collections.abc import Callable, Iterable

import torch

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.compute import require_memory
from actor_mimic.config import Config, DistillConfig, EvaluateConfig, MultitaskDQNConfig
from actor_mimic.envs.atari import AtariEnvs
from actor_mimic.envs.make import describe_task
from actor_mimic.learner_config import DQNConfig
from actor_mimic.networks.torsos import SHAPES
from actor_mimic.recipes.recipe import Job
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.storage.run_dir import is_complete
from actor_mimic.tasks import is_atari


def check_memory(jobs: Iterable[Job], notice: Callable[[str], None]) -> None:
    """Says which stage will take the most memory for its replay; refuses what cannot fit.

    Stages run one after the other, so the largest one counts. The last of thirteen experts is a
    bad moment to learn that their student does not fit.

    Raises:
        ConfigError: if the largest replay does not fit into memory.
    """
    sizes = {job.title: replay_bytes(job.config) for job in jobs if not is_complete(job.path)}
    title = max(sizes, key=lambda name: sizes[name], default=None)
    if title is None or not sizes[title]:
        return
    notice(f"memory: the replay of {title} will take up to {sizes[title] / 2**30:.2f} GiB")
    require_memory(sizes[title], f"the replay of {title}")


def replay_bytes(config: Config | EvaluateConfig) -> int:
    """Memory of a stage's replays of images; vectors are too small to count.

    Teachers are taken to be as wide as the student, which is known before they exist.
    """
    if isinstance(config, DistillConfig):
        kind = config.network.network
        shape = SHAPES["nature" if kind == "auto" else kind]
        features = round(shape.hidden[-1] * config.network.width)
        return _games(config.tasks) * _bytes(
            config.envs_per_task,
            config.replay_capacity_steps,
            label_scores=len(ATARI_ALPHABET),
            label_features=features if config.feature_weight else 0,
        )
    if isinstance(config, MultitaskDQNConfig):
        learner = config.learner
        each = _bytes(learner.num_envs, learner.replay_capacity_steps)
        return _games(config.tasks) * each
    if isinstance(config, EvaluateConfig):
        return 0
    learner = config.learner
    if not isinstance(learner, DQNConfig) or not _shows_images(config.task):
        return 0
    return _bytes(learner.num_envs, learner.replay_capacity_steps)


def _games(tasks: Iterable[str]) -> int:
    return sum(map(_shows_images, tasks))


@functools.cache
def _shows_images(task: str) -> bool:
    """Whether it does; all images are as large as Atari's."""
    return is_atari(task) or len(describe_task(task)[0]) > 1


def _bytes(
    num_envs: int, capacity_steps: int, *, label_scores: int = 0, label_features: int = 0
) -> int:
    return FrameReplay.bytes_needed(
        num_envs=num_envs,
        capacity_steps=capacity_steps,
        frame_shape=AtariEnvs.frame_shape,
        frame_dtype=torch.uint8,
        stack_size=AtariEnvs.stack_size,
        label_scores=label_scores,
        label_features=label_features,
    )
