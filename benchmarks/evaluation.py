"""What it saves to play the games of an evaluation side by side, and whether they are the same.

    python -m benchmarks.evaluation STUDENT [--episodes 4] [--repeats 3] [--output FILE]

The tasks of a student's checkpoint, one after the other and all at once, in turns. Reported are
seconds, the ratio within each repeat, and how many scores differ: what a network makes of a row
depends in its last digits on the rows beside it, and a game can turn on that.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from actor_mimic.compute import Compute, choose_compute
from actor_mimic.networks.student import Student
from actor_mimic.protocols import protocol_named
from actor_mimic.stages.evaluate import TaskScores, play_games
from actor_mimic.stages.players import live_player
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.teachers.own import load_network
from benchmarks.machine import facts


def played(
    student: Student, groups: list[list[str]], episodes: int, compute: Compute
) -> tuple[float, dict[str, int | TaskScores]]:
    """Seconds and scores of the groups in turn, each with its tasks side by side."""
    protocol = protocol_named("paper")
    act = live_player(student, compute.workers())
    found: dict[str, int | TaskScores] = {}
    started = time.perf_counter()
    for tasks in groups:
        *_, last = play_games(
            act,
            tasks,
            episodes=episodes,
            protocol=protocol,
            epsilon=protocol.evaluation_epsilon,
            seed=0,
            num_threads=compute.threads,
        )
        found |= last
    return time.perf_counter() - started, found


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("student", type=Path, help="a run, or a checkpoint")
    parser.add_argument("--episodes", type=int, default=4, help="games of each task")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="where to write a JSON file")
    options = parser.parse_args()
    compute = choose_compute()
    compute.start()
    student = load_network(resolve_checkpoint(options.student))
    assert isinstance(student, Student), "one network of several tasks"
    compute.place(student)
    tasks = list(student.tasks)
    rounds = []
    for _ in range(options.repeats):
        alone_s, alone = played(student, [[task] for task in tasks], options.episodes, compute)
        beside_s, beside = played(student, [tasks], options.episodes, compute)
        differing = sum(
            left != right
            for task in tasks
            if isinstance(one := alone[task], TaskScores)
            and isinstance(other := beside[task], TaskScores)
            for left, right in zip(one.scores, other.scores, strict=True)
        )
        rounds.append({"alone_s": alone_s, "beside_s": beside_s, "scores_that_differ": differing})
        print(
            f"one after the other {alone_s:.1f} s, side by side {beside_s:.1f} s, "
            f"{alone_s / beside_s:.2f} x; {differing} scores differ"
        )
    ratio = statistics.median(entry["alone_s"] / entry["beside_s"] for entry in rounds)
    print(f"median: {ratio:.2f} x")
    if options.output:
        settings = {"tasks": tasks, "episodes": options.episodes, "precision": compute.precision}
        content = facts("benchmarks.evaluation") | settings | {"ratio": ratio, "rounds": rounds}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
