"""Rows A5 and A6: disks that are full, too small, or not to be written to."""

import os
import resource
import shutil
import signal
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np

from actor_mimic.stages import session
from actor_mimic.storage.durable import FAULT_POINTS
from actor_mimic.storage.naming import find_checkpoints
from actor_mimic.storage.run_dir import RunDir
from benchmarks.faults.mutants import write_in_place
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    SMALL_DQN,
    done,
    is_done,
    last_step,
    lasting,
    must,
    nothing,
    records,
    same_content,
    valid_steps,
    verb,
)

COMMAND = ("train-expert", CARTPOLE, *lasting(2048, every=512), *SMALL_DQN)
NOBODY = 65534
# Of the points of a save, those that a run which saves every step once comes by.
POINTS = [p for p in FAULT_POINTS if p.startswith("save-") and p != "save-old-set-aside"]
_Usage = namedtuple("_Usage", "total used free")


def a5_full_while_saving(scratch: Path) -> Row:
    """A disk that takes no more, at byte positions and at every point of a save."""
    reference = must(COMMAND, scratch / "reference")
    newest = find_checkpoints(reference / "checkpoints")[-1]
    largest = max(path.stat().st_size for path in newest.rglob("*.safetensors"))
    number = trials(10)
    positions = [round(largest * fraction) for fraction in np.linspace(0.02, 0.98, number)]
    failures = 0
    for position in positions:
        failures += not _survives_a_limit(scratch / f"at-{position}", position, reference)
    points = POINTS[: trials(len(POINTS))]
    for point in points:
        failures += not _survives_a_fault(scratch / point, point, reference)
    caught = sum(
        not _survives_a_limit(scratch / f"mutant-{position}", position, reference, _in_place)
        for position in positions
    )
    total = number + len(points)
    return Row(
        "A5",
        f"disk full while saving: {number} byte positions, {len(points)} points of the protocol",
        total,
        failures,
        f"{of_trials(failures, total, 'lost the old checkpoint or left with another code')}; "
        f"an in-place writer: {caught} of {number}",
        "old checkpoint valid, exit 74, goes on bit-identical; the mutant fails",
        failures == 0 and caught > 0,
    )


def _in_place() -> None:
    session.write_checkpoint = write_in_place


def _survives_a_limit(
    run: Path, position: int, reference: Path, prepare: Callable[[], object] = nothing
) -> bool:
    """No file may grow beyond a size, as soon as there is a checkpoint."""
    with verb(COMMAND, run, prepare=prepare) as work:
        work.wait_for(lambda: bool(valid_steps(run)))
        work.send(signal.SIGSTOP)
        # With a little for the records and for what is said, which would meet the limit first.
        least = max(path.stat().st_size for path in (run / "records.jsonl", work.log)) + 4000
        resource.prlimit(work.pid, resource.RLIMIT_FSIZE, (max(position, least),) * 2)
        before = valid_steps(run)
        work.send(signal.SIGCONT)
        code = work.wait()
    return _went_well(run, code, before[-1:], reference)


def _survives_a_fault(run: Path, point: str, reference: Path) -> bool:
    # In the second save; the first comes by once for each of three groups of tensors.
    passage = 5 if point == "save-tensors-written" else 2
    code = done(COMMAND, run, environment={"ACTOR_MIMIC_FAULT": f"{point}:{passage}:enospc"})
    return _went_well(run, code, [], reference)


def _went_well(run: Path, code: int, before: list[int], reference: Path) -> bool:
    there = valid_steps(run)
    hidden = [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".tmp")]
    if code != 74 or not there or hidden or not set(before).issubset(there):
        return False
    return done(COMMAND, run) == 0 and same_content(run, reference)


def a6_refused_before_training(scratch: Path) -> Row:
    """Places that cannot take a run, by somebody who is not root."""
    cases: dict[str, tuple[Callable[[Path], None], Callable[[], object], int]] = {
        "read-only": (_make_read_only, _drop_root, 73),
        "below-read-only": (_make_parent_read_only, _drop_root, 73),
        "begun-then-read-only": (_begin_then_read_only, _drop_root, 73),
        "too-small": (_nowhere, _shrink_disk, 74),
    }
    failures, slowest = 0, 0.0
    for name, (make, prepare, expected) in cases.items():
        run = scratch / name / "run"
        run.parent.mkdir(mode=0o777)
        os.chmod(run.parent, 0o777)
        make(run)
        steps, started = last_step(run), time.monotonic()
        code = done(COMMAND, run, prepare=prepare)
        seconds = time.monotonic() - started
        slowest = max(slowest, seconds)
        failures += code != expected or last_step(run) != steps or seconds > 2.0
    mutant = scratch / "mutant" / "run"
    mutant.parent.mkdir()
    with verb(COMMAND, mutant, prepare=_shrink_disk_unseen) as work:
        caught = work.wait_for(lambda: bool(records(mutant)))
    return Row(
        "A6",
        f"{', '.join(cases)}: is it refused before training?",
        len(cases),
        failures,
        f"{of_trials(failures, len(cases), 'not refused')}, slowest {slowest:.2f} s; "
        f"one that does not look trains: {'yes' if caught else 'no'}",
        "exit 73 or 74 in 2 s, no step taken; the mutant fails",
        failures == 0 and caught,
    )


def _nowhere(_: Path) -> None:
    """The run directory is not there yet."""


def _make_read_only(run: Path) -> None:
    run.mkdir(mode=0o555)


def _make_parent_read_only(run: Path) -> None:
    os.chmod(run.parent, 0o555)


def _begin_then_read_only(run: Path) -> None:
    with verb(COMMAND, run) as work:
        work.wait_for(lambda: bool(valid_steps(run)))
    assert not is_done(run), "it has finished already"


def _drop_root() -> None:
    """Root may write everywhere."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    # Whoever owns a directory could make it writable again, but a run does not.


def _shrink_disk() -> None:
    shutil.disk_usage = lambda _: _Usage(1000, 1000, 0)  # type: ignore[assignment]


def _shrink_disk_unseen() -> None:
    _shrink_disk()
    RunDir.require_space = lambda *_: None  # type: ignore[method-assign]


ROWS: Rows = {"A5": a5_full_while_saving, "A6": a6_refused_before_training}
