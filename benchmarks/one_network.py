"""The tables and figures of `results/one-network`, from the raw records that lie there.

python -m benchmarks.one_network            # print the tables
python -m benchmarks.one_network --write    # into both READMEs, each between its lines
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from actor_mimic.errors import DataError
from actor_mimic.games import GAMES
from actor_mimic.report.aggregate import Collection, Likeness, Run, Score, collect
from actor_mimic.report.contents import counted, show_count, show_range
from actor_mimic.report.figures import score_figure
from actor_mimic.report.over_games import of_experts
from actor_mimic.report.tables import (
    MISSING,
    OVER_SEEDS,
    ScoreRow,
    score_rows,
    show_mean,
    show_number,
    show_score,
    show_share,
)
from actor_mimic.storage.shipped import RANDOM
from benchmarks.documents import replace_table, standalone

ROOT = Path(__file__).parents[1] / "results/one-network"
DOCUMENTS = (ROOT / "README.md", ROOT.parents[1] / "README.md")
RECIPE = "paper-multitask"
FULL_SIZE = ("student-policy", "student-features")

# Student / DQN of Parisotto et al. (2016), table 1, ratios of mean scores: recalled, not read in
# the paper when this was written. They are of raw scores; ours count from random play.
RECALLED = {
    "atlantis": 2.882,
    "boxing": 0.9361,
    "breakout": 1.270,
    "crazy_climber": 0.5933,
    "enduro": 1.091,
    "pong": 0.7801,
    "seaquest": 0.2751,
    "space_invaders": 0.6844,
}


def written(document: str, tables: Mapping[str, str]) -> str:
    """The document with those tables in their places that it has one for."""
    for name, table in tables.items():
        if f"<!-- {name}: written by" in document:
            document = replace_table(document, name, "python -m benchmarks.one_network", table)
    return document


def over_stages(collection: Collection) -> str:
    """One line for each student: what it reached in every game, and over all of them."""
    rows = _of_students(collection)
    tasks = list(dict.fromkeys(row.task for row in rows))
    overs = of_experts(score_rows(collection))
    heads = ["student", "parameters", "seeds", *tasks, "geometric mean", "agreement", "KL", "hours"]
    lines = [heads, ["---"] * len(heads)]
    for stage in dict.fromkeys(row.stage for row in rows):
        runs = [run for run in collection.runs if run.name == stage]
        ratios = {row.task: row.ratio for row in rows if row.stage == stage}
        over = overs.get(stage)
        alike = [run.likeness[task] for run in runs for task in tasks if task in run.likeness]
        lines.append(
            [
                f"`{stage}`",
                MISSING if runs[0].parameters is None else show_count(runs[0].parameters),
                str(len(runs)),
                *(show_share(ratios.get(task)) for task in tasks),
                MISSING
                if over is None
                else f"{over.value:.1%} {show_range(over.ci95, '{:.1%}')}".rstrip(),
                *_alike(alike),
                f"{sum(run.seconds or 0.0 for run in runs) / len(runs) / 3600:.1f}",
            ]
        )
    return _markdown(lines)


def over_tasks(collection: Collection, stage: str) -> str:
    """One line for each game: random play, human, expert, one student, and the paper's ratio."""
    rows = [row for row in _of_students(collection) if row.stage == stage]
    runs = [run for run in collection.runs if run.name == stage]
    heads = ["game", "random play", "human", "expert", f"`{stage}`", "of expert", "agreement", "KL"]
    lines = [[*heads, "paper, recalled"], ["---"] * (len(heads) + 1)]
    for row in rows:
        of_expert = f"{show_share(row.ratio)} {show_range(row.ratio_ci95, '{:.0%}')}"
        alike = [run.likeness[row.task] for run in runs if row.task in run.likeness]
        lines.append(
            [
                row.task,
                show_mean(row.random),
                show_number(GAMES[row.task].human),
                show_mean(row.expert),
                show_score(row.student),
                of_expert.rstrip(),
                *_alike(alike),
                show_share(RECALLED.get(row.task)),
            ]
        )
    over = f"{counted(len(runs), 'seed')} and their games" if len(runs) > 1 else "games"
    return f"{_markdown(lines)}\n\nIntervals: 95 %, over {over}."


