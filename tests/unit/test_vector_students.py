"""Students of tasks with different shapes, heads per task, and the residual torso."""

import json

import pytest
import torch
from torch import Tensor, nn

from actor_mimic.compute import Compute
from actor_mimic.errors import ConfigError, UsageError
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import Residual, Torso, TorsoSpec

TASKS = {"cart": ("cart/0", "cart/1"), "bot": ("bot/0", "bot/1", "bot/2")}
LENGTHS = {"cart": 4, "bot": 6}
SHARED = {"pong": ("NOOP", "FIRE", "RIGHT"), "boxing": ("NOOP", "UP", "RIGHT")}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made(**changes: object) -> Student:
    given = {"task_actions": TASKS, "vectors": tuple(LENGTHS.values()), "generator": generator()}
    return Student(TorsoSpec("mlp", (4,), width=0.5, norm="all"), **(given | changes))


def observed(task: str, batch: int = 5) -> Tensor:
    return torch.randn(batch, LENGTHS[task], generator=generator(3))


def test_each_task_has_an_encoder_in_front_of_one_torso():
    student = made()
    for index, (task, names) in enumerate(TASKS.items()):
        obs = observed(task)
        output = student.play(task, obs)
        by_hand = student.network.torso(student.encoders[index](obs))

        assert student.obs_shape(task) == (LENGTHS[task],)
        assert student.encode(task, obs).shape == (5, 32)
        assert torch.equal(output.features, by_hand)
        assert output.scores.shape == (5, len(names))
        assert torch.equal(student.act(task, obs), output.scores.argmax(dim=1))


def test_tasks_can_be_put_into_one_batch_after_their_encoders():
    student = made()
    inputs = [student.encode(task, observed(task)) for task in TASKS]

    together = student(torch.cat(inputs)).scores

    for task, part in zip(TASKS, together.split(5), strict=True):
        alone = student.play(task, observed(task)).scores
        torch.testing.assert_close(student.task_scores(task, part), alone)


def test_gradients_reach_the_tasks_own_encoder_only():
    student = made()
    student.play("bot", observed("bot")).scores.sum().backward()
    cart, bot = student.encoders

    assert all(parameter.grad is None for parameter in cart.parameters())
    assert all(parameter.grad is not None for parameter in bot.parameters())


def test_encoders_change_no_weights_of_other_students():
    """Their weights are drawn last, and a student without them has none."""
    plain = Student(TorsoSpec("mlp", (4,), width=0.5), TASKS, generator=generator())

    assert not plain.encoders
    assert plain.state_dict().keys() == {f"network.{name}" for name in plain.network.state_dict()}
    obs = torch.randn(3, 4)
    assert plain.encode("cart", obs) is obs


def test_a_student_with_encoders_is_described_and_built_again():
    student = made(head="per_task", scores_are_logits=False)
    again = Student.from_json(json.loads(json.dumps(student.to_json())))
    again.load_state_dict(student.state_dict(), assign=True)

    assert (again.head, again.scores_are_logits) == ("per_task", False)
    assert again.alphabet == student.alphabet
    for task in TASKS:
        obs = observed(task)
        assert torch.equal(again.play(task, obs).scores, student.play(task, obs).scores)


def test_descriptions_from_before_there_were_choices_still_serve():
    student = Student(TorsoSpec("mlp", (4,)), TASKS, generator=generator())
    old = {name: student.to_json()[name] for name in ("torso", "task_actions")}

    again = Student.from_json(old)

    assert again.to_json() == student.to_json()
    assert again.scores_are_logits


def test_images_cannot_have_encoders_of_vectors():
    with pytest.raises(ConfigError, match="reads images"):
        Student(TorsoSpec("nature", (4, 84, 84)), TASKS, generator=generator(), vectors=(4, 6))


def test_shared_heads_share_actions_by_name_and_heads_per_task_do_not():
    spec = TorsoSpec("mlp", (4,))
    shared = Student(spec, SHARED, generator=generator())
    apart = Student(spec, SHARED, generator=generator(), head="per_task")

    def slots(student: Student, task: str) -> set[int]:
        return set(student.action_maps[task].slots)

    assert len(shared.alphabet) == 18
    assert len(slots(shared, "pong") & slots(shared, "boxing")) == 2
    assert len(apart.alphabet) == 6
    assert slots(apart, "pong") | slots(apart, "boxing") == set(range(6))
    assert not slots(apart, "pong") & slots(apart, "boxing")
    assert apart.play("boxing", torch.randn(2, 4)).scores.shape == (2, 3)
    # The actions keep the names that the task gives them.
    assert apart.task_actions == shared.task_actions


def test_unknown_heads_and_tasks_are_refused():
    with pytest.raises(ConfigError, match="unknown head"):
        made(head="fresh")
    for ask in (made().encode, made().play):
        with pytest.raises(UsageError, match=r"does not play 'card'.*did you mean 'cart'"):
            ask("card", observed("cart"))


