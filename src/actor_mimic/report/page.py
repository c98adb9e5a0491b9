"""A report as one HTML file that needs nothing else and asks for nothing."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from actor_mimic.errors import StorageError, UnavailableError
from actor_mimic.games import GAMES
from actor_mimic.report import contents, figures, tiles
from actor_mimic.report.aggregate import STUDENTS, Collection, Run, collect
from actor_mimic.report.contents import Panel
from actor_mimic.report.films import embed, find_films
from actor_mimic.report.over_games import STATISTICS, OverGames, over_games
from actor_mimic.report.printable import printable
from actor_mimic.report.style import role_rules
from actor_mimic.report.tables import (
    SCORE_HEADINGS,
    TRANSFER_HEADINGS,
    ScoreRow,
    protocols_note,
    score_rows,
    show_number,
    transfer_rows,
)
from actor_mimic.report.transfers import Arm, Contest, contests
from actor_mimic.storage.durable import replace_file

PAGE = "report.html"
STUDENT_NOTE = (
    "Raw scores, mean and 95 % bootstrap interval: of games where there is one seed, of seeds and "
    "their games where there are several (IQM and the like: of seeds alone). human: as published. "
    "random, expert: measured here or, of zoo:NAME and its game, when it was shipped, with the "
    "same versions. of expert: (student - random) / (expert - random). of human: the same with "
    "published random and human scores. IQM: mean of the middle half. geometric mean: 0 % if a "
    "game is no better than 0 %. optimality gap: mean of what scores lack to 100 %, better when "
    "small; the others: better when large."
)
CONTEST_NOTE = (
    "Evaluations while learning; the mean over seeds, and a band from the lowest to the highest. "
    "area ratio: area between the curve and random play, divided by that of the arm from random "
    "weights; 95 % bootstrap interval over the seeds of both, where each has several. threshold: "
    "the best mean that the arm from random weights reached; steps until an arm's mean first "
    "does, on straight lines between evaluations. One seed of each arm illustrates transfer; it "
    "proves nothing."
)
FEATURES_NOTE = (
    " Of the features: 1 is what their mean would reach. A teacher whose features hardly vary has "
    "far more, which says nothing of how its student plays; its row ends where the figure does."
)
_SHAPES = {"random": "square", "student": "dot", "expert": "diamond"}


def write_report(
    run_dir: Path,
    *,
    allow_missing: Iterable[str] = (),
    notice: Callable[[str], None] = lambda _: None,
) -> Path:
    """Writes ``report.html`` into the directory of a recipe, or of a single run.

    Args:
        run_dir: where the runs are.
        allow_missing: tasks that numbers over all games may do without.
        notice: told what the page refuses to say because of missing figures.

    Returns:
        Where it is.

    Raises:
        DataError: if there is no run.
        UsageError: if no student plays a task of ``allow_missing``.
        UnavailableError: if Jinja2 or Matplotlib is not installed.
        StorageError: if it cannot be written.
    """
    path = run_dir / PAGE
    collection = collect(run_dir)
    rows = score_rows(collection)
    overs = over_games(rows, allow_missing)
    content = render(collection, rows, overs).encode("utf-8")
    try:
        replace_file(path, content)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error
    for line in dict.fromkeys(line for over in overs for line in _refusal(over)):
        notice(f"no numbers over all games, {line}")
    return path


def render(collection: Collection, rows: Sequence[ScoreRow], overs: Sequence[OverGames]) -> str:
    """The page. Every value is escaped; the policy in its head forbids everything but itself.

    Args:
        collection: what to report.
        rows: its scores.
        overs: the same over all games.

    Raises:
        UnavailableError: if Jinja2 or Matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise UnavailableError(
            "a report needs Jinja2, which is not installed; "
            "install it with: pip install 'actor-mimic[report]'"
        ) from error

    def finalise(value: Any) -> Any:
        # Control characters and marks that reorder text are no business of a report.
        return value if isinstance(value, Markup) else printable(value)

    files = resources.files("actor_mimic.report")
    style, script = (files.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    style += role_rules()
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=finalise)
    # Figures and films: markup that was made here, with every word in it escaped.
    environment.filters["ours"] = Markup
    template = environment.from_string(files.joinpath("page.html.j2").read_text("utf-8"))
    context = _context(collection, rows, overs)
    return template.render(
        style=Markup(style),
        style_hash=policy_hash(style),
        script=Markup(script),
        script_hash=policy_hash(script),
        **context,
    )


