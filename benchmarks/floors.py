"""How fast a loop could be: its emulation, acting and updates one after the other, bare.

    python -m benchmarks.floors pqn

The sum of the parts of `benchmarks.parts` at the loop's own batch sizes, each in its fastest
variant. It is a yardstick rather than a bound: a loop whose emulators run while its network
computes may beat it on a machine with cores to spare.
"""

import argparse
import json
import sys
from dataclasses import asdict
from typing import Any

from actor_mimic.config import DistillConfig
from benchmarks.options import add_options, compute_for
from benchmarks.parts import Part, Parts
from benchmarks.workloads import (
    WORKLOADS,
    acting_passes,
    batch_size,
    bootstrap_passes,
    num_envs,
    samples_per_step,
)

PART_SHARE = 1 / 8  # of a loop's time, for each variant of each part


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of a loop's floor, and what it is made of."""
    compute, workload = compute_for(options), WORKLOADS[name]
    config = workload.config(options.game)
    parts = Parts(
        width=config.network.width,
        norm=config.network.norm,
        centred=config.network.centred,
        regression=isinstance(config, DistillConfig) and config.feature_weight > 0.0,
        low=compute.precision == "bfloat16",
        threads=compute.threads,
        seconds=options.seconds * PART_SHARE,
    )
    envs, batch, passes = num_envs(config), batch_size(config), bootstrap_passes(config)
    found: dict[str, Part] = {
        "emulation": parts.emulation(workload.game or options.game, envs),
        "acting": parts.acting(envs),
        "training": parts.training(batch),
    }
    if passes:
        found["bootstrap"] = parts.acting(batch, passes)
    update_s = sum(1 / found[p].items_per_s for p in ("training", "bootstrap") if p in found)
    microseconds = {
        "emulation": 1e6 / found["emulation"].items_per_s,
        "acting": 1e6 * acting_passes(config) / found["acting"].items_per_s,
        "update": 1e6 * samples_per_step(config) * update_s,
    }
    return {
        "steps_per_s": 1e6 / sum(microseconds.values()),
        "us_per_step": microseconds,
        "parts": {name: asdict(part) for name, part in found.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures one floor and prints one line of JSON."""
    parser = argparse.ArgumentParser(description="The floor of one loop, as a line of JSON.")
    parser.add_argument("name", choices=WORKLOADS)
    add_options(parser)
    options = parser.parse_args(arguments)
    print(json.dumps(measure(options.name, options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
