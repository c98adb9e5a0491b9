"""Losses: numbers a reader can verify, float64 references with closed-form gradients, traps."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from actor_mimic.losses import (
    agreement,
    feature_regression_loss,
    lambda_regression_loss,
    policy_cross_entropy,
    policy_divergence,
    policy_regression_loss,
    quantile_td_loss,
    softened_policy,
    td_loss,
    td_targets,
)

NAN, INF = math.nan, math.inf
LEGAL = torch.tensor([True, True, False])
SCORES = torch.tensor([[0.0, math.log(3.0), 100.0]])  # at temperature 1 the policy (1/4, 3/4)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def random_policies(batch: int = 64, actions: int = 18) -> tuple[Tensor, Tensor, Tensor]:
    rng = generator()
    logits = 3.0 * torch.randn(batch, actions, generator=rng)
    scores = 3.0 * torch.randn(batch, actions, generator=rng)
    legal = torch.rand(batch, actions, generator=rng) < 0.5
    legal[:, 2] = True
    return logits, scores, legal


def softmax64(scores: np.ndarray, legal: np.ndarray) -> np.ndarray:
    weights = np.where(legal, np.exp(scores - scores.max(axis=1, keepdims=True)), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def reference_policies(
    logits: Tensor, scores: Tensor, legal: Tensor, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    mask = legal.numpy()
    teacher = softmax64(scores.double().numpy() / temperature, mask)
    student = softmax64(logits.detach().double().numpy(), mask)
    return teacher, student


def cross_entropy64(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    return -np.where(teacher > 0, teacher * np.log(np.where(student > 0, student, 1.0)), 0.0).sum(1)


def assert_close(actual: Tensor, expected: np.ndarray | list[float], atol: float = 1e-6) -> None:
    reference = torch.as_tensor(np.asarray(expected, dtype=np.float64))
    torch.testing.assert_close(actual.detach().double(), reference, atol=atol, rtol=1e-6)


@pytest.mark.parametrize(
    ("logits", "temperature", "expected_nats"),
    [
        ([0.0, 0.0, 50.0], 1.0, math.log(2.0)),  # a uniform student: log 2 under any teacher
        ([5.0, 5.0, -50.0], 0.1, math.log(2.0)),
        ([math.log(3.0), 0.0, 0.0], 1.0, 0.25 * math.log(4 / 3) + 0.75 * math.log(4)),
        ([0.0, math.log(9.0), 0.0], 0.5, 0.1 * math.log(10) + 0.9 * math.log(10 / 9)),
    ],
)
def test_policy_regression_by_hand(
    logits: list[float], temperature: float, expected_nats: float
) -> None:
    loss = policy_regression_loss(torch.tensor([logits]), SCORES, LEGAL, temperature=temperature)

    assert_close(loss, [expected_nats])


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_policy_regression_matches_float64_in_value_and_gradient(temperature: float) -> None:
    logits, scores, legal = random_policies()
    logits.requires_grad_()
    teacher, student = reference_policies(logits, scores, legal, temperature)

    loss = policy_regression_loss(logits, scores, legal, temperature=temperature)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)

    assert_close(loss, cross_entropy64(teacher, student), atol=1e-6)
    assert_close(gradient, student - teacher)  # the closed form
    assert torch.all(gradient[~legal] == 0.0)


def test_one_row_of_legal_actions_serves_the_whole_batch() -> None:
    logits, scores, legal = random_policies()
    row = legal[0]
    broadcast = policy_regression_loss(logits, scores, row, temperature=0.5)
    repeated = policy_regression_loss(logits, scores, row.expand_as(legal), temperature=0.5)

    assert torch.equal(broadcast, repeated)


@pytest.mark.parametrize("garbage", [NAN, INF, -INF, 1e4, -1e30])
def test_illegal_entries_may_hold_anything(garbage: float) -> None:
    logits, scores, legal = random_policies()
    dirty = [part.masked_fill(~legal, garbage) for part in (logits, scores)]
    dirty[0].requires_grad_()

    loss = policy_regression_loss(dirty[0], dirty[1], legal, temperature=0.1)
    (gradient,) = torch.autograd.grad(loss.sum(), dirty[0])

    assert torch.equal(loss, policy_regression_loss(logits, scores, legal, temperature=0.1))
    assert torch.all(gradient[~legal] == 0.0)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(policy_divergence(dirty[0], dirty[1], legal, temperature=0.1)).all()
    assert torch.equal(agreement(*dirty, legal), agreement(logits, scores, legal))


@pytest.mark.parametrize("temperature", [1e-38, 1e-3, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_large_scores_and_small_temperatures_stay_finite(temperature: float, offset: float) -> None:
    scores = torch.tensor([[offset, offset + 1e4, offset - 1e4]])
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    legal = torch.tensor([True, True, True])

    loss = policy_regression_loss(logits, scores, legal, temperature=temperature)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)

    assert_close(loss, [1e4])  # the teacher is certain of an action the student gives e**-10000
    assert_close(gradient, [[1.0, -1.0, 0.0]])
    divergence = policy_divergence(logits, scores, legal, temperature=temperature)
    assert_close(divergence, [1e4])


def test_small_gaps_between_large_scores_survive_a_small_temperature() -> None:
    # At 1e4 float32 steps by 2**-10, so this gap of 2**-6 is exact; divided by 2**-6 it is 1.
    scores = torch.tensor([[1e4, 1e4 + 2**-6]])
    legal = torch.tensor([True, True])
    loss = policy_regression_loss(torch.zeros(1, 2), scores, legal, temperature=2**-6)
    divergence = policy_divergence(torch.tensor([[0.0, 1.0]]), scores, legal, temperature=2**-6)

    assert_close(loss, [math.log(2.0)])
    assert_close(divergence, [0.0])


def test_a_single_legal_action_costs_nothing() -> None:
    logits = torch.tensor([[3.0, -2.0, 9.0]], requires_grad=True)
    legal = torch.tensor([False, True, False])
    loss = policy_regression_loss(logits, SCORES, legal, temperature=0.1)
    loss.sum().backward()

    assert loss.tolist() == [0.0]
    assert logits.grad is not None
    assert torch.all(logits.grad == 0.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, NAN, INF])
@pytest.mark.parametrize("function", [policy_regression_loss, policy_divergence])
def test_temperatures_that_cannot_be_meant_are_refused(
    function: Callable[..., Tensor], temperature: float
) -> None:
    with pytest.raises(ValueError, match="temperature"):
        function(torch.zeros(1, 3), SCORES, LEGAL, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_divergence_matches_float64_and_has_the_gradient_of_the_loss(temperature: float) -> None:
    logits, scores, legal = random_policies()
    logits.requires_grad_()
    teacher, student = reference_policies(logits, scores, legal, temperature)
    entropy = cross_entropy64(teacher, teacher)

    divergence = policy_divergence(logits, scores, legal, temperature=temperature)
    (gradient,) = torch.autograd.grad(divergence.sum(), logits)

    assert_close(divergence, cross_entropy64(teacher, student) - entropy, atol=1e-6)
    assert_close(gradient, student - teacher)


def test_divergence_of_a_perfect_student_is_zero() -> None:
    _, scores, legal = random_policies()
    divergence = policy_divergence(scores / 0.5, scores, legal, temperature=0.5)

    assert_close(divergence, np.zeros(len(scores)))


def test_agreement_compares_legal_actions_only() -> None:
    logits = torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    scores = torch.tensor([[0.0, 2.0, -9.0], [0.0, 1.0, 7.0], [3.0, 1.0, 5.0]])

    assert agreement(logits, scores, LEGAL).tolist() == [True, False, True]


def test_feature_regression_by_hand() -> None:
    predicted = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, 0.0], [0.0, -2.0, 0.0]])
    loss = feature_regression_loss(predicted, teacher)
    loss.sum().backward()

    assert loss.tolist() == [13.0, 4.0]  # summed, neither halved nor averaged
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [[0.0, 4.0, 6.0], [0.0, 4.0, 0.0]]


def test_feature_regression_matches_float64() -> None:
    rng = generator()
    predicted = torch.randn(16, 512, generator=rng).requires_grad_()
    teacher = torch.randn(16, 512, generator=rng).half()  # as the replay stores it
    error = predicted.detach().double().numpy() - teacher.double().numpy()

    loss = feature_regression_loss(predicted, teacher)
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)

    assert_close(loss, (error**2).sum(axis=1))
    assert_close(gradient, 2 * error)


Q = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, -1.0], [0.0, 0.0, 7.0]])
ACTIONS = torch.tensor([1, 0, 2])


@pytest.mark.parametrize(
    ("huber_delta", "expected", "slope"),
    [
        # the errors are 5 - 4.5 = 0.5, 4 - 7 = -3 and 7 - 7 = 0
        (1.0, [0.125, 2.5, 0.0], [0.5, -1.0, 0.0]),
        (2.0, [0.125, 4.0, 0.0], [0.5, -2.0, 0.0]),
        (None, [0.125, 4.5, 0.0], [0.5, -3.0, 0.0]),
    ],
)
def test_td_loss_by_hand(
    huber_delta: float | None, expected: list[float], slope: list[float]
) -> None:
    q_values = Q.clone().requires_grad_()
    loss = td_loss(q_values, ACTIONS, torch.tensor([4.5, 7.0, 7.0]), huber_delta=huber_delta)
    (gradient,) = torch.autograd.grad(loss.sum(), q_values)

    assert loss.tolist() == expected
    assert gradient.gather(1, ACTIONS[:, None]).squeeze(1).tolist() == slope
    assert gradient.count_nonzero() == 2  # only the taken actions


def test_td_loss_is_huber_with_delta_1_unless_told() -> None:
    targets = torch.tensor([4.5, 7.0, 7.0])

    assert torch.equal(td_loss(Q, ACTIONS, targets), td_loss(Q, ACTIONS, targets, huber_delta=1.0))


@pytest.mark.parametrize("huber_delta", [0.5, 1.0, None])
def test_td_loss_matches_float64_in_value_and_gradient(huber_delta: float | None) -> None:
    rng = generator()
    q_values = (2.0 * torch.randn(256, 6, generator=rng)).requires_grad_()
    actions = torch.randint(6, (256,), generator=rng)
    targets = torch.randn(256, generator=rng)
    rows = np.arange(256), actions.numpy()
    delta = 1e9 if huber_delta is None else huber_delta  # beyond every error: never linear
    error = q_values.detach().double().numpy()[rows] - targets.double().numpy()
    size = np.abs(error)
    expected = np.where(size > delta, delta * (size - delta / 2), error**2 / 2)
    expected_gradient = np.zeros((256, 6))
    expected_gradient[rows] = np.clip(error, -delta, delta)

    loss = td_loss(q_values, actions, targets, huber_delta=huber_delta)
    (gradient,) = torch.autograd.grad(loss.sum(), q_values)

    assert_close(loss, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("target", [1e4, -1e4])
def test_a_far_target_pulls_with_slope_1(target: float) -> None:
    q_values = torch.zeros(1, 2, requires_grad=True)
    td_loss(q_values, torch.tensor([1]), torch.tensor([target])).sum().backward()

    assert q_values.grad is not None
    assert q_values.grad.tolist() == [[0.0, -math.copysign(1.0, target)]]


@pytest.mark.parametrize("huber_delta", [0.0, -1.0, NAN])
def test_huber_deltas_that_cannot_be_meant_are_refused(huber_delta: float) -> None:
    with pytest.raises(ValueError, match="huber_delta"):
        td_loss(Q, ACTIONS, torch.zeros(3), huber_delta=huber_delta)


def test_td_targets_by_hand() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    discounts = torch.tensor([0.5, 0.25, 0.0])
    online = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 1.0], [1.0, 0.0, 0.0]])

    plain = td_targets(returns, discounts, Q, None)
    double = td_targets(returns, discounts, Q, online)

    assert plain.tolist() == [3.5, 3.0, 3.0]  # 1 + 5/2, 2 + 4/4, 3
    assert double.tolist() == [2.0, 2.0, 3.0]  # 1 + 2/2, 2 + 0/4, 3


def test_double_targets_with_one_network_are_the_plain_ones() -> None:
    returns, discounts = torch.zeros(3), torch.full((3,), 0.99)

    assert torch.equal(
        td_targets(returns, discounts, Q, Q), td_targets(returns, discounts, Q, None)
    )


@pytest.mark.parametrize("garbage", [NAN, INF, -INF])
@pytest.mark.parametrize("double", [False, True])
def test_nothing_follows_a_terminal_step(garbage: float, double: bool) -> None:
    next_q = torch.full((1, 3), garbage)
    targets = td_targets(
        torch.tensor([-1.0]), torch.tensor([0.0]), next_q, next_q if double else None
    )

    assert targets.tolist() == [-1.0]


def test_lambda_regression_is_half_the_squared_error_however_far() -> None:
    q_values = Q.clone().requires_grad_()
    loss = lambda_regression_loss(q_values, ACTIONS, torch.tensor([4.0, 104.0, 7.0]))
    (gradient,) = torch.autograd.grad(loss.sum(), q_values)

    assert loss.tolist() == [0.5, 5000.0, 0.0]
    assert gradient.tolist() == [[0.0, 1.0, 0.0], [-100.0, 0.0, 0.0], [0.0, 0.0, 0.0]]


def random_calls(dtype: torch.dtype) -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """Every loss with random inputs: the first gets a gradient, floating ones have ``dtype``."""
    logits, scores, legal = random_policies(32, 6)
    rng = generator()
    actions = torch.randint(6, (32,), generator=rng)
    targets = torch.randn(32, generator=rng)
    calls: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
        "policy": (_at_temperature(policy_regression_loss), [logits, scores, legal]),
        "divergence": (_at_temperature(policy_divergence), [logits, scores, legal]),
        "softened": (policy_cross_entropy, [logits, softened_policy(scores, legal, 0.5), legal]),
        "feature": (feature_regression_loss, [logits, scores]),
        "td": (td_loss, [logits, actions, targets]),
        "lambda": (lambda_regression_loss, [logits, actions, targets]),
        "quantile": (quantile_td_loss, [logits[..., None] + scores[:, None], actions, scores]),
    }
    return {
        name: (loss, [part.to(dtype) if part.is_floating_point() else part for part in parts])
        for name, (loss, parts) in calls.items()
    }


def _at_temperature(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *parts: loss(*parts, temperature=0.5)


LOSSES = ["policy", "divergence", "softened", "feature", "td", "lambda", "quantile"]


@pytest.mark.parametrize("name", LOSSES)
def test_examples_do_not_see_each_other(name: str) -> None:
    loss, parts = random_calls(torch.float32)[name]
    values = loss(*parts)
    alone = loss(*(part[5:6] for part in parts))

    assert values.shape == (32,)
    torch.testing.assert_close(values[5:6], alone, atol=1e-6, rtol=1e-6)

    parts[0].requires_grad_()
    (gradient,) = torch.autograd.grad(loss(*parts)[5], parts[0])
    assert torch.all(gradient[:5] == 0.0)
    assert torch.all(gradient[6:] == 0.0)
    assert torch.any(gradient[5] != 0.0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arithmetic_is_float32_whatever_comes_in(name: str, dtype: torch.dtype) -> None:
    loss, parts = random_calls(dtype)[name]
    upcast = [part.float() if part.is_floating_point() else part for part in parts]

    assert loss(*parts).dtype == torch.float32
    assert torch.equal(loss(*parts), loss(*upcast))


@pytest.mark.parametrize("name", LOSSES)
def test_targets_and_teachers_get_no_gradient(name: str) -> None:
    loss, parts = random_calls(torch.float32)[name]
    for part in parts:
        part.requires_grad_(part.is_floating_point())
    loss(*parts).sum().backward()

    assert parts[0].grad is not None
    assert all(part.grad is None for part in parts[1:])


def test_td_targets_are_detached_float32() -> None:
    returns, discounts = torch.zeros(3), torch.ones(3)
    next_q = Q.bfloat16().requires_grad_()
    targets = td_targets(returns.half(), discounts, next_q, next_q)

    assert targets.dtype == torch.float32
    assert not targets.requires_grad
