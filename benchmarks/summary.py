"""From rounds of measurements to figures, verdicts, tables and a file.

A round is ``{"loops": {name: ...}, "floors": {name: ...}, "sb3": {environments: ...}}`` with what
each process printed. Ratios are taken within a round; a figure is the median over rounds.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import facts
from benchmarks.options import compute_for
from benchmarks.workloads import WORKLOADS

Round = Mapping[str, Any]

# Steps per second, as multiples of SB3's with one environment, its default.
LEAST_OF_SB3 = {"dqn-like-sb3": 3.0, "dqn-own-batch": 4.0}
PARTS = ("emulation", "acting", "update")


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; ``bound`` is ``at least`` or ``at most``."""

    target: str
    bound: str
    limit: float
    measured: float

    @property
    def passed(self) -> bool:
        """Whether the target is met."""
        if self.bound == "at least":
            return self.measured >= self.limit
        return self.measured <= self.limit


def median(rounds: Sequence[Round], figure: Callable[[Round], float]) -> float:
    """Of a figure over all rounds."""
    return statistics.median(figure(one) for one in rounds)


def of_floor(name: str) -> Callable[[Round], float]:
    """A loop's speed over its floor's, in one round; both from medians."""
    return lambda one: one["loops"][name]["median_steps_per_s"] / one["floors"][name]["steps_per_s"]


def of_floor_by_mean(name: str) -> Callable[[Round], float]:
    """All steps of a loop over all its time, over its floor's speed."""
    return lambda one: one["loops"][name]["steps_per_s"] / one["floors"][name]["steps_per_s"]


def of_sb3(name: str, envs: str = "") -> Callable[[Round], float]:
    """A loop's speed over SB3's in one round: with so many environments, or the faster."""

    def ratio(one: Round) -> float:
        found = {n: result["steps_per_s"] for n, result in one["sb3"].items()}
        return one["loops"][name]["steps_per_s"] / (found[envs] if envs else max(found.values()))

    return ratio


def verdicts(rounds: Sequence[Round]) -> list[Verdict]:
    """Every target that these rounds can decide."""
    result = []
    for name in rounds[0]["loops"]:
        workload = WORKLOADS[name]
        if workload.least_of_floor is not None:
            target, measured = f"{workload.title}: of its floor", median(rounds, of_floor(name))
            result.append(Verdict(target, "at least", workload.least_of_floor, measured))
        if workload.least_steps_per_s is not None:
            target = f"{workload.title}: steps/s"
            measured = median(rounds, lambda one, n=name: one["loops"][n]["steps_per_s"])
            result.append(Verdict(target, "at least", workload.least_steps_per_s, measured))
    for name, least in LEAST_OF_SB3.items():
        if rounds[0].get("sb3"):
            target = f"{WORKLOADS[name].title}: times SB3's steps/s"
            result.append(Verdict(target, "at least", least, median(rounds, of_sb3(name, "1"))))
    return result


def print_loops(rounds: Sequence[Round]) -> None:
    """Loops beside their floors: speeds, then where the time of a step goes."""
    names = list(rounds[0]["loops"])
    columns = ("loop", "in slices", "floor", "ratio", "peak MiB")
    print(f"\n{'steps/s, medians over rounds':36}{''.join(f'{title:>10}' for title in columns)}")
    for name in names:
        figures = medians(rounds)[name]
        speeds = [figures[key] for key in ("steps_per_s", "median_steps_per_s", "floor")]
        memory = max(one["loops"][name]["peak_memory_mib"] for one in rounds)
        shown = "".join(f"{speed:10,.0f}" for speed in speeds)
        print(f"{WORKLOADS[name].title:36}{shown}{figures['of_floor']:10.2f}{memory:10,.0f}")
    print("In slices: the median of parts of a loop's time, which the ratio to the floor is of.")
    print(f"\n{'microseconds per step':36}{''.join(f'{part:>11}' for part in PARTS)}{'whole':>11}")
    for name in names:
        for kind, title in (("loops", WORKLOADS[name].title), ("floors", "  bare")):
            parts = [
                median(rounds, lambda one, n=name, p=part, k=kind: one[k][n]["us_per_step"][p])
                for part in PARTS
            ]
            whole = 1e6 / median(rounds, lambda one, n=name, k=kind: one[k][n]["steps_per_s"])
            print(f"{title:36}{''.join(f'{value:11,.0f}' for value in [*parts, whole])}")
    print("Parts are measured alone; a loop runs its emulators while its network computes.")


