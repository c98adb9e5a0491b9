"""PQN: targets by hand, the order of its minibatches, a chain it must solve, exact resume."""

import json
import math

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.errors import DivergenceError
from actor_mimic.learners.gradient_step import optimizer_tensors
from actor_mimic.learners.pqn import PQNLearner, Trajectories, radam_rectification
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.seeding import numpy_generator

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


def mlp(states: int = 3, *, norm: str = "none", seed: int = 0) -> QNetwork:
    spec = TorsoSpec("mlp", (states,), width=0.25, norm=norm)
    return QNetwork(spec, 2, generator=torch.Generator().manual_seed(seed))


def weights(network: QNetwork) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def make_pqn(network: QNetwork, *, lam: float = 0.65, epochs: int = 2, size: int = 8) -> PQNLearner:
    return PQNLearner(
        network,
        learning_rate=0.01,
        gamma=0.5,
        lam=lam,
        epochs=epochs,
        minibatch_size=size,
        max_gradient_norm=10.0,
        rng=numpy_generator(0, "shuffle"),
        workers=Workers(),
    )


def make_rollout(steps: int = 4, envs: int = 4, states: int = 3) -> Trajectories:
    return Trajectories(steps, envs, torch.zeros(envs, states))


def collect_chain(network: QNetwork, rollout: Trajectories, rng: np.random.Generator) -> Tensor:
    """States 0, 1, 2; action 1 goes on and gives 1 at the end, action 0 ends with nothing.

    Starts anywhere. With a discount of a half: Q(s, 1) = 1/4, 1/2, 1, and Q(s, 0) = 0. State 2
    may also be cut by a limit after its action 1, with reward 1 - 1/8 and final observation 0
    (worth 1/4, so the value is 1 again).
    """
    steps, envs = rollout.actions.shape
    state = rng.integers(3, size=envs)
    for t in range(steps):
        obs = torch.eye(3)[torch.from_numpy(state)]
        rollout.obs[t] = obs
        with torch.no_grad():
            rollout.values[t] = network(obs).scores.amax(1)
            rollout.cut_values[t] = network(torch.eye(3)[[0] * envs]).scores.amax(1)
        action = rng.integers(2, size=envs)
        at_end = (state == 2) & (action == 1)
        cut = at_end & (rng.random(envs) < 0.5)
        rollout.actions[t] = action
        rollout.rewards[t] = np.where(cut, 0.875, at_end)
        rollout.cut[t] = cut
        rollout.terminal[t] = (action == 0) | (at_end & ~cut)
        over = rollout.terminal[t] | cut
        state = np.where(over, rng.integers(3, size=envs), state + 1)
    with torch.no_grad():
        return network(torch.eye(3)[torch.from_numpy(state)]).scores.amax(1)


def test_next_values_by_hand():
    rollout = make_rollout(steps=3, envs=2)
    rollout.values[:] = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    rollout.cut_values[:] = torch.tensor([[-1.0, -10.0], [-2.0, -20.0], [-3.0, -30.0]])
    rollout.cut[1, 0] = rollout.cut[2, 1] = True

    following = rollout.next_values(torch.tensor([4.0, 40.0]))

    assert following.tolist() == [[2.0, 20.0], [-2.0, 30.0], [4.0, -30.0]]


def test_pqn_learns_the_values_of_a_chain():
    network, rng = mlp(norm="dense"), np.random.default_rng(0)
    learner, rollout = make_pqn(network, lam=0.0, size=64), make_rollout(steps=8, envs=16)
    for iteration in range(60):
        last = collect_chain(network, rollout, rng)
        learner.update(rollout, last, learning_rate=0.02 * (1 - iteration / 60))

    expected = torch.tensor([[0.0, 0.25], [0.0, 0.5], [0.0, 1.0]])
    scores = network(torch.eye(3)).scores.detach()
    torch.testing.assert_close(scores, expected, atol=0.05, rtol=0.0)


def test_one_update_of_pqn_by_hand():
    """One environment, lambda 1/2: targets 15/8, 3/2 (cut, worth 1) and 2 (last, worth 2)."""
    network = mlp()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
    rollout = make_rollout(steps=3, envs=1)
    rollout.obs.zero_()
    rollout.values[:] = torch.tensor([[7.0], [2.0], [8.0]])
    rollout.cut_values[1] = 1.0
    rollout.cut[1] = True
    rollout.rewards[:] = 1.0
    learner = make_pqn(network, lam=0.5, epochs=1, size=3)

    metrics = learner.update(rollout, torch.tensor([2.0]), learning_rate=0.0)

    # Step 0: 1 + 1/2 * (1/2 * 2 + 1/2 * 3/2) = 15/8; the last row bootstraps from 2.
    expected = 0.5 * ((15 / 8) ** 2 + 1.5**2 + 2.0**2) / 3
    assert metrics["loss"].item() == pytest.approx(expected)
    assert metrics["q_value"].item() == pytest.approx(17 / 3)


