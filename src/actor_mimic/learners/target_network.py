"""The second network of Q-learning, which holds still while the first is fitted to it."""

import copy
from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from actor_mimic.learners.gradient_step import optimizer_tensors, restore_optimizer
from actor_mimic.networks.working_copy import WorkingCopy

TARGET_PREFIX = "target."

Network = TypeVar("Network", bound=nn.Module)


class TargetNetwork(Generic[Network]):
    """A copy of a network that becomes equal to it every so many updates, and never else.

    Mnih et al. (2015). It is saved in one file with the optimiser's moments, its tensors under
    ``target.``.

    Args:
        online: the network that is learnt.
        period_updates: updates between copies.
    """

    def __init__(self, online: Network, *, period_updates: int) -> None:
        # What is not learnt is the same in both, whenever it is set.
        self.network = copy.deepcopy(online, {id(buffer): buffer for buffer in online.buffers()})
        self.network.requires_grad_(False)
        self.working = WorkingCopy(self.network)
        self._online = online
        self._period_updates = period_updates

    def follow(self, updates: int) -> None:
        """Copies the online network, if after so many updates it is time."""
        if updates % self._period_updates == 0:
            self.network.load_state_dict(self._online.state_dict())
            self.working.refresh()

    def tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """The optimiser's tensors and the copy's."""
        mine = self.network.state_dict().items()
        return optimizer_tensors(optimizer) | {f"{TARGET_PREFIX}{name}": v for name, v in mine}

    def restore(self, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave.

        Raises:
            DataError: as `restore_optimizer`.
        """
        mine = {n: v for n, v in tensors.items() if n.startswith(TARGET_PREFIX)}
        self.network.load_state_dict({n.removeprefix(TARGET_PREFIX): v for n, v in mine.items()})
        self.working.refresh()
        restore_optimizer(optimizer, {n: v for n, v in tensors.items() if n not in mine})
