"""The tables of a report for a terminal: the same figures, in at most 100 columns."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from actor_mimic.report.aggregate import collect
from actor_mimic.report.contents import show_range
from actor_mimic.report.over_games import over_games
from actor_mimic.report.printable import printable
from actor_mimic.report.tables import (
    LAST_EVALUATIONS,
    MISSING,
    ScoreRow,
    TransferRow,
    protocols_note,
    score_rows,
    show_apart,
    show_mean,
    show_number,
    show_score,
    show_share,
    transfer_rows,
)

WIDTH = 100
GAP = "  "
# What may be cut where a table is too wide; figures never are.
NAMES = ("stage", "task", "arm", "from")
SHORTEST = 8


def text_table(run_dir: Path) -> str:
    """The tables of a recipe, or of a single run.

    Intervals of random play and experts are left to the page; that of an expert that the recipe
    trained stands in its own row.

    Args:
        run_dir: of a recipe, or a single run.

    Raises:
        DataError: if there is no run.
    """
    collection = collect(run_dir)
    scores, transfers = score_rows(collection), transfer_rows(collection)
    one_seed = len({run.seed for run in collection.runs}) == 1
    parts = [
        _table("Scores", [_score_cells(row) for row in scores], one_seed),
        "\n".join(_over_games(scores)),
        _table(
            "Evaluations while learning",
            [_learning_cells(row) for row in scores if row.maximum is not None],
            one_seed,
        ),
        _table("Transfer", [_transfer_cells(row) for row in transfers], one_seed),
        textwrap.fill(protocols_note(collection), WIDTH),
        *(f"not read: {printable(problem)}" for problem in collection.problems),
    ]
    return "\n\n".join(part for part in parts if part)


def _over_games(scores: Sequence[ScoreRow]) -> Iterator[str]:
    """One line for every student of several games that all have a figure."""
    for over in over_games(scores):
        if (over.who, over.scale) == ("student", "expert") and len(over.tasks) > 1:
            estimate = over.estimates["geometric mean"]
            found = f"{estimate.value:.0%} {show_range(estimate.ci95, '{:.0%}')}".rstrip()
            yield textwrap.fill(
                f"{printable(over.stage, max_length=60)}: {found} of the way from random play to "
                f"its experts, geometric mean of {len(over.tasks)} games",
                WIDTH,
            )


def _score_cells(row: ScoreRow) -> dict[str, str]:
    human = None if row.final is None else row.final.human_normalised
    return {
        "stage": printable(row.stage, max_length=60),
        "seed": row.seed,
        "task": printable(row.task, max_length=60),
        "random": show_number(row.random and row.random.mean),
        "expert": show_mean(row.expert),
        "score": show_score(row.final or row.random),
        "ratio": show_share(row.ratio),
        "human": show_share(human),
        "above": show_apart(row.final, row.random),
    }


def _learning_cells(row: ScoreRow) -> dict[str, str]:
    return {
        "stage": printable(row.stage, max_length=60),
        "seed": row.seed,
        "task": printable(row.task, max_length=60),
        f"last {LAST_EVALUATIONS}": show_number(row.last_mean),
        "maximum": show_number(row.maximum),
    }


def _transfer_cells(row: TransferRow) -> dict[str, str]:
    return {
        "task": printable(row.task, max_length=60),
        "arm": printable(row.arm, max_length=60),
        "seed": row.seed,
        "random": show_number(row.random and row.random.mean),
        "score": show_score(row.final),
        f"last {LAST_EVALUATIONS}": show_number(row.last_mean),
        "max": show_number(row.maximum),
        "area": MISSING if row.area_ratio is None else f"{row.area_ratio:.2f}",
        "above": show_apart(row.final, row.random),
    }


def _table(title: str, rows: Sequence[Mapping[str, str]], one_seed: bool) -> str:
    if not rows:
        return ""
    headings = [name for name in rows[0] if not (one_seed and name == "seed")]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in headings}
    _squeeze(widths)
    lines = [_line(((name, name) for name in headings), widths)]
    lines.append("-" * len(lines[0]))
    lines += [_line(((name, row[name]) for name in headings), widths) for row in rows]
    return "\n".join([title, *lines])


def _squeeze(widths: dict[str, int]) -> None:
    """Makes room by cutting the widest names."""
    while sum(widths.values()) + len(GAP) * (len(widths) - 1) > WIDTH:
        widest = max((name for name in NAMES if name in widths), key=widths.__getitem__)
        if widths[widest] <= SHORTEST:
            return
        widths[widest] -= 1


def _line(cells: Iterable[tuple[str, str]], widths: Mapping[str, int]) -> str:
    shown = (_cut(text, widths[name]).ljust(widths[name]) for name, text in cells)
    return GAP.join(shown).rstrip()


def _cut(text: str, width: int) -> str:
    """Keeps both ends, where names differ."""
    if len(text) <= width:
        return text
    kept = width - 2
    return f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"
