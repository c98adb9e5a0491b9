"""Verbs in forks of this process, and what the runs that they leave behind hold.

A fork has everything imported, so a kill hits the work and not the loading of PyTorch.
"""

import importlib
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from actor_mimic.cli import main
from actor_mimic.errors import DataError
from actor_mimic.storage.checkpoint import Checkpoint, read_checkpoint, resolve_checkpoint
from actor_mimic.storage.naming import find_checkpoints
from actor_mimic.storage.records import Record, read_records
from actor_mimic.storage.run_dir import COMPLETE, RECORDS
from actor_mimic.storage.tensor_files import load_tensor_file

# What the verbs import when they run.
_WARM = (
    "actor_mimic.progress",
    "actor_mimic.stages.launch",
    "actor_mimic.storage.verify",
    "ale_py",
    "gymnasium.envs.classic_control.cartpole",
    "torch._dynamo",  # by the first step of an optimiser
    "tyro.extras",
)
PATIENCE_S = 300.0
# No mutant is caught by a mistake of ours.
NOT_PREPARED = 99

CARTPOLE = "gym:CartPole-v1"
ON_ONE_CORE = ("--device=cpu", "--precision=float32", "--threads=1")
SMALL_PQN = ("--set=num_envs=8", "--set=rollout_steps=16", "--set=minibatch_size=64")
SMALL_DQN = (
    "--algorithm=dqn",
    "--set=num_envs=4",
    "--set=update_every_steps=8",
    "--set=batch_size=32",
    "--set=learning_starts_steps=200",
    "--set=replay_capacity_steps=2000",
    "--checkpoint-replay=full",  # else there would be none to compare when a run is done
)


def lasting(total: int, *, every: int, records: int = 256, games: int = 2) -> tuple[str, ...]:
    """Options of a run of so many steps with a checkpoint every so many, and games at its end."""
    return (
        *ON_ONE_CORE,
        f"--total-steps={total}",
        "--eval-every-steps=0",
        f"--checkpoint-every-steps={every}",
        f"--set=record_every_steps={records}",
        f"--set=final_episodes={games}",
    )


def warm_up() -> None:
    """Imports what forks will need. Call it before the first one."""
    # A fork of a process whose threads have computed could wait for them for ever.
    torch.set_num_threads(1)
    for module in _WARM:
        importlib.import_module(module)


def nothing() -> None:
    """What most forks do before their work."""


