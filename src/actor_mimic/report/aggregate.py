"""What a directory of runs says, read from its JSON files alone: no torch, no checkpoint opened.

Everything read here is data that somebody may have edited or damaged. A file that cannot be
understood is listed under `Collection.problems`, and what it would have said is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actor_mimic.errors import DataError, UsageError
from actor_mimic.report.fields import count, interval, mapping, number, numbers, text
from actor_mimic.storage.records import Record, read_records
from actor_mimic.storage.run_dir import (
    COMPLETE,
    RECORDS,
    RUN,
    is_complete,
    read_run_json,
    validate_run_name,
)

RECIPE = "recipe.json"
STUDENTS = ("distill", "multitask-dqn")  # stages whose one network plays several tasks
SEED_PREFIX = "seed-"


@dataclass(frozen=True)
class Score:
    """One policy's raw scores in one task.

    Attributes:
        mean: of the episodes.
        ci95: interval of the mean; None where it was not kept, or for a single episode.
        episodes: how many; None where it was not kept.
        human_normalised: 0 at random play, 1 at the published human; None where there is none.
        claimed: what its author says that it scores, if it was imported with that.
        scores: of the single games; empty where they were not kept.
    """

    mean: float
    ci95: tuple[float, float] | None = None
    episodes: int | None = None
    human_normalised: float | None = None
    claimed: float | None = None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Point:
    """A mean raw score while learning, after so many steps."""

    step: int
    mean: float


@dataclass(frozen=True)
class Likeness:
    """How alike a student and its teacher are in one task.

    Attributes:
        agreement: share of states where both prefer the same action.
        divergence: KL(teacher || student) in nats.
        held_out: whether the states are of evaluation games, and not of training.
        feature_error: squared error of the feature regression, as a share of the variance of the
            teacher's features; None without one.
    """

    agreement: float
    divergence: float
    held_out: bool
    feature_error: float | None = None


@dataclass(frozen=True)
class Origin:
    """Where the first values of one tensor of a transfer come from: copied, rows or fresh."""

    name: str
    origin: str
    rows: int


@dataclass(frozen=True)
class Run:
    """One repetition of a stage.

    Attributes:
        name: of the stage.
        seed: of this repetition.
        path: its directory.
        kind: ``expert``, ``distill``, ``multitask-dqn``, ``transfer`` or ``evaluate``.
        config: as it was run.
        versions: of what it ran on.
        created: when it was begun.
        parents: hashes of the models that it started from or learned from.
        complete: whether it is done.
        model_sha256: of its last checkpoint, once it is done.
        seconds: that it took, once it is done.
        scores: final ones by task, once it is done.
        curves: evaluations while it learned, by task.
        training: mean of the last games that it learned from, likewise.
        likeness: of a student and its teachers, as last recorded, by task.
        steps: that it has recorded.
        parameters: of its network; None where it was not kept.
        teacher_parameters: of its teachers' networks, by task, where they are known.
        origins: of the tensors that a transfer began with.
        command: that began it, if it was begun by itself.
        measured: final figures of anybody that lie in its directory, by whose they are (hash of
            a model, or ``random``), task and protocol.
    """

    name: str
    seed: int
    path: Path
    kind: str
    config: Mapping[str, Any]
    versions: Mapping[str, Any]
    created: str
    parents: tuple[str, ...]
    complete: bool
    model_sha256: str | None
    seconds: float | None
    scores: Mapping[str, Score]
    curves: Mapping[str, Sequence[Point]]
    training: Mapping[str, Sequence[Point]]
    likeness: Mapping[str, Likeness]
    steps: int
    parameters: int | None
    teacher_parameters: Mapping[str, int]
    origins: tuple[Origin, ...]
    command: str
    measured: Mapping[tuple[str, str, str], Score]

    @property
    def protocol(self) -> str:
        """Under which its games were played."""
        return str(self.config.get("protocol", ""))

    @property
    def tasks(self) -> list[str]:
        """What it plays, in its own order."""
        named = self.config.get("tasks", self.config.get("task"))
        if isinstance(named, str):
            return [named]
        return [str(task) for task in named] if isinstance(named, list) else list(self.scores)


@dataclass(frozen=True)
class Collection:
    """All runs of a recipe, or a single one.

    Attributes:
        title: name of the recipe, or of the directory.
        description, command: of the recipe; empty for a single run.
        run_dir: where they are.
        runs: in the order of the recipe.
        problems: files that could not be read, and why.
    """

    title: str
    description: str
    command: str
    run_dir: Path
    runs: tuple[Run, ...]
    problems: tuple[str, ...]

    def score_of(self, who: str, task: str, *, near: Run) -> Score | None:
        """A final figure under a run's protocol, wherever it was measured.

        Args:
            who: hash of a model, or ``random``.
            task: what was played.
            near: the run that it stands beside; what was measured there comes first.
        """
        for run in (near, *self.runs):
            if (who, task, near.protocol) in run.measured:
                return run.measured[who, task, near.protocol]
            if run.model_sha256 == who and run.protocol == near.protocol and task in run.scores:
                return run.scores[task]
        return None

    def run_of(self, model_sha256: str) -> Run | None:
        """The learning stage whose last checkpoint has this model."""
        for run in self.runs:
            if run.model_sha256 == model_sha256 and run.kind != "evaluate":
                return run
        return None


@dataclass
class _Reader:
    problems: list[str] = field(default_factory=list)

    def json(self, path: Path, name: str) -> dict[str, Any]:
        """An object, or an empty one if there is none to be read."""
        try:
            content = read_run_json(path, name)
        except DataError as error:
            self.problems.append(str(error))
            return {}
        if isinstance(content, dict):
            return content
        self.problems.append(f"{path / name}: expected a JSON object, got {content!r:.100}")
        return {}

    def records(self, path: Path) -> list[Record]:
        if not path.exists():
            return []
        try:
            return read_records(path)
        except DataError as error:
            self.problems.append(str(error))
            return []


def collect(run_dir: Path) -> Collection:
    """Reads a recipe's directory, one that has single runs in it, or that of one run.

    Raises:
        DataError: if there is no run.
    """
    reader = _Reader()
    recipe = reader.json(run_dir, RECIPE) if (run_dir / RECIPE).exists() else {}
    if (run_dir / RUN).exists():
        runs = [_read_run(reader, run_dir, run_dir.resolve().name, None)]
    else:
        runs = [
            _read_run(reader, path, name, seed) for path, name, seed in _find_runs(run_dir, recipe)
        ]
    if not runs:
        raise DataError(f"{run_dir}: expected the runs of a recipe, or a run; there is none")
    return Collection(
        title=text(recipe.get("recipe")) or run_dir.resolve().name,
        description=text(recipe.get("description")),
        command=text(recipe.get("command")),
        run_dir=run_dir,
        runs=tuple(runs),
        problems=tuple(reader.problems),
    )


def _find_runs(run_dir: Path, recipe: Mapping[str, Any]) -> Iterator[tuple[Path, str, int | None]]:
    """Begun runs: in the order of the recipe, then others by name.

    Yields:
        A directory, the name of its stage, and its seed, unless only the run itself knows it.
    """
    stages = recipe.get("stages")
    stages = stages if isinstance(stages, list) else []
    listed = [text(stage.get("name")) for stage in stages if isinstance(stage, dict)]
    there = sorted(path.name for path in run_dir.iterdir()) if run_dir.is_dir() else []
    for name in dict.fromkeys([*listed, *there]):
        if name not in there or not _is_plain(name) or not (run_dir / name).is_dir():
            continue
        if (run_dir / name / RUN).exists():
            yield run_dir / name, name, None
            continue
        found = [path for path in (run_dir / name).iterdir() if (path / RUN).exists()]
        numbers = {path: path.name.removeprefix(SEED_PREFIX) for path in found}
        seeded = [path for path in found if numbers[path].isascii() and numbers[path].isdigit()]
        seeds = sorted((int(numbers[path]), path) for path in seeded)
        yield from ((path, name, seed) for seed, path in seeds)


def _read_run(reader: _Reader, path: Path, name: str, seed: int | None) -> Run:
    begun = reader.json(path, RUN)
    config = mapping(begun.get("config"))
    done = reader.json(path, COMPLETE) if is_complete(path) else {}
    records = reader.records(path / RECORDS)
    parents = config.get("parents")
    return Run(
        name=name,
        seed=count(begun.get("seed")) or 0 if seed is None else seed,
        path=path,
        kind=text(begun.get("stage")),
        config=config,
        versions=mapping(begun.get("versions")),
        created=text(begun.get("created")),
        parents=tuple(text(parent) for parent in parents) if isinstance(parents, list) else (),
        complete=bool(done),
        model_sha256=text(done.get("model_sha256")) or None,
        seconds=number(done.get("seconds")),
        scores=_scores(done.get("scores")),
        curves=_curves(records, "evaluation", "/mean"),
        training=_curves(records, "train", "/score"),
        likeness=_likeness(records),
        steps=max((record.step for record in records), default=0),
        parameters=count(done.get("parameters")),
        teacher_parameters=_counts(done.get("teacher_parameters")),
        origins=_origins(done.get("tensor_origins")),
        command=text(begun.get("command")),
        measured=_measured(reader, path),
    )


def _measured(reader: _Reader, path: Path) -> dict[tuple[str, str, str], Score]:
    """Scores in ``evaluations/``, by whose they are, task and protocol."""
    found: dict[tuple[str, str, str], Score] = {}
    directory = path / "evaluations"
    names = sorted(file.name for file in directory.glob("*.json")) if directory.is_dir() else []
    contents = [reader.json(path, f"{directory.name}/{name}") for name in names if _is_plain(name)]
    # Of several, that of most games at the largest epsilon, which is the protocol's.
    contents.sort(key=_weight)
    for content in contents:
        who, protocol = text(content.get("checkpoint")), text(content.get("protocol"))
        claimed = number(content.get("claimed_score"))
        for task, score in _scores(content.get("tasks")).items():
            found[who, task, protocol] = replace(score, claimed=claimed)
    return found


def _weight(evaluation: Mapping[str, Any]) -> tuple[float, int]:
    scores = _scores(evaluation.get("tasks")).values()
    games = sum(score.episodes or 0 for score in scores)
    return number(evaluation.get("epsilon")) or 0.0, games


def _curves(records: Sequence[Record], kind: str, suffix: str) -> dict[str, list[Point]]:
    curves: dict[str, list[Point]] = {}
    for record in records:
        if record.kind != kind:
            continue
        for name, value in record.values.items():
            mean = number(value)
            if name.endswith(suffix) and mean is not None:
                curves.setdefault(name.removesuffix(suffix), []).append(Point(record.step, mean))
    return curves


def _likeness(records: Sequence[Record]) -> dict[str, Likeness]:
    """What was recorded last, of held-out states where there are any."""
    found: dict[str, Likeness] = {}
    for prefix in ("", "held_out_"):
        agreed, apart = f"/{prefix}agreement", f"/{prefix}divergence"
        for record in records:
            for name, value in record.values.items():
                if not name.endswith(agreed):
                    continue
                task = name.removesuffix(agreed)
                agreement, divergence = number(value), number(record.values.get(task + apart))
                error = number(record.values.get(f"{task}/feature_error")) if prefix else None
                if agreement is None or divergence is None or not 0.0 <= agreement <= 1.0:
                    continue
                found[task] = Likeness(agreement, divergence, bool(prefix), error)
    return found


def _scores(content: Any) -> dict[str, Score]:
    scores = {}
    for task, values in mapping(content).items():
        mean = number(mapping(values).get("mean"))
        if mean is not None:
            scores[task] = Score(
                mean,
                interval(values.get("ci95")),
                count(values.get("episodes")),
                number(values.get("human_normalised")),
                scores=numbers(values.get("scores")),
            )
    return scores


def _counts(content: Any) -> dict[str, int]:
    counts = {name: count(value) for name, value in mapping(content).items()}
    return {name: value for name, value in counts.items() if value is not None}


def _origins(content: Any) -> tuple[Origin, ...]:
    entries = [mapping(entry) for entry in content] if isinstance(content, list) else []
    return tuple(
        Origin(text(entry.get("name")), text(entry.get("origin")), count(entry.get("rows")) or 0)
        for entry in entries
    )


def _is_plain(name: str) -> bool:
    try:
        return validate_run_name(name) == name
    except UsageError:
        return False
