"""What a finished learning stage says of itself in ``complete.json``."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from actor_mimic.stages.evaluate import TaskScores
from actor_mimic.storage.checkpoint import Checkpoint
from actor_mimic.teachers.own import count_parameters

# Of the manifest, told once more: a report opens no checkpoint.
TOLD_AGAIN = ("teacher_parameters", "tensor_origins")


def summary(
    checkpoint: Checkpoint,
    manifest: Mapping[str, Any],
    network: nn.Module,
    seconds: float,
    scores: Mapping[str, TaskScores],
) -> dict[str, Any]:
    """The summary, as plain data.

    Args:
        checkpoint: the last one of the run.
        manifest: what it says of itself.
        network: whose weights it holds.
        seconds: that the stage took.
        scores: final ones, by task.
    """
    assert checkpoint.run is not None
    return {
        "kind": manifest["kind"],
        "checkpoint": str(checkpoint.path.relative_to(checkpoint.run)),
        "model_sha256": checkpoint.model_sha256,
        "seconds": seconds,
        "parameters": count_parameters(network),
        "scores": {task: score.to_json() for task, score in scores.items()},
    } | {name: manifest[name] for name in TOLD_AGAIN if name in manifest}
