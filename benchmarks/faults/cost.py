"""The row ``cost``: what saving takes from a run that nothing happens to."""

import time
from pathlib import Path

import numpy as np
import torch

from actor_mimic.config import ScheduleConfig
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.storage.checkpoint import write_checkpoint
from benchmarks.faults.row import Row, Rows, trials
from benchmarks.faults.runs import must, records
from benchmarks.faults.saving import MANIFEST

MOST_SHARE = 0.02
MOST_SECONDS = 1.0
DEFAULT_STEPS = ScheduleConfig().checkpoint_every_steps
SAVED_STEPS = 12_288
COMMAND = (
    *("train-expert", "pong", "--device=cpu", "--eval-every-steps=0"),
    *(f"--checkpoint-every-steps={SAVED_STEPS}", f"--set=record_every_steps={SAVED_STEPS}"),
    *("--set=final_episodes=0", f"--total-steps={2 * SAVED_STEPS}"),
)
ALGORITHMS = ("pqn", "dqn")


def cost_of_saving(scratch: Path) -> Row:
    """Real runs at default settings, but saved far more often; and saves of one large network.

    Without a replay a save is the same whenever it comes, so what it took here is set against the
    time between two at the default interval. With one it writes what was played since the last,
    in proportion to the interval: the share that it took here bounds that from above.
    """
    shares = {}
    for algorithm in ALGORITHMS:
        run = scratch / algorithm
        must((*COMMAND, f"--algorithm={algorithm}"), run)
        saving_s, steps_per_s = _second_save(run)
        steps = SAVED_STEPS if algorithm == "dqn" else DEFAULT_STEPS
        shares[algorithm] = saving_s * steps_per_s / steps
    seconds = [_nature_save(scratch / "nature", step) for step in range(1, 1 + trials(20))]
    too_dear = sum(share > MOST_SHARE for share in shares.values())
    said = ", ".join(f"{name} {100 * share:.2f} %" for name, share in shares.items())
    return Row(
        "cost",
        f"pong at default settings, saved every {SAVED_STEPS:,} instead of {DEFAULT_STEPS:,} steps",
        len(shares) + len(seconds),
        too_dear + sum(s > MOST_SECONDS for s in seconds),
        f"saving adds at most: {said}; a save of the Nature network and its optimiser: median "
        f"{np.median(seconds):.2f} s, slowest {max(seconds):.2f} s of {len(seconds)}",
        f"at most {100 * MOST_SHARE:.0f} % at the default interval; at most {MOST_SECONDS:.0f} s",
        too_dear == 0 and max(seconds) <= MOST_SECONDS,
    )


def _second_save(run: Path) -> tuple[float, float]:
    """Seconds that it took, and steps a second before it; of the second, for a DQN learns late."""
    trained, saved = records(run)[1], records(run, "checkpoint")[1]
    assert trained.step == saved.step
    rate = trained.values["steps_per_s"]
    assert isinstance(rate, float)
    return saved.wall_s - trained.wall_s, rate


def _nature_save(checkpoints: Path, step: int) -> float:
    network = QNetwork(
        TorsoSpec("nature", (4, 84, 84), 1.0, "all"), 18, generator=torch.Generator()
    )
    weights = network.state_dict()
    moments = {f"{n}.{name}": v + 1.0 for n in (0, 1) for name, v in weights.items()}
    frames = {"stacks": torch.zeros((64, 4, 84, 84), dtype=torch.uint8)}
    started = time.monotonic()
    write_checkpoint(
        checkpoints,
        step=step,
        tensors={"model": weights, "optimizer": moments, "rollout": frames},
        state={"counter": step},
        manifest=MANIFEST,
    )
    return time.monotonic() - started


ROWS: Rows = {"cost": cost_of_saving}
