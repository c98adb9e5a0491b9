"""How much memory and disk a learning stage will take, said and checked before it begins."""

import functools
import math
from collections.abc import Callable, Iterator

import torch

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.compute import Compute, require_memory
from actor_mimic.config import Config, DistillConfig, ExpertConfig, tasks_of
from actor_mimic.envs.atari import AtariEnvs
from actor_mimic.envs.make import describe_task
from actor_mimic.errors import ConfigError
from actor_mimic.flat_config import to_json
from actor_mimic.learner_config import DQNConfig, PQNConfig
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import SHAPES
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.stages.configured import torso_spec
from actor_mimic.stages.replays import place_of_replays
from actor_mimic.stages.session import KEEP_LAST
from actor_mimic.stages.training import LearningState
from actor_mimic.storage.run_dir import RunDir
from actor_mimic.tasks import is_atari

# Beside the weights, a checkpoint has two moments of each and, of a DQN, a second network.
COPIES_OF_WEIGHTS = 4
EMULATOR_BYTES = 1 << 20  # at least: 128 of them, with their stacks, were seen to take 1.5 MiB each
ENV_BYTES = 4 << 10  # at least, of Gymnasium's: 3,000 of CartPole took 5 KiB each


def foresee_memory(config: Config, compute: Compute) -> None:
    """Refuses environments, batches and networks that cannot fit, before there are any.

    What is counted is a lower bound: the observations of a rollout or of a batch, raw and as the
    network reads them, the weights with what their optimiser keeps, and the replays.

    Raises:
        ConfigError: naming the settings to lower.
        UsageError, UnavailableError: if there is no such task.
    """
    tasks = tasks_of(config)
    name, each = _envs_of_each(config)
    emulators = sum(map(is_atari, tasks))
    needed = each * (emulators * EMULATOR_BYTES + (len(tasks) - emulators) * ENV_BYTES)
    require_memory(needed, "emulators" if emulators else "environments", name)
    needed = replay_bytes(config, features=False)
    place_of_replays(needed, f"the replay of {len(tasks)} task(s)", compute.device)
    for settings, purpose, needed_bytes in _needs(config):
        require_memory(needed_bytes, purpose, settings, compute.device)


def replay_bytes(config: Config, *, features: bool) -> int:
    """Memory of a stage's replays when they are full; 0 if it has none.

    Args:
        config: of the stage.
        features: count those of the teachers too, as if they were as wide as the student's: how
            wide they are is not known before the teachers are.
    """
    labels = {}
    if isinstance(config, DistillConfig):
        capacity = config.replay_capacity_steps
        if any(map(is_atari, config.tasks)):
            labels["label_scores"] = len(ATARI_ALPHABET)
        if features and config.feature_weight:
            spec = torso_spec(config.network, observation_of(config.tasks[0]), shared=True)
            labels["label_features"] = round(SHAPES[spec.kind].hidden[-1] * spec.width)
    elif isinstance(config.learner, DQNConfig):
        capacity = config.learner.replay_capacity_steps
    else:
        return 0
    _, num_envs = _envs_of_each(config)
    total = 0
    for task in tasks_of(config):
        shape = observation_of(task)
        is_image = len(shape) > 1
        total += FrameReplay.bytes_needed(
            num_envs=num_envs,
            capacity_steps=capacity,
            frame_shape=shape[1:] if is_image else shape,
            frame_dtype=torch.uint8 if is_image else torch.float32,
            stack_size=shape[0] if is_image else 1,
            **labels,
        )
    return total


def _envs_of_each(config: Config) -> tuple[str, int]:
    """The setting that says how many environments of each task there are to be, and its value."""
    if isinstance(config, DistillConfig):
        return "envs_per_task", config.envs_per_task
    return "num_envs", config.learner.num_envs


@functools.cache
def observation_of(task: str) -> tuple[int, ...]:
    """Shape of an observation; all games of Atari have one."""
    if is_atari(task):
        return (AtariEnvs.stack_size, *AtariEnvs.frame_shape)
    return describe_task(task)[0]


def _needs(config: Config) -> Iterator[tuple[str, str, int]]:
    tasks = tasks_of(config)
    shape, actions = describe_task(tasks[0])
    raw = math.prod(shape) * (1 if len(shape) > 1 else 4)
    read = raw + 4 * math.prod(shape)
    if isinstance(config, DistillConfig):
        examples = config.batch_size_per_task * len(tasks)
        yield "batch_size_per_task", "a batch", examples * read
    elif isinstance(config.learner, PQNConfig):
        learner = config.learner
        steps = learner.num_envs * learner.rollout_steps
        yield "num_envs or rollout_steps", "a rollout of all environments", steps * raw
        yield "minibatch_size", "a minibatch", learner.minibatch_size * read
    else:
        # With what each example leads to.
        size, quantiles = config.learner.batch_size * len(tasks), config.learner.num_quantiles
        yield "batch_size", "a batch", 2 * size * read
        if quantiles > 1:  # every one of an example beside every one of its target
            pairs = 4 * size * quantiles**2
            yield "num_quantiles or batch_size", "the quantiles of a batch", pairs
    try:
        spec = torso_spec(config.network, shape, shared=not isinstance(config, ExpertConfig))
        network = QNetwork(spec, len(actions), generator=None, num_quantiles=_quantiles(config))
    except ConfigError:
        return  # one that does not fit the task is refused where it is made, with its parent's name
    # Weights, their gradients, and two moments of each, in float32.
    count = sum(parameter.numel() for parameter in network.parameters())
    yield "width", "a network of that width", 4 * 4 * count


def _quantiles(config: Config) -> int:
    learner = None if isinstance(config, DistillConfig) else config.learner
    return learner.num_quantiles if isinstance(learner, DQNConfig) else 1


def foresee_storage(
    config: Config, state: LearningState, run: RunDir, notice: Callable[[str], None]
) -> None:
    """Says what the replay will take, and refuses checkpoints that will not fit.

    Raises:
        StorageError: if the disk has not enough room left.
    """
    if state.replay_bytes:
        notice(f"the replay will take up to {state.replay_bytes / 2**20:,.0f} MiB")
        if config.schedule.checkpoint_replay == "none":
            notice("checkpoints are without the replay: resume will not be exact")
    weights_bytes = sum(tensor.nbytes for tensor in state.network.state_dict().values())
    run.require_space(disk_bytes(config, weights_bytes, state.replay_bytes))


def disk_bytes(config: Config, weights_bytes: int, replay_bytes: int) -> int:
    """What all checkpoints of a run will take together at most, about.

    The newest ones and the one that is being written share the segments of one replay; the best,
    and each that is kept for good, may hold another whole one.

    Args:
        config: of the stage.
        weights_bytes: of its network.
        replay_bytes: of all its replays when they are full.
    """
    schedule = config.schedule
    apart = 1 if schedule.eval_every_steps else 0
    if schedule.keep_every_steps:
        apart += 1 + config.total_steps // schedule.keep_every_steps
    needed = (KEEP_LAST + 1 + apart) * COPIES_OF_WEIGHTS * weights_bytes
    if replay_bytes and schedule.checkpoint_replay != "none":
        settings = to_json(config)
        capacity_steps = settings["replay_capacity_steps"] * len(settings.get("tasks", [None]))
        filled = min(1.0, config.total_steps / capacity_steps)
        needed += round((1 + apart) * filled * replay_bytes)
    return needed
