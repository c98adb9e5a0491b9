"""Experts that come with the package: checkpoints under names, and what they scored.

::

    zoo/pong/
        model.safetensors   the torso's kernels, matrices and background in float16, all else in
                            float32
        MANIFEST.json       as of any checkpoint; ``shipped`` says how it was trained
        scores.json         whole games under each protocol, played with exactly this file, and
                            at random
        card.md             one paragraph about it, written from the two

A directory is one checkpoint that nobody goes on from; `checkpoint.resolve_checkpoint` opens it by
the name ``zoo:pong``. Nothing here needs PyTorch, so that a list of them is there at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actor_mimic.errors import DataError, UsageError, did_you_mean
from actor_mimic.storage.durable import is_plain_name, parse_json, read_regular
from actor_mimic.storage.manifest import MANIFEST, check_files, check_schema, read_manifest

ZOO = Path(__file__).parents[1] / "zoo"
PREFIX = "zoo:"
RANDOM = "random"  # stands for random play wherever weights are named
SCORES = "scores.json"
CARD = "card.md"
MAX_SCORES_BYTES = 4 << 20

_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Shipped:
    """One expert, as its files describe it.

    Attributes:
        name: behind ``zoo:``.
        path: its directory.
        manifest: everything in MANIFEST.json.
        evaluations: of scores.json, each as a run's ``evaluations/*.json`` has them.
    """

    name: str
    path: Path
    manifest: dict[str, Any]
    evaluations: list[dict[str, Any]]

    @property
    def task(self) -> str:
        """What it plays."""
        (task,) = self.manifest["tasks"]
        return task

    @property
    def size(self) -> int:
        """Bytes of its weights."""
        return self.manifest["files"][_MODEL]["size"]

    @property
    def model_sha256(self) -> str:
        """Hash of its weights, under which students name it."""
        return self.manifest["files"][_MODEL]["sha256"]

    def evaluation(self, protocol: str, epsilon: float) -> dict[str, Any] | None:
        """Its measurement of that kind, whole; None if there is none."""
        return self._evaluation(self.model_sha256, protocol, epsilon)

    def random_play(self, protocol: str) -> dict[str, Any] | None:
        """What random play scores in its task, likewise."""
        return self._evaluation(RANDOM, protocol, 1.0)

    def scores(self, protocol: str, epsilon: float) -> dict[str, Any] | None:
        """Its task's scores as `TaskScores.to_json` gives them; None if not measured so."""
        result = self.evaluation(protocol, epsilon)
        return None if result is None else result["tasks"][self.task]

    def _evaluation(self, who: str, protocol: str, epsilon: float) -> dict[str, Any] | None:
        for result in self.evaluations:
            found = (result["checkpoint"], result["protocol"], result["epsilon"])
            if found == (who, protocol, epsilon):
                return result
        return None


def directory_of(name: str) -> Path:
    """Where an expert of that name lies, or would lie."""
    return ZOO / name


def shipped_names() -> list[str]:
    """What may stand behind ``zoo:``, sorted."""
    if not ZOO.is_dir():
        return []
    found = (path for path in ZOO.iterdir() if is_plain_name(path.name))
    return sorted(path.name for path in found if (path / MANIFEST).is_file())


def shipped_path(text: str) -> Path:
    """The directory of what a user named as ``zoo:NAME``.

    Raises:
        UsageError: if nothing of that name is shipped; says what is.
    """
    names = shipped_names()
    if not names:
        raise UsageError(
            f"{text}: no experts are shipped with this version; train one "
            "(actor-mimic train-expert), and actor-mimic zoo --add RUN makes it one of the zoo"
        )
    name = text.removeprefix(PREFIX)
    if name not in names:
        choices = [PREFIX + known for known in names]
        raise UsageError(
            f"unknown expert {text!r:.120}{did_you_mean(text, choices)}; expected one of "
            f"{', '.join(choices)}"
        )
    return directory_of(name)


def shipped_name(path: Path) -> str | None:
    """``zoo:NAME`` of an expert's directory; None of any other."""
    return PREFIX + path.name if path.parent == ZOO else None


def name_of_model(sha256: str) -> str | None:
    """``zoo:NAME`` of the expert with these weights; None if they are not shipped, or damaged."""
    for name in shipped_names():
        try:
            files = read_manifest(directory_of(name))["files"]
        except DataError:
            continue
        if files.get(_MODEL, {}).get("sha256") == sha256:
            return PREFIX + name
    return None


def read_shipped(name: str) -> Shipped:
    """Open one of `shipped_names`, without reading its weights.

    Raises:
        DataError: naming the file that is missing or damaged, or whose scores are another's.
    """
    path = directory_of(name)
    manifest = read_manifest(path)
    check_files(path, manifest, hashed=frozenset())
    tasks = manifest.get("tasks")
    if _MODEL not in manifest["files"] or not isinstance(tasks, dict) or len(tasks) != 1:
        raise DataError(f"{path / MANIFEST}: expected an expert of one task, got {tasks!r:.100}")
    shipped = Shipped(name, path, manifest, read_scores(path, *tasks))
    measured = {result["checkpoint"] for result in shipped.evaluations}
    if not measured <= {shipped.model_sha256, RANDOM}:
        raise DataError(
            f"{path / SCORES}: expected the scores of {shipped.model_sha256[:16]}, got those of "
            "other weights"
        )
    return shipped


def read_scores(path: Path, task: str) -> list[dict[str, Any]]:
    """The evaluations in the directory of an expert of a task.

    Raises:
        DataError: if scores.json is missing or damaged, or of another task.
    """
    file = path / SCORES
    content = parse_json(read_regular(file, max_bytes=MAX_SCORES_BYTES), path=file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected a JSON object, got {type(content).__name__}")
    check_schema(content.get("schema"), path=file)
    evaluations = content.get("evaluations")
    if not isinstance(evaluations, list) or not all(
        _is_evaluation(evaluation, task) for evaluation in evaluations
    ):
        raise DataError(
            f"{file}: expected evaluations with scores of {task}, got {evaluations!r:.100}"
        )
    return evaluations


def _is_evaluation(content: Any, task: str) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("checkpoint"), str)
        and isinstance(content.get("protocol"), str)
        and _is_number(content.get("epsilon"))
        and type(content.get("seed")) is int
        and isinstance(content.get("tasks"), dict)
        and list(content["tasks"]) == [task]
        and all(map(_is_score, content["tasks"].values()))
    )


def _is_score(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and content.keys() >= {"episodes", "mean", "ci95", "human_normalised"}
        and type(content["episodes"]) is int
        and _is_number(content["mean"])
        and (content["human_normalised"] is None or _is_number(content["human_normalised"]))
        and (content["ci95"] is None or _is_interval(content["ci95"]))
    )


def _is_interval(content: Any) -> bool:
    return isinstance(content, list) and len(content) == 2 and all(map(_is_number, content))


def _is_number(content: Any) -> bool:
    return type(content) in (int, float)
