"""Labels of several teachers, made by several threads."""

import threading

import torch

from actor_mimic.compute import Workers
from actor_mimic.networks.q_network import Output
from actor_mimic.teachers.teacher import Teacher, label_all


def teacher(number: int, asked: list[tuple[int, str]], *, thread_safe: bool = True) -> Teacher:
    """Row x is scored (x, number) and has the features (2 x,)."""

    def network(obs: torch.Tensor) -> Output:
        asked.append((len(obs), threading.current_thread().name))
        return Output(torch.cat([obs, torch.full_like(obs, number)], dim=1), 2 * obs)

    return Teacher("task", ("A", "B"), (1,), 1, "", network, "cpu", thread_safe=thread_safe)


def test_each_row_is_labelled_once_by_its_own_teacher_and_in_its_place():
    asked: list[tuple[int, str]] = []
    observations = [torch.arange(size).float()[:, None] + 100 * size for size in (5, 20, 7)]

    labels = label_all([teacher(number, asked) for number in range(3)], observations, Workers(2))

    # Two workers would have 16 rows each, so the second teacher is asked twice.
    assert sorted(rows for rows, _ in asked) == [5, 7, 10, 10]
    for number, (output, obs) in enumerate(zip(labels, observations, strict=True)):
        assert torch.equal(output.scores[:, 0], obs[:, 0])
        assert torch.equal(output.scores[:, 1], torch.full((len(obs),), float(number)))
        assert torch.equal(output.features, 2 * obs)


def test_a_teacher_that_bears_one_thread_only_is_asked_by_the_caller_for_all_rows():
    asked: list[tuple[int, str]] = []
    observations = [torch.zeros(20, 1), torch.ones(20, 1)]

    label_all([teacher(0, asked), teacher(1, asked, thread_safe=False)], observations, Workers(2))

    assert asked == [(20, threading.current_thread().name)] * 2
