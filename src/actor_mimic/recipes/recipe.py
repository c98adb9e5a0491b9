"""A recipe: the stages of an experiment, what each starts from, and the seeds to repeat it with."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actor_mimic.config import Config, EvaluateConfig

BEST_SUFFIX = "@best"


@dataclass(frozen=True)
class Parent:
    """Where a stage's weights or labels come from: another stage, or a path.

    Attributes:
        stage: name of an earlier stage of the recipe, or None.
        path: a run, a checkpoint directory or ``zoo:NAME``, where it is no stage.
        best: take the checkpoint with the best evaluation, and not the last one.
    """

    stage: str | None = None
    path: Path | None = None
    best: bool = False

    def __str__(self) -> str:
        return f"{self.stage or self.path}{BEST_SUFFIX if self.best else ''}"


@dataclass(frozen=True)
class Stage:
    """One stage, to be run once for each of its seeds.

    Attributes:
        name: unique in the recipe; the name of its directory.
        kind: ``expert``, ``distill``, ``multitask-dqn``, ``transfer`` or ``evaluate``.
        seeds: at least one.
        config: for any of the seeds; see `for_seed`.
        teachers: of a distillation, by task.
        parent: of a transfer or an evaluation; None is random initialisation, random play.
        sources: by name, where each setting came from: a line of the recipe
            or a preset; what is not here has its default.
    """

    name: str
    kind: str
    seeds: tuple[int, ...]
    config: Config | EvaluateConfig
    teachers: Mapping[str, Parent] = field(default_factory=dict)
    parent: Parent | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def for_seed(self, seed: int) -> Config | EvaluateConfig:
        """The configuration of one repetition."""
        return dataclasses.replace(self.config, seed=seed)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it plays; empty where only the checkpoint knows."""
        if isinstance(self.config, EvaluateConfig):
            return self.config.tasks
        return tuple(getattr(self.config, "tasks", ())) or (getattr(self.config, "task", ""),)

    @property
    def parents(self) -> dict[str, Parent]:
        """All that it starts from: teachers by task, any other parent under ``parent``."""
        return dict(self.teachers) if self.parent is None else {"parent": self.parent}


@dataclass(frozen=True)
class Recipe:
    """What ``actor-mimic run`` does.

    Attributes:
        name: of the recipe; its runs are kept under ``runs/NAME`` by default.
        description: for people.
        source: what it was loaded from, as the user wrote it.
        scale: by which every budget has been multiplied already.
        seeds: of every stage that has none of its own.
        stages: in the order in which they run; parents come first.
        films: whether every repetition of a stage is filmed once it is done.
    """

    name: str
    description: str
    source: str
    scale: float
    seeds: tuple[int, ...]
    stages: tuple[Stage, ...]
    films: bool = True

    def stage(self, name: str) -> Stage:
        """The stage of that name, which must be there."""
        return next(stage for stage in self.stages if stage.name == name)

    def jobs(self, run_dir: Path) -> Iterator["Job"]:
        """Every repetition of every stage with its directory, in order."""
        for stage in self.stages:
            for seed in stage.seeds:
                yield Job(stage, seed, run_dir / stage.name / f"seed-{seed}")


@dataclass(frozen=True)
class Job:
    """One repetition of a stage."""

    stage: Stage
    seed: int
    path: Path

    @property
    def title(self) -> str:
        """``pong-expert/seed-0``."""
        return f"{self.stage.name}/seed-{self.seed}"

    @property
    def config(self) -> Config | EvaluateConfig:
        """What to do."""
        return self.stage.for_seed(self.seed)


def seed_of_parent(parent: Stage, seed: int) -> int | None:
    """Which repetition of a parent a child with this seed starts from.

    The one with the same seed; a parent that is run only once serves all. None if there is
    neither.
    """
    if seed in parent.seeds:
        return seed
    return parent.seeds[0] if len(parent.seeds) == 1 else None
