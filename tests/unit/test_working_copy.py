"""Weights kept in bfloat16 are those that autocast would make, and nothing else is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from actor_mimic.compute import Compute, Workers
from actor_mimic.learners.dqn import DQNLearner
from actor_mimic.learners.gradient_step import gradient_step
from actor_mimic.networks.layered import Layer, LayeredNetwork, LayeredSpec
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.networks.working_copy import WorkingCopy, lower

NATURE = TorsoSpec("nature", (4, 84, 84), width=0.25, norm="all")
IMAGES = torch.randint(
    0, 256, (19, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def expert(precision: str = "bfloat16", spec: TorsoSpec = NATURE) -> QNetwork:
    network = QNetwork(spec, 5, generator=torch.Generator().manual_seed(1))
    Compute("cpu", precision, 1).place(network)
    return network


def branched() -> Student:
    network = Student(
        NATURE,
        {"pong": ("NOOP", "UP"), "boxing": ("NOOP", "FIRE")},
        generator=torch.Generator().manual_seed(1),
        head="branched",
    )
    Compute("cpu", "bfloat16", 1).place(network)
    return network


def imported() -> LayeredNetwork:
    layers = (Layer("conv", 8, 8, 4), Layer("relu"), Layer("flatten"), Layer("linear", 16))
    network = LayeredNetwork(LayeredSpec((4, 84, 84), layers, 3)).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1, generator=generator)
    Compute("cpu", "bfloat16", 1).place(network)
    return network


def scores(network: nn.Module) -> Tensor:
    if isinstance(network, Student):
        return network.play("boxing", IMAGES).scores
    return network(IMAGES).scores


@pytest.mark.parametrize("make", [expert, branched, imported])
def test_both_forms_compute_what_autocast_computes(make: Callable[[], nn.Module]):
    network, frozen = make(), make()
    copy = WorkingCopy(network).network
    lower(frozen)

    assert copy is not network
    assert torch.equal(scores(copy), scores(network))
    assert torch.equal(scores(frozen), scores(network))


def test_only_what_is_multiplied_in_bfloat16_is_copied():
    network = expert()
    copy = WorkingCopy(network).network
    shared = [n for n, p in copy.named_parameters() if p is network.get_parameter(n)]

    # Layers 1, 4, 7 and 11 are norms.
    norms = [f"torso.layers.{i}.{name}" for i in (1, 4, 7, 11) for name in ("weight", "bias")]
    assert shared == [*norms, "head.weight", "head.bias"]
    assert all(p.dtype == torch.bfloat16 for n, p in copy.named_parameters() if n not in shared)
    assert all(p.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize(
    "network",
    [expert("float32"), expert("bfloat16", TorsoSpec("mlp", (6,)))],
    ids=["float32", "vectors"],
)
def test_who_computes_in_float32_needs_no_copy(network):
    assert WorkingCopy(network).network is network
    lower(network)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_on_the_copy_is_the_step_on_the_network(count):
    plain, learnt = expert(), expert()
    working = WorkingCopy(learnt)
    called = (plain, working.network)
    optimizers = [torch.optim.Adam(n.parameters(), lr=0.01, fused=True) for n in (plain, learnt)]
    for _ in range(3):
        for network, optimizer, copy in zip(called, optimizers, (None, working), strict=True):
            gradient_step(
                lambda rows, n=network: (n(IMAGES[rows]).scores.square().sum(dim=1), {}),
                len(IMAGES),
                optimizer,
                Workers(count),
                max_norm=1.0,
                working=copy,
            )

    trained = zip(plain.parameters(), learnt.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in trained)
    assert torch.equal(scores(working.network), scores(plain))


def dqn(network: QNetwork) -> DQNLearner:
    return DQNLearner(
        network,
        torch.optim.Adam(network.parameters(), lr=0.01, fused=True),
        double=True,
        target_period_updates=2,
        max_gradient_norm=1.0,
        workers=Workers(),
    )


def update(learner: DQNLearner) -> None:
    learner.update(
        obs=IMAGES,
        actions=torch.zeros(len(IMAGES), dtype=torch.int64),
        returns=torch.ones(len(IMAGES)),
        next_obs=IMAGES.flip(0),
        discounts=torch.full((len(IMAGES),), 0.9),
    )


def test_a_learner_taken_up_again_goes_on_with_its_own_weights():
    learner = dqn(expert())
    for _ in range(3):  # the target network is that of update 2
        update(learner)
    again = dqn(expert())
    again.network.load_state_dict(learner.network.state_dict())
    again.load_state_dict(*learner.state_dict())
    for each in (learner, again):
        update(each)

    pairs = zip(learner.network.parameters(), again.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
