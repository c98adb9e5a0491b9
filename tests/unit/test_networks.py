"""Networks: parameter counts by hand, precision of the output layer, weights and their streams."""

import json
import math

import pytest
import torch
from torch import Tensor, nn

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.errors import ConfigError, UsageError
from actor_mimic.networks.q_network import QNetwork, initialise
from actor_mimic.networks.regressors import HIDDEN_UNITS, build_regressor
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import Torso, TorsoSpec

STACK = (4, 84, 84)
PONG = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
CART = ("gym:CartPole-v1/0", "gym:CartPole-v1/1")

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2, shape: tuple[int, ...] = STACK) -> Tensor:
    return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=generator(7))


def small_net(norm: str = "none", width: float = 0.25, outputs: int = 6) -> QNetwork:
    return QNetwork(TorsoSpec("nature", STACK, width, norm), outputs, generator=generator())


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# Shapes


@pytest.mark.parametrize(
    ("width", "outputs", "expected"),
    [
        # 4*32*8*8+32, 32*64*4*4+64, 64*64*3*3+64, 64*7*7*512+512, 512*18+18; as published.
        (1.0, 18, 8_224 + 32_832 + 36_928 + 1_606_144 + 9_234),
        # 16, 32, 32 channels and 256 units: the published net of a quarter of the size.
        (0.5, 18, 4_112 + 8_224 + 9_248 + 401_664 + 4_626),
        (0.5, 6, 4_112 + 8_224 + 9_248 + 401_664 + 1_542),
    ],
)
def test_parameters_of_the_nature_network(width, outputs, expected):
    assert count(QNetwork(TorsoSpec("nature", STACK, width), outputs, generator=generator())) == (
        expected
    )


def test_published_sizes_are_what_the_sums_above_give():
    assert 8_224 + 32_832 + 36_928 + 1_606_144 + 9_234 == 1_693_362
    assert 4_112 + 8_224 + 9_248 + 401_664 + 4_626 == 427_874


def test_parameters_of_the_large_transfer_network():
    with torch.device("meta"):  # 35 million weights are counted, not filled
        torso = Torso(TorsoSpec("large", STACK))

    convolutions = 65_792 + 2_097_664 + 2_359_808 + 2_359_808  # maps of 20, 9, 7 and 5
    hidden = 512 * 5 * 5 * 2048 + 2048 + 2048 * 1024 + 1024
    assert torso.num_features == 1024
    # At 84 x 84 the padding of the first convolution changes no size, only the border's values.
    assert [c.padding for c in torso.layers if isinstance(c, nn.Conv2d)] == [(1, 1)] + [(0, 0)] * 3
    assert count(torso) == convolutions + hidden
    assert count(torso) + 1024 * 18 + 18 == 35_216_146


@pytest.mark.parametrize(("kind", "units"), [("mlp", 64), ("wide_mlp", 256)])
def test_parameters_of_networks_for_vectors(kind, units):
    torso = Torso(TorsoSpec(kind, (4,), width=0.5))

    assert torso.num_features == units
    assert count(torso) == (4 * units + units) + (units * units + units)


@pytest.mark.parametrize(
    ("norm", "groups", "layers"), [("none", 0, 0), ("dense", 0, 1), ("all", 3, 1)]
)
def test_norms_stand_before_every_relu_they_are_asked_for(norm, groups, layers):
    modules = list(small_net(norm).torso.layers)

    for kind, expected in ((nn.GroupNorm, groups), (nn.LayerNorm, layers)):
        found = [index for index, module in enumerate(modules) if isinstance(module, kind)]
        assert len(found) == expected
        assert all(isinstance(modules[index + 1], nn.ReLU) for index in found)
        assert all(bool((modules[index].weight == 1).all()) for index in found)
        assert all(bool((modules[index].bias == 0).all()) for index in found)
    assert isinstance(modules[-1], nn.ReLU)


def test_norm_all_is_layer_norm_over_the_whole_map():
    network = small_net("all")
    layer = next(m for m in network.torso.layers if isinstance(m, nn.GroupNorm))
    maps = 3.0 * torch.randn(2, layer.num_channels, 20, 20, generator=generator())
    maps += torch.arange(layer.num_channels)[:, None, None]  # a norm per channel would remove this

    normalised = layer(maps).detach()

    places = (1, 2, 3)
    mean, variance = maps.mean(places, keepdim=True), maps.var(places, correction=0, keepdim=True)
    torch.testing.assert_close(normalised, (maps - mean) / (variance + 1e-5).sqrt())


# Values