def test_every_example_is_used_once_per_epoch_in_a_new_order():
    network = mlp(states=1)
    rollout = make_rollout(states=1)
    rollout.obs[:] = torch.arange(16.0).view(4, 4, 1)
    rollout.values.zero_()
    learner = make_pqn(network, epochs=3, size=4)
    seen = []
    network.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].flatten()))

    learner.update(rollout, torch.zeros(4), learning_rate=0.01)

    assert [len(minibatch) for minibatch in seen] == [4] * 12
    epochs = torch.cat(seen).view(3, 16)
    assert epochs.sort(dim=1).values.tolist() == [[float(number) for number in range(16)]] * 3
    assert len({tuple(epoch.tolist()) for epoch in epochs} | {tuple(range(16))}) == 4
    assert learner.updates == 12
    assert optimizer_tensors(learner.optimizer)["0.step"].item() == 12


def test_the_learning_rate_is_that_of_the_call():
    """The sixth update is the first that moves, and its length is proportional to the rate."""
    moves = []
    for learning_rate in (0.0, 0.01, 0.02):
        network = mlp()
        learner, rollout = make_pqn(network, epochs=6, size=16), make_rollout()
        last = collect_chain(network, rollout, np.random.default_rng(0))
        before = network.head.bias.detach().clone()
        learner.update(rollout, last, learning_rate=learning_rate)
        moves.append(network.head.bias.detach() - before)

    assert not bool(moves[0].any())
    assert bool(moves[1].any())
    torch.testing.assert_close(moves[2], 2 * moves[1], atol=1e-7, rtol=1e-4)


def test_pqn_counts_what_it_did_before_it_diverged():
    network = mlp()
    learner, rollout = make_pqn(network, epochs=1, size=1), make_rollout(steps=4, envs=1)
    last = collect_chain(network, rollout, np.random.default_rng(0))
    third = int(numpy_generator(0, "shuffle").permutation(4)[2])
    rollout.obs[third] = math.inf

    with pytest.raises(DivergenceError):
        learner.update(rollout, last, learning_rate=0.01)

    assert learner.updates == 2
    assert all(bool(value.isfinite().all()) for value in weights(network))


def test_pqn_resumes_bit_for_bit():
    def train(learner: PQNLearner, seed: int) -> None:
        rollout, rng = make_rollout(), np.random.default_rng(seed)
        for _ in range(4):
            last = collect_chain(learner.network, rollout, rng)
            learner.update(rollout, last, learning_rate=0.01)

    learner = make_pqn(mlp(norm="dense"))
    train(learner, seed=0)
    tensors, state = learner.state_dict()
    packed, text = safetensors.torch.save(tensors), json.dumps(state)
    network = mlp(norm="dense", seed=1)
    network.load_state_dict({name: v.clone() for name, v in learner.network.state_dict().items()})
    again = make_pqn(network)
    again.load_state_dict(safetensors.torch.load(packed), json.loads(text))
    for resumed in (learner, again):
        train(resumed, seed=1)

    assert equal(weights(learner.network), weights(again.network))
    assert learner.state_dict()[1] == again.state_dict()[1]


def test_rectified_adam_is_pytorchs_radam_from_the_sixth_update_on():
    """Same gradients: whatever the parameters do, the moves of later updates agree."""
    ours, theirs = (torch.nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
    adam, radam = torch.optim.Adam([ours], lr=0.0), torch.optim.RAdam([theirs], lr=0.01)
    gradients = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for update, gradient in enumerate(gradients, start=1):
        before = [p.detach().clone() for p in (ours, theirs)]
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        adam.param_groups[0]["lr"] = 0.01 * radam_rectification(update)
        adam.step()
        radam.step()
        moves = [p.detach() - b for p, b in zip((ours, theirs), before, strict=True)]
        if update <= 5:
            assert not moves[0].any()
        else:
            torch.testing.assert_close(*moves, rtol=1e-6, atol=0.0)
    assert radam_rectification(10**6) == pytest.approx(1.0)


def test_images_come_back_as_they_went_in_and_lie_channels_last():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(256, size=(3, 2, 4, 5, 6), dtype=np.uint8))
    rollout = Trajectories(3, 2, images[0])
    for time, obs in enumerate(images):
        rollout.put_observations(time, slice(0, 2), obs)

    assert torch.equal(rollout.obs, images)
    drawn = rollout.observations(torch.tensor([5, 0, 3]))

    assert torch.equal(drawn, images.flatten(0, 1)[[5, 0, 3]])
    assert drawn.is_contiguous(memory_format=torch.channels_last)


@needs_cuda
def test_pqn_on_cuda_agrees_with_the_cpu():
    losses = []
    for device in ("cpu", "cuda"):
        learner = make_pqn(mlp(norm="dense").to(device))
        rollout = Trajectories(4, 4, torch.zeros(4, 3, device=device))
        rollout.obs.fill_(0.5)
        rollout.values.fill_(1.0)
        rollout.rewards[:] = 1.0
        last = torch.ones(4, device=device)
        losses.append(learner.update(rollout, last, learning_rate=0.01)["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
