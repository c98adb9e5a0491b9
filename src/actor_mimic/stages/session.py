"""A learning stage inside its run directory: records, evaluations, checkpoints, resume, stop."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from actor_mimic.config import ScheduleConfig
from actor_mimic.errors import DataError, DivergenceError, Interrupted
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.stages.evaluate import TaskScores
from actor_mimic.stages.training import LearningState, train
from actor_mimic.storage.checkpoint import (
    Checkpoint,
    newest_valid,
    read_best,
    write_best,
    write_checkpoint,
)
from actor_mimic.storage.records import Record, read_records
from actor_mimic.storage.retention import drop_replays, prune
from actor_mimic.storage.run_dir import RunDir
from actor_mimic.storage.tensor_files import load_tensor_file

KEEP_LAST = 2

# What taking up a state may raise that is whole, and was taken from another run or made up.
_DO_NOT_FIT = (
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation gave: scores per task, the one number that chooses ``best``, and more."""

    tasks: Mapping[str, TaskScores]
    figure_of_merit: float
    values: Mapping[str, float] = field(default_factory=dict)  # to be recorded beside them


class Session:
    """Runs one learning state to its end, or until it is stopped.

    Args:
        state: fresh; `run` restores it if the run has a checkpoint.
        run: the open run directory, locked by us.
        schedule: when to record, evaluate and save.
        manifest: what every checkpoint says of itself: kind, tasks, network, config, parents,
            protocol.
        evaluate: plays the present network.
        stop: asked after every advance; the number of a signal, or None.
        notice: told of damaged checkpoints, and where a run goes on from.
    """

    def __init__(
        self,
        state: LearningState,
        run: RunDir,
        *,
        schedule: ScheduleConfig,
        manifest: Mapping[str, Any],
        evaluate: Callable[[], Evaluation],
        stop: Callable[[], int | None],
        notice: Callable[[str], None],
    ) -> None:
        self._state = state
        self._run = run
        self._schedule = schedule
        self._manifest = manifest
        self._evaluate = evaluate
        self._stop = stop
        self._notice = notice
        self._segments: list[dict[str, Any]] = []
        self._last: Checkpoint | None = None
        self._evaluation_due = False
        self._saved: tuple[int, bool] | None = None
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds that the stage has taken, earlier sessions included up to their last save."""
        return self._seconds_before + time.monotonic() - self._started

    def run(self) -> Iterator[Record]:
        """Yields every record after it has been written.

        Raises:
            Interrupted: after the checkpoint that a stop asks for.
            DivergenceError: if learning went wrong, with where it did; the last checkpoint is
                intact.
            DataError: if there are checkpoints and none is valid.
        """
        try:
            yield from self._run_to_the_end()
        except DivergenceError as error:
            raise DivergenceError(
                f"{self._whereabouts()}: {error} {self._what_is_left()}"
            ) from error

    def _run_to_the_end(self) -> Iterator[Record]:
        self._last = newest_valid(
            self._run.checkpoints,
            lambda path, why: self._notice(f"damaged checkpoint {path}: {why}"),
        )
        if self._last is None:
            self._state.start(self._stop)
        else:
            at_the_end = self._last.step >= self._state.total_steps
            # Of many environments that takes minutes, in which there is nothing else to see.
            played = "" if at_the_end else ": its unfinished games are played again first"
            self._notice(f"going on from step {self._last.step:,}{played}")
            try:
                self._restore(self._last)
                if not at_the_end:
                    self._state.catch_up(self._stop)
            except _DO_NOT_FIT as error:
                raise DataError(
                    f"{self._last.path}: its state does not fit this run: {error!r:.300}"
                ) from error
        fresh = self._last is None
        go_on(self._run, self._notice)
        self._run.records.rewind(-1 if fresh else self._state.steps)
        self._mend_best()
        if self._evaluation_due or (fresh and self._schedule.eval_every_steps):
            yield from self._evaluate_and_save()
        before = self._state.steps
        for record in train(self._state, self._something_is_due):
            yield from self._write(record)
            if self._is_over(self._schedule.eval_every_steps, before, record.step):
                yield from self._evaluate_and_save()
            elif self._is_over(self._schedule.checkpoint_every_steps, before, record.step):
                yield from self._save()
            signal_number = self._stop()
            if signal_number is not None:
                yield from self._save()
                raise Interrupted(signal_number)
            before = record.step

    def drop_replays(self) -> None:
        """Frees what the replays take on disk, if they are for a run that is not done alone."""
        if self._schedule.checkpoint_replay == "until_done":
            drop_replays(self._run.checkpoints, {"segments": []})

    def _whereabouts(self) -> str:
        tasks = ", ".join(self._manifest["tasks"])
        return f"{tasks}, after {self._state.steps:,} steps and {self._state.updates:,} updates"

    def _what_is_left(self) -> str:
        if self._last is None:
            return "There is no checkpoint yet."
        return (
            f"The last checkpoint, of step {self._last.step:,}, is intact. The same command goes "
            "on from it, and where resume is exact comes here again; other settings need another "
            "run directory, and an expert's weights can be taken there (transfer --from)."
        )

    def _something_is_due(self, before: int, now: int) -> bool:
        schedule = self._schedule
        periods = (
            schedule.record_every_steps,
            schedule.eval_every_steps,
            schedule.checkpoint_every_steps,
        )
        return self._stop() is not None or any(self._is_over(p, before, now) for p in periods)

    def _is_over(self, period: int, before: int, now: int) -> bool:
        """Whether a period ended in ``(before, now]``; 0 means never, the end always counts."""
        return period > 0 and (now // period > before // period or now >= self._state.total_steps)

    def _evaluate_and_save(self) -> Iterator[Record]:
        """An evaluation is worth a checkpoint: ``best`` can only name what was saved."""
        self._evaluation_due = True
        try:
            evaluation = self._evaluate()
        except Interrupted:
            # The evaluation will be made again on resume.
            yield from self._save()
            raise
        self._evaluation_due = False
        yield from self._write(self._evaluation_record(evaluation))
        yield from self._save()
        self._consider_best(self._state.steps, evaluation.figure_of_merit)

    def _consider_best(self, step: int, score: float) -> None:
        best = read_best(self._run.path)
        if best is None or score > best.score:
            write_best(self._run.path, step=step, score=score)

    def _mend_best(self) -> None:
        """After a kill between an evaluation's checkpoint and ``best.json``."""
        for record in read_records(self._run.records.path):
            if record.kind == "evaluation" and record.step == self._state.steps:
                merit = record.values.get("merit")
                if not isinstance(merit, int | float) or not math.isfinite(merit):
                    raise DataError(
                        f"{self._run.records.path}: expected the merit of the evaluation at step "
                        f"{record.step}, got {merit!r:.100}"
                    )
                self._consider_best(record.step, float(merit))

    def _write(self, record: Record) -> Iterator[Record]:
        record = dataclasses.replace(record, wall_s=self.elapsed_s)
        self._run.records.write(record)
        yield record

    def _evaluation_record(self, evaluation: Evaluation) -> Record:
        values: dict[str, float | int | str | None] = {"merit": evaluation.figure_of_merit}
        for task, scores in evaluation.tasks.items():
            values |= {
                f"{task}/mean": scores.mean,
                f"{task}/median": scores.median,
                f"{task}/stderr": scores.stderr,
                f"{task}/episodes": scores.episodes,
                f"{task}/mean_steps": scores.mean_steps,
                f"{task}/human_normalised": scores.human_normalised,
            }
        values |= evaluation.values
        return Record("evaluation", self._state.steps, self._state.updates, values, self.elapsed_s)

    def _save(self) -> Iterator[Record]:
        saved = (self._state.steps, self._evaluation_due)
        if saved == self._saved:
            return
        self._saved = saved
        # What resume will not repeat must be on disk before the checkpoint that says so.
        self._run.records.sync()
        snapshot = self._state.snapshot()
        replays = {} if self._schedule.checkpoint_replay == "none" else snapshot.replays
        new, kept = self._new_segments(replays, self._state.steps)
        self._last = write_checkpoint(
            self._run.checkpoints,
            step=self._state.steps,
            tensors=snapshot.tensors,
            state=snapshot.state
            | {
                "segments": self._segments,
                "evaluation_due": self._evaluation_due,
                "elapsed_s": self.elapsed_s,
            },
            manifest=self._manifest,
            replay_segments=new,
            link_segments=[self._segment_path(name) for name in kept],
        )
        best = read_best(self._run.path)
        keep = frozenset() if best is None else frozenset({best.step})
        prune(
            self._run.checkpoints,
            keep_last=KEEP_LAST,
            keep=keep,
            keep_every_steps=self._schedule.keep_every_steps,
        )
        values: dict[str, float | int | str | None] = {"model_sha256": self._last.model_sha256}
        yield from self._write(
            Record("checkpoint", self._state.steps, self._state.updates, values, self.elapsed_s)
        )

    def _new_segments(
        self, replays: Mapping[str, FrameReplay], steps: int
    ) -> tuple["Exports", list[str]]:
        """What to append for each replay, and which earlier segments still count."""
        new: dict[str, tuple[FrameReplay, Int64[np.ndarray, " envs"]]] = {}
        remaining: list[dict[str, Any]] = []
        for replay_name, replay in replays.items():
            mine = [s for s in self._segments if s["replay"] == replay_name]
            written = replay.written
            before = np.array(mine[-1]["written"] if mine else np.zeros_like(written))
            mine = [s for s in mine if (np.array(s["written"]) > replay.oldest).any()]
            if (written > before).any():
                name = f"{replay_name}-{steps:012d}"
                new[name] = (replay, before)
                mine.append({"name": name, "replay": replay_name, "written": written.tolist()})
            remaining += mine
        self._segments = remaining
        return Exports(new), [s["name"] for s in remaining if s["name"] not in new]

    def _segment_path(self, name: str) -> Path:
        assert self._last is not None
        return self._last.path / "replay" / f"{name}.safetensors"

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.load_state()
        self._segments = list(state["segments"])
        self._evaluation_due = bool(state["evaluation_due"])
        self._saved = (checkpoint.step, self._evaluation_due)
        self._seconds_before = float(state["elapsed_s"])
        groups = ("model", "optimizer", "rollout", "regressors")
        files = checkpoint.manifest["files"]
        tensors = {g: checkpoint.load_tensors(g) for g in groups if f"{g}.safetensors" in files}
        replays: dict[str, Iterable[Mapping[str, Tensor]]] = {}
        for name in dict.fromkeys(s["replay"] for s in self._segments):
            paths = [self._segment_path(s["name"]) for s in self._segments if s["replay"] == name]
            for path in paths:
                if str(path.relative_to(checkpoint.path)) not in checkpoint.manifest["segments"]:
                    raise DataError(f"{path}: expected a segment of the manifest")
            replays[name] = (load_tensor_file(path) for path in paths)
        self._state.restore(tensors, state, replays)
        if self._state.steps != checkpoint.step:
            raise DataError(
                f"{checkpoint.path}: expected a state of step {checkpoint.step}, got one of "
                f"{self._state.steps}"
            )


def go_on(run: RunDir, notice: Callable[[str], None]) -> None:
    """Lets a run's description take over what has changed, and says so where it computes."""
    moved = [text for key, text in run.go_on().items() if key.startswith("compute.")]
    if moved:
        notice(
            "this run computes otherwise than before, and may differ in the last digits from one "
            "that does not: " + "; ".join(moved)
        )


class Exports(Mapping[str, Mapping[str, Tensor]]):
    """Replay segments that are copied out only when they are written, one at a time.

    All at once they would need as much memory again as the replays themselves.
    """

    def __init__(self, sources: Mapping[str, tuple[FrameReplay, Int64[np.ndarray, " envs"]]]):
        self._sources = sources

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        replay, written_before = self._sources[name]
        return replay.export_since(written_before)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
