"""Rows A1, A2 and A11: processes that are killed while they save, replace or delete."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actor_mimic.errors import DataError
from actor_mimic.storage.checkpoint import (
    Checkpoint,
    newest_valid,
    read_best,
    write_best,
    write_checkpoint,
)
from actor_mimic.storage.durable import FAULT_POINTS, clean_leftovers
from actor_mimic.storage.naming import checkpoint_name
from actor_mimic.storage.retention import prune
from benchmarks.faults.mutants import prune_to_one_before_saving, write_in_place
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import Work, valid_steps

MANIFEST = {
    "kind": "expert",
    "tasks": {"pong": ["NOOP"]},
    "parents": [],
    "config": {},
    "network": {},
}


def save(checkpoints: Path, step: int, write: Callable[..., Checkpoint], **more: Any) -> None:
    """A small checkpoint whose every file says its step."""
    write(
        checkpoints,
        step=step,
        tensors={"model": {"w": torch.full((3000,), float(step))}, "optimizer": {}},
        state={"counter": step},
        manifest=MANIFEST,
        **more,
    )


def _whole(checkpoint: Checkpoint | None) -> bool:
    """Whether it says one step everywhere."""
    if checkpoint is None:
        return False
    weights = checkpoint.load_tensors("model")["w"]
    counter = checkpoint.load_state()["counter"]
    return counter == checkpoint.step and bool((weights == counter).all())


def a1_kills_while_saving(scratch: Path) -> Row:
    """Every trial: save in a loop, be killed, see what the next process finds."""
    rng = np.random.default_rng(0)
    number = trials(300)
    corrupt = lost = 0
    for _ in range(number):
        wrong, behind = _killed(scratch / "run", _save_and_prune, rng.uniform(0.004, 0.03))
        corrupt, lost = corrupt + wrong, lost + behind
    mutants = trials(100)
    caught = sum(
        any(_killed(scratch / "mutant", _save_in_place, rng.uniform(0.004, 0.03)))
        for _ in range(mutants)
    )
    return Row(
        "A1",
        "SIGKILL at a random time while saving in a loop",
        number,
        corrupt + lost,
        f"{of_trials(corrupt, number, 'corrupt')}, {lost} acknowledged saves lost; "
        f"an in-place writer: {caught} of {mutants}",
        "0 corrupt, 0 lost; the mutant fails",
        corrupt + lost == 0 and caught > 0,
    )


def _save_and_prune(checkpoints: Path, step: int) -> None:
    save(checkpoints, step, write_checkpoint)
    prune(checkpoints)


def _save_in_place(checkpoints: Path, step: int) -> None:
    save(checkpoints, step, write_in_place)


def _killed(run: Path, save_once: Callable[[Path, int], None], seconds: float) -> tuple[bool, bool]:
    """Whether what is found is corrupt, and whether it is older than what was acknowledged."""
    acknowledged = _kill_in_a_loop(run, save_once, seconds)
    clean_leftovers(run / "checkpoints")
    try:
        newest = newest_valid(run / "checkpoints", lambda *_: None)
    except DataError:
        return True, False
    if not _whole(newest):
        return True, False
    return False, newest is not None and newest.step < acknowledged


def _kill_in_a_loop(
    run: Path, once: Callable[[Path, int], None], seconds: float, *, least: int = 1
) -> int:
    """Steps acknowledged by a fork that counts upwards, until so long after the ``least``-th."""
    shutil.rmtree(run, ignore_errors=True)
    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True)
    reading, writing = os.pipe()

    def action() -> int:
        step = 0
        while True:
            step += 1
            once(checkpoints, step)
            os.write(writing, b".")

    with Work(action, run / "log") as work:
        os.close(writing)
        first = b""
        while len(first) < least:
            first += os.read(reading, 1)
        time.sleep(seconds)
        work.send(signal.SIGKILL)
        work.wait()
    with os.fdopen(reading, "rb") as pipe:
        return len(first + pipe.read())


def a2_kill_at_every_point(scratch: Path) -> Row:
    """Every passage of every fault point, in one sequence of work that has them all."""
    killed = failures = 0
    reached: set[str] = set()
    for point in FAULT_POINTS:
        for passage in range(1, 20):
            outcome = _killed_at(scratch / f"{point}-{passage}", point, passage, write_checkpoint)
            if outcome is None:
                break
            reached.add(point)
            killed += 1
            failures += not outcome
    outcomes = [
        _killed_at(scratch / f"mutant-{point}", point, 1, write_in_place)
        for point in FAULT_POINTS
        if point.startswith("save-")
    ]
    caught, reached_too = outcomes.count(False), len(outcomes) - outcomes.count(None)
    return Row(
        "A2",
        "a kill at every passage of every fault point of the storage code",
        killed,
        failures,
        f"{killed - failures} of {killed} kills survived, {len(reached)} of {len(FAULT_POINTS)} "
        f"points; an in-place writer: fails at {caught} of {reached_too}",
        "all survive; the mutant fails",
        not failures and len(reached) == len(FAULT_POINTS) and caught > 0,
    )


def _killed_at(
    run: Path, point: str, passage: int, write: Callable[..., Checkpoint]
) -> bool | None:
    """Whether all is well after a kill there; None if the work never comes by."""
    checkpoints = run / "checkpoints"
    checkpoints.mkdir(parents=True)
    segment = {"frames": torch.zeros(100)}
    for step in (1, 2, 3):
        save(checkpoints, step, write_checkpoint, replay_segments={f"s{step}": segment})
    write_best(run, step=1, score=1.0)
    acknowledged = run / "acknowledged"

    def action() -> int:
        os.environ["ACTOR_MIMIC_FAULT"] = f"{point}:{passage}:kill"
        old = checkpoints / checkpoint_name(3) / "replay" / "s3.safetensors"
        # Of step 3 again, and so over an old one; of step 4, beside it.
        for step in (3, 4):
            segments = {"replay_segments": {f"t{step}": segment}, "link_segments": [old]}
            save(checkpoints, step, write, **segments)
            acknowledged.write_text(json.dumps(step))
            old = checkpoints / checkpoint_name(step) / "replay" / f"t{step}.safetensors"
        write_best(run, step=4, score=4.0)
        prune(checkpoints, keep=frozenset({4}))
        return 0

    with Work(action, run / "log") as work:
        if work.wait() != 137:
            return None
    clean_leftovers(checkpoints)
    clean_leftovers(run)
    at_least = json.loads(acknowledged.read_text()) if acknowledged.exists() else 3
    damaged: list[Path] = []
    try:
        newest = newest_valid(checkpoints, lambda path, _: damaged.append(path))
    except DataError:
        return False
    best = read_best(run)
    return (
        not damaged
        and _whole(newest)
        and newest is not None
        and newest.step >= at_least
        and best is not None
        and best.step in (1, 4)
        and len(valid_steps(run)) >= 2
        and not [path for path in checkpoints.iterdir() if path.name.startswith(".")]
    )


def a11_deletion(scratch: Path) -> Row:
    """Kills in a loop of saves and deletions, once there are two; and deletions that fail."""
    rng = np.random.default_rng(1)
    number = trials(100)
    few = sum(
        _too_few(scratch / "run", _save_and_prune, rng.uniform(0.004, 0.03)) for _ in range(number)
    )
    few += _too_few_if_nothing_can_be_deleted(scratch / "undeletable")
    mutants = trials(50)
    caught = sum(
        _too_few(scratch / "mutant", _prune_and_save, rng.uniform(0.004, 0.03))
        for _ in range(mutants)
    )
    return Row(
        "A11",
        "SIGKILL at a random time while deleting; deletions that fail",
        number + 1,
        few,
        f"{of_trials(few, number + 1, 'with fewer than two valid')}; "
        f"one that deletes before it saves: {caught} of {mutants}",
        "never fewer than two valid; the mutant fails",
        few == 0 and caught > 0,
    )


def _prune_and_save(checkpoints: Path, step: int) -> None:
    prune_to_one_before_saving(checkpoints)
    save(checkpoints, step, write_checkpoint)


def _too_few(run: Path, once: Callable[[Path, int], None], seconds: float) -> bool:
    _kill_in_a_loop(run, once, seconds, least=2)
    return len(valid_steps(run)) < 2


def _too_few_if_nothing_can_be_deleted(run: Path) -> bool:
    """What is renamed away but stays must not be found again."""
    checkpoints = run / "checkpoints"
    for step in (1, 2, 3):
        save(checkpoints, step, write_checkpoint)

    def action() -> int:
        shutil.rmtree = lambda *_, **__: None  # type: ignore[assignment]
        prune(checkpoints)
        return 0

    with Work(action, run / "log") as work:
        work.wait()
    there = valid_steps(run)
    clean_leftovers(checkpoints)
    return there != [2, 3] or len(list(checkpoints.iterdir())) != 2


ROWS: Rows = {
    "A1": a1_kills_while_saving,
    "A2": a2_kill_at_every_point,
    "A11": a11_deletion,
}
