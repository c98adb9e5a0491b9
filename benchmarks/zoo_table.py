"""The documents' tables of shipped experts, from what is shipped and the records of the runs.

python -m benchmarks.zoo_table            # print them
python -m benchmarks.zoo_table --write    # put them into the documents, between their two lines
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from actor_mimic.errors import DataError
from actor_mimic.report.aggregate import Point, collect
from actor_mimic.report.contents import counted
from actor_mimic.report.tables import show_number, show_score
from actor_mimic.report.zoo import MEASURED, markdown_table, score
from actor_mimic.storage.records import read_records
from actor_mimic.storage.run_dir import RECORDS
from actor_mimic.storage.shipped import Shipped, read_shipped, shipped_names
from benchmarks.documents import replace_table

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "results/zoo"


def written(document: str, table: str) -> str:
    """The document with that table in its place."""
    return replace_table(document, "zoo table", "python -m benchmarks.zoo_table", table)


def tables() -> dict[Path, str]:
    """Each document with a table, and the table."""
    experts = [read_shipped(name) for name in shipped_names()]
    return {
        ROOT / "README.md": markdown_table(experts),
        RUNS / "README.md": training_table(experts, RUNS),
    }


def training_table(experts: Sequence[Shipped], runs: Path) -> str:
    """How each was trained and what it scored on the way, from its own records."""
    curves = {run.name: run.curves for run in collect(runs).runs}
    heads = ["expert", "trained by", "begun", "evaluations while learning"]
    rows = [[*heads, *(f"`{p}`, epsilon {e:g}" for p, e in MEASURED[:2])], ["---"] * 6]
    for expert in experts:
        check_records(expert, runs / expert.name)
        told = expert.manifest["shipped"]
        compute = told["compute"]
        rows.append(
            [
                f"`{expert.name}`",
                f"`{told['command']}`",
                f"{told['created'][:10]}, {compute['precision']}, "
                f"{counted(compute['threads'], 'thread')}",
                f"{on_the_way(curves[expert.name][expert.task])} "
                f"({expert.manifest['config']['eval_episodes']} games each)",
                *(show_score(score(expert, *setting)) for setting in MEASURED[:2]),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def check_records(expert: Shipped, run: Path) -> None:
    """Refuses records of another run than the one that an expert comes from.

    Raises:
        DataError: if none of its checkpoints has the weights that were rounded.
    """
    wanted = expert.manifest["shipped"]["source_sha256"]
    records = read_records(run / RECORDS) if (run / RECORDS).is_file() else []
    saved = {r.values.get("model_sha256") for r in records if r.kind == "checkpoint"}
    if wanted not in saved:
        raise DataError(
            f"{run}: expected the records of the run that {expert.name} was shipped from (weights "
            f"{wanted[:16]}), found {'others' if saved else 'none'}: copy its run.json and "
            "records.jsonl there"
        )


def on_the_way(points: Sequence[Point]) -> str:
    """``-20.8, 11.6, 12.5; every 500,000 steps``: means of evaluations, from before the first step.

    They are made after a whole number of updates: at the first one past each multiple.
    """
    apart = min((second.step - first.step for first, second in pairwise(points)), default=0)
    every = f"; every {round(apart, -4):,} steps" if apart else ""
    return ", ".join(show_number(point.mean) for point in points) + every


def main() -> None:
    """Prints or writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into the documents")
    options = parser.parse_args()
    for path, table in tables().items():
        if not options.write:
            print(table)
            continue
        path.write_text(written(path.read_text(), table))
        print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
