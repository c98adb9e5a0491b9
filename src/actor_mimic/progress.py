"""What a person sees while a stage runs: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from actor_mimic.report.printable import can_draw, printable
from actor_mimic.storage.records import Record, Value

TASKS_SHOWN = 3


class StageProgress:
    """Shows the records of one running stage.

    ::

        with StageProgress("pong-expert/seed-0", 400_000) as progress:
            for record in run_expert(config, launch):
                progress.show(record)

    On a terminal there is a bar with the time left, and under it rates and key figures; both fit
    into 100 columns. Finished evaluations scroll by above. Without a terminal, or with
    ``NO_COLOR`` or ``TERM=dumb``, there is a line at most every ``interval_s``; evaluations and
    final scores are always printed.

    Args:
        title: which stage.
        total_steps: when it is done; 0 for a stage that only plays.
        stream: where to; standard error by default.
        interval_s: seconds between two lines about the same thing.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        *,
        stream: TextIO | None = None,
        interval_s: float = 10.0,
    ) -> None:
        out = sys.stderr if stream is None else stream
        self._title = printable(title, max_length=100)
        self._total_steps = total_steps
        self._games = _GamePace()
        self._steps = _StepPace(total_steps)
        self._view: _Bars | _Lines
        if can_draw(out):
            self._view = _Bars(out, self._title, total_steps)
        else:
            self._view = _Lines(out, interval_s)

    def __enter__(self) -> "StageProgress":
        self._view.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._view.close()

    def show(self, record: Record) -> None:
        """Takes in the next record of the stage."""
        match record.kind:
            case "train" | "film":
                # The last update may have waited for more steps than were left.
                count = f"{record.step:,} / {self._total_steps:,} steps"
                left = self._steps.time_left(record)
                rates, figures = _rates(record.values), key_figures(record.values)
                self._view.step(
                    min(record.step, self._total_steps),
                    _joined(count, left),
                    _joined(*rates, *figures),
                    f"{self._title}: {_joined(count, *rates, left, *figures)}",
                )
            case "evaluation":
                scores = describe_scores(record.values)
                self._view.line(f"{self._title}: at {record.step:,} steps: {scores}")
            case "final":
                self._view.line(f"{self._title}: final: {describe_scores(record.values)}")
            case "measure":
                who = printable(record.values.get("who", ""), max_length=40)
                self._view.line(f"{self._title}: {who}: {describe_scores(record.values)}")
            case _:
                pass

    def on_game(self, task: str, finished: int, total: int) -> None:
        """Takes in the progress of an evaluation, in games."""
        name = printable(task, max_length=60)
        count = f"{finished} of {total} games{self._games.pace(task, finished, total)}"
        self._view.game(name, finished, total, count, f"{self._title}: evaluating {name}: {count}")

    def notice(self, text: str) -> None:
        """Prints something that a person should read."""
        self._view.line(f"{self._title}: {printable(text)}")


def key_figures(values: Mapping[str, Value]) -> list[str]:
    """The few values of a training record that say how it goes."""
    figures = []
    scores = _of_tasks(values, "/score")
    for task, score in list(scores.items())[:TASKS_SHOWN]:
        figures.append(f"{printable(task, max_length=60)} {score:.1f}")
    if len(scores) > TASKS_SHOWN:
        figures.append(f"and {len(scores) - TASKS_SHOWN} more tasks")
    for name, form in (("loss", ".3g"), ("epsilon", ".2f")):
        value = _number(values.get(name))
        if value is not None:
            figures.append(f"{name} {value:{form}}")
    agreements = _of_tasks(values, "/agreement")
    if agreements:
        figures.append(f"agreement {sum(agreements.values()) / len(agreements):.0%}")
    return figures


def describe_scores(values: Mapping[str, Value]) -> str:
    """The scores of an evaluation's record: ``pong 12.3 [10.1, 14.0] (30 games)``."""
    parts = []
    for task, mean in _of_tasks(values, "/mean").items():
        text = f"{printable(task, max_length=60)} {mean:.1f}"
        low, high = (_number(values.get(f"{task}/ci95_{end}")) for end in ("low", "high"))
        if low is not None and high is not None:
            text += f" [{low:.1f}, {high:.1f}]"
        games = _number(values.get(f"{task}/episodes"))
        if games is not None:
            text += f" ({games:.0f} games)"
        claimed = _number(values.get(f"{task}/claimed"))
        if claimed is not None:
            text += f" (claimed {claimed:.1f}, drop {claimed - mean:.1f})"
        parts.append(text)
    return ", ".join(parts) or "no scores"


