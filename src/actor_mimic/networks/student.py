"""The Actor-Mimic network: one torso, one head over the alphabet, and who may use which slot."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from actor_mimic.actions import ActionMap, build_action_map, build_alphabet
from actor_mimic.errors import UsageError, did_you_mean
from actor_mimic.networks.q_network import Output, QNetwork
from actor_mimic.networks.torsos import TorsoSpec


class Student(nn.Module):
    """One network that plays several tasks.

    Its scores are logits over the alphabet; a task's policy is the softmax over its legal slots.

    Args:
        spec: the torso.
        task_actions: action names of each task, in the task's own order.
        generator: where the initial weights come from.
    """

    def __init__(
        self,
        spec: TorsoSpec,
        task_actions: Mapping[str, Sequence[str]],
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.task_actions = {task: tuple(names) for task, names in task_actions.items()}
        self.alphabet = build_alphabet(self.task_actions)
        self.action_maps: dict[str, ActionMap] = {
            task: build_action_map(names, self.alphabet)
            for task, names in self.task_actions.items()
        }
        self.network = QNetwork(spec, len(self.alphabet), generator=generator)

    def forward(self, obs: Shaped[Tensor, "batch ..."]) -> Output:
        """Logits over the alphabet, illegal slots included, and features."""
        return self.network(obs)

    def task_scores(
        self, task: str, scores: Float[Tensor, "batch alphabet"]
    ) -> Float[Tensor, "batch actions"]:
        """The logits of one task's own actions, in the task's own order.

        Raises:
            UsageError: if the student does not know the task.
        """
        try:
            return self.action_maps[task].gather(scores)
        except KeyError:
            raise UsageError(
                f"this student does not play {task!r}; it plays "
                f"{', '.join(self.action_maps)}{did_you_mean(task, self.action_maps)}"
            ) from None

    @torch.no_grad()
    def act(self, task: str, obs: Shaped[Tensor, "batch ..."]) -> Int64[Tensor, " batch"]:
        """The best action for each observation, as an index into the task's own actions.

        Args:
            task: which game the observations come from.
            obs: raw observations, uint8 ``[batch, 4, 84, 84]`` on Atari.

        Raises:
            UsageError: if the student does not know the task.
        """
        return self.task_scores(task, self(obs).scores).argmax(dim=-1)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to build the same student; stored in checkpoints."""
        return {
            "torso": self.network.torso.spec.to_json(),
            "task_actions": {task: list(names) for task, names in self.task_actions.items()},
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Student":
        """A student of the recorded shape, its weights not yet loaded."""
        spec = TorsoSpec.from_json(data["torso"])
        return Student(spec, data["task_actions"], generator=torch.Generator())
