"""The tables of a report: who scored what, beside random play.

Every figure is read from the runs; a figure that was not measured is a dash.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from actor_mimic.protocols import PROTOCOLS
from actor_mimic.report.aggregate import STUDENTS, Collection, Run, Score
from actor_mimic.report.intervals import mean_interval, ratio_interval
from actor_mimic.report.printable import printable
from actor_mimic.report.transfers import area_ratio, contest_of, contests, origin_of, task_of
from actor_mimic.storage.shipped import RANDOM

MISSING = "-"
LAST_EVALUATIONS = 10

OVER_SEEDS = "mean"

SCORE_HEADINGS = (
    "stage",
    "seed",
    "task",
    "random",
    "expert",
    "student",
    "ratio",
    "human",
    f"last {LAST_EVALUATIONS}",
    "maximum",
    "games",
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
    "Raw scores, mean [95 % bootstrap interval]; a row named mean is the mean over seeds, with the "
    "interval over seeds and their games. "
    "ratio = (student - random) / (expert - random); a multitask DQN counts as a student, of the "
    "experts that taught another one the same tasks. human: 0 % is the published random play, "
    f"100 % the published human. last {LAST_EVALUATIONS} and maximum: mean of the last "
    f"{LAST_EVALUATIONS} and best of the evaluations while learning. area ratio: area "
    "between the learning curve and random play, divided by that of the arm with random weights. "
    "above random: yes if the whole interval lies above that of random play, no if they overlap "
    "or it lies below."
)


@dataclass(frozen=True)
class ScoreRow:
    """One task of an expert, a student, or an evaluation.

    Attributes:
        stage, task: whose row it is.
        seed: of the repetition, or `OVER_SEEDS`.
        random, expert, student: final figures.
        final: the one of them that the stage itself reached; None for random play.
        last_mean: of the last evaluations while it learned.
        maximum: of all of them.
        ratio: (student - random) / (expert - random); None where the expert is no better.
        ratio_ci95: its interval, over the games of all three; in a row of means over seeds as well.
        of_student: whether it is a student's row, scored or not.
    """

    stage: str
    seed: str
    task: str
    random: Score | None
    expert: Score | None
    student: Score | None
    final: Score | None
    last_mean: float | None = None
    maximum: float | None = None
    ratio: float | None = None
    ratio_ci95: tuple[float, float] | None = None
    of_student: bool = False

    def cells(self) -> tuple[str, ...]:
        """As text, under `SCORE_HEADINGS`."""
        shown = self.final or self.random
        episodes = None if shown is None else shown.episodes
        human = None if self.final is None else self.final.human_normalised
        return (
            printable(self.stage, max_length=80),
            self.seed,
            printable(self.task, max_length=60),
            show_score(self.random),
            show_score(self.expert),
            show_score(self.student),
            show_share(self.ratio),
            show_share(human),
            show_number(self.last_mean),
            show_number(self.maximum),
            MISSING if episodes is None else str(episodes),
            show_apart(self.final, self.random),
        )


@dataclass(frozen=True)
class TransferRow:
    """One arm on a new task."""

    task: str
    arm: str
    seed: str
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
            printable(self.arm, max_length=80),
            self.seed,
            printable(self.origin, max_length=60),
            show_score(self.random),
            show_score(self.final),
            show_number(self.last_mean),
            show_number(self.maximum),
            MISSING if self.area_ratio is None else f"{self.area_ratio:.2f}",
            show_apart(self.final, self.random),
        )


Row = TypeVar("Row", ScoreRow, TransferRow)


def score_rows(collection: Collection) -> list[ScoreRow]:
    """One row per task of each expert, student and evaluation, and their means over seeds."""
    rows = [
        _score_row(collection, run, task)
        for run in collection.runs
        if run.kind != "transfer"
        for task in run.tasks
    ]
    return _with_means(rows, lambda row: (row.stage, row.task), _mean_score_row)


def transfer_rows(collection: Collection) -> list[TransferRow]:
    """One row per arm and seed, tasks together, the arm with random weights first; and means."""
    runs = [run for run in collection.runs if run.kind == "transfer"]
    order = {task: index for index, task in enumerate(dict.fromkeys(map(task_of, runs)))}
    runs.sort(key=lambda run: (order[task_of(run)], bool(run.parents)))
    rows = []
    for run in runs:
        task = task_of(run)
        last_mean, maximum = _while_learning(run, task)
        rows.append(
            TransferRow(
                task=task,
                arm=stage_name(collection, run),
                seed=str(run.seed),
                origin=origin_of(collection, run),
                random=collection.score_of(RANDOM, task, near=run),
                final=run.scores.get(task),
                last_mean=last_mean,
                maximum=maximum,
                area_ratio=area_ratio(collection, run, _random_run(runs, run)),
            )
        )
    ratios = {
        (contest.task, stage_name(collection, arm.runs[0])): arm.area_ratio
        for contest in contests(collection)
        for arm in contest.arms
    }
    return _with_means(
        rows,
        lambda row: (row.task, row.arm),
        lambda members: _mean_transfer_row(members, ratios[members[0].task, members[0].arm]),
    )


def protocols_note(collection: Collection) -> str:
    """How the games of the tables were played."""
    parts = []
    for name in dict.fromkeys(run.protocol for run in collection.runs):
        known = PROTOCOLS.get(name)
        epsilon = "unknown" if known is None else f"{known.evaluation_epsilon:g}"
        parts.append(f"protocol {printable(name, max_length=60)}, evaluation epsilon {epsilon}")
    return f"Played under {'; '.join(parts)}; random play has epsilon 1. {NOTE}"


def show_score(score: Score | None) -> str:
    """``12.3 [10.1, 14.0]``, and what was claimed, if something was."""
    if score is None or score.ci95 is None:
        return show_mean(score)
    low, high = score.ci95
    interval = f" [{show_number(low)}, {show_number(high)}]"
    return f"{show_number(score.mean)}{interval}{show_claim(score)}"


def show_mean(score: Score | None) -> str:
    """``12.3``, or ``12.3 (claimed 14.0, drop 1.7)`` of an import whose author said so."""
    return MISSING if score is None else f"{show_number(score.mean)}{show_claim(score)}"


def show_claim(score: Score) -> str:
    """What was claimed, and by how much that is more; nothing where nothing was."""
    return "" if score.claimed is None else claim(score.claimed, score.mean)


def claim(claimed: float, mean: float) -> str:
    """`` (claimed 14.0, drop 1.7)``."""
    return f" (claimed {show_number(claimed)}, drop {show_number(claimed - mean)})"


def show_number(value: float | None) -> str:
    """One decimal for small scores, none for large ones."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.1f}"