class _Bars:
    """A terminal that can be drawn on."""

    def __init__(self, stream: TextIO, title: str, total_steps: int) -> None:
        # Names come from files: they are never read as rich's markup or emoji codes.
        self._console = Console(file=stream, markup=False, emoji=False, highlight=False)
        name = Column(no_wrap=True, overflow="ellipsis", max_width=32)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=name),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
            TextColumn("{task.fields[count]}", markup=False),
            console=self._console,
            expand=True,
        )
        # Rates and figures have a line of their own: beside the bar they would not fit.
        self._figures: list[Text] = []
        self._live = Live(
            get_renderable=lambda: Group(self._progress, *self._figures),
            console=self._console,
            refresh_per_second=4,
        )
        total = total_steps or None
        self._stage = self._progress.add_task(title, total=total, visible=total_steps > 0, count="")
        self._game: TaskID | None = None

    def open(self) -> None:
        self._live.start()

    def close(self) -> None:
        self._hide_game()
        self._live.stop()

    def step(self, step: int, count: str, figures: str, line: str) -> None:
        del line
        self._hide_game()
        self._figures = [Text(f"  {figures}")]
        self._progress.update(self._stage, completed=step, count=count)

    def game(self, task: str, finished: int, total: int, count: str, line: str) -> None:
        del line
        if self._game is None:
            self._game = self._progress.add_task("", total=total, count="")
        self._progress.update(
            self._game,
            description=f"  evaluating {task}",
            completed=finished,
            total=total,
            count=count,
        )

    def line(self, text: str) -> None:
        self._hide_game()
        self._console.print(Text(text), soft_wrap=True)

    def _hide_game(self) -> None:
        if self._game is not None:
            self._progress.remove_task(self._game)
            self._game = None


class _Lines:
    """A file, a pipe or a plain terminal."""

    def __init__(self, stream: TextIO, interval_s: float) -> None:
        self._stream = stream
        self._interval_s = interval_s
        self._last = -interval_s

    def open(self) -> None:
        self._last = time.monotonic() - self._interval_s

    def close(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def step(self, step: int, count: str, figures: str, line: str) -> None:
        del step, count, figures
        self._sometimes(line)

    def game(self, task: str, finished: int, total: int, count: str, line: str) -> None:
        del task, total, count
        if finished:
            self._sometimes(line)

    def line(self, text: str) -> None:
        # Whoever reads on may leave, and a disk for logs may be full: no reason to stop learning.
        with suppress(OSError):
            self._stream.write(text + "\n")
            self._stream.flush()

    def _sometimes(self, line: str) -> None:
        now = time.monotonic()
        if now - self._last >= self._interval_s:
            self._last = now
            self.line(line)


class _StepPace:
    """How long the rest of a stage takes, its evaluations included but for those at the end.

    Args:
        total_steps: when it is done.
    """

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps
        self._first: Record | None = None

    def time_left(self, record: Record) -> str:
        """By all steps since learning was first seen, and at first by the newest alone.

        Nothing while a replay fills: those steps are many times as fast as later ones.
        """
        rate = _number(record.values.get("steps_per_s"))
        if not rate or rate <= 0.0 or _number(record.values.get("updates_per_s")) == 0.0:
            return ""
        first = self._first = self._first or record
        steps, seconds = record.step - first.step, record.wall_s - first.wall_s
        pace_s = seconds / steps if steps > 0 and seconds > 0.0 else 1.0 / rate
        left_s = max(0, self._total_steps - record.step) * pace_s
        return f"{timedelta(seconds=round(left_s))} left"


class _GamePace:
    """How fast the games of one evaluation end."""

    def __init__(self) -> None:
        self._task = ""
        self._first = 0
        self._finished = 0
        self._started_s = 0.0

    def pace(self, task: str, finished: int, total: int) -> str:
        """Rate and time left, once a game has ended since the evaluation was first seen."""
        now = time.monotonic()
        if task != self._task or finished < self._finished:
            self._task, self._first, self._started_s = task, finished, now
        self._finished = finished
        ended, elapsed_s = finished - self._first, now - self._started_s
        if ended <= 0 or elapsed_s <= 0.0 or finished >= total:
            return ""
        left_s = (total - finished) * elapsed_s / ended
        rate = 60.0 * ended / elapsed_s
        pace = f"{rate:,.0f}" if rate >= 100.0 else f"{rate:.1f}"
        return f", {pace} games/min, {timedelta(seconds=round(left_s))} left"


def _rates(values: Mapping[str, Value]) -> list[str]:
    """How fast it goes: ``["1,234 steps/s", "9.6 updates/s"]``."""
    rates = ((unit, _number(values.get(f"{unit}_per_s"))) for unit in ("steps", "updates"))
    # A large network makes few updates a second, and none while a replay fills.
    return [
        f"{rate:,.1f} {unit}/s" if 0.0 < rate < 10.0 else f"{rate:,.0f} {unit}/s"
        for unit, rate in rates
        if rate is not None
    ]


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _of_tasks(values: Mapping[str, Value], suffix: str) -> dict[str, float]:
    """Numbers by task, from keys such as ``pong/score``."""
    found = {name: _number(value) for name, value in values.items() if name.endswith(suffix)}
    return {name.removesuffix(suffix): value for name, value in found.items() if value is not None}


def _number(value: Value) -> float | None:
    return float(value) if isinstance(value, int | float) else None
