"""Row A12: what was stopped and goes on ends bit for bit like what was never stopped."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from actor_mimic import rollout
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    SMALL_DQN,
    SMALL_PQN,
    done,
    is_done,
    last_step,
    lasting,
    must,
    nothing,
    same_content,
    verb,
)

SEEDS = (0, 1)
POINTS = 3
TOTAL_STEPS = 3072
VECTORS = lasting(TOTAL_STEPS, every=512, records=128)
IMAGES = lasting(TOTAL_STEPS, every=512, records=128, games=0)
SMALL_NETWORK = "--set=width=0.25"
DISTILL = (
    "--set=envs_per_task=4",
    "--set=learning_starts_steps=200",
    "--set=batch_size_per_task=32",
    "--set=replay_capacity_steps=2000",
)
# In this order: a stage's parent, in braces, is an earlier stage of the same seed.
STAGES: dict[str, Sequence[str]] = {
    "cartpole-pqn": ("train-expert", CARTPOLE, *VECTORS, *SMALL_PQN),
    "cartpole-dqn": ("train-expert", CARTPOLE, *VECTORS, *SMALL_DQN),
    "cartpole-student": ("distill", f"{CARTPOLE}={{cartpole-pqn}}", *VECTORS, *DISTILL),
    "cartpole-transfer": ("transfer", CARTPOLE, "--from={cartpole-student}", *VECTORS, *SMALL_DQN),
    "atari-pqn": ("train-expert", "pong", *IMAGES, *SMALL_PQN, SMALL_NETWORK),
    "atari-dqn": ("train-expert", "boxing", *IMAGES, *SMALL_DQN, SMALL_NETWORK),
    "atari-student": (
        "distill",
        "pong={atari-pqn}",
        "boxing={atari-dqn}",
        *IMAGES,
        *DISTILL,
        SMALL_NETWORK,
    ),
    "atari-transfer": ("transfer", "breakout", "--from={atari-student}", *IMAGES, *SMALL_DQN),
}


def a12_resume(scratch: Path) -> Row:
    """Every stage and seed: a reference, and three that are stopped in three places."""
    rng = np.random.default_rng(0)
    seeds = SEEDS if trials(10) == 10 else SEEDS[:1]
    stopped = failures = seeds_alike = 0
    references: dict[tuple[str, int], Path] = {}
    for name in STAGES:
        for seed in seeds:
            command = _command(name, seed, references)
            reference = must(command, scratch / f"{name}-{seed}")
            references[name, seed] = reference
            for point in range(POINTS):
                run = scratch / f"{name}-{seed}-{point}"
                failures += not _ends_the_same(command, run, reference, point, rng)
                stopped += 1
        if len(seeds) > 1:
            seeds_alike += same_content(references[name, 0], references[name, 1])
    mutants = {"cartpole-pqn": _forget_generators, "cartpole-dqn": _forget_generators}
    caught = sum(
        not _ends_the_same(
            _command(name, 0, references),
            scratch / f"mutant-{name}",
            references[name, 0],
            1,
            rng,
            prepare,
        )
        for name, prepare in mutants.items()
    )
    return Row(
        "A12",
        f"{len(STAGES)} stages x {len(seeds)} seeds x {POINTS} points, two by SIGTERM, one by "
        "SIGKILL, then resumed",
        stopped,
        failures,
        f"{of_trials(failures, stopped, 'ended otherwise')}; other seed the same: {seeds_alike} of "
        f"{len(STAGES)}; one that forgets its generators: {caught} of {len(mutants)}",
        "all bit-identical, another seed differs; the mutant fails",
        failures == 0 and seeds_alike == 0 and caught == len(mutants),
    )


def _command(name: str, seed: int, references: dict[tuple[str, int], Path]) -> list[str]:
    parents = {stage: str(path) for (stage, of), path in references.items() if of == seed}
    return [*(text.format(**parents) for text in STAGES[name]), f"--seed={seed}"]


def _ends_the_same(
    command: Sequence[str],
    run: Path,
    reference: Path,
    point: int,
    rng: np.random.Generator,
    prepare: Callable[[], object] = nothing,
) -> bool:
    """Stopped at a random moment of one third of the run, by a signal or, in the middle, a kill."""
    number = signal.SIGKILL if point == 1 else signal.SIGTERM
    least = point * TOTAL_STEPS // POINTS
    wanted = least + int(rng.integers(1, TOTAL_STEPS // POINTS - 256))
    with verb(command, run) as work:
        if not work.wait_for(lambda: last_step(run) >= wanted):
            raise RuntimeError(work.said()[-1000:])
        time.sleep(rng.uniform(0.0, 0.02))
        work.send(number)
        code = work.wait()
    if is_done(run) or code not in (143, -signal.SIGKILL):
        raise RuntimeError(f"{run.name} was not stopped: {work.said()[-1000:]}")
    return done(command, run, prepare=prepare) == 0 and same_content(run, reference)


def _forget_generators() -> None:
    rollout.restore_generator = lambda _: np.random.default_rng(0)


ROWS: Rows = {"A12": a12_resume}
