"""Warm start: every tensor accounted for, rows by action name, all or nothing."""

import pytest
import torch
from torch import Tensor

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.errors import ConfigError, DataError
from actor_mimic.learners.warm_start import TensorOrigin, warm_start, warm_start_convolutions
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec

SPEC = TorsoSpec("mlp", (3,), width=0.0625, norm="dense")  # two hidden layers of 8
PONG = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
TARGET_ACTIONS = ("LEFT", "gym:New-v0/1", "NOOP", "RIGHT")
TORSO = [
    ("torso.layers.0.weight", 8),
    ("torso.layers.0.bias", 8),
    ("torso.layers.1.weight", 8),
    ("torso.layers.1.bias", 8),
    ("torso.layers.3.weight", 8),
    ("torso.layers.3.bias", 8),
    ("torso.layers.4.weight", 8),
    ("torso.layers.4.bias", 8),
]


def new_network(outputs: int = len(TARGET_ACTIONS), spec: TorsoSpec = SPEC) -> QNetwork:
    return QNetwork(spec, outputs, generator=torch.Generator().manual_seed(1))


def trained(module: torch.nn.Module) -> dict[str, Tensor]:
    """Distinct values everywhere, norms included."""
    state = module.state_dict()
    return {name: value + 10.0 + number for number, (name, value) in enumerate(state.items())}


def student_tensors() -> dict[str, Tensor]:
    student = Student(SPEC, {"pong": PONG}, generator=torch.Generator().manual_seed(2))
    return trained(student)


def expert_tensors() -> dict[str, Tensor]:
    return trained(QNetwork(SPEC, len(PONG), generator=torch.Generator().manual_seed(3)))


