"""The tables of a report: who scored what, beside random play.

Every figure is read from the runs; a figure that was not measured is a dash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actor_mimic.report.aggregate import RANDOM, Collection, Point, Run, Score, collect
from actor_mimic.report.printable import printable

MISSING = "-"
LAST_EVALUATIONS = 10

SCORE_HEADINGS = (
    "stage",
    "seed",
    "task",
    "random",
    "expert",
    "student",
    "ratio",
    "episodes",
    "above random",
)
TRANSFER_HEADINGS = (
    "task",
    "arm",
    "seed",
    "from",
    "random",
    "final",
    f"last {LAST_EVALUATIONS}",
    "maximum",
    "area ratio",
    "above random",
)
NOTE = (
    "Raw scores, mean [95 % bootstrap interval]. ratio = (student - random) / (expert - random). "
    f"last {LAST_EVALUATIONS} and maximum: of the evaluations while learning. area ratio: area "
    "between the learning curve and random play, divided by that of the arm with random weights. "
    "above random: yes if the whole interval lies above that of random play, no if they overlap "
    "or it lies below."
)


@dataclass(frozen=True)
class ScoreRow:
    """One task of an expert, a student, or an evaluation.

    ``final`` is the score that the stage itself reached; None for random play.
    """

    stage: str
    seed: int
    task: str
    random: Score | None
    expert: Score | None
    student: Score | None
    final: Score | None

    @property
    def ratio(self) -> float | None:
        """(student - random) / (expert - random); None where the expert is no better."""
        if self.random is None or self.expert is None or self.student is None:
            return None
        gain = self.expert.mean - self.random.mean
        return (self.student.mean - self.random.mean) / gain if gain > 0.0 else None

    def cells(self) -> tuple[str, ...]:
        """As text, under `SCORE_HEADINGS`."""
        ratio = MISSING if self.ratio is None else f"{self.ratio:.0%}"
        shown = self.final or self.random
        episodes = None if shown is None else shown.episodes
        return (
            printable(self.stage, max_length=60),
            str(self.seed),
            printable(self.task, max_length=60),
            show_score(self.random),
            show_score(self.expert),
            show_score(self.student),
            ratio,
            MISSING if episodes is None else str(episodes),
            show_apart(self.final, self.random),
        )


@dataclass(frozen=True)
class TransferRow:
    """One arm on a new task."""

    task: str
    arm: str
    seed: int
    origin: str
    random: Score | None
    final: Score | None
    last_mean: float | None
    maximum: float | None
    area_ratio: float | None

    def cells(self) -> tuple[str, ...]:
        """As text, under `TRANSFER_HEADINGS`."""
        return (
            printable(self.task, max_length=60),
            printable(self.arm, max_length=60),
            str(self.seed),
            printable(self.origin, max_length=60),
            show_score(self.random),
            show_score(self.final),
            show_number(self.last_mean),
            show_number(self.maximum),
            MISSING if self.area_ratio is None else f"{self.area_ratio:.2f}",
            show_apart(self.final, self.random),
        )


def score_rows(collection: Collection) -> list[ScoreRow]:
    """One row per task of each expert, student and evaluation."""
    return [
        _score_row(collection, run, task)
        for run in collection.runs
        if run.kind != "transfer"
        for task in run.tasks
    ]


def transfer_rows(collection: Collection) -> list[TransferRow]:
    """One row per arm and seed, tasks together, the arm with random weights first."""
    runs = [run for run in collection.runs if run.kind == "transfer"]
    order = {task: index for index, task in enumerate(dict.fromkeys(_task(run) for run in runs))}
    runs.sort(key=lambda run: (order[_task(run)], bool(run.parents)))
    rows = []
    for run in runs:
        task = _task(run)
        random = collection.score_of(RANDOM, task, near=run)
        means = [point.mean for point in run.curves.get(task, ())]
        # At step 0 nothing has been learned: that evaluation says what was brought along.
        learned = [point.mean for point in run.curves.get(task, ()) if point.step > 0]
        rows.append(
            TransferRow(
                task=task,
                arm=run.name,
                seed=run.seed,
                origin=_origin(collection, run),
                random=random,
                final=run.scores.get(task),
                last_mean=_mean(learned[-LAST_EVALUATIONS:]),
                maximum=max(means, default=None),
                area_ratio=_area_ratio(run, _random_arm(runs, run), task, random),
            )
        )
    return rows


def text_table(run_dir: Path) -> str:
    """The tables for a terminal.

    Args:
        run_dir: of a recipe, or a single run.

    Raises:
        DataError: if there is no run.
    """
    collection = collect(run_dir)
    parts = []
    scores = [row.cells() for row in score_rows(collection)]
    if scores:
        parts.append(_align(SCORE_HEADINGS, scores))
    transfers = [row.cells() for row in transfer_rows(collection)]
    if transfers:
        parts.append(_align(TRANSFER_HEADINGS, transfers))
    parts.append(NOTE)
    parts += [f"not read: {printable(problem)}" for problem in collection.problems]
    return "\n\n".join(parts)


def show_score(score: Score | None) -> str:
    """``12.3 [10.1, 14.0]``."""
    if score is None:
        return MISSING
    if score.ci95 is None:
        return show_number(score.mean)
    low, high = score.ci95
    return f"{show_number(score.mean)} [{show_number(low)}, {show_number(high)}]"


def show_number(value: float | None) -> str:
    """One decimal for small scores, none for large ones."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.1f}"


