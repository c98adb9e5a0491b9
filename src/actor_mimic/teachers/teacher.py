"""A frozen network that plays one task: it labels frames, and it can be measured.

Axes: batch = observations, actions = the task's own actions, features = last hidden layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.networks.q_network import Output


@dataclass(frozen=True)
class Teacher:
    """What a student learns one task from.

    Attributes:
        task: the only task that it knows.
        action_names: its outputs, in order; the task's own actions.
        obs_shape: of one raw observation.
        num_features: width of its last hidden layer.
        model_sha256: names its weights, in manifests and in measured scores.
        network: raw observations on the device to scores over ``action_names`` and features.
        device: where it computes.
        scores_are_logits: its scores are logits of a policy, to be taken as it is, and not values
            that a temperature has to make a policy of.
        thread_safe: several threads may ask it at once; of a user's own function nobody knows.
        num_parameters: of its network; None if nobody knows, as of a function.
    """

    task: str
    action_names: tuple[str, ...]
    obs_shape: tuple[int, ...]
    num_features: int
    model_sha256: str
    network: Callable[[Shaped[Tensor, "batch ..."]], Output]
    device: str
    scores_are_logits: bool = False
    thread_safe: bool = True
    num_parameters: int | None = None

    @torch.no_grad()
    def label(self, obs: Shaped[Tensor, "batch ..."]) -> Output:
        """Scores (Q-values or logits, untouched) and features, detached, on the device."""
        return self.network(obs.to(self.device))

    def act(self, obs: Shaped[Tensor, "batch ..."]) -> Int64[np.ndarray, " batch"]:
        """The best action for each observation."""
        scores: Float[Tensor, "batch actions"] = self.label(obs).scores
        return scores.argmax(dim=1).cpu().numpy()


def label_all(
    teachers: Sequence[Teacher], observations: Sequence[Shaped[Tensor, "..."]], workers: Workers
) -> list[Output]:
    """What every teacher says of its own task's observations.

    Args:
        teachers: one per task.
        observations: raw, of each task.
        workers: share the rows of all tasks among them, if every teacher can bear that.
    """
    if not all(teacher.thread_safe for teacher in teachers):
        workers = Workers()
    parts = workers.map_each([teacher.label for teacher in teachers], observations)
    return list(map(joined, parts))


def joined(outputs: Sequence[Output]) -> Output:
    """One output of those of consecutive rows."""
    scores, features = zip(*outputs, strict=True)
    return Output(torch.cat(scores), torch.cat(features))
