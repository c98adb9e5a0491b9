"""Command-line options that every measurement of loops takes, and how they are passed on."""

import argparse

from actor_mimic.compute import Compute, choose_compute


def add_options(parser: argparse.ArgumentParser) -> None:
    """Time, repeats, game and precision."""
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="time for each loop, once it learns"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds through all measurements")
    parser.add_argument("--game", default="assault", help="of the loops without SB3 beside them")
    parser.add_argument(
        "--precision", default="auto", help="auto (what training would take), float32, bfloat16"
    )
    parser.add_argument("--output", default="", help="write the results to this file, as JSON")


def passed_on(options: argparse.Namespace) -> list[str]:
    """The options that a measurement in another process needs."""
    return [
        *["--seconds", str(options.seconds)],
        *["--game", options.game],
        *["--precision", options.precision],
    ]


def compute_for(options: argparse.Namespace) -> Compute:
    """Where to measure: the CPU, in the precision asked for."""
    return choose_compute("cpu", options.precision)