def test_images_are_scaled_to_one():
    """A convolution that averages its input sees 255 as 1 and 51 as 0.2."""
    network = small_net()
    first = network.torso.layers[0]
    assert isinstance(first, nn.Conv2d)
    with torch.no_grad():
        first.weight.fill_(1.0 / first.weight[0].numel())
        first.bias.zero_()
    seen = []
    first.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))

    obs = torch.full((2, *STACK), 255, dtype=torch.uint8)
    obs[1] = 51
    network(obs)

    torch.testing.assert_close(seen[0][0], torch.ones_like(seen[0][0]))
    torch.testing.assert_close(seen[0][1], torch.full_like(seen[0][1], 0.2))


def test_vectors_are_not_scaled():
    network = QNetwork(TorsoSpec("mlp", (3,)), 2, generator=generator())
    obs = torch.tensor([[255.0, -3.0, 0.5]])
    layers = network.torso.layers

    expected = network.head(layers(obs))

    assert torch.equal(network(obs).scores, expected)


def test_features_are_the_last_hidden_layer_after_its_relu():
    network = small_net()

    scores, features = network(images())

    assert features.shape == (2, network.torso.num_features)
    assert float(features.detach().min()) == 0.0  # some unit is off, none is negative
    assert torch.equal(
        scores, nn.functional.linear(features, network.head.weight, network.head.bias)
    )


@pytest.mark.parametrize("norm", ["none", "dense", "all"])
def test_bfloat16_torso_is_near_float32_and_its_output_layer_is_exact(norm):
    network = small_net(norm)
    exact = network(images(4))
    network.torso.precision = torch.bfloat16
    seen = []
    network.torso.layers[0].register_forward_hook(lambda _m, _i, output: seen.append(output.dtype))
    rough = network(images(4))

    assert seen == [torch.bfloat16]
    assert rough.scores.dtype == rough.features.dtype == torch.float32
    assert not torch.equal(rough.features, exact.features)
    scale = float(exact.features.detach().abs().max())
    torch.testing.assert_close(rough.features, exact.features, atol=0.03 * scale, rtol=0.0)
    # The head sees rounded features, but multiplies them in float32.
    head = network.head
    assert torch.equal(rough.scores, nn.functional.linear(rough.features, head.weight, head.bias))


def test_close_values_stay_apart_under_bfloat16():
    network = small_net(outputs=3)
    network.torso.precision = torch.bfloat16
    values = torch.tensor([8.98, 9.0, 9.02])
    assert len(set(values.bfloat16().tolist())) == 1
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(values)

    assert torch.equal(network(images(1)).scores[0], values)


def test_gradients_reach_every_parameter_in_bfloat16():
    network = small_net("all")
    network.torso.precision = torch.bfloat16
    network(images()).scores.square().sum().backward()

    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert bool(parameter.grad.abs().sum() > 0), name


# Initial weights


def test_weights_are_uniform_within_the_fan_in_bound():
    for layer in small_net(width=0.5).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            assert float(layer.weight.detach().abs().max()) <= bound
            assert float(layer.bias.detach().abs().max()) <= bound
            # A uniform variable has this standard deviation; the smallest layer has 1,536 weights.
            deviation = float(layer.weight.detach().std()) * math.sqrt(3.0) / bound
            assert deviation == pytest.approx(1.0, abs=0.06)


def test_weights_follow_the_generator_and_leave_the_global_one_alone():
    before = torch.random.get_rng_state()
    spec = TorsoSpec("mlp", (4,), norm="all")
    first, same, other = (QNetwork(spec, 3, generator=generator(seed)) for seed in (1, 1, 2))
    Student(spec, {"cart": CART}, generator=generator())
    build_regressor("hidden", 8, 4, generator=generator())

    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [network.torso.layers[0].weight for network in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_one_generator_gives_different_networks_in_turn():
    rng = generator()
    first, second = (QNetwork(TorsoSpec("mlp", (4,)), 3, generator=rng) for _ in range(2))

    assert not torch.equal(first.head.weight, second.head.weight)


def test_a_layer_without_defined_initial_weights_is_refused():
    with pytest.raises(TypeError, match="Conv1d"):
        initialise(nn.Sequential(nn.Conv1d(1, 1, 1)), generator())


# Round trips and refusals


@pytest.mark.parametrize("norm", ["none", "dense", "all"])
def test_a_network_survives_json(norm):
    network = small_net(norm)
    data = json.loads(json.dumps(network.to_json()))

    again = QNetwork.from_json(data)
    again.load_state_dict(network.state_dict(), assign=True)

    assert again.torso.spec == network.torso.spec
    assert again.num_outputs == 6
    assert torch.equal(again(images()).scores, network(images()).scores)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TorsoSpec("natur", STACK), r"unknown network 'natur'.*did you mean 'nature'"),
        (TorsoSpec("nature", STACK, norm="al"), r"unknown norm 'al'.*none, dense, all"),
        (TorsoSpec("nature", STACK, width=0.0), r"width must be positive and finite, got 0"),
        (TorsoSpec("nature", STACK, width=math.inf), r"width .* got inf"),
        (TorsoSpec("nature", STACK, width=math.nan), r"width .* got nan"),
        (TorsoSpec("nature", (4,)), r"'nature' reads images.*\(4,\)"),
        (TorsoSpec("mlp", (4,), centred=True), r"only images have a background"),
        (TorsoSpec("mlp", STACK), r"'mlp' reads vectors.*\(4, 84, 84\)"),
        (TorsoSpec("mlp", (2, 3)), r"'mlp' reads vectors"),
        (TorsoSpec("mlp", ()), r"impossible shape"),
        (TorsoSpec("mlp", (0,)), r"impossible shape"),
        (TorsoSpec("nature", (4, 20, 20)), r"20 x 20 are too small for the network 'nature'"),
    ],
)
def test_what_cannot_be_built_is_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        QNetwork(spec, 3, generator=generator())