def show_share(value: float | None) -> str:
    """As a percentage."""
    return MISSING if value is None else f"{value:.0%}"


def show_apart(score: Score | None, random: Score | None) -> str:
    """Whether a score's interval lies wholly above that of random play."""
    if score is None or random is None or score.ci95 is None or random.ci95 is None:
        return MISSING
    return "yes" if score.ci95[0] > random.ci95[1] else "no"


def _score_row(collection: Collection, run: Run, task: str) -> ScoreRow:
    random = collection.score_of(RANDOM, task, near=run)
    stage = stage_name(collection, run)
    row = ScoreRow(stage, str(run.seed), task, random, None, None, None)
    if run.model_sha256 == RANDOM:
        return row
    last_mean, maximum = _while_learning(run, task)
    final = run.scores.get(task)
    if run.kind == "evaluate" and final is not None:
        # The same figure, with what was claimed.
        final = collection.score_of(run.model_sha256 or "", task, near=run)
    row = replace(row, final=final, last_mean=last_mean, maximum=maximum)
    played = run if run.kind != "evaluate" else collection.run_of(run.model_sha256 or "")
    if played is None or played.kind not in STUDENTS:
        return replace(row, expert=final)
    expert = collection.score_of(_teacher(collection, played, task), task, near=run)
    row = replace(row, expert=expert, student=final, of_student=True)
    return replace(row, ratio=_ratio(final, expert, random), ratio_ci95=_ratio_ci95([row]))