# The residual torso


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_impala_has_fifteen_convolutions_of_the_published_widths():
    torso = Torso(TorsoSpec("impala", (4, 84, 84)))
    convolutions = [m for m in torso.modules() if isinstance(m, nn.Conv2d)]

    assert [layer.out_channels for layer in convolutions] == [16] * 5 + [32] * 10
    assert all(layer.kernel_size == (3, 3) for layer in convolutions)
    # 84, 42, 21, 11: the last maps of 32 x 11 x 11 go into 256 units.
    first = 9 * 4 * 16 + 16 + 4 * (9 * 16 * 16 + 16)
    second = 9 * 16 * 32 + 32 + 4 * (9 * 32 * 32 + 32)
    third = 5 * (9 * 32 * 32 + 32)
    assert count(torso) == first + second + third + 32 * 11 * 11 * 256 + 256


@pytest.mark.parametrize("norm", ["none", "dense", "all"])
def test_impala_plays_images_of_any_width_and_norm(norm):
    network = QNetwork(TorsoSpec("impala", (4, 84, 84), 0.25, norm), 6, generator=generator())
    obs = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8, generator=generator(1))

    output = network(obs)

    assert output.features.shape == (2, 64)
    assert bool((output.features >= 0.0).all())
    assert bool(torch.isfinite(output.scores).all())
    normalised = any(isinstance(module, nn.GroupNorm) for module in network.modules())
    assert normalised == (norm == "all")


def test_a_residual_block_without_weights_passes_its_maps_on():
    block = Residual(4, "none")
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
    maps = torch.randn(2, 4, 5, 5)

    assert torch.equal(block(maps), maps)


@pytest.mark.parametrize("head", ["shared", "per_task"])
def test_tasks_keep_their_order_where_objects_lose_theirs(head: str) -> None:
    """Manifests are written with their keys sorted; outputs and encoders are numbered."""
    student = made(head=head)
    assert list(TASKS) != sorted(TASKS)
    again = Student.from_json(json.loads(json.dumps(student.to_json(), sort_keys=True)))
    again.load_state_dict(student.state_dict(), assign=True)

    for task in TASKS:
        obs = observed(task)
        assert torch.equal(again.play(task, obs).scores, student.play(task, obs).scores)


PICTURES = TorsoSpec("nature", (4, 84, 84), width=0.125, norm="all")


def pictures(batch: int) -> Tensor:
    size = (batch, 4, 84, 84)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator(5))


@pytest.mark.parametrize("head", ["shared", "per_task", "branched"])
def test_all_tasks_at_once_are_each_task_alone(head):
    student = Student(PICTURES, SHARED, generator=generator(), head=head)
    obs = [pictures(3), pictures(5)[1:]]

    together = student.play_all(obs)

    for task, part, output in zip(SHARED, obs, together, strict=True):
        alone = student.play(task, part)
        assert output.scores.shape == (len(part), 3)
        assert output.features.shape == (len(part), student.num_features)
        torch.testing.assert_close(output.scores, alone.scores, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(output.features, alone.features, rtol=1e-4, atol=1e-5)
        assert torch.equal(student.act(task, part), alone.scores.argmax(dim=1))


def test_a_branch_is_what_a_network_of_its_own_would_be():
    """With its convolutions, its hidden layers and its outputs put into a `QNetwork`."""
    student = Student(PICTURES, SHARED, generator=generator(), head="branched")
    own = student.network
    for number, task in enumerate(SHARED):
        network = QNetwork(PICTURES, 3, generator=generator(1))
        depth = len(own.torso.layers)
        for index, layer in enumerate(network.torso.layers):
            source = own.torso.layers if index < depth else own.hidden[number].layers
            layer.load_state_dict(source[index if index < depth else index - depth].state_dict())
        network.head.load_state_dict(own.heads[number].state_dict())

        played, alone = student.play(task, pictures(3)), network(pictures(3))
        assert torch.equal(played.scores, alone.scores)
        assert torch.equal(played.features, alone.features)


def test_branches_start_differently_survive_json_and_run_in_bfloat16():
    student = Student(PICTURES, SHARED, generator=generator(), head="branched")
    first, second = (branch.layers[0].weight for branch in student.network.hidden)
    assert not torch.equal(first, second)

    again = Student.from_json(json.loads(json.dumps(student.to_json(), sort_keys=True)))
    again.load_state_dict(student.state_dict(), assign=True)
    assert torch.equal(again.act("boxing", pictures(4)), student.act("boxing", pictures(4)))

    Compute("cpu", "bfloat16", 1).place(again)
    seen = []
    again.network.hidden[1].layers[0].register_forward_hook(lambda _m, _i, o: seen.append(o.dtype))
    output = again.play("boxing", pictures(2))
    assert seen == [torch.bfloat16]
    assert output.scores.dtype == output.features.dtype == torch.float32
    with pytest.raises(UsageError, match="does not play 'breakout'"):
        again.play("breakout", pictures(1))


def test_vectors_have_no_convolutions_to_share():
    with pytest.raises(ConfigError, match="'mlp' has no convolutions"):
        made(head="branched")
