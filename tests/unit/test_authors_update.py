"""What the authors' code does with a minibatch, recomputed by hand in float64."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actor_mimic.compute import Workers
from actor_mimic.config import DistillConfig
from actor_mimic.flat_config import build_config
from actor_mimic.learners.gradient_step import optimizer_tensors
from actor_mimic.learners.mimic import MimicLearner, Objective, TaskBatch
from actor_mimic.learners.optimizers import AuthorsAdam
from actor_mimic.networks.regressors import build_regressor
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.configured import student_optimizer

TASKS = {"left": ("NOOP", "FIRE", "LEFT"), "up": ("NOOP", "UP")}
EXAMPLES, INPUTS, TEACHER_FEATURES = 8, 4, 5

RECORDED = Path(__file__).with_name("authors_minibatch.json")

Weights = dict[str, np.ndarray]


def preset() -> DistillConfig:
    config = build_config("distill", {"tasks": list(TASKS), "preset": "authors-code"})
    assert isinstance(config, DistillConfig)
    return config


def make_learner() -> MimicLearner:
    """As the stage makes it from the preset, around two hidden layers of 4 units."""
    config = preset()
    rng = torch.Generator().manual_seed(3)
    student = Student(TorsoSpec("mlp", (INPUTS,), width=1 / 32), TASKS, generator=rng)
    regressors = nn.ModuleList(
        build_regressor("linear", 4, TEACHER_FEATURES, generator=rng) for _ in TASKS
    )
    return MimicLearner(
        student,
        regressors,
        student_optimizer(config, [*student.parameters(), *regressors.parameters()]),
        objective=Objective(
            config.objective,
            (config.temperature,) * 2,
            config.feature_weight,
            config.feature_target,
            config.reduction == "sum",
        ),
        max_gradient_norm=config.max_gradient_norm,
        workers=Workers(),
    )


def minibatch(learner: MimicLearner, seed: int) -> list[TaskBatch]:
    rng = torch.Generator().manual_seed(seed)
    return [
        TaskBatch(
            torch.randn(EXAMPLES, INPUTS, generator=rng),
            action_map.scatter(torch.randn(EXAMPLES, len(action_map.slots), generator=rng)),
            torch.rand(EXAMPLES, TEACHER_FEATURES, generator=rng).half(),
        )
        for action_map in learner.student.action_maps.values()
    ]


def numbers(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


def weights_of(learner: MimicLearner) -> Weights:
    named = {
        **dict(learner.student.named_parameters()),
        **dict(learner.regressors.named_parameters(prefix="regressors")),
    }
    return {name: numbers(value) for name, value in named.items()}


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def summed_gradient(weights: Weights, batches: list[TaskBatch], slots: list[list[int]]) -> Weights:
    """Of cross-entropy, and of 0.01 times half the squared feature error; summed, no mean."""
    total = {name: np.zeros_like(value) for name, value in weights.items()}
    torso, head = "network.torso.layers.{}.{}", "network.head.{}"
    w1, b1, w2, b2 = (weights[torso.format(i, n)] for i in (0, 2) for n in ("weight", "bias"))
    w3, b3 = (weights[head.format(n)] for n in ("weight", "bias"))
    for task, batch in enumerate(batches):
        regressor, bias = (weights[f"regressors.{task}.{n}"] for n in ("weight", "bias"))
        for x, scores, target in zip(
            numbers(batch.obs),
            numbers(batch.teacher_scores),
            numbers(batch.teacher_features),
            strict=True,
        ):
            h1 = np.maximum(w1 @ x + b1, 0.0)
            h2 = np.maximum(w2 @ h1 + b2, 0.0)
            logits = w3 @ h2 + b3
            d_logits = np.zeros_like(logits)
            # The temperature, 1, divides the expert's values only.
            legal = slots[task]
            d_logits[legal] = softmax(logits[legal]) - softmax(scores[legal] / 1.0)
            d_features = 0.01 * (regressor @ h2 + bias - target)
            d_h2 = (w3.T @ d_logits + regressor.T @ d_features) * (h2 > 0)
            d_h1 = (w2.T @ d_h2) * (h1 > 0)
            for name, delta, inputs in (
                (torso.format(0, "{}"), d_h1, x),
                (torso.format(2, "{}"), d_h2, h1),
                (head, d_logits, h2),
                (f"regressors.{task}.{{}}", d_features, h2),
            ):
                total[name.format("weight")] += np.outer(delta, inputs)
                total[name.format("bias")] += delta
    return total


def test_the_update_of_the_authors_code_on_minibatches():
    learner = make_learner()
    slots = [list(action_map.slots) for action_map in learner.student.action_maps.values()]
    weights = weights_of(learner)
    means = {name: np.zeros_like(value) for name, value in weights.items()}
    squares = {name: np.zeros_like(value) for name, value in weights.items()}
    # Their step: lr sqrt(1 - beta2) / (1 - beta1), the same at every update.
    length = 2.5e-4 * math.sqrt(1 - 0.95) / (1 - 0.95)
    assert length == pytest.approx(0.001118, rel=1e-3)
    for seed in range(5):
        batches = minibatch(learner, seed)
        for name, gradient in summed_gradient(weights, batches, slots).items():
            means[name] = 0.95 * means[name] + 0.05 * gradient
            squares[name] = 0.95 * squares[name] + 0.05 * gradient**2
            weights[name] = weights[name] - length * means[name] / np.sqrt(squares[name] + 0.01)
        learner.update(batches)
        for name, value in weights_of(learner).items():
            np.testing.assert_allclose(value, weights[name], atol=1e-6, rtol=0.0, err_msg=name)


def record() -> None:
    """Writes one minibatch, the weights before it, and by hand those after it."""
    learner = make_learner()
    slots = [list(action_map.slots) for action_map in learner.student.action_maps.values()]
    weights, batches = weights_of(learner), minibatch(learner, seed=0)
    found = {
        "weights": {name: value.tolist() for name, value in weights.items()},
        "batches": [
            {f.name: numbers(getattr(batch, f.name)).tolist() for f in dataclasses.fields(batch)}
            for batch in batches
        ],
        "after": {n: v.tolist() for n, v in stepped(weights, batches, slots).items()},
    }
    RECORDED.write_text(json.dumps(found) + "\n")


def stepped(weights: Weights, batches: list[TaskBatch], slots: list[list[int]]) -> Weights:
    """After the first update: both averages begin at zero, and no bias is corrected."""
    length = 2.5e-4 * math.sqrt(1 - 0.95) / (1 - 0.95)
    gradients = summed_gradient(weights, batches, slots)
    return {
        name: value - length * 0.05 * gradients[name] / np.sqrt(0.05 * gradients[name] ** 2 + 0.01)
        for name, value in weights.items()
    }


def test_the_update_on_a_recorded_minibatch():
    """Numbers that no generator of today's can change; `python tests/unit/test_authors_update.py`
    wrote them."""
    recorded = json.loads(RECORDED.read_text())
    learner = make_learner()
    named = {
        **dict(learner.student.named_parameters()),
        **dict(learner.regressors.named_parameters(prefix="regressors")),
    }
    assert named.keys() == recorded["weights"].keys()
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(torch.tensor(recorded["weights"][name]))
    batches = [
        TaskBatch(
            torch.tensor(batch["obs"]),
            torch.tensor(batch["teacher_scores"]),
            torch.tensor(batch["teacher_features"]).half(),
        )
        for batch in recorded["batches"]
    ]
    slots = [list(action_map.slots) for action_map in learner.student.action_maps.values()]
    by_hand = stepped(weights_of(learner), batches, slots)
    learner.update(batches)

    for name, value in weights_of(learner).items():
        after = np.array(recorded["after"][name])
        np.testing.assert_allclose(by_hand[name], after, atol=1e-12, rtol=0.0, err_msg=name)
        np.testing.assert_allclose(value, after, atol=1e-6, rtol=0.0, err_msg=name)
        assert (value != np.array(recorded["weights"][name])).any(), name


def test_two_steps_of_their_adam_by_hand():
    parameter = nn.Parameter(torch.tensor([0.0]))
    optimizer = AuthorsAdam([parameter], learning_rate=0.5, decay=0.75, epsilon=0.25)
    # c = sqrt(0.25) / 0.25 = 2. Means 0.25 x 2 = 0.5, then 0.375 + 0.25 = 0.625;
    # squares 0.25 x 4 = 1, then 0.75 + 0.25 = 1.
    where = 0.0
    for gradient, mean, square in [(2.0, 0.5, 1.0), (1.0, 0.625, 1.0)]:
        parameter.grad = torch.tensor([gradient])
        optimizer.step()
        where -= 0.5 * 2.0 * mean / math.sqrt(square + 0.25)
        assert parameter.item() == pytest.approx(where, abs=1e-6)
    assert sorted(optimizer_tensors(optimizer)) == ["0.mean", "0.mean_square"]


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0.0}, {"decay": 1.0}, {"decay": -0.1}, {"epsilon": 0.0}]
)
def test_what_their_adam_cannot_work_with_is_refused(wrong):
    with pytest.raises(ValueError, match="learning_rate > 0"):
        AuthorsAdam([nn.Parameter(torch.zeros(1))], **({"learning_rate": 0.1} | wrong))


def test_sum_and_mean_differ_by_the_number_of_examples_and_weights_by_task():
    losses, gradients = {}, {}
    for summed in (False, True):
        learner = make_learner()
        learner.objective = Objective("cross_entropy", (1.0, 1.0), 0.01, summed=summed)
        losses[summed] = learner.update(minibatch(learner, 0))["loss"].item()
        gradients[summed] = [p.grad.clone() for p in learner.student.network.head.parameters()]
    assert losses[True] == pytest.approx(2 * EXAMPLES * losses[False], rel=1e-5)
    for mean, total in zip(gradients[False], gradients[True], strict=True):
        torch.testing.assert_close(total, 2 * EXAMPLES * mean, atol=1e-6, rtol=1e-5)

    learner = make_learner()
    learner.objective = Objective("cross_entropy", (1.0, 1.0), 0.01)
    learner.weigh([0.5, 1.5])
    metrics = {name: value.item() for name, value in learner.update(minibatch(learner, 0)).items()}
    each = [metrics[f"{t}/policy_loss"] + 0.01 * metrics[f"{t}/feature_loss"] for t in TASKS]
    assert metrics["loss"] == pytest.approx((0.5 * each[0] + 1.5 * each[1]) / 2, rel=1e-5)


@pytest.mark.parametrize("policy", ["kl", "nll", "mse"])
def test_every_objective_brings_the_student_to_its_teachers(policy):
    learner = make_learner()
    learner.objective = Objective(policy, (0.1, 0.2), 0.01, "normalised")
    learner.optimizer = torch.optim.Adam(
        [*learner.student.parameters(), *learner.regressors.parameters()], lr=0.01
    )
    batches = minibatch(learner, 0)
    first = learner.update(batches)
    for _ in range(150):
        last = learner.update(batches)
    for task in TASKS:
        assert last[f"{task}/policy_loss"] < 0.95 * first[f"{task}/policy_loss"]
        assert last[f"{task}/divergence"] < first[f"{task}/divergence"]


def test_weights_are_part_of_the_state():
    learner, again = make_learner(), make_learner()
    learner.weigh([0.5, 1.5])
    again.load_state_dict(*learner.state_dict())
    assert again.weights == (0.5, 1.5)
    with pytest.raises(ValueError, match="2 weights"):
        learner.weigh([1.0])


def test_objectives_that_cannot_be_are_refused():
    for wrong in (("l2", (1.0,), 0.0), ("kl", (0.0,), 0.0), ("kl", (math.inf,), 0.0)):
        with pytest.raises(ValueError, match=r"unknown|positive"):
            Objective(*wrong)
    with pytest.raises(ValueError, match="unknown"):
        Objective("kl", (1.0,), 0.0, "scaled")
    learner = make_learner()
    with pytest.raises(ValueError, match="temperature for each"):
        MimicLearner(
            learner.student,
            learner.regressors,
            learner.optimizer,
            objective=Objective("kl", (1.0,), 0.0),
            max_gradient_norm=0.0,
            workers=Workers(),
        )


if __name__ == "__main__":
    record()
