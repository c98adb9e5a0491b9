"""Convolutions that several tasks share, and behind them a branch for each task.

Axes: batch = observations of one task or of several, features = a branch's last hidden layer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from actor_mimic.networks.q_network import Output, initialise
from actor_mimic.networks.torsos import HiddenLayers, Torso, TorsoSpec


class BranchedNetwork(nn.Module):
    """Hidden layers and an output layer for each task, on convolutions that all of them share.

    ::

                         .--> hidden 0 --> outputs of task 0
        obs --> torso ---+--> hidden 1 --> outputs of task 1
                         '--> ...

    Source: the network "multitask convolutions" of Parisotto, Ba and Salakhutdinov (2016),
    arXiv:1511.06342. Output layers run in float32, as everywhere.

    Args:
        spec: of the torso and of the hidden layers behind it.
        num_actions: outputs of each branch.
        generator: where the initial weights come from; None leaves all of them without memory, as
            in `QNetwork`.

    Raises:
        ConfigError: if the torso has no convolutions, or does not fit.
    """

    def __init__(
        self, spec: TorsoSpec, num_actions: Sequence[int], *, generator: torch.Generator | None
    ) -> None:
        super().__init__()
        with torch.device("meta"):
            self.torso = Torso(spec, hidden=False)
            hidden = [HiddenLayers(spec, self.torso.num_features) for _ in num_actions]
            self.num_features = hidden[0].num_features
            self.hidden = nn.ModuleList(hidden)
            self.heads = nn.ModuleList(nn.Linear(self.num_features, n) for n in num_actions)
        if generator is not None:
            initialise(self, generator)

    def branch(self, number: int, maps: Float[Tensor, "batch maps"]) -> Output:
        """One task's scores and features, from what the torso made of its observations."""
        features = self.hidden[number](maps)
        return Output(self.heads[number](features), features)

    def forward(self, obs: Shaped[Tensor, "batch ..."], rows: Sequence[int]) -> list[Output]:
        """Scores and features of every task: one pass of the torso for all of them.

        Args:
            obs: raw observations of the first task, then of the second, ...
            rows: how many of each.
        """
        parts = self.torso(obs).split(list(rows))
        return [self.branch(number, maps) for number, maps in enumerate(parts)]
