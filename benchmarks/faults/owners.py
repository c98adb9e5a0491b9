"""Row A10: two processes that want one run."""

import fcntl
import json
import os
import signal
import socket
from pathlib import Path

from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    SMALL_PQN,
    lasting,
    must,
    records,
    same_content,
    verb,
)

COMMAND = ("train-expert", CARTPOLE, *lasting(6144, every=1024, records=128), *SMALL_PQN)


def a10_two_writers(scratch: Path) -> Row:
    """The second while the first works, or is stopped, as by a scheduler that forgot it."""
    reference = must(COMMAND, scratch / "reference")
    number = trials(20)
    failures = sum(
        not _second_is_refused(scratch / f"run-{trial}", reference, asleep=trial % 2 == 1)
        for trial in range(number)
    )
    mutants = trials(5)
    caught = sum(
        not _second_is_refused(scratch / f"mutant-{trial}", reference, asleep=False, locked=False)
        for trial in range(mutants)
    )
    return Row(
        "A10",
        "a second train-expert on the same run, the first at work or stopped",
        number,
        failures,
        f"{of_trials(failures, number, 'interleaved or not refused')}; "
        f"without the lock: {caught} of {mutants}",
        "exit 75 naming process and host, 0 interleaved; the mutant fails",
        failures == 0 and caught > 0,
    )


def _second_is_refused(run: Path, reference: Path, *, asleep: bool, locked: bool = True) -> bool:
    prepare = os.getpid if locked else _lock_nothing
    with verb(COMMAND, run, prepare=prepare) as first:
        if not first.wait_for(lambda: bool(records(run))):
            raise RuntimeError(first.said())
        if asleep:
            first.send(signal.SIGSTOP)
        with verb(COMMAND, run, prepare=prepare) as second:
            # Their words go to one log: what the first says comes without a process' number.
            code, owner = second.wait(), f"process {first.pid} on {socket.gethostname()}"
        first.send(signal.SIGCONT)
        ended = first.wait()
    return (
        code == 75
        and owner in first.said()
        and ended == 0
        and _recorded_once(run)
        and same_content(run, reference)
    )


def _recorded_once(run: Path) -> bool:
    lines = (run / "records.jsonl").read_text().splitlines()
    steps = [r["step"] for r in map(json.loads, lines) if r["kind"] == "train"]
    return steps == sorted(set(steps))


def _lock_nothing() -> None:
    fcntl.flock = lambda *_: None  # type: ignore[assignment]


ROWS: Rows = {"A10": a10_two_writers}
