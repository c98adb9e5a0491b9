"""What the verbs of all learning stages have in common: their options, and how one is run.

Imports that need PyTorch wait until a verb runs, so that ``--help`` is there at once.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import UseAppendAction

from actor_mimic.report.printable import without_secrets
from actor_mimic.verbs.arguments import (
    Device,
    Number,
    OptionalNumber,
    OptionalPath,
    OptionalProtocol,
    OptionalReplay,
    Precision,
    ProjectName,
    Stop,
    Switch,
    notice,
)
from actor_mimic.verbs.settings import Settings, compute_settings, describe, read_settings

if TYPE_CHECKING:
    from actor_mimic.storage.records import Record


@dataclass(frozen=True)
class Common:
    """Options that every learning stage has."""

    run_dir: OptionalPath = None
    """Where the run is kept, and goes on from. Left out: runs/ and a name from the arguments."""
    seed: OptionalNumber = None
    """Decides weights, games and exploration. Left out: 0."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Of networks that see images; vectors and output layers always have float32."""
    threads: Number = 0
    """CPU threads of PyTorch and of the emulators; 0 takes all cores."""
    total_steps: OptionalNumber = None
    """Budget in steps (a step is four Atari frames); of several tasks, over all together."""
    eval_every_steps: OptionalNumber = None
    """Steps between evaluations; 0 for none."""
    checkpoint_every_steps: OptionalNumber = None
    """Steps between checkpoints."""
    checkpoint_replay: OptionalReplay = None
    """until_done: with the replay until the run is done; full: then too; none: smaller, and resume
    is no longer exact. Left out: until_done."""
    protocol: OptionalProtocol = None
    """paper: no-op starts, a lost life ends a training episode; sticky: repeated actions.
    Left out: paper."""
    set: UseAppendAction[
        Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint="")]
    ] = ()
    """Any other hyper-parameter (docs/settings.md lists them); may be given again and again."""
    print_config: Switch = False
    """Print every setting with where its value came from, and do nothing."""
    track: Switch = False
    """Show the learning on Weights & Biases too (WANDB_MODE=offline: on this machine only)."""
    wandb_project_name: ProjectName = "actor-mimic"
    """With --track: the project there."""
    json: Switch = False
    """Print the result as one JSON object on standard output."""


def read_stage(stage: str, values: dict[str, Any], common: Common) -> Settings:
    """The settings from a verb's own arguments, the common ones, and all that is beneath them."""
    names = ["seed", "protocol", "eval_every_steps", "checkpoint_every_steps", "checkpoint_replay"]
    options = values | {name: getattr(common, name) for name in names}
    total = common.total_steps
    if "tasks" in values:
        # Of all tasks together; their stages have a budget for each, rounded up.
        each = None if total is None else -(-total // len(values["tasks"]))
        options["steps_per_task"] = each
    else:
        options["total_steps"] = total
    return read_settings(stage, options, common.set, os.environ)


def default_dir(*parts: str | int) -> Path:
    """Where a run is kept if nobody says: ``runs/`` and a name from the parts."""
    from actor_mimic.storage.run_dir import slug

    return Path("runs") / "-".join(slug(str(part)) for part in parts)[:100]


def _compute(common: Common, compiled: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    given = {"device": common.device, "precision": common.precision, "threads": common.threads}
    return compute_settings(
        given if compiled is None else given | {"compiled": compiled}, os.environ
    )


def print_config(settings: Settings, path: Path, common: Common, compiled: str | None) -> int:
    """Prints what would be done."""
    from actor_mimic.stages.stage_run import Launch

    values, sources = _compute(common, compiled)
    launch = Launch(path, **values)
    print(
        describe(
            settings,
            path,
            dataclasses.asdict(launch.compute()),
            sources,
            kept=launch.kept,
            as_json=common.json,
        )
    )
    return 0


def run_stage(
    begin: Callable[..., Iterator["Record"]],
    settings: Settings,
    path: Path,
    title: str,
    common: Common,
    *parents: Any,
    compiled: str | None = None,
) -> int:
    """Runs a stage with a bar, then says what came of it."""
    from actor_mimic.progress import StageProgress
    from actor_mimic.stages.stage_run import Launch
    from actor_mimic.storage.run_dir import is_complete, read_run_json

    if common.print_config:
        return print_config(settings, path, common, compiled)
    was_complete = is_complete(path)
    values, _ = _compute(common, compiled)
    with StageProgress(title, settings.config.total_steps) as progress:
        launch = Launch(
            path,
            **values,
            stop=Stop(),
            notice=notice,
            on_game=progress.on_game,
            command=without_secrets(shlex.join(["actor-mimic", *sys.argv[1:]])),
            track=common.wandb_project_name if common.track else "",
        )
        for record in begin(settings.config, launch, *parents):
            progress.show(record)
    if was_complete:
        notice(f"{path} was complete already; choose another --run-dir to train again")
    summary = read_run_json(path, "complete.json")
    if common.json:
        print(json.dumps({"run_dir": str(path)} | summary))
    else:
        print(path / summary["checkpoint"])
    return 0
