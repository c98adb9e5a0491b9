"""Row B7: signals that ask a run to stop, at any moment."""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actor_mimic.storage.checkpoint import resolve_checkpoint
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    ON_ONE_CORE,
    SMALL_DQN,
    SMALL_PQN,
    last_step,
    lasting,
    nothing,
    records,
    verb,
)

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143}
LIMIT_S = 10.0
# Saves so often that signals fall into saves too, and one that would only save at its end.
TASKS: dict[str, Sequence[str]] = {
    "pqn": ("train-expert", CARTPOLE, *lasting(10**7, every=512), *SMALL_PQN),
    "dqn": ("train-expert", CARTPOLE, *lasting(10**7, every=10**7), *SMALL_DQN),
}
# A game with every setting at its default: long updates, and games to be played again.
LARGE = ("train-expert", "pong", *ON_ONE_CORE[:1], "--eval-every-steps=0")


@dataclass(frozen=True)
class _Stop:
    seconds: float
    durable: bool


def b7_signals(scratch: Path) -> Row:
    """Each on a run that goes on from where the last one stopped it."""
    rng = np.random.default_rng(0)
    large, small = trials(20), trials(80)
    stops = [
        _stopped(command, scratch / name, list(CODES)[trial % 3], rng.uniform(0.0, 0.6))
        for name, command in TASKS.items()
        for trial in range(small // len(TASKS))
    ]
    stops += [
        _stopped(LARGE, scratch / "large", list(CODES)[trial % 3], rng.uniform(0.0, 4.0))
        for trial in range(large)
    ]
    failures = sum(not stop.durable for stop in stops)
    seconds = np.array([stop.seconds for stop in stops])
    p99 = float(np.quantile(seconds, 0.99, method="higher"))
    at_once = sum(_second_leaves_at_once(scratch / f"second-{n}") for n in range(3))
    caught = sum(
        not _stopped(TASKS["dqn"], scratch / f"mutant-{n}", number, 0.1, _no_handlers).durable
        for n, number in enumerate(CODES)
    )
    return Row(
        "B7",
        f"SIGTERM, SIGINT, SIGUSR1 at random times, {large} of them on Atari at default settings",
        len(stops),
        failures,
        f"{of_trials(failures, len(stops), 'without a checkpoint of that moment')}, 99th "
        f"percentile {p99:.2f} s, slowest {seconds.max():.2f} s; a second signal left at once in "
        f"{at_once} of 3; without handlers: {caught} of {len(CODES)}",
        f"all durable, exit 143, 130, 143, p99 <= {LIMIT_S:.0f} s; the mutant fails",
        failures == 0 and p99 <= LIMIT_S and at_once == 3 and caught == len(CODES),
    )


def _stopped(
    command: Sequence[str],
    run: Path,
    number: signal.Signals,
    after_s: float,
    prepare: Callable[[], object] = nothing,
) -> _Stop:
    """One life of a run, from its first record on."""
    before = len(records(run))
    with verb(command, run, prepare=prepare) as work:
        if not work.wait_for(lambda: len(records(run)) > before):
            raise RuntimeError(work.said()[-1000:])
        time.sleep(after_s)
        sent = time.monotonic()
        work.send(number)
        code = work.wait()
        seconds = time.monotonic() - sent
    if not list((run / "checkpoints").iterdir()):
        return _Stop(seconds, False)
    durable = code == CODES[number] and resolve_checkpoint(run).step == last_step(run)
    return _Stop(seconds, durable)


def _second_leaves_at_once(run: Path) -> bool:
    """The first is not answered, because the work never asks again; the second is."""
    with verb(LARGE, run) as work:
        if not work.wait_for(lambda: bool(records(run))):
            raise RuntimeError(work.said()[-1000:])
        work.send(signal.SIGTERM)
        time.sleep(0.05)
        started = time.monotonic()
        work.send(signal.SIGTERM)
        code = work.wait()
    return code == 143 and time.monotonic() - started < 1.0


def _no_handlers() -> None:
    signal.signal = lambda *_: None  # type: ignore[assignment]


ROWS: Rows = {"B7": b7_signals}
