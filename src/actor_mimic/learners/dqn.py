"""DQN, for experts and for transfer alike: target network, double Q, n-step returns, quantiles.

Mnih et al. (2015); van Hasselt, Guez and Silver (2016), arXiv:1509.06461, for the double target;
Dabney et al. (2018), arXiv:1710.10044, for quantiles in place of the mean.

Axes: batch = replayed steps, quantiles = of one action's return.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from actor_mimic.learners.gradient_step import (
    gradient_step,
    optimizer_tensors,
    restore_optimizer,
)
from actor_mimic.losses import quantile_td_loss, quantile_td_targets, td_loss, td_targets
from actor_mimic.networks.q_network import QNetwork

TARGET_PREFIX = "target."


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
    """

    def __init__(
        self,
        network: QNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        double: bool,
        target_period_updates: int,
        max_gradient_norm: float,
    ) -> None:
        self.network = network
        self.target_network = copy.deepcopy(network).requires_grad_(False)
        self.optimizer = optimizer
        self.updates = 0
        self._double = double
        self._target_period_updates = target_period_updates
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
        with torch.no_grad():
            next_quantiles = self.target_network.quantiles(next_obs)
            next_q_online = self.network(next_obs).scores if self._double else None
        quantiles = self.network.quantiles(obs)
        if self.network.num_quantiles == 1:
            # The same as below but for the weights of a lone quantile, which are a half.
            targets = td_targets(returns, discounts, next_quantiles.squeeze(2), next_q_online)
            losses = td_loss(quantiles.squeeze(2), actions, targets)
        else:
            targets = quantile_td_targets(returns, discounts, next_quantiles, next_q_online)
            losses = quantile_td_loss(quantiles, actions, targets)
        loss = losses.mean()
        gradient_step(loss, self.optimizer, max_norm=self._max_gradient_norm)
        self.updates += 1
        if self.updates % self._target_period_updates == 0:
            self.target_network.load_state_dict(self.network.state_dict())
        return {"loss": loss.detach(), "q_value": quantiles.detach().mean()}

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser and the target network; the online network is saved apart."""
        target = {
            f"{TARGET_PREFIX}{name}": value
            for name, value in self.target_network.state_dict().items()
        }
        return optimizer_tensors(self.optimizer) | target, {"updates": self.updates}

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        target = {
            name.removeprefix(TARGET_PREFIX): value
            for name, value in tensors.items()
            if name.startswith(TARGET_PREFIX)
        }
        self.target_network.load_state_dict(target)
        moments = {n: v for n, v in tensors.items() if not n.startswith(TARGET_PREFIX)}
        restore_optimizer(self.optimizer, moments)
        self.updates = int(state["updates"])
