"""What the learning stages share: one loop, and how it is recorded.

A learning stage is a state object that advances by a few steps at a time. `train` turns it into a
generator of records; whoever consumes them evaluates, saves and stops between two of them, where
the state is whole.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.replay.frame_replay import FrameReplay
from actor_mimic.rollout import Episode
from actor_mimic.storage.records import Record, Value

RECENT_EPISODES = 100


@dataclass(frozen=True)
class Snapshot:
    """A state, ready to be written: tensors by file, plain data, and the replays by name."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    replays: dict[str, FrameReplay] = field(default_factory=dict)


@runtime_checkable
class LearningState(Protocol):
    """Everything that a learning stage is at one moment."""

    recent: "RecentEpisodes"
    replay_bytes: int

    @property
    def steps(self) -> int:
        """Steps so far, over all tasks."""
        ...

    @property
    def updates(self) -> int:
        """Optimiser steps so far."""
        ...

    @property
    def total_steps(self) -> int:
        """When the stage is done."""
        ...

    @property
    def network(self) -> QNetwork | Student:
        """The network whose weights are the result."""
        ...

    @property
    def acting(self) -> QNetwork | Student:
        """The same as it is to be called: see `WorkingCopy`."""
        ...

    def start(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Resets the environments, for a run that does not resume; may be stopped while it looks.

        Raises:
            Interrupted: if a stop was asked for.
        """
        ...

    def advance(self) -> Mapping[str, Tensor | float]:
        """A few steps and the updates that they bring; the metrics of both."""
        ...

    def snapshot(self) -> Snapshot:
        """What `restore` needs; changes nothing."""
        ...

    def restore(
        self,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        replays: Mapping[str, Iterable[Mapping[str, Tensor]]],
    ) -> None:
        """Goes back to where a snapshot was taken, but for the environments: see `catch_up`."""
        ...

    def catch_up(self, stop: Callable[[], int | None] = lambda: None) -> None:
        """Plays the unfinished games of a snapshot again; only `advance` needs that.

        Raises:
            Interrupted: if a stop was asked for.
        """
        ...

    def close(self) -> None:
        """Stops the emulators."""
        ...


class RecentEpisodes:
    """Raw scores of the last 100 finished training games of each task."""

    def __init__(self, tasks: Iterable[str]) -> None:
        self._scores = {task: deque[float](maxlen=RECENT_EPISODES) for task in tasks}
        self._lengths = {task: deque[int](maxlen=RECENT_EPISODES) for task in tasks}
        self.finished = 0

    def extend(self, episodes: Iterable[Episode]) -> None:
        """Takes in newly finished games."""
        for episode in episodes:
            self._scores[episode.task].append(episode.score)
            self._lengths[episode.task].append(episode.length)
            self.finished += 1

    def means(self) -> dict[str, float | None]:
        """``TASK/score`` and ``TASK/length``; None before the first game ended."""
        result: dict[str, float | None] = {}
        for task, scores in self._scores.items():
            lengths = self._lengths[task]
            result[f"{task}/score"] = sum(scores) / len(scores) if scores else None
            result[f"{task}/length"] = sum(lengths) / len(lengths) if lengths else None
        return result

    def state_dict(self) -> dict[str, Any]:
        """Plain lists."""
        return {
            "scores": {task: list(scores) for task, scores in self._scores.items()},
            "lengths": {task: list(lengths) for task, lengths in self._lengths.items()},
            "finished": self.finished,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for task in self._scores:
            self._scores[task].extend(state["scores"][task])
            self._lengths[task].extend(state["lengths"][task])
        self.finished = int(state["finished"])


def mean_metrics(updates: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What several updates said, on the mean; nothing of none."""
    if len(updates) < 2:
        return dict(updates[0]) if updates else {}
    return {name: torch.stack([said[name] for said in updates]).mean() for name in updates[0]}


def train(state: LearningState, is_due: Callable[[int, int], bool]) -> Iterator[Record]:
    """Advances a stage to its end; yields a record of means whenever one is due, and at the end.

    Between two records the state is whole: that is when it can be evaluated, saved or left. Rates
    are of what was done since the last record, here; not of what a resumed run had done before.

    Args:
        state: restored or started.
        is_due: asked after every advance, with the steps before and after it.
    """
    sums: dict[str, Tensor | float] = {}
    counts: dict[str, int] = {}
    seconds, steps, updates = 0.0, state.steps, state.updates
    while state.steps < state.total_steps:
        before, started = state.steps, time.monotonic()
        for name, value in state.advance().items():
            sums[name] = sums[name] + value if name in sums else value
            counts[name] = counts.get(name, 0) + 1
        seconds += time.monotonic() - started
        if not is_due(before, state.steps) and state.steps < state.total_steps:
            continue
        # The only place where metrics leave the device.
        means = {name: float(torch.as_tensor(s)) / counts[name] for name, s in sums.items()}
        values: dict[str, Value] = {
            **means,
            **state.recent.means(),
            "episodes": state.recent.finished,
            "steps_per_s": (state.steps - steps) / max(seconds, 1e-9),
            "updates_per_s": (state.updates - updates) / max(seconds, 1e-9),
        }
        yield Record("train", state.steps, state.updates, values, seconds)
        sums, counts = {}, {}
        seconds, steps, updates = 0.0, state.steps, state.updates
