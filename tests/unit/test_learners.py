"""The gradient step and DQN: one update by hand, probes that can fail one way, exact resume."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from actor_mimic.compute import Workers
from actor_mimic.errors import DataError, DivergenceError
from actor_mimic.learners.dqn import DQNLearner
from actor_mimic.learners.gradient_step import (
    gradient_step,
    optimizer_tensors,
    restore_optimizer,
)
from actor_mimic.learners.optimizers import CentredRMSProp
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.replay.frame_replay import FrameReplay

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


def mlp(states: int = 3, actions: int = 2, *, norm: str = "none", seed: int = 0) -> QNetwork:
    spec = TorsoSpec("mlp", (states,), width=0.25, norm=norm)
    return QNetwork(spec, actions, generator=torch.Generator().manual_seed(seed))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def set_q_values(network: QNetwork, values: list[float]) -> None:
    """The same Q-values whatever the observation."""
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor(values))


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def saved(state: tuple[dict[str, Tensor], dict]) -> tuple[dict[str, Tensor], dict]:
    """Through the formats of a checkpoint."""
    tensors, data = state
    packed = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
    return safetensors.torch.load(packed), json.loads(json.dumps(data))


# The gradient step


def sgd(values: list[float]) -> tuple[nn.Parameter, torch.optim.SGD]:
    parameter = nn.Parameter(torch.tensor(values))
    return parameter, torch.optim.SGD([parameter], lr=1.0)


def descend(
    loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, *, max_norm: float = 1.0
) -> None:
    """A step on a batch of one example."""
    gradient_step(lambda _: (loss().reshape(1), {}), 1, optimizer, Workers(), max_norm=max_norm)


@pytest.mark.parametrize("count", [2, 3])
def test_workers_take_the_step_that_one_takes(count):
    """Images of the real size: their gradients lie differently, and must be added in place."""
    spec = TorsoSpec("nature", (4, 84, 84), width=0.25, norm="all")
    obs = torch.randint(0, 256, (29, 4, 84, 84), dtype=torch.uint8, generator=generator(0))
    targets = torch.randn(29, 2, generator=generator(1))
    results = []
    for workers in (Workers(), Workers(count)):
        network = QNetwork(spec, 2, generator=generator(2))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, fused=True)

        def losses(rows: slice, network: QNetwork = network) -> tuple[Tensor, dict[str, Tensor]]:
            each = (network(obs[rows]).scores - targets[rows]).square().sum(dim=1)
            return each, {"each": each.detach()}

        for _ in range(2):
            loss, columns = gradient_step(losses, len(obs), optimizer, workers, max_norm=0.5)
        assert loss.item() == pytest.approx(columns["each"].mean().item(), rel=1e-5)
        gradients = [p.grad for p in network.parameters()]
        assert all(
            g.stride() == p.stride() for g, p in zip(gradients, network.parameters(), strict=True)
        )
        results.append([loss, columns["each"], *gradients])

    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("max_norm", "step"),
    [(10.0, [3.0, 4.0]), (5.0, [3.0, 4.0]), (1.0, [0.6, 0.8]), (0.0, [3.0, 4.0])],
)
def test_gradient_is_scaled_down_to_the_norm_and_never_up(max_norm, step):
    parameter, optimizer = sgd([0.0, 0.0])
    for _ in range(2):  # the second step must not see the gradient of the first
        descend((parameter * torch.tensor([3.0, 4.0])).sum, optimizer, max_norm=max_norm)

    torch.testing.assert_close(parameter.detach(), -2 * torch.tensor(step), atol=2e-6, rtol=0.0)


@pytest.mark.parametrize("max_norm", [1.0, 0.0])
@pytest.mark.parametrize(
    "loss",
    [
        lambda p: (p * math.nan).sum(),
        lambda p: (p * math.inf).sum(),
        lambda p: -(p * math.inf).sum(),
        lambda p: p.sum() + math.inf,  # the gradient is finite, as in an infinite Huber loss
        lambda p: p.sum() - math.inf,
        lambda p: p.sum() + math.nan,
        lambda p: (p - p.detach()).sqrt().sum(),  # the loss is 0, its gradient infinite
    ],
)
def test_a_step_that_is_not_finite_is_not_made(loss: Callable[[Tensor], Tensor], max_norm: float):
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    descend(lambda: parameter.square().sum(), optimizer)
    before = [
        parameter.detach().clone(),
        *(v.clone() for v in optimizer_tensors(optimizer).values()),
    ]

    with pytest.raises(DivergenceError, match=r"not finite: loss .*, gradient norm .*before"):
        descend(lambda: loss(parameter), optimizer, max_norm=max_norm)

    assert equal([parameter.detach(), *optimizer_tensors(optimizer).values()], before)


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "fused adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
    "radam": lambda parameters: torch.optim.RAdam(parameters, lr=0.01),
    "rmsprop": lambda parameters: CentredRMSProp(
        parameters, learning_rate=0.01, decay=0.95, epsilon=1e-4
    ),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_restored_optimizer_goes_on_bit_for_bit(make):
    def steps(network: QNetwork, optimizer: torch.optim.Optimizer, count: int) -> None:
        for number in range(count):
            obs = torch.full((4, 3), 0.1 * number)
            descend(lambda obs=obs: network(obs).scores.square().mean(), optimizer)

    network, again = mlp(), mlp(seed=1)
    optimizer = make(list(network.parameters()))
    steps(network, optimizer, 7)  # RAdam changes its rule at the sixth

    again.load_state_dict(network.state_dict())
    restored = make(list(again.parameters()))
    restore_optimizer(restored, optimizer_tensors(optimizer))
    steps(network, optimizer, 3)
    moved = weights(network)
    steps(again, restored, 3)  # in the other's tensors it would have gone on from its tenth step

    assert equal(weights(again), moved)
    assert equal(
        list(optimizer_tensors(restored).values()), list(optimizer_tensors(optimizer).values())
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("6.exp_avg", torch.zeros(2), r"has 6 parameters.*'6\.exp_avg'"),
        ("x.exp_avg", torch.zeros(2), r"'x\.exp_avg'"),
        ("", torch.zeros(2), r"state for ''"),
        ("5.exp_avg", torch.zeros(3), r"'5\.exp_avg': expected shape \(2,\), found \(3,\)"),
    ],
)
def test_foreign_optimizer_state_is_refused(name, value, message):
    optimizer = torch.optim.Adam(mlp().parameters())

    with pytest.raises(DataError, match=message):
        restore_optimizer(optimizer, {name: value})
    assert optimizer_tensors(optimizer) == {}


# DQN


def make_dqn(
    network: QNetwork, *, double: bool = False, period: int = 10, learning_rate: float = 0.01
) -> DQNLearner:
    return DQNLearner(
        network,
        torch.optim.Adam(network.parameters(), lr=learning_rate),
        double=double,
        target_period_updates=period,
        max_gradient_norm=10.0,
        workers=Workers(),
    )


def transition(
    discount: float, *, reward: float = 1.0, next_state: float = 0.0
) -> dict[str, Tensor]:
    return {
        "obs": torch.ones(1, 3),
        "actions": torch.tensor([0]),
        "returns": torch.tensor([reward]),
        "next_obs": torch.full((1, 3), next_state),
        "discounts": torch.tensor([discount]),
    }


@pytest.mark.parametrize(
    ("double", "discount", "target"),
    [
        (False, 0.5, 1.0 + 0.5 * 10.0),  # the target network's own best
        (True, 0.5, 1.0 + 0.5 * 5.0),  # what it thinks of the online network's best
        (True, 0.25, 1.0 + 0.25 * 5.0),
        (False, 0.0, 1.0),
        (True, 0.0, 1.0),
    ],
)
def test_one_update_of_dqn_by_hand(double, discount, target):
    learner = make_dqn(mlp(), double=double)
    set_q_values(learner.network, [2.0, 1.0])
    set_q_values(learner.target_network, [5.0, 10.0])

    metrics = learner.update(**transition(discount))

    error = abs(2.0 - target)
    loss = 0.5 * error**2 if error <= 1 else error - 0.5
    assert metrics["loss"].item() == pytest.approx(loss)
    assert metrics["q_value"].item() == pytest.approx(1.5)
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_both_networks_of_dqn_look_at_the_same_centred_images(double, precision):
    """Their inputs are made once: neither may scale or centre them a second time."""
    spec = TorsoSpec("nature", (4, 84, 84), width=0.125, centred=True)
    network = QNetwork(spec, 3, generator=generator(0))
    network.torso.background.copy_(torch.rand(84, 84, generator=generator(1)))
    network.torso.precision = precision
    learner = make_dqn(network, double=double)
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
        learner.target_network.head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    learner.load_state_dict(*saved(learner.state_dict()))  # the working copies take it over
    obs = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8, generator=generator(2))
    with torch.no_grad():
        own, target = (net(obs).scores for net in (network, learner.target_network))
        chosen = (own if double else target).argmax(dim=1)
        # Of action 0, and never further than 1 from its target.
        returns = own[:, 0] - 0.9 * target[range(8), chosen] + torch.linspace(0.1, 0.9, 8)

    metrics = learner.update(
        obs=obs,
        actions=torch.zeros(8, dtype=torch.int64),
        returns=returns,
        next_obs=obs,
        discounts=torch.full((8,), 0.9),
    )

    loss = 0.5 * torch.linspace(0.1, 0.9, 8).square().mean()
    assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-3)


def test_target_network_follows_at_its_period_and_gets_no_gradient():
    learner = make_dqn(mlp(), period=3)
    after = [weights(learner.network)]
    for update in range(1, 8):
        learner.update(**transition(0.9))
        after.append(weights(learner.network))

        assert learner.updates == update
        assert equal(weights(learner.target_network), after[update - update % 3])
        assert not equal(after[update], after[update - 1])
    for parameter in learner.target_network.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_dqn_changes_nothing_when_it_diverges():
    learner = make_dqn(mlp(), period=1)
    learner.update(**transition(0.9))
    before = weights(learner.network) + list(learner.state_dict()[0].values())
    before = [value.clone() for value in before]

    with pytest.raises(DivergenceError):
        learner.update(**transition(0.9, reward=math.inf))

    assert learner.updates == 1
    assert equal(weights(learner.network) + list(learner.state_dict()[0].values()), before)


def test_dqn_resumes_bit_for_bit():
    learner = make_dqn(mlp(), double=True, period=3)
    for _ in range(4):
        learner.update(**transition(0.9))
    state = saved(learner.state_dict())
    network = mlp(seed=1)
    network.load_state_dict({name: v.clone() for name, v in learner.network.state_dict().items()})

    again = make_dqn(network, double=True, period=3)
    again.load_state_dict(*state)

    for number in range(4):
        batch = transition(0.9, next_state=0.1 * number)
        assert torch.equal(learner.update(**batch)["loss"], again.update(**batch)["loss"])
        assert equal(weights(learner.network), weights(again.network))
        assert equal(weights(learner.target_network), weights(again.target_network))
    assert again.updates == learner.updates == 8


def cycle_replay(*, end: str) -> FrameReplay:
    """Reward 1 per step through states 0, 1, 2; the fourth state is 0 again, and an episode ends.

    With a discount of a half every value is 2 if episodes are truncated there, and if they are
    terminated the values are 1.75, 1.5 and 1.
    """
    replay = FrameReplay(
        num_envs=2,
        capacity_steps=80,
        frame_shape=(3,),
        frame_dtype=torch.float32,
        stack_size=1,
    )
    frames = torch.eye(3)
    for step in range(24):
        state = step % 3
        replay.add(
            frames[[state, state]],
            np.array([0, 1]),  # what is done does not matter
            np.ones(2),
            np.full(2, state == 2 and end == "terminal"),
            np.full(2, state == 2 and end == "truncated"),
            np.full(2, state == 0),
            final_frames=frames[[0, 0]],
        )
    return replay


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("end", "double", "expected"),
    [("truncated", False, [2.0, 2.0, 2.0]), ("terminal", True, [1.75, 1.5, 1.0])],
)
def test_dqn_learns_the_values_of_a_cycle(n_step, end, double, expected):
    replay, rng = cycle_replay(end=end), np.random.default_rng(0)
    learner = make_dqn(mlp(), double=double)
    for _ in range(200):
        batch = replay.sample_transitions(32, n_step=n_step, gamma=0.5, rng=rng)
        learner.update(
            obs=batch.obs,
            actions=batch.actions,
            returns=batch.returns,
            next_obs=batch.next_obs,
            discounts=batch.discounts,
        )

    values = learner.network(torch.eye(3)).scores.detach()
    torch.testing.assert_close(
        values, torch.tensor(expected)[:, None].expand(3, 2), atol=0.1, rtol=0.0
    )


# CUDA


@needs_cuda
def test_dqn_on_cuda_agrees_with_the_cpu():
    values = []
    for device in ("cpu", "cuda"):
        network = mlp(norm="dense").to(device)
        learner = make_dqn(network, double=True, period=2)
        losses = [learner.update(**transition(0.9))["loss"].item() for _ in range(5)]
        again = make_dqn(mlp(norm="dense", seed=1).to(device), double=True, period=2)
        again.network.load_state_dict(network.state_dict())
        again.load_state_dict(*saved(learner.state_dict()))
        losses.append(again.update(**transition(0.9))["loss"].item())
        values.append(losses)
    assert values[1] == pytest.approx(values[0], rel=1e-4, abs=1e-6)