def print_comparison(rounds: Sequence[Round]) -> None:
    """Steps per second of SB3 and ours, and the ratios."""
    numbers = list(rounds[0]["sb3"])
    titles = "".join(f"{f'of SB3, {envs} env':>16}" for envs in numbers)
    print(f"\n{'Pong, 8 replayed samples per step':36}{'steps/s':>9}{titles}{'peak MiB':>10}")
    for envs in numbers:
        rate = median(rounds, lambda one, e=envs: one["sb3"][e]["steps_per_s"])
        memory = max(one["sb3"][envs]["peak_memory_mib"] for one in rounds)
        title = f"SB3, batch 32, {envs} env"
        print(f"{title:36}{rate:9,.0f}{'':{16 * len(numbers)}}{memory:10,.0f}")
    for name in LEAST_OF_SB3:
        rate = median(rounds, lambda one, n=name: one["loops"][n]["steps_per_s"])
        ratios = "".join(f"{median(rounds, of_sb3(name, envs)):16.2f}" for envs in numbers)
        memory = max(one["loops"][name]["peak_memory_mib"] for one in rounds)
        print(f"{WORKLOADS[name].title:36}{rate:9,.0f}{ratios}{memory:10,.0f}")
    ours, theirs = rounds[0]["loops"]["dqn-like-sb3"], rounds[0]["sb3"][numbers[0]]
    print(
        f"A full replay of 100,000 steps: ours {ours['full_replay_mib']:,.0f} MiB, "
        f"SB3's {theirs['full_replay_mib']:,.0f} MiB.\n"
        "Peaks above are of short runs, with replays nearly empty."
    )


def print_verdicts(found: Sequence[Verdict]) -> None:
    """One line for each target."""
    print(f"\n{'target':56}{'limit':>12}{'measured':>12}")
    for verdict in found:
        sign = ">=" if verdict.bound == "at least" else "<="
        limit = f"{sign} {verdict.limit:,.4g}"
        outcome = "pass" if verdict.passed else "FAIL"
        print(f"{verdict.target:56}{limit:>12}{verdict.measured:12,.4g}  {outcome}")


def medians(rounds: Sequence[Round]) -> dict[str, Any]:
    """The figures of the tables, for the file."""
    result: dict[str, Any] = {}
    for name in rounds[0]["loops"]:
        result[name] = {
            key: median(rounds, lambda one, n=name, k=key: one["loops"][n][k])
            for key in ("steps_per_s", "median_steps_per_s")
        } | {
            "floor": median(rounds, lambda one, n=name: one["floors"][n]["steps_per_s"]),
            "of_floor": median(rounds, of_floor(name)),
            "of_floor_by_mean": median(rounds, of_floor_by_mean(name)),
        }
        if name in LEAST_OF_SB3 and rounds[0].get("sb3"):
            result[name]["of_sb3"] = {
                f"{envs} env": median(rounds, of_sb3(name, envs)) for envs in rounds[0]["sb3"]
            } | {"faster": median(rounds, of_sb3(name))}
    for envs in rounds[0].get("sb3", ()):
        rate = median(rounds, lambda one, e=envs: one["sb3"][e]["steps_per_s"])
        result[f"sb3, {envs} env"] = {"steps_per_s": rate}
    return result


def write_results(
    module: str,
    options: argparse.Namespace,
    rounds: Sequence[Round],
    found: Sequence[Verdict],
    **more: Any,
) -> None:
    """Everything measured, raw, with what it depends on; nothing without ``--output``.

    Args:
        module: as in ``python -m MODULE``.
        options: of the command line.
        rounds: raw.
        found: the verdicts.
        more: other results by name.
    """
    if not options.output:
        return
    compute = compute_for(options)
    content = {
        **facts(module),
        "precision": compute.precision,
        "threads": compute.threads,
        "seconds": options.seconds,
        "game": options.game,
        "verdicts": [asdict(verdict) | {"passed": verdict.passed} for verdict in found],
        "medians": medians(rounds) if rounds else {},
        "rounds": list(rounds),
        **more,
    }
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nwritten to {target}")
