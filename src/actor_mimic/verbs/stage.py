"""What the verbs of all learning stages have in common: their options, and how one is run.

Imports that need PyTorch wait until a verb runs, so that ``--help`` is there at once.
"""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import UseAppendAction

from actor_mimic.config import Config, build_config
from actor_mimic.errors import ConfigError
from actor_mimic.verbs.arguments import (
    Device,
    Number,
    OptionalNumber,
    OptionalPath,
    OptionalReplay,
    Stop,
    Switch,
    named_value,
    notice,
)

if TYPE_CHECKING:
    from actor_mimic.storage.records import Record

# Settings that have an argument of their own, with a default that --set would contradict unseen.
OWN_ARGUMENTS = {
    "algorithm": "--algorithm",
    "head": "--head",
    "preset": "--preset",
    "protocol": "--protocol",
    "seed": "--seed",
    "task": "TASK",
    "tasks": "them as arguments",
}


@dataclass(frozen=True)
class Common:
    """Options that every learning stage has."""

    run_dir: OptionalPath = None
    """Where the run is kept, and goes on from. Left out: runs/ and a name from the arguments."""
    seed: Number = 0
    """Decides weights, games and exploration."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the torsos; output layers always run in float32."""
    threads: Number = 0
    """CPU threads of PyTorch and of the emulators; 0 takes all cores."""
    total_steps: OptionalNumber = None
    """Budget in steps (a step is four Atari frames); of several tasks, over all together."""
    eval_every_steps: OptionalNumber = None
    """Steps between evaluations; 0 for none."""
    checkpoint_every_steps: OptionalNumber = None
    """Steps between checkpoints."""
    checkpoint_replay: OptionalReplay = None
    """none: checkpoints without the replay are smaller, and resume is no longer exact. Left out:
    full."""
    protocol: Literal["paper", "sticky"] = "paper"
    """paper: no-op starts, a lost life ends a training episode; sticky: repeated actions."""
    set: UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint="")]
    ] = ()
    """Any other hyper-parameter (docs/settings.md lists them); may be given again and again."""
    json: Switch = False
    """Print the result as one JSON object on standard output."""


def build_stage(stage: str, values: dict[str, Any], common: Common) -> Config:
    """The configuration from a verb's own arguments, the common ones, and every ``--set``."""
    asked = values | {"seed": common.seed, "protocol": common.protocol}
    for name in ("total_steps", "eval_every_steps", "checkpoint_every_steps", "checkpoint_replay"):
        value = getattr(common, name)
        if value is not None:
            asked[name] = value
    if "total_steps" in asked and "tasks" in asked:
        # Of all tasks together; their stages have a budget for each, rounded up.
        asked["steps_per_task"] = -(-asked.pop("total_steps") // len(asked["tasks"]))
    for text in common.set:
        name, value = named_value(text, "NAME=VALUE")
        own = OWN_ARGUMENTS.get(name)
        if own is not None:
            raise ConfigError(f"--set {name}: write {own} instead")
        if name in asked:
            raise ConfigError(f"{name} is given twice, and one of them is --set {text}")
        asked[name] = value
    return build_config(stage, asked)


def default_dir(*parts: str | int) -> Path:
    """Where a run is kept if nobody says: ``runs/`` and a name from the parts."""
    from actor_mimic.storage.run_dir import slug

    return Path("runs") / "-".join(slug(str(part)) for part in parts)[:100]


def run_stage(
    begin: Callable[..., Iterator["Record"]],
    config: Config,
    path: Path,
    title: str,
    common: Common,
    *parents: Any,
    compiled: str = "off",
) -> int:
    """Runs a stage with a bar, then says what came of it."""
    from actor_mimic.progress import StageProgress
    from actor_mimic.stages.stage_run import Launch
    from actor_mimic.storage.run_dir import is_complete, read_run_json

    if is_complete(path):
        notice(f"{path} is complete already; choose another --run-dir to train again")
    with StageProgress(title, config.total_steps) as progress:
        launch = Launch(
            path,
            device=common.device,
            precision=common.precision,
            threads=common.threads,
            compiled=compiled,
            stop=Stop(),
            notice=notice,
            on_game=progress.on_game,
            command=shlex.join(["actor-mimic", *sys.argv[1:]]),
        )
        for record in begin(config, launch, *parents):
            progress.show(record)
    summary = read_run_json(path, "complete.json")
    if common.json:
        print(json.dumps({"run_dir": str(path)} | summary))
    else:
        notice(f"checkpoint: {path / summary['checkpoint']}")
    return 0
