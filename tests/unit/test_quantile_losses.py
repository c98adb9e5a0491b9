"""Quantile regression: numbers by hand, a naive twin in float64, the targets."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from actor_mimic.losses import quantile_td_loss, quantile_td_targets, td_targets

NAN, INF = math.nan, math.inf
FIRST = torch.tensor([0])
# Means 2, 4 and 3: the second action is the best, the last has the highest quantile.
NEXT = torch.tensor([[[1.0, 3.0], [3.0, 5.0], [0.0, 6.0]]])


def loss_of(own: list[float], targets: list[float], *, kappa: float = 1.0) -> tuple[float, Tensor]:
    """The loss of the only action of one example, and the gradient of its quantiles."""
    quantiles = torch.tensor([[own]], requires_grad=True)
    loss = quantile_td_loss(quantiles, FIRST, torch.tensor([targets]), kappa=kappa)
    (gradient,) = torch.autograd.grad(loss.sum(), quantiles)
    return loss.item(), gradient[0, 0]


@pytest.mark.parametrize(
    ("own", "targets", "kappa", "loss", "slope"),
    [
        # One quantile is the median: half of a Huber loss.
        ([0.0], [0.5], 1.0, 0.5 * 0.125, [-0.5 * 0.5]),
        ([0.0], [-3.0], 1.0, 0.5 * 2.5, [0.5]),
        ([0.0], [-3.0], 2.0, 0.5 * 4.0, [0.5 * 2.0]),
        # At 1/4 and 3/4, both below the target: the upper one is pulled three times as hard.
        ([0.0, 0.0], [3.0], 1.0, (0.25 + 0.75) * 2.5, [-0.25, -0.75]),
        # Both above it: the lower one is.
        ([0.0, 0.0], [-3.0], 1.0, (0.75 + 0.25) * 2.5, [0.75, 0.25]),
        # Averaged over targets, summed over quantiles.
        (
            [1.0, 2.0],
            [4.0, 1.5],
            1.0,
            (0.25 * 2.5 + 0.25 * 0.125) / 2 + (0.75 * 1.5 + 0.25 * 0.125) / 2,
            [(-0.25 - 0.25 * 0.5) / 2, (-0.75 + 0.25 * 0.5) / 2],
        ),
        ([1.0, 2.0], [1.0, 1.0, 1.0], 1.0, 0.25 * 0.5, [0.0, 0.25]),
    ],
)
def test_quantile_loss_by_hand(own, targets, kappa, loss, slope):
    value, gradient = loss_of(own, targets, kappa=kappa)

    assert value == pytest.approx(loss, abs=1e-6)
    assert gradient.tolist() == pytest.approx(slope, abs=1e-6)


def twin(own: np.ndarray, targets: np.ndarray, kappa: float) -> tuple[float, np.ndarray]:
    """One example, pair by pair: the loss, and its derivative by each quantile."""
    loss, slopes = 0.0, np.zeros(len(own))
    for i, theta in enumerate(own):
        tau = (2 * i + 1) / (2 * len(own))
        for target in targets:
            error = target - theta
            below = 1.0 if error < 0 else 0.0
            small = abs(error) <= kappa
            huber = error**2 / 2 if small else kappa * (abs(error) - kappa / 2)
            slope = error if small else kappa * np.sign(error)
            loss += abs(tau - below) * huber / len(targets)
            slopes[i] -= abs(tau - below) * slope / len(targets)
    return loss, slopes


@pytest.mark.parametrize("kappa", [0.3, 1.0])
@pytest.mark.parametrize(("own", "targets"), [(5, 5), (3, 8), (1, 4)])
def test_quantile_loss_matches_a_double_loop_in_value_and_gradient(own, targets, kappa):
    rng = torch.Generator().manual_seed(0)
    quantiles = (2.0 * torch.randn(32, 4, own, generator=rng)).requires_grad_()
    goals = 2.0 * torch.randn(32, targets, generator=rng)
    actions = torch.randint(4, (32,), generator=rng)

    losses = quantile_td_loss(quantiles, actions, goals, kappa=kappa)
    (gradient,) = torch.autograd.grad(losses.sum(), quantiles)

    expected = torch.zeros(32, 4, own, dtype=torch.float64)
    for row, action in enumerate(actions.tolist()):
        theta = quantiles[row, action].detach().double().numpy()
        loss, slopes = twin(theta, goals[row].double().numpy(), kappa)
        assert losses[row].item() == pytest.approx(loss, rel=1e-5)
        expected[row, action] = torch.from_numpy(slopes)  # other actions get none
    torch.testing.assert_close(gradient.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kappa", [0.0, -1.0, NAN])
def test_kappas_that_cannot_be_meant_are_refused(kappa):
    with pytest.raises(ValueError, match="kappa"):
        loss_of([0.0], [1.0], kappa=kappa)


def test_quantile_targets_by_hand():
    returns, discounts = torch.tensor([1.0]), torch.tensor([0.5])
    online = torch.tensor([[0.0, 1.0, 2.0]])

    plain = quantile_td_targets(returns, discounts, NEXT, None)
    double = quantile_td_targets(returns, discounts, NEXT, online)

    assert plain.tolist() == [[2.5, 3.5]]  # 1 + 3/2, 1 + 5/2
    assert double.tolist() == [[1.0, 4.0]]  # 1 + 0/2, 1 + 6/2


def test_the_mean_of_the_targets_is_the_target_of_the_means():
    rng = torch.Generator().manual_seed(0)
    returns, discounts = torch.randn(16, generator=rng), torch.rand(16, generator=rng)
    quantiles = torch.randn(16, 3, 4, generator=rng)
    online = torch.randn(16, 3, generator=rng)
    for chooser in (online, None):
        targets = quantile_td_targets(returns, discounts, quantiles, chooser)
        expected = td_targets(returns, discounts, quantiles.mean(dim=2), chooser)
        torch.testing.assert_close(targets.mean(dim=1), expected)


@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
@pytest.mark.parametrize("double", [False, True])
def test_nothing_follows_a_terminal_step(garbage, double):
    targets = quantile_td_targets(
        torch.tensor([-1.0]),
        torch.tensor([0.0]),
        torch.full((1, 3, 2), garbage),
        torch.full((1, 3), garbage) if double else None,
    )

    assert targets.tolist() == [[-1.0, -1.0]]


def test_quantile_targets_are_detached_float32():
    quantiles = NEXT.bfloat16().requires_grad_()
    targets = quantile_td_targets(
        torch.zeros(1).half(), torch.ones(1), quantiles, quantiles.mean(2)
    )

    assert targets.dtype == torch.float32
    assert not targets.requires_grad