class Work:
    """Something that runs in a fork; leaving the context kills what is left of it.

    Args:
        action: what to do; its exit status is what it returns.
        log: takes both streams.
    """

    def __init__(self, action: Callable[[], int], log: Path) -> None:
        self.log = log
        self._status: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # idle threads of PyTorch
            self.pid = os.fork()
        if self.pid == 0:
            _in_the_fork(action, log)

    def ended(self) -> bool:
        """Whether it has come to an end."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is not None

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status, or minus the number of the signal that ended it.

        Raises:
            TimeoutError: with the end of what it said.
        """
        self.wait_for(lambda: False, timeout_s)
        assert self._status is not None
        if self._status == NOT_PREPARED:
            raise RuntimeError(f"the harness broke: {self.said()[-1000:]}")
        return self._status

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
        """Waits until a condition holds; False if the work ended before.

        Raises:
            TimeoutError: with the end of what it said.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if self.ended():
                return False
            if time.monotonic() > deadline:
                raise TimeoutError(f"still waiting after {timeout_s:.0f} s: {self.said()[-500:]}")
            time.sleep(0.002)
        return True

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if there is still somebody."""
        if not self.ended():
            os.kill(self.pid, number)

    def said(self) -> str:
        """Both streams so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> "Work":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def verb(
    arguments: Sequence[str],
    run: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[], object] = nothing,
) -> Work:
    """Starts ``actor-mimic ARGUMENTS --run-dir RUN``.

    Args:
        arguments: of the command line.
        run: the run directory; what it says goes to ``RUN.log``.
        environment: variables beside ours.
        prepare: done in the fork first: where mutants come from.
    """

    def action() -> int:
        os.environ.update(environment or {})
        try:
            prepare()
        except Exception:
            traceback.print_exc()
            return NOT_PREPARED
        try:
            main([*arguments, "--run-dir", str(run)])
        except SystemExit as left:
            return int(left.code or 0)
        raise AssertionError("main always leaves")

    return Work(action, run.parent / f"{run.name}.log")


def done(arguments: Sequence[str], run: Path, **how: Any) -> int:
    """Runs a verb to its end; its exit code."""
    with verb(arguments, run, **how) as work:
        return work.wait()


def must(arguments: Sequence[str], run: Path) -> Path:
    """Runs a verb that has to succeed.

    Raises:
        RuntimeError: if it does not, with what it said.
    """
    with verb(arguments, run) as work:
        if work.wait() != 0:
            raise RuntimeError(f"{' '.join(arguments)}: {work.said()[-1000:]}")
    return run


def records(run: Path, kind: str = "train") -> list[Record]:
    """Records so far; none before the file is there."""
    try:
        return [record for record in read_records(run / RECORDS) if record.kind == kind]
    except DataError:
        return []


def last_step(run: Path) -> int:
    """Steps at the newest record of training; 0 before the first."""
    found = records(run)
    return found[-1].step if found else 0


def is_done(run: Path) -> bool:
    """Whether it ran to its end."""
    return (run / COMPLETE).exists()


def valid_steps(run: Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    steps = []
    for path in find_checkpoints(run / "checkpoints"):
        try:
            steps.append(read_checkpoint(path).step)
        except DataError:
            continue
    return steps


def final_weights(run: Path) -> str:
    """Hash of the newest checkpoint's weights."""
    return resolve_checkpoint(run).model_sha256


def same_content(one: Path, other: Path) -> bool:
    """Whether two runs' newest checkpoints are equal bit by bit, but for the clock.

    The replay is compared slot by slot: how it is cut into segments depends on when was saved.
    """
    first, second = resolve_checkpoint(one), resolve_checkpoint(other)
    return _files(first) == _files(second) and _same_replays(first, second)


def _files(checkpoint: Checkpoint) -> Any:
    manifest = checkpoint.manifest
    names = set(manifest["files"]).difference(manifest["segments"], ["state.json"])
    hashes = {name: manifest["files"][name]["sha256"] for name in names}
    state = checkpoint.load_state()
    state.pop("elapsed_s")
    cuts = state.pop("segments")
    return checkpoint.step, hashes, state, sorted({cut["replay"] for cut in cuts})


def _same_replays(one: Checkpoint, other: Checkpoint) -> bool:
    first, second = _slots(one), _slots(other)
    for key in first.keys() | second.keys():
        left, right = first.get(key, []), second.get(key, [])
        # A segment may hold slots that the ring has written over since; the ends must agree.
        shared = min(len(left), len(right))
        if not shared or not np.array_equal(left[-shared:], right[-shared:]):
            return False
    return True


def _slots(checkpoint: Checkpoint) -> dict[tuple[str, str, int], Any]:
    """By replay, field and environment: its slots in order."""
    parts: dict[tuple[str, str, int], list[Any]] = {}
    for cut in checkpoint.load_state()["segments"]:
        segment = load_tensor_file(checkpoint.path / "replay" / f"{cut['name']}.safetensors")
        before, after = segment.pop("written_before"), segment.pop("written_after")
        segment.pop("steps_added")
        counts = (after - before).numpy()
        rows = len(segment["actions"])
        # Of each environment's slots the segment holds those that its ring still had.
        ring = next(size for size in range(rows, 0, -1) if np.minimum(counts, size).sum() == rows)
        ends = np.cumsum(np.minimum(counts, ring))
        for field, values in segment.items():
            for env, rows in enumerate(np.split(values.numpy(), ends[:-1])):
                parts.setdefault((cut["replay"], field, env), []).append(rows)
    return {key: np.concatenate(pieces) for key, pieces in parts.items()}


def _in_the_fork(action: Callable[[], int], log: Path) -> None:
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = action()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)
