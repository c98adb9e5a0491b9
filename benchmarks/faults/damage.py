"""Rows A7 and A8: checkpoints with a part missing or a bit flipped."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from actor_mimic.errors import DataError
from actor_mimic.stages import session
from actor_mimic.storage.checkpoint import newest_valid, read_checkpoint
from actor_mimic.storage.durable import clean_leftovers
from actor_mimic.storage.naming import find_checkpoints
from benchmarks.faults.row import Row, Rows, of_trials, trials
from benchmarks.faults.runs import (
    CARTPOLE,
    SMALL_DQN,
    done,
    is_done,
    last_step,
    lasting,
    same_content,
    valid_steps,
    verb,
)

COMMAND = ("train-expert", CARTPOLE, *lasting(3072, every=512), *SMALL_DQN)

Harm = Callable[[Path, np.random.Generator], None]


def truncate(path: Path, rng: np.random.Generator) -> None:
    """Cuts a file off at a random byte."""
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flips one random bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def empty(path: Path, _: np.random.Generator) -> None:
    """Leaves nothing in it."""
    os.truncate(path, 0)


def _stopped_run(run: Path) -> Path:
    """A run that was killed after a few checkpoints with replays."""
    with verb(COMMAND, run) as work:
        work.wait_for(lambda: last_step(run) >= 1536)
    assert not is_done(run), "it has finished already"
    assert len(valid_steps(run)) >= 2
    clean_leftovers(run / "checkpoints")
    return run


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def a7_damage_to_the_newest(scratch: Path) -> Row:
    """Each file of the newest checkpoint in turn, put back afterwards."""
    rng = np.random.default_rng(0)
    source = _stopped_run(scratch / "run")
    checkpoints = source / "checkpoints"
    *_, before, newest = find_checkpoints(checkpoints)
    # Older segments are the same files in both: here they are harmed in the newest alone.
    copy = scratch / "copy"
    shutil.copytree(newest, copy)
    shutil.rmtree(newest)
    shutil.copytree(copy, newest)
    cuts, flips = trials(20), trials(100)
    missed = unhashed = 0
    for number in range(cuts + flips):
        path = _files(newest)[number % len(_files(newest))]
        whole = path.read_bytes()
        (truncate if number < cuts else flip)(path, rng)
        named: list[str] = []
        try:
            found = newest_valid(checkpoints, lambda _, why, to=named: to.append(why))
            missed += found is None or found.path != before or str(newest) not in "".join(named)
        except DataError:
            missed += 1
        if number >= cuts:
            try:
                read_checkpoint(newest, verify=False)
                unhashed += 1
            except DataError:
                pass
        path.write_bytes(whole)
    assert read_checkpoint(newest), "all has been put back"
    runs, wrong = trials(6), 0
    reference = scratch / "reference"
    done(COMMAND, reference)
    for number in range(runs):
        wrong += not _goes_on_from_the_one_before(source, scratch / f"run-{number}", rng, reference)
    return Row(
        "A7",
        f"{cuts} truncations and {flips} bit flips of the newest checkpoint; {runs} runs go on",
        cuts + flips + runs,
        missed + wrong,
        f"{cuts + flips - missed} of {cuts + flips} detected, named and fallen back by one; "
        f"{runs - wrong} of {runs} runs end bit-identical; "
        f"a reader that does not hash misses {unhashed} of {flips} flips",
        "all detected; the mutant fails",
        missed + wrong == 0 and unhashed > 0,
    )


def _goes_on_from_the_one_before(
    source: Path, run: Path, rng: np.random.Generator, reference: Path
) -> bool:
    shutil.copytree(source, run)
    newest = find_checkpoints(run / "checkpoints")[-1]
    path = rng.choice(np.array(_files(newest), dtype=object))
    flip(path, rng)
    with verb(COMMAND, run) as work:
        code, said = work.wait(), work.said()
    return code == 0 and f"damaged checkpoint {newest}" in said and same_content(run, reference)


def a8_damage_to_all(scratch: Path) -> Row:
    """A run whose checkpoints are all damaged refuses, and leaves everything as it is."""
    rng = np.random.default_rng(0)
    source = _stopped_run(scratch / "run")
    number = trials(18)
    started_over = 0
    for trial in range(number):
        run = scratch / f"run-{trial}"
        # Links stay links, so that a segment that two checkpoints share is harmed in both.
        _copy_with_links(source, run)
        _harm_all(run, (truncate, flip, empty)[trial % 3], rng, shared=trial % 6 == 5)
        before = _fingerprint(run)
        with verb(COMMAND, run) as work:
            refused = work.wait() == 65 and "are damaged" in work.said()
        started_over += not refused or _fingerprint(run) != before
    run = scratch / "mutant"
    _copy_with_links(source, run)
    _harm_all(run, truncate, rng, shared=False)
    caught = done(COMMAND, run, prepare=_find_no_checkpoints) != 65
    return Row(
        "A8",
        "every checkpoint damaged, then the same command again",
        number,
        started_over,
        f"{of_trials(started_over, number, 'started over or changed a file')}; "
        f"one that finds none starts over: {'yes' if caught else 'no'}",
        "exit 65, nothing trained, files untouched; the mutant fails",
        started_over == 0 and caught,
    )


def _find_no_checkpoints() -> None:
    session.newest_valid = lambda *_: None


def _copy_with_links(source: Path, target: Path) -> None:
    made: dict[int, Path] = {}
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir(parents=True)
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        first = made.setdefault(path.stat().st_ino, to)
        if first == to:
            shutil.copyfile(path, to)
        else:
            os.link(first, to)


def _harm_all(run: Path, harm: Harm, rng: np.random.Generator, *, shared: bool) -> None:
    checkpoints = find_checkpoints(run / "checkpoints")
    if shared:
        inodes = [{p.stat().st_ino: p for p in _files(home)} for home in checkpoints]
        (both, *_) = set.intersection(*map(set, inodes))
        harm(inodes[0][both], rng)
        return
    for home in checkpoints:
        own = [path for path in _files(home) if path.stat().st_nlink == 1]
        harm(rng.choice(np.array(own, dtype=object)), rng)


def _fingerprint(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in run.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


ROWS: Rows = {"A7": a7_damage_to_the_newest, "A8": a8_damage_to_all}
