"""What the replays of a recipe's stages will take, known before the first of them starts."""

from collections.abc import Callable, Iterable

from actor_mimic.config import EvaluateConfig
from actor_mimic.recipes.recipe import Job
from actor_mimic.stages.replays import place_of_replays
from actor_mimic.stages.space import replay_bytes
from actor_mimic.storage.run_dir import is_complete

UNSAID_BYTES = 1 << 28  # as of vectors


def check_memory(jobs: Iterable[Job], device: str, notice: Callable[[str], None]) -> None:
    """Says which stage will take the most memory for its replay; refuses what cannot fit.

    Stages run one after the other, so the largest one counts. The last of thirteen experts is a
    bad moment to learn that their student does not fit.

    Raises:
        ConfigError: if the largest replay does not fit, on the device or in main memory.
    """
    sizes = {
        job.title: replay_bytes(job.config, features=True)
        for job in jobs
        if not (isinstance(job.config, EvaluateConfig) or is_complete(job.path))
    }
    title = max(sizes, key=lambda name: sizes[name], default=None)
    if title is None or sizes[title] < UNSAID_BYTES:
        return
    notice(f"memory: the replay of {title} will take up to {sizes[title] / 2**20:,.0f} MiB")
    place_of_replays(sizes[title], f"the replay of {title}", device)
