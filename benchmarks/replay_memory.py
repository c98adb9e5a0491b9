"""What one stored Atari step costs in memory, and how fast steps are written and drawn.

    python -m benchmarks.replay_memory [--steps 200000] [--seconds 1]

Fills a replay past its capacity with random frames from 16 environments (a life loss, game over
or time limit every 100 steps or so) and compares what the tensors and the process really take
with the targets: 1.02 x 7,056 bytes per step, and 18 x 4 + 512 x 2 = 1,096 more for labels.
"Resident" may lie a little below "allocated" where memory that was freed before is used again.
Needs 1.7 GB for the default; exits with status 1 if a target is missed.
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actor_mimic.replay.frame_replay import FrameReplay
from benchmarks.timing import median_rate

NUM_ENVS = 16
FRAME_BYTES = 84 * 84
LABEL_BYTES = 18 * 4 + 512 * 2


def resident_bytes() -> int:
    """Memory of this process that is really there; 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def random_steps(rng: np.random.Generator, count: int, labels: bool) -> list[dict[str, Any]]:
    """Steps of all environments to be added in turn."""
    steps = []
    for _ in range(count):
        chance = rng.random(NUM_ENVS)
        step = {
            "frames": rng.integers(1, 256, (NUM_ENVS, 84, 84), dtype=np.uint8),
            "actions": rng.integers(0, 18, NUM_ENVS),
            "rewards": rng.integers(-1, 2, NUM_ENVS).astype(np.float32),
            "terminal": chance < 0.01,
            "truncated": chance > 0.9999,
            "first": (chance > 0.002) & (chance < 0.01),
        }
        step["final_frames"] = step["frames"]
        if labels:
            step["label_scores"] = rng.standard_normal((NUM_ENVS, 18), dtype=np.float32)
            step["label_features"] = rng.standard_normal((NUM_ENVS, 512)).astype(np.float16)
        steps.append(step)
    return steps


def draws(
    replay: FrameReplay, rng: np.random.Generator, labels: bool
) -> dict[str, Callable[[int], object]]:
    """What can be drawn, by name; each takes a batch size."""
    kinds: dict[str, Callable[[int], object]] = {
        f"{n_step}-step transitions": partial(
            replay.sample_transitions, n_step=n_step, gamma=0.99, rng=rng
        )
        for n_step in (1, 3)
    }
    return kinds | ({"labelled": partial(replay.sample_labelled, rng=rng)} if labels else {})


def measure(capacity_steps: int, labels: bool, seconds: float) -> dict[str, Any]:
    """Bytes per step, and steps per second, of a full replay; prints them as a table."""
    rng = np.random.default_rng(0)
    steps = random_steps(rng, 64, labels)
    before = resident_bytes()
    replay = FrameReplay(
        num_envs=NUM_ENVS,
        capacity_steps=capacity_steps,
        frame_shape=(84, 84),
        frame_dtype=torch.uint8,
        stack_size=4,
        label_scores=18 if labels else 0,
        label_features=512 if labels else 0,
    )
    position = 0

    def add() -> None:
        nonlocal position
        replay.add(**steps[position % len(steps)])
        position += 1

    while replay.written.min() < 1.05 * replay.slots_per_env:
        add()
    result: dict[str, Any] = {
        "labels": labels,
        "steps": len(replay),
        "target_bytes": 1.02 * FRAME_BYTES + LABEL_BYTES * labels,
        "allocated_bytes": replay.nbytes / len(replay),
        "resident_bytes": (resident_bytes() - before) / len(replay),
        "per_s": {"steps added": median_rate(add, NUM_ENVS, seconds)},
    }
    for name, draw in draws(replay, rng, labels).items():
        for batch_size in (32, 256):
            rate = median_rate(partial(draw, batch_size), batch_size, seconds)
            result["per_s"][f"{name} drawn, batch {batch_size}"] = rate
    print_table(result)
    return result


def print_table(result: dict[str, Any]) -> None:
    """What was measured without or with labels."""
    labels = "with" if result["labels"] else "without"
    print(f"\n{result['steps']:,} steps held {labels} labels, bytes per step:")
    print(
        f"  target {result['target_bytes']:,.0f}, allocated {result['allocated_bytes']:,.1f}, "
        f"resident {result['resident_bytes']:,.1f}"
    )
    for name, rate in result["per_s"].items():
        print(f"  {rate:>10,.0f} {name} (per second)")


def measure_both(capacity_steps: int, seconds: float) -> list[dict[str, Any]]:
    """Without and with labels."""
    return [measure(capacity_steps, labels, seconds) for labels in (False, True)]


def main(arguments: list[str] | None = None) -> int:
    """Measure without and with labels; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="Memory and speed of the replay.")
    parser.add_argument("--steps", type=int, default=200_000, help="steps the replay can hold")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each rate")
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {NUM_ENVS} environments")
    results = measure_both(options.steps, options.seconds)
    met = [
        max(one["allocated_bytes"], one["resident_bytes"]) <= one["target_bytes"] for one in results
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
