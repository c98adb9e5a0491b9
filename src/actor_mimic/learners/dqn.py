"""DQN, for experts and for transfer alike: target network, double Q, n-step returns, quantiles.

Mnih et al. (2015); van Hasselt, Guez and Silver (2016), arXiv:1509.06461, for the double target;
Dabney et al. (2018), arXiv:1710.10044, for quantiles in place of the mean.

Axes: batch = replayed steps, quantiles = of one action's return, networks = those that value a
next observation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.learners.gradient_step import gradient_step
from actor_mimic.learners.target_network import TargetNetwork
from actor_mimic.losses import quantile_td_loss, quantile_td_targets, td_loss, td_targets
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.working_copy import WorkingCopy

Quantiles = Callable[[Tensor], Tensor]
"""Observations to quantiles of each action's return: ``[batch, actions, quantiles]``, of several
networks ``[networks, batch, actions, quantiles]``."""


class DQNLearner:
    """Fits a Q-network to bootstrapped returns from a replay.

    A network of several quantiles is fitted to the distribution of the returns, any other one to
    their mean.

    Args:
        network: already on its device.
        optimizer: over the network's parameters.
        double: the online network chooses the next action and the target network values it.
        target_period_updates: the target network becomes a copy of the online one this often.
        max_gradient_norm: larger gradients are scaled down to it; 0 leaves them as they are.
        workers: who computes.
        fixed_shape: makes of such a function the one to call with whole batches; see
            `Compute.fixed_shape`.
    """

    def __init__(
        self,
        network: QNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        double: bool,
        target_period_updates: int,
        max_gradient_norm: float,
        workers: Workers,
        fixed_shape: Callable[[Quantiles], Quantiles] = lambda quantiles: quantiles,
    ) -> None:
        self.network = network
        self.working = WorkingCopy(network)
        self._target = TargetNetwork(network, period_updates=target_period_updates)
        self.target_network = self._target.network
        self._quantiles = fixed_shape(self.working.network.quantiles)
        target = self._target.working.network
        self._next_quantiles = fixed_shape(
            _of_all([self.working.network, target] if double else [target])
        )
        self._workers = workers
        self.optimizer = optimizer
        self.updates = 0
        self._max_gradient_norm = max_gradient_norm
        self._device = next(network.parameters()).device

    def update(
        self,
        *,
        obs: Shaped[Tensor, "batch ..."],
        actions: Int64[Tensor, " batch"],
        returns: Float32[Tensor, " batch"],
        next_obs: Shaped[Tensor, "batch ..."],
        discounts: Float32[Tensor, " batch"],
    ) -> dict[str, Float[Tensor, ""]]:
        """One optimiser step.

        Args:
            obs: raw observations.
            actions: taken there.
            returns: discounted rewards up to the bootstrap.
            next_obs: observations to bootstrap from.
            discounts: weight of the bootstrap; 0 after a terminal step.

        Returns:
            ``loss`` and ``q_value``, as tensors on the device.

        Raises:
            DivergenceError: if the loss or a gradient is not finite; nothing has changed then.
        """
        obs, next_obs = obs.to(self._device), next_obs.to(self._device)
        actions, returns = actions.to(self._device), returns.to(self._device)
        discounts = discounts.to(self._device)

        def example_losses(rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
            targets = self._targets(returns[rows], discounts[rows], next_obs[rows])
            quantiles = self._quantiles(obs[rows])
            q_value = {"q_value": quantiles.detach().mean(dim=(1, 2))}
            if self.network.num_quantiles == 1:
                # The same as below but for the weights of a lone quantile, which are a half.
                return td_loss(quantiles.squeeze(2), actions[rows], targets), q_value
            return quantile_td_loss(quantiles, actions[rows], targets), q_value

        loss, columns = gradient_step(
            example_losses,
            len(obs),
            self.optimizer,
            self._workers,
            max_norm=self._max_gradient_norm,
            working=self.working,
        )
        self.updates += 1
        self._target.follow(self.updates)
        return {"loss": loss, "q_value": columns["q_value"].mean()}

    @torch.no_grad()
    def _targets(
        self,
        returns: Float32[Tensor, " batch"],
        discounts: Float32[Tensor, " batch"],
        next_obs: Shaped[Tensor, "batch ..."],
    ) -> Float[Tensor, "batch ..."]:
        """One target for each example, or as many as there are quantiles."""
        *online, quantiles = self._next_quantiles(next_obs)
        next_q_online = online[0].mean(dim=2) if online else None
        if self.network.num_quantiles == 1:
            return td_targets(returns, discounts, quantiles.squeeze(2), next_q_online)
        return quantile_td_targets(returns, discounts, quantiles, next_q_online)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser and the target network; the online network is saved apart."""
        return self._target.tensors(self.optimizer), {"updates": self.updates}

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.working.refresh()
        self._target.restore(self.optimizer, tensors)
        self.updates = int(state["updates"])


def _of_all(networks: Sequence[QNetwork]) -> Quantiles:
    """Quantiles by several networks that prepare observations alike."""

    def quantiles(obs: Tensor) -> Tensor:
        prepared = networks[0].torso.prepared(obs)  # on a CPU a fifth of one network's time
        return torch.stack([network.quantiles(prepared) for network in networks])

    return quantiles
