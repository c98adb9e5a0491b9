"""DQN with quantiles: one update by hand, returns whose quantiles are known, exact resume."""

import json

import pytest
import safetensors.torch
import torch
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.learners.dqn import DQNLearner
from actor_mimic.learners.optimizers import make_optimizer
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec


def network_of(actions: int, quantiles: int, *, seed: int = 0) -> QNetwork:
    return QNetwork(
        TorsoSpec("mlp", (3,), width=0.25, norm="none"),
        actions,
        num_quantiles=quantiles,
        generator=torch.Generator().manual_seed(seed),
    )


def make_dqn(
    network: QNetwork,
    *,
    double: bool = False,
    optimizer: str = "adam",
    learning_rate: float = 0.01,
    period: int = 1_000,
) -> DQNLearner:
    made = make_optimizer(
        optimizer,
        network.parameters(),
        learning_rate=learning_rate,
        adam_epsilon=1e-8,
        rmsprop_decay=0.95,
        rmsprop_epsilon=1e-4,
    )
    return DQNLearner(
        network,
        made,
        double=double,
        target_period_updates=period,
        max_gradient_norm=0.0,
        workers=Workers(),
    )


def set_quantiles(network: QNetwork, values: list[list[float]]) -> None:
    """The same quantiles of each action whatever the observation."""
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor(values).flatten())


def batch_of(
    rewards: Tensor, *, action: int = 0, discount: float = 0.0, state: float = 1.0
) -> dict[str, Tensor]:
    size = len(rewards)
    return {
        "obs": torch.full((size, 3), state),
        "actions": torch.full((size,), action),
        "returns": rewards,
        "next_obs": torch.full((size, 3), state),
        "discounts": torch.full((size,), discount),
    }


@pytest.mark.parametrize(
    ("double", "next_quantiles"),
    [
        (False, [5.0, 9.0]),  # of the target network's own best action, by its mean
        (True, [-2.0, 12.0]),  # the target network's, of the action that the online network prefers
    ],
)
def test_double_chooses_online_and_values_by_the_target(double, next_quantiles):
    learner = make_dqn(network_of(3, 2), double=double)
    # The means are 1, 0 and 2, and 7, 6 and 5; the highest quantile would choose the second twice.
    set_quantiles(learner.network, [[0.0, 2.0], [-4.0, 4.0], [1.0, 3.0]])
    set_quantiles(learner.target_network, [[5.0, 9.0], [-1.0, 13.0], [-2.0, 12.0]])

    metrics = learner.update(**batch_of(torch.tensor([1.0]), discount=0.5))

    loss = 0.0
    for tau, own in ((0.25, 0.0), (0.75, 2.0)):
        for following in next_quantiles:
            error = 1.0 + 0.5 * following - own
            huber = 0.5 * error**2 if abs(error) <= 1.0 else abs(error) - 0.5
            loss += abs(tau - (error < 0.0)) * huber / 2
    assert metrics["loss"].item() == pytest.approx(loss)
    assert metrics["q_value"].item() == pytest.approx(1.0)


def test_quantiles_find_those_of_a_coin():
    """Half of the rewards are 0, half are 1: at 1/8, 3/8, 5/8, 7/8 that is 0, 0, 1, 1.

    The other action gives 3 for certain. Huber's corner rounds what lies within 1, so rewards are
    10 apart for the learner and a tenth of that is compared.
    """
    rng = torch.Generator().manual_seed(0)
    learner = make_dqn(network_of(2, 4), learning_rate=0.02)
    for update in range(400):
        if update == 300:
            learner.optimizer.param_groups[0]["lr"] = 0.002
        coins = 10.0 * torch.randint(2, (64,), generator=rng).float()
        learner.update(**batch_of(coins))
        learner.update(**batch_of(torch.full((8,), 30.0), action=1))

    quantiles = learner.network.quantiles(torch.ones(1, 3))[0].detach() / 10.0
    expected = torch.tensor([[0.0, 0.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    torch.testing.assert_close(quantiles, expected, atol=0.08, rtol=0.0)
    scores = learner.network(torch.ones(1, 3)).scores[0].detach() / 10.0
    torch.testing.assert_close(scores, torch.tensor([0.5, 3.0]), atol=0.08, rtol=0.0)


def test_quantiles_of_a_coin_tossed_again_and_again():
    """From one state to itself, with a discount of a half: returns are uniform in [0, 2]."""
    rng = torch.Generator().manual_seed(0)
    learner = make_dqn(network_of(1, 4), double=True, learning_rate=0.01, period=25)
    for update in range(600):
        if update == 400:
            learner.optimizer.param_groups[0]["lr"] = 0.001
        coins = 10.0 * torch.randint(2, (128,), generator=rng).float()
        learner.update(**batch_of(coins, discount=0.5))

    quantiles = learner.network.quantiles(torch.ones(1, 3))[0, 0].detach() / 10.0
    # Projected onto four quantiles: the fixed point of the operator, close to 1/4, 3/4, 5/4, 7/4.
    torch.testing.assert_close(
        quantiles, torch.tensor([0.25, 0.75, 1.25, 1.75]), atol=0.2, rtol=0.0
    )


def saved(state: tuple[dict[str, Tensor], dict]) -> tuple[dict[str, Tensor], dict]:
    """Through the formats of a checkpoint."""
    tensors, data = state
    packed = safetensors.torch.save({name: value.contiguous() for name, value in tensors.items()})
    return safetensors.torch.load(packed), json.loads(json.dumps(data))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("quantiles", [1, 5])
def test_dqn_resumes_bit_for_bit(optimizer, quantiles):
    options = {"double": True, "optimizer": optimizer, "period": 3}
    learner = make_dqn(network_of(2, quantiles), **options)
    rewards = torch.linspace(-1.0, 1.0, 8)
    for _ in range(4):
        learner.update(**batch_of(rewards, discount=0.9))
    state = saved(learner.state_dict())
    network = network_of(2, quantiles, seed=1)
    network.load_state_dict({name: v.clone() for name, v in learner.network.state_dict().items()})

    again = make_dqn(network, **options)
    again.load_state_dict(*state)

    for number in range(4):
        batch = batch_of(rewards, discount=0.9, state=0.1 * number)
        assert torch.equal(learner.update(**batch)["loss"], again.update(**batch)["loss"])
    for one, other in zip(learner.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)
    tensors, others = learner.state_dict()[0], again.state_dict()[0]
    assert tensors.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in tensors.items())
