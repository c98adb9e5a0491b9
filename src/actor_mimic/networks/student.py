"""One network for several tasks: what they share of it, and who may use which output.

Axes: batch = observations of one task or of several, alphabet = the student's output slots,
actions = a task's own actions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from actor_mimic.actions import ActionMap, build_action_map, build_alphabet
from actor_mimic.errors import ConfigError, UsageError, did_you_mean
from actor_mimic.networks.branched import BranchedNetwork
from actor_mimic.networks.q_network import Output, QNetwork, initialise
from actor_mimic.networks.torsos import TorsoSpec, take_away

HEADS = ("shared", "per_task", "branched")
ENCODER_UNITS = 64  # times the width of the torso


class Student(nn.Module):
    """One network that plays several tasks.

    Its scores stand in the slots of an alphabet, and of a task only its legal slots count: their
    softmax is its policy or, where the student has learnt values, the best of them its action.

    Tasks whose observations are vectors of different lengths get an encoder each, which makes
    vectors of one length of them::

        [4] --encoder 0--.
        [6] --encoder 1--+--> [64] --torso--> features --head--> logits
        [2] --encoder 2--'

    Tasks whose observations are images have, if the torso is to be centred, a background each,
    which is taken away from their frames before the torso sees them.

    Args:
        spec: the torso; with ``vectors``, its ``obs_shape`` is that of the tasks' observations
            taken one by one, and is replaced by what the encoders give.
        task_actions: action names of each task, in the task's own order.
        generator: where the initial weights come from; None leaves all of them without memory,
            as in `QNetwork`.
        head: ``shared`` (the paper): actions of the same name have one output for all tasks;
            ``per_task`` (Rusu et al. 2016, arXiv:1511.06295): every task has outputs of its own;
            or ``branched``: hidden layers of its own as well, on shared convolutions.
        vectors: length of each task's observations, in the order of the tasks, where there are to
            be encoders; empty for none.
        scores_are_logits: false for a student that has learnt values.

    Attributes:
        backgrounds: of each task, in the order of the tasks; None if it is not centred.

    Raises:
        ConfigError: if the head is unknown, or the torso does not fit.
    """

    backgrounds: Float[Tensor, "tasks height width"] | None

    def __init__(
        self,
        spec: TorsoSpec,
        task_actions: Mapping[str, Sequence[str]],
        *,
        generator: torch.Generator | None,
        head: str = "shared",
        vectors: Sequence[int] = (),
        scores_are_logits: bool = True,
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ConfigError(f"unknown head {head!r}, expected one of {', '.join(HEADS)}")
        self.head = head
        self.scores_are_logits = scores_are_logits
        self.task_actions = {task: tuple(names) for task, names in task_actions.items()}
        slots = {task: self._slot_names(task, names) for task, names in self.task_actions.items()}
        self.alphabet = build_alphabet(slots)
        self.action_maps: dict[str, ActionMap] = {
            task: build_action_map(names, self.alphabet) for task, names in slots.items()
        }
        self.vectors = dict(zip(self.task_actions, vectors, strict=True)) if vectors else {}
        self.encoders = nn.ModuleList()
        if vectors:
            units = max(1, round(ENCODER_UNITS * spec.width))
            spec = replace(spec, obs_shape=(units,))
        self.spec = spec
        self.register_buffer("backgrounds", None)
        if spec.centred:
            if len(spec.obs_shape) != 3:
                raise ConfigError("only images have a background to be centred on")
            sizes = (len(self.task_actions), *spec.obs_shape[1:])
            where = "meta" if generator is None else "cpu"
            self.backgrounds = torch.zeros(sizes, device=where)
            spec = replace(spec, centred=False)
        self.network: QNetwork | BranchedNetwork
        if head == "branched":
            sizes = [len(names) for names in self.task_actions.values()]
            self.network = BranchedNetwork(spec, sizes, generator=generator)
        else:
            self.network = QNetwork(spec, len(self.alphabet), generator=generator)
        for length in self.vectors.values():
            with torch.device("meta"):
                encoder = _encoder(length, spec)
            if generator is not None:
                initialise(encoder, generator)
            self.encoders.append(encoder)

    def forward(self, inputs: Shaped[Tensor, "batch ..."]) -> Output:
        """Scores over the alphabet, illegal slots included, and features.

        Not of a branched student, which has no layer that could say anything of several tasks.

        Args:
            inputs: what `encode_all` gives.
        """
        assert isinstance(self.network, QNetwork), "of a branched student: see play_all"
        return self.network(inputs)

    def encode(self, task: str, obs: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
        """Observations of one task as the torso takes them: one batch can be made of all tasks'.

        Raises:
            UsageError: if the student does not know the task.
        """
        if self.vectors:
            return self.encoders[self._number(task)](obs.float())
        if self.backgrounds is None or obs.dtype != torch.uint8:
            return obs
        images = self.network.torso.scaled(obs)
        take_away(images, self.backgrounds[self._number(task)])
        return images

    def encode_all(
        self, obs: Sequence[Shaped[Tensor, "..."]], rows: range | None = None
    ) -> Shaped[Tensor, "batch ..."]:
        """Observations of all tasks as one batch, as the torso takes them.

        Args:
            obs: raw observations of each task, in the order of the tasks.
            rows: the ones that are asked for, counted through all tasks; None for all.
        """
        rows = range(sum(map(len, obs))) if rows is None else rows
        parts, numbers, first = [], [], 0
        for number, own in enumerate(obs):
            mine = own[max(rows.start - first, 0) : max(rows.stop - first, 0)]
            first += len(own)
            if len(mine):
                parts.append(mine)
                numbers.append(number)
        if self.vectors:
            tasks = [self.tasks[number] for number in numbers]
            return torch.cat([self.encode(*pair) for pair in zip(tasks, parts, strict=True)])
        # Raw images are the least to copy, and one task's need no copy at all.
        images = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.backgrounds is None or images.dtype != torch.uint8:
            return images
        images = self.network.torso.scaled(images)
        for number, own in zip(numbers, images.split([len(part) for part in parts]), strict=True):
            take_away(own, self.backgrounds[number])
        return images

    def play(self, task: str, obs: Shaped[Tensor, "batch ..."]) -> Output:
        """Scores of one task's own actions, in the task's own order, and features.

        Args:
            task: which game the observations come from.
            obs: raw observations, uint8 ``[batch, 4, 84, 84]`` on Atari.

        Raises:
            UsageError: if the student does not know the task.
        """
        inputs = self.encode(task, obs)
        if isinstance(self.network, BranchedNetwork):
            return self.network.branch(self._number(task), self.network.torso(inputs))
        output = self(inputs)
        return Output(self.task_scores(task, output.scores), output.features)

    def play_all(self, obs: Sequence[Shaped[Tensor, "..."]]) -> list[Output]:
        """What `play` gives of every task, by one pass of the shared layers over all of them.

        Args:
            obs: raw observations of each task, in the order of the tasks.
        """
        inputs = self.encode_all(obs)
        rows = [len(part) for part in obs]
        if isinstance(self.network, BranchedNetwork):
            return self.network(inputs, rows)
        output = self(inputs)
        parts = zip(self.tasks, output.scores.split(rows), output.features.split(rows), strict=True)
        return [Output(self.task_scores(task, scores), own) for task, scores, own in parts]

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it plays, in its own order."""
        return tuple(self.task_actions)

    @property
    def num_features(self) -> int:
        """Units of the last hidden layer."""
        if isinstance(self.network, BranchedNetwork):
            return self.network.num_features
        return self.network.torso.num_features

    def obs_shape(self, task: str) -> tuple[int, ...]:
        """Of one raw observation of a task."""
        return (self.vectors[task],) if self.vectors else self.network.torso.spec.obs_shape

    def task_scores(
        self, task: str, scores: Float[Tensor, "batch alphabet"]
    ) -> Float[Tensor, "batch actions"]:
        """The scores of one task's own actions, in the task's own order.

        Raises:
            UsageError: if the student does not know the task.
        """
        self._number(task)
        return self.action_maps[task].gather(scores)

    @torch.no_grad()
    def act(self, task: str, obs: Shaped[Tensor, "batch ..."]) -> Int64[Tensor, " batch"]:
        """The best action for each observation, as an index into the task's own actions.

        Args:
            task: which game the observations come from.
            obs: raw observations, uint8 ``[batch, 4, 84, 84]`` on Atari.

        Raises:
            UsageError: if the student does not know the task.
        """
        return self.play(task, obs).scores.argmax(dim=-1)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` needs to build the same student; stored in checkpoints."""
        return {
            "torso": self.spec.to_json(),
            "tasks": list(self.tasks),  # the keys of an object have no order, once they are stored
            "task_actions": {task: list(names) for task, names in self.task_actions.items()},
            "head": self.head,
            "vectors": list(self.vectors.values()),
            "scores_are_logits": self.scores_are_logits,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Student":
        """A student of the recorded shape, without memory for its weights."""
        names = data["task_actions"]
        return Student(
            TorsoSpec.from_json(data["torso"]),
            {task: names[task] for task in data.get("tasks", names)},
            generator=None,
            # Descriptions from before there was a choice do not mention it.
            head=data.get("head", "shared"),
            vectors=[int(length) for length in data.get("vectors", ())],
            scores_are_logits=bool(data.get("scores_are_logits", True)),
        )

    def _slot_names(self, task: str, names: Sequence[str]) -> list[str]:
        """Names of its own for every task make outputs of its own."""
        return list(names) if self.head == "shared" else [f"{task}:{name}" for name in names]

    def _number(self, task: str) -> int:
        try:
            return list(self.action_maps).index(task)
        except ValueError:
            raise UsageError(
                f"this student does not play {task!r}; it plays "
                f"{', '.join(self.action_maps)}{did_you_mean(task, self.action_maps)}"
            ) from None


def _encoder(length: int, spec: TorsoSpec) -> nn.Module:
    """One layer, of which the torso's first takes every unit; always in float32."""
    (units,) = spec.obs_shape
    norm = [] if spec.norm == "none" else [nn.LayerNorm(units)]
    return nn.Sequential(nn.Linear(length, units), *norm, nn.ReLU())
