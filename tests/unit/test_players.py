"""Networks as policies: one look for several tasks says what looks at each alone say."""

import pytest
import torch
from torch import Tensor

from actor_mimic.compute import Workers, cut
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import HEADS, Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.seeding import torch_generator
from actor_mimic.stages.players import live_player, play_together, player_of
from actor_mimic.teachers.teacher import Teacher

TASKS = {"a": ("NOOP", "UP"), "b": ("NOOP", "LEFT", "RIGHT"), "c": ("UP", "DOWN")}


def images(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 4, 84, 84), dtype=torch.uint8, generator=generator)


def made_student(head: str) -> Student:
    spec = TorsoSpec("nature", (4, 84, 84), 0.125, centred=True)
    student = Student(spec, TASKS, head=head, generator=torch_generator(0, "test"))
    assert student.backgrounds is not None
    student.backgrounds[:] = torch.rand(student.backgrounds.shape)  # each task its own
    return student


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "rows", [{"a": 3, "b": 20, "c": 9}, {"c": 16, "a": 1}, {"b": 2}, {"b": 0, "c": 30}]
)
@torch.no_grad()
def test_a_student_sees_all_its_tasks_in_one_look(head, rows):
    student = made_student(head)
    obs = {task: images(count, seed) for seed, (task, count) in enumerate(rows.items())}
    looks = []
    hook = student.network.torso.register_forward_hook(lambda *_: looks.append(1))
    outputs = play_together(student, obs, Workers(2))
    hook.remove()

    assert len(looks) == (2 if sum(rows.values()) >= 16 else 1)  # a worker has 8 rows at least
    assert outputs.keys() == rows.keys()
    for task, count in rows.items():
        alone = student.play(task, obs[task])
        assert outputs[task].scores.shape == (count, len(TASKS[task]))
        torch.testing.assert_close(outputs[task].scores, alone.scores)
        torch.testing.assert_close(outputs[task].features, alone.features)
    acted = live_player(student, Workers(2))(obs)
    expected = {task: student.act(task, own).tolist() for task, own in obs.items()}
    assert {task: actions.tolist() for task, actions in acted.items()} == expected
    assert len({tuple(actions) for actions in expected.values()}) == len(rows)


def test_teachers_answer_for_their_own_tasks():
    teachers = [
        Teacher(task, names, (4,), 8, task * 64, network, "cpu")
        for seed, (task, names) in enumerate(TASKS.items())
        for network in [
            QNetwork(TorsoSpec("mlp", (4,)), len(names), generator=torch_generator(seed, "test"))
        ]
    ]
    obs = {"c": torch.randn(30, 4), "a": torch.randn(5, 4)}

    acted = player_of(teachers, Workers(2))(obs)

    assert list(acted) == ["c", "a"]
    for teacher in teachers:
        if teacher.task in obs:
            expected = teacher.act(obs[teacher.task])
            assert acted[teacher.task].tolist() == expected.tolist()
    assert set(acted["c"].tolist()) == {0, 1}


def test_a_network_of_one_task_plays_under_any_name():
    network = QNetwork(TorsoSpec("mlp", (4,)), 3, generator=torch_generator(0, "test"))
    obs = torch.randn(40, 4)

    acted = live_player(network, Workers(2))({"x": obs})

    assert acted["x"].tolist() == network(obs).scores.argmax(dim=1).tolist()


def test_rows_are_counted_through_all_inputs():
    inputs = [range(3), range(10, 10), range(20, 25)]

    assert cut(inputs, slice(0, 8)) == inputs
    assert cut(inputs, slice(2, 5)) == [range(2, 3), range(10, 10), range(20, 22)]
    assert cut(inputs, slice(4, 8)) == [range(3, 3), range(10, 10), range(21, 25)]
