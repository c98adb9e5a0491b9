"""What stands on a page: every figure and word that the template is given, but no markup."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from actor_mimic.games import GAMES
from actor_mimic.protocols import FRAME_SKIP
from actor_mimic.report import figures
from actor_mimic.report.aggregate import STUDENTS, Collection, Run, Score
from actor_mimic.report.curves import mean_curve, thinned
from actor_mimic.report.over_games import STATISTICS, OverGames
from actor_mimic.report.tables import (
    MISSING,
    OVER_SEEDS,
    ScoreRow,
    show_claim,
    show_number,
    show_share,
    stage_name,
)
from actor_mimic.report.transfers import Arm, Contest
from actor_mimic.storage.shipped import RANDOM
from actor_mimic.tasks import is_atari

MAX_PANELS = 64  # a page of more curves would be too large to open


@dataclass(frozen=True)
class Cell:
    """One cell of a sortable table.

    Attributes:
        text: what it says.
        note: beside it, smaller.
        value: what it is sorted by, as text that a script reads as a number; empty for its text.
    """

    text: str
    note: str = ""
    value: str = ""


@dataclass(frozen=True)
class Panel:
    """A figure, with what stands under it."""

    svg: str
    caption: str = ""


def student_table(rows: Sequence[ScoreRow]) -> list[list[Cell]]:
    """One row for each game of a student: random, human, expert, student, ratio, human scale."""
    table = []
    for row in rows:
        human = GAMES.get(row.task)
        normalised = None if row.student is None else row.student.human_normalised
        table.append(
            [
                Cell(row.task),
                _score_cell(row.random),
                _number_cell(None if human is None else human.human),
                _score_cell(row.expert),
                _score_cell(row.student),
                _share_cell(row.ratio, row.ratio_ci95),
                _share_cell(normalised, None),
            ]
        )
    return table


STUDENT_HEADINGS = (
    "game",
    "random",
    "human",
    "expert",
    "student",
    "of expert",
    "of human",
)


def student_rows(rows: Sequence[ScoreRow], stage: str) -> list[ScoreRow]:
    """Of one student, one row for each game: the mean over seeds, where there are several."""
    mine = [row for row in rows if row.of_student and row.stage == stage]
    means = {row.task: row for row in mine if row.seed == OVER_SEEDS}
    return list({row.task: means.get(row.task, row) for row in mine}.values())


def over_games_table(overs: Sequence[OverGames]) -> list[list[Cell]]:
    """One row for each policy and scale."""
    table = []
    for over in overs:
        who = over.stage if over.who == "student" else "its experts"
        cells = [
            _share_cell(over.estimates[name].value, over.estimates[name].ci95)
            if over.estimates
            else Cell("refused" if over.tasks or over.missing else MISSING)
            for name in STATISTICS
        ]
        seeds = "games of one seed" if over.seeds == 1 else counted(over.seeds, "seed")
        games = _count_cell(len(over.tasks))
        table.append([Cell(who), Cell(over.scale), *cells, games, Cell(seeds)])
    return table


def learning_panels(
    collection: Collection, rows: Sequence[ScoreRow], kinds: Sequence[str]
) -> list[Panel]:
    """The curves of all experts, or of all students, game by game."""
    stages: dict[str, list[Run]] = {}
    for run in collection.runs:
        if run.kind in kinds:
            stages.setdefault(run.name, []).append(run)
    panels = []
    for name, runs in stages.items():
        for task in runs[0].tasks:
            rivals = [n for n, others in stages.items() if task in others[0].tasks]
            caption = name if len(rivals) > 1 else ""
            svg = _learning_curve(collection, rows, runs, task)
            if svg and len(panels) < MAX_PANELS:
                panels.append(Panel(svg, caption))
    return panels


def _learning_curve(
    collection: Collection, rows: Sequence[ScoreRow], runs: Sequence[Run], task: str
) -> str:
    # All games of a student step together; each gets its share of the steps.
    share = 1 / len(runs[0].tasks)
    curve = mean_curve([run.curves.get(task, ()) for run in runs])
    training = mean_curve([thinned(run.training.get(task, ())) for run in runs])
    if curve is None and training is None:
        return ""
    place = (stage_name(collection, runs[0]), task)
    row = next((row for row in reversed(rows) if (row.stage, row.task) == place), None)
    random = collection.score_of(RANDOM, task, near=runs[0])
    human = GAMES.get(task)
    student = runs[0].kind in STUDENTS
    return figures.curve_panel(
        task,
        curve and curve.over(share),
        training and training.over(share),
        "student" if student else "expert",
        task=task,
        random=None if random is None else random.mean,
        expert=row.expert if row is not None and student else None,
        final=None if row is None else row.final,
        human=None if human is None else human.human,
    )


def contest_table(contest: Contest) -> list[list[Cell]]:
    """One row for each arm: area ratio, steps to the threshold, how much sooner."""
    base = next((arm.threshold_steps for arm in contest.arms if arm.from_random), None)
    return [
        [
            Cell(arm.origin, arm.name if arm.name != arm.origin else ""),
            _count_cell(len(arm.runs)),
            Cell(MISSING)
            if arm.area_ratio is None
            else Cell(
                f"{arm.area_ratio:.2f}",
                show_range(arm.area_ratio_ci95, "{:.2f}"),
                f"{arm.area_ratio}",
            ),
            _threshold_cell(arm, contest),
            _sooner_cell(arm, base),
        ]
        for arm in contest.arms
    ]


CONTEST_HEADINGS = ("started from", "seeds", "area ratio", "steps to threshold", "times sooner")


def roles(collection: Collection, contest: Contest) -> dict[str, str]:
    """The colours of a contest's arms."""
    kinds = {}
    for arm in contest.arms:
        parents = arm.runs[0].parents
        parent = collection.run_of(parents[0]) if parents else None
        kinds[arm.name] = "" if parent is None else parent.kind
    return figures.arm_roles(contest.arms, kinds)


