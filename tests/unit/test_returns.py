"""Lambda-returns: hand-computed rows, and a naive twin that sums forwards."""

import math

import pytest
import torch
from torch import Tensor

from actor_mimic.returns import lambda_returns


def column(values: list[float]) -> Tensor:
    return torch.tensor(values).unsqueeze(1)


def flags(length: int, *where: int) -> Tensor:
    return torch.tensor([t in where for t in range(length)]).unsqueeze(1)


def naive_return(
    rewards: list[float],
    next_values: list[float],
    terminal: list[bool],
    cut: list[bool],
    t: int,
    gamma: float,
    lam: float,
) -> float:
    """The weighted mean of all n-step returns from t on, in Python floats, term by term."""
    last = next((s for s in range(t, len(rewards)) if terminal[s] or cut[s]), len(rewards) - 1)
    total = 0.0
    for end in range(t, last + 1):
        n = end - t + 1
        n_step = sum(gamma**k * rewards[t + k] for k in range(n))
        if not terminal[end]:
            n_step += gamma**n * next_values[end]
        weight = lam ** (n - 1) * (1.0 if end == last else 1.0 - lam)
        total += weight * n_step
    return total


def naive_returns(
    rewards: Tensor, next_values: Tensor, terminal: Tensor, cut: Tensor, gamma: float, lam: float
) -> Tensor:
    columns = [
        [
            naive_return(
                rewards[:, i].tolist(),
                next_values[:, i].tolist(),
                terminal[:, i].tolist(),
                cut[:, i].tolist(),
                t,
                gamma,
                lam,
            )
            for t in range(len(rewards))
        ]
        for i in range(rewards.shape[1])
    ]
    return torch.tensor(columns, dtype=torch.float64).T


def random_steps(length: int = 12, n: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(length, n, generator=generator)
    next_values = torch.randn(length, n, generator=generator)
    terminal = torch.rand(length, n, generator=generator) < 0.15
    cut = torch.rand(length, n, generator=generator) < 0.15
    terminal[4], cut[4] = True, True  # both at once, which chance may leave out
    assert (terminal & ~cut).any()
    assert (cut & ~terminal).any()
    return rewards, next_values, terminal, cut


@pytest.mark.parametrize(
    ("terminal", "cut", "expected"),
    [
        # gamma = lam = 1/2, so G[t] = r[t] + V[t] / 4 + G[t+1] / 4, ends as in the docstring
        ((), (), [3.5, 9.0, 24.0]),  # 24 = 4 + 40/2, 9 = 2 + 4/4 + 24/4, 3.5 = 1 + 1/4 + 9/4
        ((1,), (), [1.75, 2.0, 24.0]),  # the loss of a life: row 1 keeps its reward alone
        ((), (1,), [2.25, 4.0, 24.0]),  # truncated: 4 = 2 + 4/2
        ((1,), (1,), [1.75, 2.0, 24.0]),
        ((2,), (), [2.25, 4.0, 4.0]),
    ],
)
def test_by_hand(terminal: tuple[int, ...], cut: tuple[int, ...], expected: list[float]) -> None:
    targets = lambda_returns(
        column([1.0, 2.0, 4.0]),
        column([1.0, 4.0, 40.0]),
        flags(3, *terminal),
        flags(3, *cut),
        gamma=0.5,
        lam=0.5,
    )

    torch.testing.assert_close(targets, column(expected), atol=0.0, rtol=0.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.3, 0.65, 1.0])
def test_equals_the_weighted_mean_of_n_step_returns(gamma: float, lam: float) -> None:
    steps = random_steps()
    targets = lambda_returns(*steps, gamma=gamma, lam=lam)

    torch.testing.assert_close(
        targets.double(), naive_returns(*steps, gamma, lam), atol=2e-6, rtol=1e-6
    )


def test_lam_0_is_the_one_step_target() -> None:
    rewards, next_values, terminal, cut = random_steps()
    targets = lambda_returns(rewards, next_values, terminal, cut, gamma=0.9, lam=0.0)

    assert torch.equal(targets, rewards + 0.9 * torch.where(terminal, 0.0, next_values))


def test_lam_1_is_the_monte_carlo_return() -> None:
    rewards = column([1.0, -2.0, 3.0, 5.0])
    no_cut = flags(4)
    targets = lambda_returns(
        rewards, column([1e4, -1e4, 1e4, 7.0]), flags(4, 3), no_cut, gamma=1.0, lam=1.0
    )

    assert torch.equal(targets, column([7.0, 6.0, 8.0, 5.0]))


@pytest.mark.parametrize("lam", [0.0, 0.65, 1.0])
@pytest.mark.parametrize("end", ["terminal", "cut"])
def test_nothing_of_the_next_episode_leaks(lam: float, end: str) -> None:
    rewards, next_values, _, _ = random_steps(6, 3)
    ends, none = flags(6, 2).expand(6, 3), torch.zeros(6, 3, dtype=torch.bool)
    terminal, cut = (ends, none) if end == "terminal" else (none, ends)
    before = lambda_returns(rewards, next_values, terminal, cut, gamma=0.99, lam=lam)

    rewards[3:], next_values[3:] = math.nan, math.inf
    after = lambda_returns(rewards, next_values, terminal, cut, gamma=0.99, lam=lam)

    assert torch.equal(before[:3], after[:3])


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_values_at_terminal_steps_are_ignored(garbage: float) -> None:
    rewards, next_values, terminal, cut = random_steps()
    clean = lambda_returns(rewards, next_values, terminal, cut, gamma=0.99, lam=0.65)
    next_values[terminal] = garbage
    dirty = lambda_returns(rewards, next_values, terminal, cut, gamma=0.99, lam=0.65)

    assert torch.equal(clean, dirty)


def test_environments_do_not_see_each_other() -> None:
    steps = random_steps()
    together = lambda_returns(*steps, gamma=0.99, lam=0.65)
    alone = lambda_returns(*(part[:, 3:4] for part in steps), gamma=0.99, lam=0.65)

    assert torch.equal(together[:, 3:4], alone)


def test_targets_are_detached_float32() -> None:
    rewards, next_values, terminal, cut = random_steps()
    values = next_values.bfloat16().requires_grad_()
    targets = lambda_returns(rewards.half(), values, terminal, cut, gamma=0.99, lam=0.65)

    assert targets.dtype == torch.float32
    assert not targets.requires_grad


def test_inputs_stay_as_they_were() -> None:
    steps = random_steps()
    copies = [part.clone() for part in steps]
    lambda_returns(*steps, gamma=0.99, lam=0.65)

    assert all(torch.equal(part, copy) for part, copy in zip(steps, copies, strict=True))


@pytest.mark.parametrize(
    ("gamma", "lam", "name"), [(1.01, 0.5, "gamma"), (math.nan, 0.5, "gamma"), (0.9, -0.1, "lam")]
)
def test_rates_outside_0_to_1_are_refused(gamma: float, lam: float, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        lambda_returns(*random_steps(), gamma=gamma, lam=lam)