def _teacher(collection: Collection, student: Run, task: str) -> str:
    """The model that taught a student a task; of one without teachers, that taught another one."""
    for run in (student, *collection.runs):
        if run.kind == "distill" and task in run.tasks:
            return dict(zip(run.tasks, run.parents, strict=False)).get(task, "")
    return ""


def _ratio(student: Score | None, expert: Score | None, random: Score | None) -> float | None:
    if random is None or expert is None or student is None or expert.mean <= random.mean:
        return None
    return (student.mean - random.mean) / (expert.mean - random.mean)


def _while_learning(run: Run, task: str) -> tuple[float | None, float | None]:
    """Mean of the last evaluations, and the best of all."""
    points = run.curves.get(task, ())
    # At step 0 nothing has been learned: that evaluation says what was brought along.
    learned = [point.mean for point in points if point.step > 0]
    return _mean(learned[-LAST_EVALUATIONS:]), max((p.mean for p in points), default=None)


def stage_name(collection: Collection, run: Run) -> str:
    """With its protocol, where there are several to confuse."""
    several = len({other.protocol for other in collection.runs}) > 1
    return f"{run.name} ({run.protocol})" if several else run.name


def _with_means(
    rows: Sequence[Row],
    group: Callable[[Row], tuple[str, str]],
    mean: Callable[[Sequence[Row]], Row],
) -> list[Row]:
    """The rows, group by group; after those of several seeds their mean."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    found: list[Row] = []
    for members in groups.values():
        found += members
        if len(members) > 1:
            found.append(mean(members))
    return found


def _mean_score_row(rows: Sequence[ScoreRow]) -> ScoreRow:
    return replace(
        rows[0],
        seed=OVER_SEEDS,
        random=_mean_score(row.random for row in rows),
        expert=_mean_score(row.expert for row in rows),
        student=_mean_score(row.student for row in rows),
        final=_mean_score(row.final for row in rows),
        last_mean=_mean_of_all(row.last_mean for row in rows),
        maximum=_mean_of_all(row.maximum for row in rows),
        ratio=_mean_of_all(row.ratio for row in rows),
        ratio_ci95=_ratio_ci95(rows),
    )


def _mean_transfer_row(rows: Sequence[TransferRow], ratio: float | None) -> TransferRow:
    origins = {row.origin for row in rows}
    return replace(
        rows[0],
        seed=OVER_SEEDS,
        origin=rows[0].origin if len(origins) == 1 else "several",
        random=_mean_score(row.random for row in rows),
        final=_mean_score(row.final for row in rows),
        last_mean=_mean_of_all(row.last_mean for row in rows),
        maximum=_mean_of_all(row.maximum for row in rows),
        area_ratio=ratio,
    )


def _mean_score(scores: Iterable[Score | None]) -> Score | None:
    """Over seeds; nothing, where one is missing."""
    known = list(scores)
    there = [score for score in known if score is not None]
    if len(there) < len(known) or not there:
        return None
    if all(score == there[0] for score in there):
        return there[0]  # measured once, for every seed
    humans = _mean_of_all(score.human_normalised for score in there)
    means = [score.mean for score in there]
    return Score(sum(means) / len(means), mean_interval(there), human_normalised=humans)


def _mean_of_all(values: Iterable[float | None]) -> float | None:
    """The mean, where no seed is missing."""
    known = list(values)
    there = [value for value in known if value is not None]
    return _mean(there) if len(there) == len(known) else None


def _random_run(runs: Sequence[Run], run: Run) -> Run | None:
    """The same seed of the arm from random weights."""
    wanted = (*contest_of(run), run.seed)
    return next((r for r in runs if not r.parents and (*contest_of(r), r.seed) == wanted), None)


def _ratio_ci95(rows: Sequence[ScoreRow]) -> tuple[float, float] | None:
    """Where no seed has a figure missing."""
    students, experts, randoms = (
        [score for score in column if score is not None]
        for column in zip(*((row.student, row.expert, row.random) for row in rows), strict=True)
    )
    if min(len(students), len(experts), len(randoms)) < len(rows):
        return None
    return ratio_interval(students, experts, randoms)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
