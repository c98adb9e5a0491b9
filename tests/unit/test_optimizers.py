"""The optimisers of DQN: the paper's RMSProp by hand and against a twin, and what a name makes."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from actor_mimic.learners.gradient_step import optimizer_tensors
from actor_mimic.learners.optimizers import CentredRMSProp, make_optimizer

SETTINGS = {
    "learning_rate": 0.1,
    "adam_epsilon": 1e-3,
    "rmsprop_decay": 0.5,
    "rmsprop_epsilon": 0.25,
}


def stepped(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, gradient: object) -> None:
    parameter.grad = torch.as_tensor(gradient, dtype=parameter.dtype).clone()
    optimizer.step()


def test_three_steps_of_rmsprop_by_hand():
    parameter = nn.Parameter(torch.tensor([0.0]))
    optimizer = CentredRMSProp([parameter], learning_rate=1.0, decay=0.5, epsilon=0.25)
    where = 0.0
    # mean:        0.5 * 0 + 0.5 * 1 = 0.5    0.25 - 0.5 = -0.25      -0.125 + 1 = 0.875
    # mean square: 0.5 * 0 + 0.5 * 1 = 0.5    0.25 + 0.5 = 0.75       0.375 + 2 = 2.375
    for gradient, variance in [
        (1.0, 0.5 - 0.5**2),
        (-1.0, 0.75 - 0.25**2),
        (2.0, 2.375 - 0.875**2),
    ]:
        stepped(parameter, optimizer, [gradient])
        where -= gradient / math.sqrt(variance + 0.25)
        assert parameter.item() == pytest.approx(where, abs=1e-6)


def test_rmsprop_matches_float64():
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5,)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = CentredRMSProp(parameters, learning_rate=0.01, decay=0.95, epsilon=1e-5)
    values = [np.zeros(shape) for shape in shapes]
    means = [np.zeros(shape) for shape in shapes]
    squares = [np.zeros(shape) for shape in shapes]
    for _ in range(50):
        for index, shape in enumerate(shapes):
            gradient = rng.normal(size=shape).astype(np.float32)
            parameters[index].grad = torch.from_numpy(gradient)
            means[index] = 0.95 * means[index] + 0.05 * gradient.astype(np.float64)
            squares[index] = 0.95 * squares[index] + 0.05 * gradient.astype(np.float64) ** 2
            spread = np.sqrt(squares[index] - means[index] ** 2 + 1e-5)
            values[index] -= 0.01 * gradient / spread
        optimizer.step()

    for parameter, value in zip(parameters, values, strict=True):
        torch.testing.assert_close(
            parameter.detach().double(), torch.from_numpy(value), atol=1e-5, rtol=1e-5
        )


def test_a_mean_with_the_smaller_epsilon_steps_like_the_papers_sum():
    rng = torch.Generator().manual_seed(0)
    moved = []
    for scale, epsilon in ((1.0, 0.01), (1.0 / 32, 0.01 / 32**2)):
        rng.manual_seed(0)
        parameter = nn.Parameter(torch.zeros(64))
        optimizer = CentredRMSProp([parameter], learning_rate=1.0, decay=0.95, epsilon=epsilon)
        for _ in range(5):
            stepped(parameter, optimizer, scale * 0.1 * torch.randn(64, generator=rng))
        moved.append(parameter.detach())

    torch.testing.assert_close(moved[0], moved[1], atol=1e-5, rtol=1e-4)


def test_a_steady_gradient_has_no_variance_and_never_a_negative_one():
    """Its rounded variance may be -1e-3 at this size, and the root of that is NaN."""
    parameter = nn.Parameter(torch.zeros(1000))
    optimizer = CentredRMSProp([parameter], learning_rate=1e-6, decay=0.95, epsilon=1e-8)
    gradient = torch.linspace(100.0, 200.0, 1000)
    for _ in range(600):
        stepped(parameter, optimizer, gradient)

    assert torch.isfinite(parameter).all()


def test_a_parameter_without_a_gradient_stays():
    parameters = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))]
    optimizer = CentredRMSProp(parameters, learning_rate=1.0, decay=0.5, epsilon=0.25)
    optimizer.step()
    stepped(parameters[1], optimizer, [1.0, 1.0])

    assert parameters[0].tolist() == [1.0, 1.0]
    assert parameters[1].tolist() != [1.0, 1.0]
    assert set(optimizer_tensors(optimizer)) == {"1.mean", "1.mean_square"}


@pytest.mark.parametrize("change", [{"learning_rate": 0.0}, {"decay": 1.0}, {"epsilon": 0.0}])
def test_settings_that_cannot_be_meant_are_refused(change):
    settings = {"learning_rate": 1.0, "decay": 0.5, "epsilon": 1.0}

    with pytest.raises(ValueError, match="expected learning_rate > 0"):
        CentredRMSProp([nn.Parameter(torch.ones(1))], **settings | change)


def test_each_name_makes_its_optimizer_with_its_settings():
    parameters = [nn.Parameter(torch.tensor([1.0]))]

    (adam,) = make_optimizer("adam", parameters, **SETTINGS).param_groups
    (rmsprop,) = make_optimizer("rmsprop", parameters, **SETTINGS).param_groups

    assert (adam["lr"], adam["eps"], adam["betas"]) == (0.1, 1e-3, (0.9, 0.999))
    assert (rmsprop["lr"], rmsprop["decay"], rmsprop["epsilon"]) == (0.1, 0.5, 0.25)
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'"):
        make_optimizer("sgd", parameters, **SETTINGS)


def test_the_fast_adam_is_adam():
    moved = []
    for kind in ("fast", "plain"):
        parameter = nn.Parameter(torch.linspace(-1.0, 1.0, 100))
        optimizer = (
            make_optimizer("adam", [parameter], **SETTINGS)
            if kind == "fast"
            else torch.optim.Adam([parameter], lr=0.1, eps=1e-3)
        )
        for _ in range(5):
            stepped(parameter, optimizer, 2.0 * parameter.detach())
        moved.append(parameter.detach())

    torch.testing.assert_close(moved[0], moved[1])
