"""``python -m benchmarks``: every measurement, in turn, and where the figures go.

Prints tables and writes what it measured with machine, versions and date to
``benchmarks/results/bench.json``; exits with status 1 if a target is missed. Takes about a quarter
of an hour; run nothing beside it. Each of these is a command of its own too:

    ===========================  ==============================================================
    ``benchmarks.replay_memory``  bytes and speed of the replay
    ``benchmarks.loops``          learning loops beside their floors
    ``benchmarks.comparison``     DQN beside Stable-Baselines3's
    ``benchmarks.parts``          the floor's parts in all their variants
    ``benchmarks.time_to_score``  when finished expert runs reached a score
    ===========================  ==============================================================

The last trains nothing: here it reads the runs of Pong in ``results/pong``, by their records.
"""

import argparse
import sys
from typing import Any

from actor_mimic.compute import available_cores
from benchmarks import comparison, loops, replay_memory, time_to_score
from benchmarks.machine import LOAD_BEFORE, processor
from benchmarks.options import add_options, compute_for
from benchmarks.processes import ROOT, MeasurementError
from benchmarks.summary import (
    Verdict,
    print_comparison,
    print_loops,
    print_verdicts,
    verdicts,
    write_results,
)

KINDS = ("memory", "loops", "comparison", "scores")
PONG_SCORE = 18.0
QUIET_LOAD = 0.25  # per core


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description="Every measurement of actor-mimic.")
    add_options(parser)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--replay-steps", type=int, default=200_000, help="for memory: 1.7 GB")
    parser.set_defaults(output=str(ROOT / "benchmarks" / "results" / "bench.json"))
    options = parser.parse_args(arguments)
    compute = compute_for(options)
    print(f"{processor()}: {compute.threads} threads, {compute.precision}")
    _warn_if_busy()
    try:
        memory, rounds = _measure(options)
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    if rounds and rounds[0]["loops"]:
        print_loops(rounds)
    if rounds and rounds[0]["sb3"]:
        print_comparison(rounds)
    scores = _times_to_score() if "scores" in options.only else {}
    found = [*_memory_verdicts(memory), *(verdicts(rounds) if rounds else ())]
    print_verdicts(found)
    write_results("benchmarks", options, rounds, found, replay_memory=memory, time_to_score=scores)
    return 0 if all(verdict.passed for verdict in found) else 1


def _measure(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    memory: list[dict[str, Any]] = []
    if "memory" in options.only:
        memory = replay_memory.measure_both(options.replay_steps, min(1.0, options.seconds))
    if not {"loops", "comparison"} & set(options.only):
        return memory, []
    python = comparison.find_sb3() if "comparison" in options.only else None
    rounds: list[dict[str, Any]] = []
    for number in range(1, options.repeats + 1):
        print(f"round {number} of {options.repeats}", file=sys.stderr, flush=True)
        one: dict[str, Any] = {"loops": {}, "floors": {}, "sb3": {}}
        if "loops" in options.only:
            one |= loops.measure_round(loops.NAMES, options)
        if "comparison" in options.only:
            for kind, results in comparison.measure_round(options, python).items():
                one[kind].update(results)
        rounds.append(one)
    return memory, rounds


def _times_to_score() -> dict[str, Any]:
    runs = sorted(path.parent for path in (ROOT / "results/pong").glob("*/records.jsonl"))
    found = time_to_score.reached_in({str(run.relative_to(ROOT)): run for run in runs}, PONG_SCORE)
    print(f"\nPong, {PONG_SCORE:g} reached")
    time_to_score.print_table(found)
    return {"score": PONG_SCORE, "runs": found}


def _memory_verdicts(memory: list[dict[str, Any]]) -> list[Verdict]:
    return [
        Verdict(
            f"replay {'with' if one['labels'] else 'without'} labels: bytes per step",
            "at most",
            one["target_bytes"],
            max(one["allocated_bytes"], one["resident_bytes"]),
        )
        for one in memory
    ]


def _warn_if_busy() -> None:
    if QUIET_LOAD * available_cores() < LOAD_BEFORE:
        print(f"the machine is busy (load {LOAD_BEFORE:g}): figures mean little", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
