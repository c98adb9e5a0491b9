"""What one stored Atari step costs in memory, and how fast steps are written and drawn.

    PYTHONPATH=src python benchmarks/replay_memory.py [--steps 200000] [--seconds 1]

Fills a replay past its capacity with random frames from 16 environments (a life loss, game over
or time limit every 100 steps or so) and compares what the tensors and the process really take
with the targets: 1.02 x 7,056 bytes per step, and 18 x 4 + 512 x 2 = 1,096 more for labels.
"Resident" may lie a little below "allocated" where memory that was freed before is used again.
Needs 1.7 GB for the default; exits with status 1 if a target is missed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actor_mimic.replay.frame_replay import FrameReplay

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


def rate_per_s(call: Callable[[], object], items: int, seconds: float) -> float:
    """Items per second of repeated calls; the median of their times."""
    call()
    times = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return items / float(np.median(times))


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


def measure(capacity_steps: int, labels: bool, seconds: float) -> bool:
    """Print one table; true if the memory target is met."""
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
    target = 1.02 * FRAME_BYTES + LABEL_BYTES * labels
    allocated = replay.nbytes / len(replay)
    resident = (resident_bytes() - before) / len(replay)
    print(f"\n{len(replay):,} steps held {'with' if labels else 'without'} labels, bytes per step:")
    print(f"  target {target:,.0f}, allocated {allocated:,.1f}, resident {resident:,.1f}")
    print(f"  {rate_per_s(add, NUM_ENVS, seconds):>10,.0f} steps/s added")
    for name, draw in draws(replay, rng, labels).items():
        for batch_size in (32, 256):
            rate = rate_per_s(partial(draw, batch_size), batch_size, seconds)
            print(f"  {rate:>10,.0f} {name}/s drawn, batch {batch_size}")
    return max(allocated, resident) <= target


def main(arguments: list[str] | None = None) -> int:
    """Measure without and with labels."""
    parser = argparse.ArgumentParser(description="Memory and speed of the replay.")
    parser.add_argument("--steps", type=int, default=200_000, help="steps the replay can hold")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each rate")
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {NUM_ENVS} environments")
    met = [measure(options.steps, labels, options.seconds) for labels in (False, True)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
