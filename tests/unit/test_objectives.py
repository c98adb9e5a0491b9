"""Objectives of Policy Distillation against float64 references; temperatures by entropy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from actor_mimic import config as config_module
from actor_mimic.errors import DataError
from actor_mimic.losses import agreement, policy_divergence, policy_regression_loss
from actor_mimic.networks.regressors import REGRESSORS
from actor_mimic.objectives import (
    FEATURE_TARGETS,
    OBJECTIVES,
    best_action_loss,
    normalised_features,
    score_regression_loss,
)
from actor_mimic.temperatures import mean_entropy, temperature_for_entropy


def drawn(batch: int = 64, actions: int = 18) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    student = 3.0 * torch.randn(batch, actions, generator=rng)
    teacher = 3.0 * torch.randn(batch, actions, generator=rng)
    legal = torch.rand(batch, actions, generator=rng) < 0.5
    legal[:, 2] = True
    return student.requires_grad_(), teacher, legal


def softmax64(scores: np.ndarray, legal: np.ndarray) -> np.ndarray:
    weights = np.where(legal, np.exp(scores - scores.max(axis=1, keepdims=True)), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def assert_close(actual: Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(
        actual.detach().double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-6
    )


def test_names_are_those_of_the_settings():
    assert config_module._DISTILL_CHOICES["objective"] == OBJECTIVES
    assert config_module._DISTILL_CHOICES["feature_target"] == FEATURE_TARGETS
    assert config_module._DISTILL_CHOICES["regressor"] == REGRESSORS


def test_best_action_loss_matches_float64_in_value_and_gradient():
    student, teacher, legal = drawn()
    policy = softmax64(student.detach().double().numpy(), legal.numpy())
    best = np.where(legal.numpy(), teacher.numpy(), -np.inf).argmax(axis=1)
    rows = np.arange(len(best))

    loss = best_action_loss(student, teacher, legal)
    (gradient,) = torch.autograd.grad(loss.sum(), student)

    assert_close(loss, -np.log(policy[rows, best]))
    expected = policy.copy()
    expected[rows, best] -= 1.0
    assert_close(gradient, expected)


def test_best_action_loss_is_policy_regression_at_zero_temperature():
    student, teacher, legal = drawn()
    cold = policy_regression_loss(student, teacher, legal, temperature=1e-6)

    torch.testing.assert_close(best_action_loss(student, teacher, legal), cold)


def test_score_regression_matches_float64_in_value_and_gradient():
    student, teacher, legal = drawn()
    error = student.detach().double().numpy() - teacher.double().numpy()
    error = np.where(legal.numpy(), error, 0.0)

    loss = score_regression_loss(student, teacher, legal)
    (gradient,) = torch.autograd.grad(loss.sum(), student)

    reference = (error**2).sum(axis=1)
    # Float32 has seven digits, and the sum of eighteen squares is in the hundreds.
    np.testing.assert_allclose(loss.detach().double().numpy(), reference, rtol=1e-6)
    assert_close(gradient, 2.0 * error)


def test_divergence_as_an_objective_matches_float64_in_value_and_gradient():
    student, teacher, legal = drawn()
    mask = legal.numpy()
    wanted = softmax64(teacher.double().numpy() / 0.5, mask)
    policy = softmax64(student.detach().double().numpy(), mask)
    logs = [np.log(np.where(p > 0, p, 1.0)) for p in (wanted, policy)]

    loss = policy_divergence(student, teacher, legal, temperature=0.5)
    (gradient,) = torch.autograd.grad(loss.sum(), student)

    np.testing.assert_allclose(
        loss.detach().numpy(), (wanted * (logs[0] - logs[1])).sum(axis=1), atol=1e-6, rtol=1e-6
    )
    assert_close(gradient, policy - wanted)


@pytest.mark.parametrize("loss", [best_action_loss, score_regression_loss])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_illegal_entries_may_hold_anything(loss, garbage):
    student, teacher, legal = drawn()
    dirty = student.detach().masked_fill(~legal, garbage).requires_grad_()

    values = loss(dirty, teacher.masked_fill(~legal, garbage), legal)
    (gradient,) = torch.autograd.grad(values.sum(), dirty)

    assert torch.equal(values, loss(student, teacher, legal))
    assert not bool(gradient[~legal].any())


@pytest.mark.parametrize("loss", [best_action_loss, score_regression_loss])
def test_teachers_get_no_gradient(loss):
    student, teacher, legal = drawn()
    teacher.requires_grad_()

    loss(student, teacher, legal).sum().backward()

    assert teacher.grad is None


def test_examples_of_several_tasks_may_lie_side_by_side():
    student, teacher, legal = drawn(batch=8)
    of_tasks, temperatures = legal[:2], torch.tensor([0.1, 2.0])
    for shape in ((2,), (4, 2)):
        softened = {"temperature": temperatures.expand(shape)}
        for loss, more in (
            (policy_regression_loss, softened),
            (policy_divergence, softened),
            (best_action_loss, {}),
            (score_regression_loss, {}),
            (agreement, {}),
        ):
            together = loss(student.view(4, 2, -1), teacher.view(4, 2, -1), of_tasks, **more)
            for task in range(2):
                own = {name: float(value.reshape(-1)[task]) for name, value in more.items()}
                alone = loss(student[task::2], teacher[task::2], of_tasks[task], **own)
                torch.testing.assert_close(together[:, task], alone)


def test_every_example_can_have_a_temperature_of_its_own():
    student, teacher, legal = drawn(batch=6)
    temperatures = torch.tensor([0.1, 0.1, 0.5, 0.5, 2.0, 2.0])
    for loss in (policy_regression_loss, policy_divergence):
        together = loss(student, teacher, legal, temperature=temperatures)
        alone = [
            loss(student[rows], teacher[rows], legal[rows], temperature=temperature)
            for rows, temperature in ((slice(0, 2), 0.1), (slice(2, 4), 0.5), (slice(4, 6), 2.0))
        ]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-6)


def test_normalised_features_match_float64():
    rng = np.random.default_rng(0)
    features = (5.0 + 3.0 * rng.standard_normal((8, 32))).astype(np.float32)
    exact = features.astype(np.float64)
    centred = exact - exact.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)

    normalised = normalised_features(torch.from_numpy(features).requires_grad_())

    assert_close(normalised, expected)
    assert not normalised.requires_grad
    assert not bool(normalised_features(torch.full((2, 4), 3.0)).any())


@pytest.mark.parametrize("scale", [1e-4, 0.6, 19.0, 1e5])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_the_temperature_gives_the_wanted_entropy_whatever_the_scale(scale, share):
    rng = np.random.default_rng(1)
    scores = torch.from_numpy(7.0 + scale * rng.standard_normal((500, 6))).float()

    temperature = temperature_for_entropy(scores, share)

    exact = scores.double().numpy() / temperature
    policy = softmax64(exact, np.ones_like(exact, dtype=bool))
    entropy = -(policy * np.log(np.where(policy > 0, policy, 1.0))).sum(axis=1).mean()
    assert entropy == pytest.approx(share * math.log(6), abs=1e-4)
    assert mean_entropy(scores, temperature) == pytest.approx(entropy, abs=1e-5)


def test_two_actions_by_hand():
    """A gap of 1 in every state: policy (3/4, 1/4) at the temperature 1 / log 3."""
    scores = torch.tensor([[1.0, 0.0], [5.0, 6.0]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))

    found = temperature_for_entropy(scores, entropy / math.log(2.0))

    assert found == pytest.approx(1.0 / math.log(3.0), rel=1e-5)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[1.0, 1.0], [2.0, 2.0]], "every action the same score"),
        ([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0]], "tied so often"),  # log 2 of log 3 is left
        ([[1.0, math.nan]], "not finite"),
    ],
)
def test_scores_that_no_temperature_helps_are_refused(scores, said):
    with pytest.raises(DataError, match=said):
        temperature_for_entropy(torch.tensor(scores), 0.5)


def test_a_share_outside_of_zero_to_one_is_refused_and_one_action_needs_no_temperature():
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="share"):
            temperature_for_entropy(torch.tensor([[1.0, 2.0]]), share)
    assert temperature_for_entropy(torch.tensor([[1.0], [2.0]]), 0.5) == 1.0
