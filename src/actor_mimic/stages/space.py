"""How much memory and disk a learning stage will take, said and checked before it begins."""

from collections.abc import Callable

from actor_mimic.config import Config, to_json
from actor_mimic.stages.session import KEEP_LAST
from actor_mimic.stages.training import LearningState
from actor_mimic.storage.run_dir import RunDir

# Beside the weights, a checkpoint has two moments of each and, of a DQN, a second network.
COPIES_OF_WEIGHTS = 4


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
    if replay_bytes and schedule.checkpoint_replay == "full":
        settings = to_json(config)
        capacity_steps = settings["replay_capacity_steps"] * len(settings.get("tasks", [None]))
        filled = min(1.0, config.total_steps / capacity_steps)
        needed += round((1 + apart) * filled * replay_bytes)
    return needed