def run_cells(run: Run) -> tuple[str, ...]:
    """One row of the table of stages."""
    took = MISSING if run.seconds is None else str(timedelta(seconds=round(run.seconds)))
    frames = run.steps * FRAME_SKIP if all(is_atari(t) for t in run.tasks) else None
    return (
        run.name,
        str(run.seed),
        run.kind,
        run.protocol,
        f"{run.steps:,}" if run.steps else MISSING,
        MISSING if not run.steps or frames is None else f"{frames:,}",
        run.created[:16].replace("T", " "),
        took,
        "done" if run.complete else "not finished",
    )


RUN_HEADINGS = ("stage", "seed", "kind", "protocol", "steps", "frames", "begun", "took", "state")


def facts(run: Run) -> list[tuple[str, str]]:
    """Configuration and versions of one run, name by name."""
    config = [(name, _show(value)) for name, value in sorted(run.config.items())]
    return [("directory", str(run.path)), *config, *versions(run.versions)]


def versions(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Package by package."""
    return [
        (name, "not installed" if version is None else _show(version))
        for name, version in sorted(content.items())
    ]


def commands(collection: Collection) -> list[str]:
    """What has to be typed to get all of it again."""
    if collection.command:
        return [collection.command]
    return list(dict.fromkeys(run.command for run in collection.runs if run.command))


def _score_cell(score: Score | None) -> Cell:
    if score is None:
        return Cell(MISSING)
    small = show_range(score.ci95, "number") + show_claim(score)
    return Cell(show_number(score.mean), small, f"{score.mean}")


def _number_cell(value: float | None) -> Cell:
    return Cell(MISSING) if value is None else Cell(show_number(value), value=f"{value}")


def _count_cell(value: int) -> Cell:
    return Cell(f"{value}", value=f"{value}")


def _share_cell(value: float | None, interval: tuple[float, float] | None) -> Cell:
    return (
        Cell(MISSING)
        if value is None
        else Cell(show_share(value), show_range(interval, "{:.0%}"), f"{value}")
    )


def _threshold_cell(arm: Arm, contest: Contest) -> Cell:
    if arm.threshold_steps is None:
        return Cell(MISSING if contest.threshold is None or arm.curve is None else "not reached")
    steps = arm.threshold_steps
    note = f"{steps * FRAME_SKIP:,.0f} frames" if is_atari(contest.task) else ""
    return Cell(f"{steps:,.0f}", note, f"{steps}")


def _sooner_cell(arm: Arm, base: float | None) -> Cell:
    if not base or arm.threshold_steps is None:
        return Cell(MISSING)
    if not arm.threshold_steps:
        return Cell("at once", value="inf")
    return Cell(f"{base / arm.threshold_steps:.1f}\u00d7", value=f"{base / arm.threshold_steps}")


def show_range(interval: tuple[float, float] | None, form: str) -> str:
    """``[1.0, 2.0]``, both ends in a format, or as scores where that is ``number``."""
    if interval is None:
        return ""
    ends = (show_number(end) if form == "number" else form.format(end) for end in interval)
    return f"[{', '.join(ends)}]"


def show_count(value: int) -> str:
    """``438k``, ``1.69M``."""
    for size, suffix in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return str(value)


def counted(number: int, noun: str) -> str:
    """``1 game``, ``2 games``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
