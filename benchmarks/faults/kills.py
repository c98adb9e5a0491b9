"""Row A3: a real run that is killed again and again until it is done."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actor_mimic.stages import session
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    SMALL_PQN,
    done,
    is_done,
    last_step,
    lasting,
    must,
    nothing,
    same_content,
    valid_steps,
    verb,
)

INTERVAL_STEPS = 1024
TOTAL_STEPS = 40 * INTERVAL_STEPS
# What a record may lag behind the work, and so hide of it: one rollout.
ADVANCE_STEPS = 128
COMMAND = (
    "train-expert",
    CARTPOLE,
    *lasting(TOTAL_STEPS, every=INTERVAL_STEPS, records=ADVANCE_STEPS),
    *SMALL_PQN,
)


def a3_kills_until_done(scratch: Path) -> Row:
    """Killed at random times after its first new record; the same command each time."""
    rng = np.random.default_rng(0)
    reference = must(COMMAND, scratch / "reference")
    kills = trials(50)
    killed = failures = most_lost = runs = 0
    while killed < kills:
        run = scratch / f"run-{runs}"
        runs += 1
        saved = 0
        while killed < kills and not is_done(run):
            life = _life(run, saved, rng)
            killed += not life.finished
            failures += life.went_back
            most_lost = max(most_lost, life.lost_steps)
            saved = life.saved
        failures += done(COMMAND, run) != 0 or not same_content(run, reference)
    mutants = trials(10)
    caught = _starting_over(scratch / "mutant", mutants, rng)
    return Row(
        "A3",
        f"SIGKILL of train-expert at random times, until it is done; {runs} run(s) in all",
        kills,
        failures,
        f"{of_trials(failures, kills, 'went back or ended with other weights')}, at most "
        f"{most_lost:,} steps lost of an interval of {INTERVAL_STEPS:,}; "
        f"one that starts over: {caught} of {mutants}",
        "0 went back, none lost more than one interval; the mutant fails",
        failures == 0 and most_lost <= INTERVAL_STEPS + ADVANCE_STEPS and caught > 0,
    )


@dataclass(frozen=True)
class _Life:
    saved: int  # the newest valid checkpoint when it was over
    lost_steps: int  # recorded beyond that
    went_back: bool
    finished: bool


def _life(
    run: Path, saved: int, rng: np.random.Generator, prepare: Callable[[], object] = nothing
) -> _Life:
    """From a start of the command to a kill, or to the end of the run."""
    before = _state_of_records(run)
    with verb(COMMAND, run, prepare=prepare) as work:
        began = work.wait_for(
            lambda: _state_of_records(run) != before and last_step(run) not in (0, saved)
        )
        first = last_step(run)
        time.sleep(rng.uniform(0.0, 0.4))
        work.send(signal.SIGKILL)
        work.wait()
    now = max(valid_steps(run), default=0)
    went_back = (began and first <= saved) or now < saved
    return _Life(now, last_step(run) - now, went_back, is_done(run))


def _starting_over(run: Path, lives: int, rng: np.random.Generator) -> int:
    """Lives that are caught, of a run that has a checkpoint and never looks for one."""
    with verb(COMMAND, run) as work:
        work.wait_for(lambda: bool(valid_steps(run)))
    saved = max(valid_steps(run))
    return sum(_life(run, saved, rng, _find_nothing).went_back for _ in range(lives))


def _state_of_records(run: Path) -> tuple[int, int]:
    """Changes when a life drops what its predecessor recorded in vain, and with every record."""
    try:
        status = (run / "records.jsonl").stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size


def _find_nothing() -> None:
    session.newest_valid = lambda *_: None


ROWS: Rows = {"A3": a3_kills_until_done}
