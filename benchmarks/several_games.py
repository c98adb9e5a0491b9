"""What it costs a student to learn several games at once instead of one.

    python -m benchmarks.several_games [--seconds 8] [--repeats 3] [--output FILE]

The distillation loop of eight games in one student, and that of each of the eight alone, at the
same number of environments and of examples in a batch over all games: 256 of both. Games differ in
how fast they are emulated, so the eight together are held against the harmonic mean of the single
ones: the speed of playing them one after the other. Every measurement is a process of its own; the
ratio is taken within a round, which takes nine minutes, most of them to start all these games. In a
round the eight are measured three times, before, between and after the others: machines drift.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence

from actor_mimic.config import DistillConfig
from actor_mimic.flat_config import build_config
from benchmarks.one_loop import loop_speed, make_state
from benchmarks.options import add_options, compute_for, passed_on
from benchmarks.processes import MeasurementError, run_own
from benchmarks.summary import Verdict, print_verdicts, write_results

GAMES = (
    "atlantis",
    "boxing",
    "breakout",
    "crazy_climber",
    "enduro",
    "pong",
    "seaquest",
    "space_invaders",
)
TOGETHER = ("together 1", "together 2", "together 3")
NUM_ENVS = 256  # over all games: 32 of each, as a student has by default
BATCH_SIZE = 256
STARTS_STEPS = 2_048
LEAST_RATIO = 0.9


def config_of(games: Sequence[str]) -> DistillConfig:
    """A distillation of these games with their share of environments and of the batch."""
    config = build_config(
        "distill",
        {
            "tasks": tuple(games),
            "envs_per_task": NUM_ENVS // len(games),
            "batch_size_per_task": BATCH_SIZE // len(games),
            "learning_starts_steps": STARTS_STEPS // len(games),
            "replay_capacity_steps": 20_000,
        },
    )
    assert isinstance(config, DistillConfig)
    return config


def measure(games: Sequence[str], options: argparse.Namespace) -> dict[str, float]:
    """The speed over all games, in this process: see `loop_speed`."""
    compute = compute_for(options)
    compute.start()
    state = make_state(config_of(games), compute)
    speed = loop_speed(state, 2 * STARTS_STEPS, options.seconds)
    state.close()
    return speed


def measure_round(options: argparse.Namespace) -> dict[str, float]:
    """Steps per second of every game alone, and under ``together N`` of all of them.

    Raises:
        MeasurementError: if one of them fails.
    """
    result: dict[str, float] = {}
    alone = [(game, (game,)) for game in GAMES]
    together = [(name, GAMES) for name in TOGETHER]
    for name, games in [*together[:1], *alone[:4], *together[1:2], *alone[4:], *together[2:]]:
        found = run_own("benchmarks.several_games", ["--one", *games, *passed_on(options)])
        result[name] = found["steps_per_s"]
        print(f"  {name:34}{result[name]:9,.0f}", file=sys.stderr, flush=True)
    return result


def ratio(one: dict[str, float]) -> float:
    """The mean speed of all games together over the harmonic mean of the single ones."""
    together = statistics.mean(one[name] for name in TOGETHER)
    return together / statistics.harmonic_mean([one[game] for game in GAMES])


def main(arguments: list[str] | None = None) -> int:
    """Measures in turn; prints a table; 1 if the target is missed."""
    parser = argparse.ArgumentParser(description="Eight games in one student, and each alone.")
    add_options(parser)
    parser.add_argument("--one", nargs="+", metavar="GAME", help="measure only these, as JSON")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return 0
    try:
        rounds = [measure_round(options) for _ in range(options.repeats)]
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{'steps per second, medians':36}")
    for name in rounds[0]:
        print(f"{name:36}{statistics.median(one[name] for one in rounds):9,.0f}")
    measured = statistics.median(map(ratio, rounds))
    found = [Verdict("eight games: of the single ones", "at least", LEAST_RATIO, measured)]
    print_verdicts(found)
    write_results("benchmarks.several_games", options, [], found, several_games=rounds)
    return 0 if found[0].passed else 1


if __name__ == "__main__":
    sys.exit(main())