# Regressors


def test_regressor_kinds():
    linear = build_regressor("linear", 8, 5, generator=generator())
    hidden = build_regressor("hidden", 8, 5, generator=generator())
    identity = build_regressor("identity", 8, 8, generator=generator())
    features = torch.rand(3, 8, generator=generator())

    assert count(linear) == 8 * 5 + 5
    assert count(hidden) == (8 * HIDDEN_UNITS + HIDDEN_UNITS) + (HIDDEN_UNITS * 5 + 5)
    assert count(identity) == 0
    assert identity(features) is features
    assert linear(features).shape == hidden(features).shape == (3, 5)
    assert float(linear(-10 * features).detach().min()) < 0  # nothing after the projection


def test_regressor_refusals():
    with pytest.raises(ConfigError, match="student has 8 features and the teacher 5"):
        build_regressor("identity", 8, 5, generator=generator())
    with pytest.raises(ConfigError, match=r"unknown regressor 'liner'.*did you mean 'linear'"):
        build_regressor("liner", 8, 5, generator=generator())


# Student


def make_student() -> Student:
    spec = TorsoSpec("mlp", (4,), width=0.25)
    tasks = {"pong": PONG, "gym:CartPole-v1": CART}
    return Student(spec, tasks, generator=generator())


def test_student_has_one_output_per_meaning():
    student = make_student()

    assert student.alphabet == ATARI_ALPHABET + CART
    assert student(torch.zeros(2, 4)).scores.shape == (2, 20)
    assert all(
        name.startswith(("network.torso.", "network.head.")) for name in student.state_dict()
    )


def test_student_reads_a_task_in_its_own_order_and_never_acts_illegally():
    student = make_student()
    scores = torch.arange(20.0)[None]
    order = [ATARI_ALPHABET.index(name) for name in PONG]

    assert student.task_scores("pong", scores).tolist() == [[float(slot) for slot in order]]
    assert student.task_scores("gym:CartPole-v1", scores).tolist() == [[18.0, 19.0]]

    head = student.network.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[ATARI_ALPHABET.index("UP")] = 100.0  # not an action of Pong
        head.bias[ATARI_ALPHABET.index("LEFT")] = 1.0
    assert student.act("pong", torch.zeros(3, 4)).tolist() == [PONG.index("LEFT")] * 3


def test_student_survives_json():
    student = make_student()
    again = Student.from_json(json.loads(json.dumps(student.to_json())))
    again.load_state_dict(student.state_dict(), assign=True)
    obs = torch.rand(5, 4, generator=generator())

    assert again.task_actions == student.task_actions
    assert again.action_maps == student.action_maps
    assert torch.equal(again(obs).scores, student(obs).scores)


def test_student_names_what_it_plays():
    with pytest.raises(UsageError, match=r"does not play 'pnog'.*pong.*did you mean 'pong'"):
        make_student().act("pnog", torch.zeros(1, 4))


# CUDA


@needs_cuda
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_cuda_agrees_with_the_cpu(precision):
    network = small_net("all")
    expected = network(images(8))
    network.to("cuda").torso.precision = precision
    output = network(images(8).to("cuda"))

    assert output.scores.dtype == output.features.dtype == torch.float32
    scale = float(expected.features.detach().abs().max())
    tolerance = 0.03 if precision == torch.bfloat16 else 2e-3
    torch.testing.assert_close(
        output.features.cpu(), expected.features, atol=tolerance * scale, rtol=0.0
    )


@needs_cuda
def test_initial_weights_do_not_depend_on_the_device():
    network = small_net().to("cuda")

    assert torch.equal(network.head.weight.cpu(), small_net().head.weight)
