"""When finished expert runs reached a score, by their own records.

    python -m benchmarks.time_to_score RUN [RUN ...] --score 18

RUN is a run directory with a ``records.jsonl``, or such a file. Two moments are looked for:

    evaluation      the mean of one evaluation is at least the score
    training games  so is the mean of the last 100 finished training games, exploration included;
                    not asked before 100 games have ended

``wall`` is the time since the stage began, evaluations and checkpoints included, over all sessions
of a run that was resumed; ``learning`` is the part of it that steps and updates took.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from actor_mimic.errors import ActorMimicError
from actor_mimic.storage.records import Record, Value, read_records
from actor_mimic.storage.run_dir import RECORDS

TRAINING_GAMES = 100


def learning_seconds(records: list[Record]) -> list[float]:
    """Seconds of steps and updates up to each record, from the speeds of the ones before."""
    result, total, before = [], 0.0, 0
    for record in records:
        rate = record.values.get("steps_per_s")
        if record.kind == "train" and isinstance(rate, int | float) and rate > 0:
            total += (record.step - before) / rate
            before = record.step
        result.append(total)
    return result


def figures(record: Record) -> Iterator[tuple[str, str, Value]]:
    """Task, kind of figure and mean score that a record tells."""
    games = record.values.get("episodes")
    for name, value in record.values.items():
        task, _, figure = name.rpartition("/")
        if record.kind == "evaluation" and figure == "mean":
            yield task, "evaluation", value
        enough = isinstance(games, int | float) and games >= TRAINING_GAMES
        if record.kind == "train" and figure == "score" and enough:
            yield task, "training games", value


def first_reached(records: list[Record], score: float) -> list[dict[str, Any]]:
    """For each task and kind of figure when it first was at least the score, and its best value."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record, learning_s in zip(records, learning_seconds(records), strict=True):
        for task, kind, value in figures(record):
            if not isinstance(value, int | float):
                continue
            entry = found.setdefault(
                (task, kind), {"task": task, "figure": kind, "best": value, "reached": None}
            )
            entry["best"] = max(entry["best"], value)
            if entry["reached"] is None and value >= score:
                entry["reached"] = {
                    "score": value,
                    "step": record.step,
                    "wall_s": record.wall_s,
                    "learning_s": learning_s,
                }
    return list(found.values())


def reached_in(runs: Mapping[str, Path], score: float) -> dict[str, list[dict[str, Any]]]:
    """What `first_reached` says of the records of each run, under its name.

    Raises:
        ActorMimicError, OSError: if one cannot be read.
    """
    return {
        name: first_reached(read_records(path / RECORDS if path.is_dir() else path), score)
        for name, path in runs.items()
    }


def print_table(results: Mapping[str, list[dict[str, Any]]]) -> None:
    """One line for each run, task and kind of figure."""
    print(f"{'':40} {'':32}{'step':>12}{'wall, s':>12}{'learning, s':>12}{'best':>10}")
    for run, entries in results.items():
        for entry in entries:
            print_row(run, entry)


def print_row(run: str, entry: dict[str, Any]) -> None:
    """One line of the table."""
    reached = entry["reached"]
    when = f"{'never':>12}{'':24}"
    if reached:
        when = f"{reached['step']:12,}{reached['wall_s']:12,.0f}{reached['learning_s']:12,.0f}"
    print(f"{run:40.40} {entry['task']:16}{entry['figure']:16}{when}{entry['best']:10,.1f}")


def main(arguments: list[str] | None = None) -> int:
    """Prints one line for each run, task and kind of figure; 2 if a run cannot be read."""
    parser = argparse.ArgumentParser(description="When expert runs reached a score.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory or records.jsonl")
    parser.add_argument("--score", type=float, required=True, help="raw score to be reached")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        results = reached_in({run: Path(run) for run in options.runs}, options.score)
    except (ActorMimicError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({"score": options.score, "runs": results}, indent=1))
        return 0
    print_table(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