def show_apart(score: Score | None, random: Score | None) -> str:
    """Whether a score's interval lies wholly above that of random play."""
    if score is None or random is None or score.ci95 is None or random.ci95 is None:
        return MISSING
    return "yes" if score.ci95[0] > random.ci95[1] else "no"


def area_above(points: Sequence[Point], floor: float, end: int) -> float | None:
    """Area between a learning curve and a floor, from step 0 to ``end``, in score x steps.

    Straight lines between evaluations, by the trapezoidal rule; negative where the curve lies
    below the floor. None if there are fewer than two evaluations, or they do not reach so far.
    """
    steps = [point.step for point in points]
    if len(points) < 2 or end <= steps[0] or end > steps[-1]:
        return None
    grid = np.array(sorted({step for step in steps if step < end} | {end}), dtype=np.float64)
    heights = np.interp(grid, steps, [point.mean - floor for point in points])
    return float((np.diff(grid) * (heights[:-1] + heights[1:]) / 2.0).sum())


def _score_row(collection: Collection, run: Run, task: str) -> ScoreRow:
    random = collection.score_of(RANDOM, task, near=run)
    if run.model_sha256 == RANDOM:
        return ScoreRow(run.name, run.seed, task, random, None, None, None)
    final = run.scores.get(task)
    played = run if run.kind != "evaluate" else collection.run_of(run.model_sha256 or "")
    if played is None or played.kind != "distill":
        return ScoreRow(run.name, run.seed, task, random, final, None, final)
    teachers = dict(zip(played.tasks, played.parents, strict=False))
    expert = collection.score_of(teachers.get(task, ""), task, near=run)
    if expert is None and task in played.teacher_means and run.protocol == played.protocol:
        expert = Score(played.teacher_means[task])
    return ScoreRow(run.name, run.seed, task, random, expert, final, final)


def _area_ratio(run: Run, random_arm: Run | None, task: str, random: Score | None) -> float | None:
    if random_arm is None or random is None:
        return None
    mine, other = run.curves.get(task, ()), random_arm.curves.get(task, ())
    if not mine or not other or mine[0].step != other[0].step:
        return None
    end = min(mine[-1].step, other[-1].step)
    area, base = (area_above(points, random.mean, end) for points in (mine, other))
    # An arm that learned nothing is no measure for another.
    return area / base if area is not None and base is not None and base > 0.0 else None


def _random_arm(runs: Sequence[Run], run: Run) -> Run | None:
    """The arm from random weights with the same task, budget, protocol and seed."""

    def contest(other: Run) -> tuple[object, ...]:
        return (_task(other), other.config.get("total_steps"), other.protocol, other.seed)

    return next((r for r in runs if not r.parents and contest(r) == contest(run)), None)


def _origin(collection: Collection, run: Run) -> str:
    if not run.parents:
        return "random weights"
    parent = collection.run_of(run.parents[0])
    return f"model {run.parents[0][:12]}" if parent is None else parent.name


def _task(run: Run) -> str:
    return run.tasks[0] if run.tasks else ""


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _align(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