def two_rates(constant: Run, falling: Mapping[str, Score]) -> str:
    """One line for each game of the first student, and what a falling rate made of it."""
    heads = [
        "game",
        "random play",
        "expert",
        "rate stays",
        "of expert",
        "rate has fallen",
        "of expert",
    ]
    lines, ratios = [heads, ["---"] * len(heads)], []
    for task, expert in zip(constant.tasks, constant.parents, strict=True):
        scores = {who: score for (who, what, _), score in constant.measured.items() if what == task}
        low, high = scores.pop(RANDOM), scores.pop(expert)
        line = [task, show_mean(low), show_score(high)]
        found = [*scores.values(), falling.get(task)]
        for score in found if scores else []:
            ratio = None if score is None else (score.mean - low.mean) / (high.mean - low.mean)
            line += [show_score(score), show_share(ratio)]
            ratios.append(ratio)
        if scores:
            lines.append(line)
    both = [pair for pair in zip(ratios[::2], ratios[1::2], strict=True) if None not in pair]
    before, after = (statistics.geometric_mean(column) for column in zip(*both, strict=True))
    return (
        f"{_markdown(lines)}\n\nGeometric mean of the {len(both)} measured twice: {before:.0%} and "
        f"{after:.0%}."
    )


def _scores(file: Path) -> dict[str, Score]:
    """What `actor-mimic evaluate --json` printed."""
    tasks = json.loads(file.read_text())["tasks"]
    return {task: Score(mean=s["mean"], ci95=tuple(s["ci95"])) for task, s in tasks.items()}


def _of_students(collection: Collection) -> list[ScoreRow]:
    """The row of each student and game: of several seeds their mean."""
    rows = [row for row in score_rows(collection) if row.of_student]
    means = {(row.stage, row.task) for row in rows if row.seed == OVER_SEEDS}
    return [r for r in rows if r.seed == OVER_SEEDS or (r.stage, r.task) not in means]


def _alike(found: Sequence[Likeness]) -> tuple[str, str]:
    """Means of agreement and divergence on held-out states."""
    if not found:
        return MISSING, MISSING
    agreement = sum(one.agreement for one in found) / len(found)
    divergence = sum(one.divergence for one in found) / len(found)
    return show_share(agreement), f"{divergence:.2f}"


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(collection: Collection, stage: str) -> str:
    """One student in every game, between random play and its experts, as an SVG file."""
    rows = [row for row in _of_students(collection) if row.stage == stage and row.ratio is not None]
    humans = {task: game.human for task, game in GAMES.items()}
    return standalone(score_figure(rows, humans))


def better(collection: Collection, stages: Sequence[str]) -> str:
    """The stage of the higher geometric mean."""
    overs = of_experts(score_rows(collection))
    means = {stage: overs[stage].value for stage in stages if stage in overs}
    if not means:
        raise DataError(f"{collection.run_dir}: expected a student of all games in {stages}")
    return max(means, key=lambda stage: means[stage])


def tables() -> tuple[dict[str, str], dict[Path, str]]:
    """By the name in the lines that mark them in documents; figures by their files."""
    found, figures = {}, {}
    if (ROOT / "study").is_dir():
        found["study"] = over_stages(collect(ROOT / "study"))
    if (ROOT / "first").is_dir():
        (run,) = collect(ROOT / "first/constant-rate").runs
        found["first"] = two_rates(run, _scores(ROOT / "first/falling-rate/evaluation.json"))
    if (ROOT / RECIPE).is_dir():
        collection = collect(ROOT / RECIPE)
        best = better(collection, FULL_SIZE)
        found["students"] = over_stages(collection)
        found["games"] = over_tasks(collection, best)
        figures[ROOT / "games.svg"] = figure(collection, best)
    return found, figures


def main(arguments: list[str] | None = None) -> None:
    """Prints or writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into the documents")
    options = parser.parse_args(arguments)
    found, figures = tables()
    if not options.write:
        for name, table in found.items():
            print(name, table, sep="\n")
        return
    for file, drawn in figures.items():
        file.write_text(drawn)
    for path in DOCUMENTS:
        path.write_text(written(path.read_text(), found))


if __name__ == "__main__":
    main()
