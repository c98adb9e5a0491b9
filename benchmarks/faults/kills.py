"""Row A3: a real run that is killed again and again until it is done."""

import signal
import time
from collections.abc import Callable
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
    reference = must(COMMAND, scratch / "reference")
    kills = trials(50)
    backwards, most_lost, runs = _lives(scratch, kills, reference)
    caught, _, _ = _lives(scratch / "mutant", min(10, kills), reference, _start_over)
    return Row(
        "A3",
        f"SIGKILL of train-expert at random times, until it is done ({runs} runs)",
        kills,
        backwards,
        f"{of_trials(backwards, kills, 'went back or ended with other weights')}, at most "
        f"{most_lost:,} steps lost of an interval of {INTERVAL_STEPS:,}; "
        f"one that starts over: {caught} of {min(10, kills)}",
        "0 went back, none lost more than one interval; the mutant fails",
        backwards == 0 and most_lost <= INTERVAL_STEPS + ADVANCE_STEPS and caught > 0,
    )


def _lives(
    scratch: Path, kills: int, reference: Path, prepare: Callable[[], object] = nothing
) -> tuple[int, int, int]:
    """Kills after which progress went back, the most steps lost by one, and runs needed."""
    rng = np.random.default_rng(0)
    scratch.mkdir(exist_ok=True)
    backwards = most_lost = killed = runs = 0
    while killed < kills:
        run = scratch / f"run-{runs}"
        runs += 1
        saved = 0
        while killed < kills and not is_done(run):
            before = _state_of_records(run)
            with verb(COMMAND, run, prepare=prepare) as work:
                began = work.wait_for(
                    lambda r=run, b=before, s=saved: (
                        _state_of_records(r) != b and last_step(r) not in (0, s)
                    )
                )
                first = last_step(run)
                time.sleep(rng.uniform(0.0, 0.4))
                work.send(signal.SIGKILL)
                work.wait()
            if is_done(run):
                break
            killed += 1
            now = max(valid_steps(run), default=0)
            backwards += (began and first <= saved) or now < saved
            most_lost = max(most_lost, last_step(run) - now)
            saved = now
        if prepare is nothing:
            backwards += done(COMMAND, run) != 0 or not same_content(run, reference)
    return backwards, most_lost, runs


def _state_of_records(run: Path) -> tuple[int, int]:
    """Changes when a life drops what its predecessor recorded in vain, and with every record."""
    try:
        status = (run / "records.jsonl").stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_size


def _start_over() -> None:
    session.newest_valid = lambda *_: None


ROWS: Rows = {"A3": a3_kills_until_done}