def snapshot(network: QNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_unchanged(network: QNetwork, before: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_fresh_head_keeps_its_own_values_and_the_torso_is_the_students():
    source, network = student_tensors(), new_network()
    before = snapshot(network)

    origins = warm_start(
        network,
        source,
        source_outputs=ATARI_ALPHABET,
        target_actions=TARGET_ACTIONS,
        head="fresh",
    )

    assert origins == [TensorOrigin(name, "copied", rows) for name, rows in TORSO] + [
        TensorOrigin("head.weight", "fresh", 0),
        TensorOrigin("head.bias", "fresh", 0),
    ]
    after = network.state_dict()
    assert [origin.name for origin in origins] == list(after)
    for name, _ in TORSO:
        assert torch.equal(after[name], source[f"network.{name}"])
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert torch.equal(after["head.bias"], before["head.bias"])


@pytest.mark.parametrize("parent", ["student", "expert"])
def test_copied_head_gathers_rows_by_name(parent):
    source = student_tensors() if parent == "student" else expert_tensors()
    outputs = ATARI_ALPHABET if parent == "student" else PONG
    prefix = "network." if parent == "student" else ""
    network = new_network()
    before = snapshot(network)

    origins = warm_start(
        network, source, source_outputs=outputs, target_actions=TARGET_ACTIONS, head="copy"
    )

    assert origins[-2:] == [
        TensorOrigin("head.weight", "rows", 3),
        TensorOrigin("head.bias", "rows", 3),
    ]
    after = network.state_dict()
    for name in ("head.weight", "head.bias"):
        for row, action in enumerate(TARGET_ACTIONS):
            if action in outputs:
                expected = source[prefix + name][outputs.index(action)]
            else:
                expected = before[name][row]
            assert torch.equal(after[name][row], expected), (name, action)
    for name, _ in TORSO:
        assert torch.equal(after[name], source[prefix + name])


def test_the_new_network_acts_as_its_parent_and_every_layer_can_be_trained():
    source, network = expert_tensors(), new_network(len(PONG))
    parent = new_network(len(PONG))
    parent.load_state_dict(source)
    obs = torch.rand(5, 3, generator=torch.Generator().manual_seed(4))

    warm_start(network, source, source_outputs=PONG, target_actions=PONG, head="copy")

    assert torch.equal(network(obs).scores, parent(obs).scores)
    assert all(parameter.requires_grad for parameter in network.parameters())
    with torch.no_grad():
        network.head.weight.zero_()
    assert bool((source["head.weight"] != 0).all())  # a copy, not a view


# Quantiles


def quantile_network(actions: tuple[str, ...], quantiles: int, *, seed: int) -> QNetwork:
    rng = torch.Generator().manual_seed(seed)
    return QNetwork(SPEC, len(actions), num_quantiles=quantiles, generator=rng)


@pytest.mark.parametrize(("source_quantiles", "quantiles"), [(1, 4), (4, 1), (4, 4), (3, 2)])
def test_scores_survive_a_copied_head_whatever_the_quantiles(source_quantiles, quantiles):
    parent = quantile_network(PONG, source_quantiles, seed=2)
    network = quantile_network(TARGET_ACTIONS, quantiles, seed=3)
    obs = torch.rand(5, 3, generator=torch.Generator().manual_seed(4))
    before = network.head.weight.detach().clone()

    origins = warm_start(
        network,
        parent.state_dict(),
        source_outputs=PONG,
        source_quantiles=source_quantiles,
        target_actions=TARGET_ACTIONS,
        head="copy",
    )

    assert origins[-2] == TensorOrigin("head.weight", "rows", 3 * quantiles)
    for row, action in enumerate(TARGET_ACTIONS):
        if action not in PONG:
            block = slice(row * quantiles, (row + 1) * quantiles)
            assert torch.equal(network.head.weight[block], before[block])
            continue
        ours, theirs = network.quantiles(obs)[:, row], parent.quantiles(obs)[:, PONG.index(action)]
        if source_quantiles == quantiles:
            torch.testing.assert_close(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs.mean(1, keepdim=True).expand_as(ours))


def test_a_fresh_head_does_not_ask_for_the_quantiles_of_the_parent():
    parent, network = quantile_network(PONG, 4, seed=2), quantile_network(TARGET_ACTIONS, 2, seed=3)
    before = snapshot(network)

    warm_start(
        network,
        parent.state_dict(),
        source_outputs=PONG,
        source_quantiles=4,
        target_actions=TARGET_ACTIONS,
        head="fresh",
    )

    assert torch.equal(network.head.weight, before["head.weight"])
    assert torch.equal(network.torso.layers[0].weight, parent.torso.layers[0].weight)


def test_a_wrong_number_of_quantiles_is_refused_and_nothing_is_loaded():
    network = quantile_network(TARGET_ACTIONS, 2, seed=3)
    before = snapshot(network)

    with pytest.raises(DataError, match=r"head\.bias +6 float32 +24 float32"):
        warm_start(
            network,
            quantile_network(PONG, 4, seed=2).state_dict(),
            source_outputs=PONG,
            target_actions=TARGET_ACTIONS,
            head="copy",
        )
    assert_unchanged(network, before)


WRONG_SHAPE = {"torso.layers.0.weight": torch.zeros(8, 4)}


@pytest.mark.parametrize("head", ["fresh", "copy"])
@pytest.mark.parametrize(
    ("change", "drop", "line"),
    [
        (WRONG_SHAPE, None, r"torso\.layers\.0\.weight  8 x 3 float32 +8 x 4 float32"),
        ({"head.bias": torch.zeros(18)}, None, r"head\.bias  6 float32 +18 float32"),
        ({}, "torso.layers.4.bias", r"torso\.layers\.4\.bias  8 float32 +-$"),
        ({"regressor.bias": torch.zeros(2)}, None, r"regressor\.bias  - +2 float32"),
        (
            {"torso.layers.3.bias": torch.zeros(8, dtype=torch.float16)},
            None,
            r"torso\.layers\.3\.bias  8 float32 +8 float16",
        ),
    ],
)
def test_anything_unexpected_is_refused_and_nothing_is_loaded(head, change, drop, line):
    source = expert_tensors() | change
    source.pop(drop, None)
    network = new_network()
    before = snapshot(network)

    with pytest.raises(DataError, match=f"(?m)nothing was loaded:\n.*expected.*found\n.*{line}"):
        warm_start(network, source, source_outputs=PONG, target_actions=TARGET_ACTIONS, head=head)
    assert_unchanged(network, before)


def test_a_mixture_of_prefixes_is_refused():
    source = expert_tensors()
    source["network.head.bias"] = source.pop("head.bias")

    with pytest.raises(DataError, match=r"network\.head\.bias"):
        warm_start(
            new_network(), source, source_outputs=PONG, target_actions=TARGET_ACTIONS, head="fresh"
        )


def test_another_architecture_is_refused_with_a_table():
    wide = TorsoSpec("mlp", (3,), width=0.125)
    network = new_network(spec=wide)

    with pytest.raises(DataError) as caught:
        warm_start(
            network,
            expert_tensors(),
            source_outputs=PONG,
            target_actions=TARGET_ACTIONS,
            head="fresh",
        )
    lines = str(caught.value).splitlines()
    assert lines[1].split() == ["tensor", "expected", "found"]
    assert any(line.split() == ["torso.layers.1.weight", "-", "8", "float32"] for line in lines)


def test_no_tensors_at_all_are_refused():
    with pytest.raises(DataError, match="nothing was loaded"):
        warm_start(
            new_network(), {}, source_outputs=PONG, target_actions=TARGET_ACTIONS, head="fresh"
        )


def test_copy_without_a_common_action_is_refused():
    network = new_network(2)
    before = snapshot(network)

    with pytest.raises(ConfigError, match="Choose head = 'fresh'"):
        warm_start(
            network,
            expert_tensors(),
            source_outputs=PONG,
            target_actions=("gym:New-v0/0", "gym:New-v0/1"),
            head="copy",
        )
    assert_unchanged(network, before)


def test_unknown_head_and_impossible_names():
    def start(head: str, outputs: tuple[str, ...], actions: tuple[str, ...]) -> None:
        warm_start(
            new_network(),
            expert_tensors(),
            source_outputs=outputs,
            target_actions=actions,
            head=head,
        )

    with pytest.raises(ConfigError, match=r"unknown head 'fersh'.*did you mean 'fresh'"):
        start("fersh", PONG, TARGET_ACTIONS)
    with pytest.raises(ValueError, match="a name of its own"):
        start("copy", (*PONG[:5], "NOOP"), TARGET_ACTIONS)
    with pytest.raises(ValueError, match="the target has 4 outputs, got 6 action names"):
        start("copy", PONG, PONG)


def test_convolutions_alone_leave_the_rest_fresh_and_must_fit():
    images = TorsoSpec("nature", (2, 36, 36), width=0.125)
    source, network = new_network(spec=images), new_network(spec=images)
    before = snapshot(network)
    given = {n: t + 1.0 for n, t in source.state_dict().items() if n.startswith("torso.layers.0")}

    origins = warm_start_convolutions(network, given)

    assert [entry.name for entry in origins] == list(before)
    assert {entry.name for entry in origins if entry.origin == "copied"} == given.keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, given.get(name, before[name]))

    before = snapshot(network)
    wider = new_network(spec=TorsoSpec("nature", (2, 36, 36), width=0.25)).state_dict()
    for wrong in (
        {"torso.layers.0.weight": wider["torso.layers.0.weight"]},
        given | {"torso.layers.99.weight": torch.zeros(1)},
    ):
        with pytest.raises(DataError, match="nothing was loaded"):
            warm_start_convolutions(network, wrong)
        assert_unchanged(network, before)
