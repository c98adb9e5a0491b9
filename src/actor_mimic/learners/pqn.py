"""PQN: Q-learning from parallel environments, with neither replay nor target network.

Gallici et al. (2024), Simplifying Deep Temporal Difference Learning, arXiv:2407.04811. What takes
the place of the two is normalisation inside the network and lambda-returns over short rollouts.

Axes: t = consecutive steps of one rollout, n = environments.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.learners.gradient_step import (
    gradient_step,
    optimizer_tensors,
    restore_optimizer,
)
from actor_mimic.losses import lambda_regression_loss
from actor_mimic.networks.q_network import Output, QNetwork
from actor_mimic.networks.torsos import channels_last
from actor_mimic.networks.working_copy import WorkingCopy
from actor_mimic.returns import lambda_returns
from actor_mimic.seeding import generator_state, restore_generator

Forward = Callable[[Tensor], Output]


def radam_rectification(update: int, *, beta: float = 0.999) -> float:
    """How much shorter RAdam's step is than Adam's.

    The estimate of a gradient's variance is itself uncertain while it rests on few gradients, and
    the step is shortened by as much.

    Source: Liu et al. (2020), On the Variance of the Adaptive Learning Rate and Beyond,
    arXiv:1908.03265, algorithm 2. Deviation 23: the first five updates, where the factor is not
    defined and the paper steps along the momentum, are left out.

    Args:
        update: counted from 1.
        beta: decay of the squared gradient's average.

    Returns:
        A factor in [0, 1).
    """
    longest = 2.0 / (1.0 - beta) - 1.0
    decay = beta**update
    length = longest - 2.0 * update * decay / (1.0 - decay)
    if length <= 5.0:
        return 0.0
    rising = (length - 4.0) * (length - 2.0) * longest
    return math.sqrt(rising / ((longest - 4.0) * (longest - 2.0) * length))


class Trajectories:
    """T steps of N environments, overwritten by every rollout.

    What the network reads and gave stays on its device; what the environments said is small, and
    moves there once per rollout.

    Args:
        num_steps: T.
        num_envs: N.
        obs: what some of them show, as an example; on the device.
    """

    def __init__(self, num_steps: int, num_envs: int, obs: Shaped[Tensor, "some ..."]) -> None:
        size, device = (num_steps, num_envs), obs.device
        # Images lie channels last, as the torso wants them: turned once here, read by every epoch.
        # `obs` is a view with the axes where they belong.
        images = obs.ndim == 4
        shape = (*obs.shape[2:], obs.shape[1]) if images else obs.shape[1:]
        self._order = (0, 3, 1, 2) if images else (0, 1)
        self._stored = torch.empty((*size, *shape), dtype=obs.dtype, device=device)
        self.obs: Shaped[Tensor, "t n ..."] = (
            self._stored.permute(0, 1, 4, 2, 3) if images else self._stored
        )
        self.values: Float[Tensor, "t n"] = torch.empty(size, device=device)
        # Value of the final observation, where an episode was truncated.
        self.cut_values: Float[Tensor, "t n"] = torch.zeros(size, device=device)
        self.actions: Int64[np.ndarray, "t n"] = np.zeros(size, dtype=np.int64)
        self.rewards: Float32[np.ndarray, "t n"] = np.zeros(size, dtype=np.float32)
        self.terminal: Bool[np.ndarray, "t n"] = np.zeros(size, dtype=bool)
        self.cut: Bool[np.ndarray, "t n"] = np.zeros(size, dtype=bool)

    def put_observations(self, time: int, rows: slice, obs: Shaped[Tensor, "rows ..."]) -> None:
        """What some environments showed at one time; copied."""
        # On a CPU turned by themselves: a copy that turns them on its way takes twice as long.
        turned = obs.ndim == 4 and obs.device.type == "cpu"
        self.obs[time, rows] = channels_last(obs) if turned else obs

    def observations(self, indices: Int64[Tensor, " batch"]) -> Shaped[Tensor, "batch ..."]:
        """Observations of some steps; step t of environment n is number ``t * envs + n``."""
        # Rows of bytes: indexing image by image in four dimensions takes twenty times as long.
        rows = self._stored.flatten(0, 1).flatten(1).index_select(0, indices)
        return rows.view(-1, *self._stored.shape[2:]).permute(self._order)

    def next_values(self, last_values: Float[Tensor, " n"]) -> Float[Tensor, "t n"]:
        """Value of what each step led to.

        ::

            step         0      1      2 (truncated)     3 = last
            values       V[0]   V[1]   V[2]              V[3]
            next_values  V[1]   V[2]   V(final obs)      last_values
        """
        following = torch.cat([self.values[1:], last_values[None]])
        cut = torch.from_numpy(self.cut).to(following.device)
        return torch.where(cut, self.cut_values, following)


class PQNLearner:
    """Fits a Q-network to the lambda-returns of its own rollouts.

    Args:
        network: already on its device; it wants norms in it, the algorithm relies on them.
        learning_rate: of RAdam; the stage anneals it.
        gamma: discount per step.
        lam: weight of longer returns.
        epochs: passes over each rollout.
        minibatch_size: examples per update; divides the rollout.
        max_gradient_norm: larger gradients are scaled down to it; 0 leaves them as they are.
        rng: shuffles the rollout.
        workers: who computes.
        fixed_shape: makes of a network the one to call where batches have one shape; see
            `Compute.fixed_shape`.

    Attributes:
        working: the network as it is to be called with any batch.
        forward: the network as it is to be called with a step of a group of environments, or a
            minibatch.
    """

    def __init__(
        self,
        network: QNetwork,
        *,
        learning_rate: float,
        gamma: float,
        lam: float,
        epochs: int,
        minibatch_size: int,
        max_gradient_norm: float,
        rng: np.random.Generator,
        workers: Workers,
        fixed_shape: Callable[[Forward], Forward] = lambda forward: forward,
    ) -> None:
        self.network = network
        self.working = WorkingCopy(network)
        self.forward = fixed_shape(self.working.network)
        self._rng = rng
        self._workers = workers
        self._gamma = gamma
        self._lam = lam
        self._epochs = epochs
        self._minibatch_size = minibatch_size
        self._max_gradient_norm = max_gradient_norm
        # Its rectified step is an Adam step of another length, and only Adam comes fused: PyTorch's
        # RAdam takes a fifth of the time of a whole update on a CPU.
        self.optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
        self.updates = 0

    def update(
        self, rollout: Trajectories, last_values: Float[Tensor, " n"], *, learning_rate: float
    ) -> dict[str, Float[Tensor, ""]]:
        """All updates on one rollout.

        Args:
            rollout: what was collected.
            last_values: greatest Q-value of the observations after the last step.
            learning_rate: for these updates.

        Returns:
            Means over the updates, as tensors on the device.

        Raises:
            DivergenceError: if a loss or gradient is not finite; that update is not made.
        """
        device = rollout.values.device
        targets = lambda_returns(
            torch.from_numpy(rollout.rewards).to(device),
            rollout.next_values(last_values),
            torch.from_numpy(rollout.terminal).to(device),
            torch.from_numpy(rollout.cut).to(device),
            gamma=self._gamma,
            lam=self._lam,
        )
        actions = torch.from_numpy(rollout.actions).flatten().to(device)
        flat_targets = targets.flatten()
        minibatches = len(actions) // self._minibatch_size
        losses = []
        for _ in range(self._epochs):
            order = torch.from_numpy(self._rng.permutation(len(actions))).to(device)
            for indices in order.view(minibatches, self._minibatch_size):
                rate = learning_rate * radam_rectification(self.updates + 1)
                for group in self.optimizer.param_groups:
                    group["lr"] = rate

                def example_losses(
                    rows: slice, indices: Int64[Tensor, " minibatch"] = indices
                ) -> tuple[Float[Tensor, " rows"], dict[str, Tensor]]:
                    mine = indices[rows]
                    q_values = self.forward(rollout.observations(mine)).scores
                    return lambda_regression_loss(q_values, actions[mine], flat_targets[mine]), {}

                loss, _ = gradient_step(
                    example_losses,
                    len(indices),
                    self.optimizer,
                    self._workers,
                    max_norm=self._max_gradient_norm,
                    working=self.working,
                )
                losses.append(loss)
                self.updates += 1
        return {"loss": torch.stack(losses).mean(), "q_value": rollout.values.mean()}

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimiser and the shuffling generator; the network is saved apart."""
        return optimizer_tensors(self.optimizer), {
            "updates": self.updates,
            "rng": generator_state(self._rng),
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Goes back to where `state_dict` was taken."""
        self.working.refresh()
        restore_optimizer(self.optimizer, tensors)
        self.updates = int(state["updates"])
        self._rng = restore_generator(state["rng"])
