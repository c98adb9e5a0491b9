"""How much memory and disk a learning stage will take, said and checked before it begins."""

import math
from collections.abc import Callable, Iterator

from actor_mimic.compute import Compute, require_memory
from actor_mimic.config import Config, DistillConfig, SeveralTasks, to_json
from actor_mimic.envs.make import describe_task
from actor_mimic.errors import ConfigError
from actor_mimic.learner_config import PQNConfig
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.stages.configured import torso_spec
from actor_mimic.stages.session import KEEP_LAST
from actor_mimic.stages.training import LearningState
from actor_mimic.storage.run_dir import RunDir
from actor_mimic.tasks import is_atari

# Beside the weights, a checkpoint has two moments of each and, of a DQN, a second network.
COPIES_OF_WEIGHTS = 4
EMULATOR_BYTES = 1 << 20  # at least: 128 of them, with their stacks, were seen to take 1.5 MiB each


def foresee_memory(config: Config, compute: Compute) -> None:
    """Refuses environments, batches and networks that cannot fit, before there are any.

    What is counted is a lower bound: the observations of a rollout or of a batch, raw and as the
    network reads them, and the weights with what their optimiser keeps. Replays are counted where
    they are made.

    Raises:
        ConfigError: naming the settings to lower.
        UsageError, UnavailableError: if there is no such task.
    """
    name, count = _emulators(config)
    require_memory(count * EMULATOR_BYTES, "emulators", name)
    for settings, purpose, needed_bytes in _needs(config):
        require_memory(needed_bytes, purpose, settings, compute.device)


def _emulators(config: Config) -> tuple[str, int]:
    """The setting that says how many Atari emulators there are to be, and how many that is."""
    tasks = config.tasks if isinstance(config, SeveralTasks) else (config.task,)
    atari = sum(is_atari(task) for task in tasks)
    if isinstance(config, DistillConfig):
        return "envs_per_task", config.envs_per_task * atari
    return "num_envs", config.learner.num_envs * atari


def _needs(config: Config) -> Iterator[tuple[str, str, int]]:
    tasks = config.tasks if isinstance(config, SeveralTasks) else (config.task,)
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
        yield "batch_size", "a batch", 2 * config.learner.batch_size * len(tasks) * read
    try:
        spec = torso_spec(config.network, shape, shared=isinstance(config, SeveralTasks))
        network = QNetwork(spec, len(actions), generator=None)
    except ConfigError:
        return  # one that does not fit the task is refused where it is made, with its parent's name
    # Weights, their gradients, and two moments of each, in float32.
    count = sum(parameter.numel() for parameter in network.parameters())
    yield "width", "a network of that width", 4 * 4 * count


def foresee_storage(
    config: Config, state: LearningState, run: RunDir, notice: Callable[[str], None]
) -> None:
    """Says what the replay will take, and refuses checkpoints that will not fit.

    Raises:
        StorageError: if the disk has not enough room left.
    """
    if state.replay_bytes:
        notice(f"the replay will take up to {state.replay_bytes / 2**30:.2f} GiB")
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