def policy_hash(content: str) -> str:
    """How the content security policy names the one style sheet, or script, that it allows."""
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _context(
    collection: Collection, rows: Sequence[ScoreRow], overs: Sequence[OverGames]
) -> dict[str, Any]:
    fights = contests(collection)
    films, left_out = embed(find_films(collection))
    runs = collection.runs
    versions = {name: version for run in runs for name, version in run.versions.items()}
    context: dict[str, Any] = {
        "title": collection.title,
        "headline": tiles.headline(collection),
        "description": collection.description,
        "tiles": tiles.tiles(collection, overs, fights),
        "films": films,
        "films_left_out": left_out,
        "students": [
            _student(rows, overs, stage)
            for stage in dict.fromkeys(row.stage for row in rows if row.of_student)
        ],
        "student_headings": contents.STUDENT_HEADINGS,
        "student_note": STUDENT_NOTE,
        "over_headings": ("policy", "scale", *STATISTICS, "games", "interval over"),
        "score_headings": SCORE_HEADINGS,
        "scores": [row.cells() for row in rows],
        "note": protocols_note(collection),
        "contests": [_contest(collection, contest) for contest in fights],
        "contest_headings": contents.CONTEST_HEADINGS,
        "contest_note": CONTEST_NOTE,
        "transfer_headings": TRANSFER_HEADINGS,
        "transfers": [row.cells() for row in transfer_rows(collection)],
        "expert_panels": contents.learning_panels(collection, rows, ("expert",)),
        "student_panels": contents.learning_panels(collection, rows, STUDENTS),
        "learning_seeds": "one seed" if len({run.seed for run in runs}) == 1 else "mean over seeds",
        "likenesses": _likenesses(collection),
        "commands": contents.commands(collection),
        "seeds": ", ".join(map(str, sorted({run.seed for run in runs}))),
        "versions": contents.versions(versions),
        "run_headings": contents.RUN_HEADINGS,
        "runs": [contents.run_cells(run) for run in runs],
        "details": [{"title": _title(run), "facts": contents.facts(run)} for run in runs],
        "problems": collection.problems,
    }
    return context | {"sections": _sections(context)}


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What there is on this page."""
    there = [
        ("films", "At play", context["films"] or context["films_left_out"]),
        ("scores", "Scores", context["students"] or context["scores"]),
        ("transfer", "Transfer", context["contests"]),
        ("learning", "Learning curves", context["expert_panels"] or context["student_panels"]),
        ("likeness", "Student and teachers", context["likenesses"]),
        ("reproduce", "Run it again", True),
    ]
    return [(name, words) for name, words, shown in there if shown]


def _student(rows: Sequence[ScoreRow], overs: Sequence[OverGames], stage: str) -> dict[str, Any]:
    mine = contents.student_rows(rows, stage)
    known = sorted(
        (row for row in mine if row.ratio is not None), key=lambda row: -(row.ratio or 0)
    )
    humans = {row.task: GAMES[row.task].human for row in mine if row.task in GAMES}
    over = [o for o in overs if o.stage == stage and (o.estimates or o.missing)]
    scales = [[o for o in over if o.scale == s and o.estimates] for s in ("expert", "human")]
    several = len(mine) > 1
    return {
        "stage": stage,
        "figure": Panel(figures.score_figure(known, humans)) if known else None,
        "rows": contents.student_table(mine),
        "over_figures": [Panel(figures.over_games_figure(o)) for o in scales if o and several],
        "over_rows": contents.over_games_table([o for o in over if o.estimates]) if several else [],
        "refused": list(dict.fromkeys(line for o in over for line in _refusal(o))),
    }


def _refusal(over: OverGames) -> list[str]:
    if over.estimates or not over.missing:
        return []
    allow = " ".join(over.missing)
    return [
        f"{over.scale}-normalised, {over.who} of {over.stage}: not shown, because of "
        f"{', '.join(over.missing)}: not measured, or no scale, as of an expert that is no better "
        f"than random play (to do without: --allow-missing {allow})"
    ]


def _contest(collection: Collection, contest: Contest) -> dict[str, Any]:
    roles = contents.roles(collection, contest)
    has_curves = any(arm.curve is not None for arm in contest.arms)
    has_areas = any(arm.area_ratio is not None for arm in contest.arms)
    key = [
        (roles[arm.name], _SHAPES.get(roles[arm.name], "dot"), arm.origin) for arm in contest.arms
    ]
    lines = [("random", "dots", "random play")]
    if contest.threshold is not None:
        lines.append(("quiet", "line", f"threshold {show_number(contest.threshold)}"))
    return {
        "task": contest.task,
        "setting": f"{contest.total_steps:,} steps, protocol {contest.protocol}"
        if isinstance(contest.total_steps, int)
        else contest.protocol,
        "key": key + lines,
        "curves": Panel(figures.contest_figure(contest, roles)) if has_curves else None,
        "areas": Panel(figures.area_figure(contest, roles)) if has_areas else None,
        "rows": contents.contest_table(contest),
        "tensors": [
            _tensors(arm) for arm in contest.arms if arm.runs[0].origins and not arm.from_random
        ],
    }


def _tensors(arm: Arm) -> dict[str, Any]:
    words = {"copied": "copied", "fresh": "fresh"}
    tensors = arm.runs[0].origins
    copied = sum(entry.origin == "copied" for entry in tensors)
    rest = [entry.name for entry in tensors if entry.origin != "copied"]
    return {
        "summary": f"{arm.name}: {copied} of {len(tensors)} tensors copied from {arm.origin}"
        + (f", not {', '.join(rest)}" if rest else ""),
        "tensors": [
            {
                "name": entry.name,
                "kind": entry.origin if entry.origin in ("copied", "rows", "fresh") else "fresh",
                "words": words.get(entry.origin, f"{entry.rows} rows copied"),
            }
            for entry in tensors
        ],
    }


def _likenesses(collection: Collection) -> list[dict[str, Any]]:
    found = []
    for run in {run.name: run for run in reversed(collection.runs) if run.likeness}.values():
        held_out = all(alike.held_out for alike in run.likeness.values())
        where = "evaluation games, which are never trained on" if held_out else "training games"
        regressed = any(alike.feature_error is not None for alike in run.likeness.values())
        features = FEATURES_NOTE if regressed else ""
        found.append(
            {
                "stage": run.name,
                "panels": [Panel(svg) for svg in figures.likeness_figures(run.likeness, run.name)],
                "note": f"In states of {where}; seed {run.seed}, as last recorded.{features}",
            }
        )
    return found[::-1]


def _title(run: Run) -> str:
    return f"{run.name}, seed {run.seed}"
