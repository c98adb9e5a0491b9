"""Distillation: the objective by hand, what gets a gradient, and two teachers that fit."""

import math

import pytest
import torch
from torch import Tensor, nn

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.compute import LEAST_ROWS, Workers
from actor_mimic.errors import DivergenceError
from actor_mimic.learners.mimic import MimicLearner, Objective, TaskBatch
from actor_mimic.losses import (
    agreement,
    feature_regression_loss,
    policy_divergence,
    policy_regression_loss,
)
from actor_mimic.networks.regressors import build_regressor
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.objectives import OBJECTIVES, best_action_loss, score_regression_loss

ATARI = {"left": ("NOOP", "FIRE", "LEFT"), "up": ("NOOP", "UP")}
NOOP, FIRE, UP, LEFT = (ATARI_ALPHABET.index(name) for name in ("NOOP", "FIRE", "UP", "LEFT"))
TEACHER_FEATURES = 5


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_learner(
    *,
    tasks: dict[str, tuple[str, ...]] | None = None,
    feature_weight: float = 0.5,
    temperature: float = 1.0,
    optimizer: str = "sgd",
    device: str = "cpu",
    workers: int = 1,
) -> MimicLearner:
    spec = TorsoSpec("mlp", (4,), width=0.25)
    student = Student(spec, tasks or ATARI, generator=generator(1)).to(device)
    width = student.network.torso.num_features
    regressors = nn.ModuleList(
        build_regressor("linear", width, TEACHER_FEATURES, generator=generator(seed))
        for seed, _ in enumerate(student.action_maps, start=2)
    ).to(device)
    parameters = [*student.parameters(), *regressors.parameters()]
    return MimicLearner(
        student,
        regressors,
        torch.optim.Adam(parameters, lr=0.01)
        if optimizer == "adam"
        else torch.optim.SGD(parameters, lr=0.1),
        objective=Objective(
            "cross_entropy", (temperature,) * len(student.action_maps), feature_weight
        ),
        max_gradient_norm=1e6,
        workers=Workers(workers),
    )


def random_batches(learner: MimicLearner, size: int = 6, seed: int = 9) -> list[TaskBatch]:
    """Illegal slots hold what a replay may hold: anything."""
    rng = generator(seed)
    batches = []
    for action_map in learner.student.action_maps.values():
        scores = torch.randn(size, action_map.alphabet_size, generator=rng)
        scores[:, ~action_map.legal()] = math.nan
        batches.append(
            TaskBatch(
                obs=torch.randn(size, 4, generator=rng),
                teacher_scores=scores,
                teacher_features=torch.rand(size, TEACHER_FEATURES, generator=rng).half(),
            )
        )
    return batches


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def set_constant(layer: nn.Linear, values: dict[int, float]) -> None:
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        for row, value in values.items():
            layer.bias[row] = value


def hand_made() -> tuple[MimicLearner, list[TaskBatch]]:
    """Logits 0 (NOOP), log 3 (UP), 0 (FIRE), log 2 (LEFT), whatever the observation."""
    learner = make_learner(feature_weight=0.5, temperature=2.0)
    head = learner.student.network.head
    set_constant(head, {UP: math.log(3), LEFT: math.log(2)})
    for regressor, value in zip(learner.regressors, (1.0, 3.0), strict=True):
        assert isinstance(regressor, nn.Linear)
        set_constant(regressor, dict.fromkeys(range(TEACHER_FEATURES), value))
    left, up = torch.zeros(1, 18), torch.zeros(1, 18)
    left[0, [NOOP, FIRE, LEFT]] = torch.tensor([0.0, 0.0, 2 * math.log(6)])  # (1, 1, 6) / 8
    up[0, [NOOP, UP]] = torch.tensor([2 * math.log(4), 0.0])  # (4, 1) / 5
    batches = [
        TaskBatch(torch.ones(1, 4), left, torch.full((1, TEACHER_FEATURES), 3.0)),
        TaskBatch(torch.ones(1, 4), up, torch.full((1, TEACHER_FEATURES), 2.0)),
    ]
    return learner, batches


def test_the_objective_by_hand():
    learner, batches = hand_made()
    metrics = {name: value.item() for name, value in learner.update(batches).items()}

    # Student over NOOP, FIRE, LEFT: (1, 1, 2) / 4. Over NOOP, UP: (1, 3) / 4.
    policy_left = -(2 / 8 * math.log(1 / 4) + 6 / 8 * math.log(2 / 4))
    policy_up = -(4 / 5 * math.log(1 / 4) + 1 / 5 * math.log(3 / 4))
    entropy_left = -(2 / 8 * math.log(1 / 8) + 6 / 8 * math.log(6 / 8))
    entropy_up = -(4 / 5 * math.log(4 / 5) + 1 / 5 * math.log(1 / 5))
    feature_left, feature_up = 5 * (1 - 3) ** 2, 5 * (3 - 2) ** 2
    expected = {
        "loss": (policy_left + 0.5 * feature_left + policy_up + 0.5 * feature_up) / 2,
        "left/policy_loss": policy_left,
        "up/policy_loss": policy_up,
        "left/divergence": policy_left - entropy_left,
        "up/divergence": policy_up - entropy_up,
        "left/agreement": 1.0,  # both prefer LEFT; the student's logit of UP is higher, illegally
        "up/agreement": 0.0,
        "left/feature_loss": feature_left,
        "up/feature_loss": feature_up,
    }
    assert metrics == pytest.approx(expected, abs=1e-5)
    assert learner.updates == 1


def test_gradients_by_hand():
    """Of the policy: student minus teacher, over two examples; of a feature: 2 (f - h) beta / 2."""
    learner, batches = hand_made()
    learner.update(batches)

    expected = torch.zeros(18)
    expected[[NOOP, FIRE, LEFT]] += torch.tensor([1 / 4 - 1 / 8, 1 / 4 - 1 / 8, 2 / 4 - 6 / 8]) / 2
    expected[[NOOP, UP]] += torch.tensor([1 / 4 - 4 / 5, 3 / 4 - 1 / 5]) / 2
    gradient = learner.student.network.head.bias.grad
    assert gradient is not None
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0.0)
    for regressor, value in zip(learner.regressors, (-1.0, 0.5), strict=True):
        torch.testing.assert_close(
            regressor.bias.grad, torch.full((TEACHER_FEATURES,), value), atol=1e-6, rtol=0.0
        )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("policy", OBJECTIVES)
def test_every_objective_of_every_task_on_its_own_rows(policy, workers):
    """Temperatures and weights that differ: a swap of tasks or of workers' rows would show."""
    temperatures, task_weights, size = (0.1, 2.0), (0.5, 1.5), 2 * LEAST_ROWS
    learner = make_learner(workers=workers)
    learner.objective = Objective(policy, temperatures, feature_weight=0.25)
    learner.weigh(task_weights)
    batches = random_batches(learner, size)
    parameters = [*learner.student.parameters(), *learner.regressors.parameters()]
    expected, total = {}, torch.zeros(())
    for index, (task, action_map) in enumerate(learner.student.action_maps.items()):
        batch, temperature = batches[index], temperatures[index]
        output = learner.student(batch.obs)
        logits = output.scores / (temperature if policy == "mse" else 1.0)
        legal, teacher = action_map.legal(), batch.teacher_scores
        divergence = policy_divergence(logits, teacher, legal, temperature=temperature)
        losses = {
            "cross_entropy": policy_regression_loss(
                output.scores, teacher, legal, temperature=temperature
            ),
            "kl": divergence,
            "nll": best_action_loss(output.scores, teacher, legal),
            "mse": score_regression_loss(output.scores, teacher, legal),
        }[policy]
        features = feature_regression_loss(
            learner.regressors[index](output.features), batch.teacher_features
        )
        total = total + task_weights[index] * (losses + 0.25 * features).mean() / 2
        expected |= {
            f"{task}/policy_loss": losses.mean().item(),
            f"{task}/divergence": divergence.mean().item(),
            f"{task}/feature_loss": features.mean().item(),
            f"{task}/agreement": agreement(output.scores, teacher, legal).float().mean().item(),
        }
    expected["loss"] = total.item()
    gradients = torch.autograd.grad(total, parameters)

    metrics = {name: value.item() for name, value in learner.update(batches).items()}

    assert metrics == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_slots_that_no_task_has_stay_as_they_were():
    learner = make_learner()
    head = learner.student.network.head
    legal = torch.stack([m.legal() for m in learner.student.action_maps.values()]).any(0)
    before = weights(head)

    learner.update(random_batches(learner))

    assert head.weight.grad is not None
    assert not bool(head.weight.grad[~legal].any())
    assert not bool(head.bias.grad[~legal].any())
    assert bool((head.bias.grad[legal] != 0).all())
    for old, new in zip(before, weights(head), strict=True):
        assert torch.equal(old[~legal], new[~legal])
        assert not torch.equal(old[legal], new[legal])


def test_tasks_weigh_equally_and_answer_for_their_own_examples():
    learner = make_learner(feature_weight=0.25)
    batches = random_batches(learner)
    expected = {}
    for index, task in enumerate(learner.student.action_maps):
        alone = make_learner(tasks={task: ATARI[task]}, feature_weight=0.25)
        # The same alphabet, so the same student; of the regressors, this task's.
        alone.student.load_state_dict(learner.student.state_dict())
        alone.regressors[0].load_state_dict(learner.regressors[index].state_dict())
        metrics = alone.update([batches[index]])
        expected[task] = metrics["loss"].item()
        expected |= {name: value.item() for name, value in metrics.items() if "/" in name}

    metrics = {name: value.item() for name, value in learner.update(batches).items()}

    assert metrics["loss"] == pytest.approx((expected["left"] + expected["up"]) / 2, rel=1e-5)
    for name in metrics.keys() - {"loss"}:
        assert metrics[name] == pytest.approx(expected[name], rel=1e-5), name


ONE_ACTION_EACH = {"left": ("LEFT",), "up": ("UP",)}  # then the policy loss has nothing to say


def test_feature_loss_trains_regressors_and_the_students_torso():
    learner = make_learner(tasks=ONE_ACTION_EACH)
    torso, head = learner.student.network.torso, learner.student.network.head
    before = weights(torso), weights(head), [weights(r) for r in learner.regressors]

    metrics = learner.update(random_batches(learner))

    assert metrics["left/policy_loss"].item() == 0.0
    assert equal(weights(head), before[1])
    assert not any(torch.equal(a, b) for a, b in zip(weights(torso), before[0], strict=True))
    for regressor, old in zip(learner.regressors, before[2], strict=True):
        assert not any(torch.equal(a, b) for a, b in zip(weights(regressor), old, strict=True))


def test_without_a_feature_weight_there_is_no_feature_loss():
    learner = make_learner(tasks=ONE_ACTION_EACH, feature_weight=0.0, optimizer="adam")
    before = weights(learner.student), weights(learner.regressors)
    batches = random_batches(learner)
    for batch in batches:
        batch.teacher_features.fill_(math.nan)  # not looked at

    metrics = learner.update(batches)

    assert metrics["loss"].item() == 0.0
    assert not any("feature" in name for name in metrics)
    assert equal(weights(learner.student), before[0])
    assert equal(weights(learner.regressors), before[1])
    # State for the student alone is state enough.
    again = make_learner(tasks=ONE_ACTION_EACH, feature_weight=0.0, optimizer="adam")
    again.load_state_dict(*learner.state_dict())
    assert again.state_dict()[0].keys() == learner.state_dict()[0].keys()


def test_unequal_or_missing_batches_are_refused():
    learner = make_learner()
    left, up = random_batches(learner, size=6)
    short = TaskBatch(up.obs[:3], up.teacher_scores[:3], up.teacher_features[:3])

    for batches, sizes in (([left, short], r"\[6, 3\]"), ([left], r"\[6\]"), ([], r"\[\]")):
        with pytest.raises(ValueError, match=rf"for each of \['left', 'up'\], got sizes {sizes}"):
            learner.update(batches)


def test_nothing_changes_when_a_teacher_is_not_finite():
    learner = make_learner(optimizer="adam")
    left, up = random_batches(learner)
    up.teacher_scores[0, UP] = math.nan
    before = weights(learner.student) + weights(learner.regressors)

    with pytest.raises(DivergenceError):
        learner.update([left, up])

    assert learner.updates == 0
    assert equal(weights(learner.student) + weights(learner.regressors), before)


def test_distillation_resumes_bit_for_bit():
    learner, again = make_learner(optimizer="adam"), make_learner(optimizer="adam")
    for seed in range(3):
        learner.update(random_batches(learner, seed=seed))
    again.student.load_state_dict(learner.student.state_dict())
    again.regressors.load_state_dict(learner.regressors.state_dict())
    again.load_state_dict(*learner.state_dict())

    for seed in range(3, 6):
        for resumed in (learner, again):
            resumed.update(random_batches(learner, seed=seed))
    assert again.updates == learner.updates == 6
    assert equal(weights(again.student), weights(learner.student))
    assert equal(weights(again.regressors), weights(learner.regressors))


def linear_task(learner: MimicLearner, task: int, size: int, rng: torch.Generator) -> TaskBatch:
    """Scores and features are linear in three numbers; the fourth tells the tasks apart."""
    fixed = generator(50 + task)
    action_map = list(learner.student.action_maps.values())[task]
    policy = torch.randn(3, len(action_map.slots), generator=fixed)
    features = torch.randn(3, TEACHER_FEATURES, generator=fixed)
    state = torch.randn(size, 3, generator=rng)
    return TaskBatch(
        obs=torch.cat([state, torch.full((size, 1), 2.0 * task - 1.0)], dim=1),
        teacher_scores=action_map.scatter(state @ policy),
        teacher_features=state @ features,
    )


def test_one_student_fits_two_teachers_that_disagree():
    learner = make_learner(feature_weight=0.01, temperature=0.1, optimizer="adam")
    rng = generator(3)

    def both(size: int) -> list[TaskBatch]:
        return [linear_task(learner, task, size, rng) for task in range(2)]

    first = learner.update(both(64))
    for _ in range(300):
        learner.update(both(64))
    last = learner.update(both(1024))

    for task in ATARI:
        assert last[f"{task}/agreement"].item() > 0.93
        assert last[f"{task}/divergence"].item() < 0.2
        assert last[f"{task}/feature_loss"].item() < 0.25 * first[f"{task}/feature_loss"].item()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")
def test_distillation_on_cuda_agrees_with_the_cpu():
    losses = []
    for device in ("cpu", "cuda"):
        learner = make_learner(device=device)
        batches = random_batches(learner)
        losses.append([learner.update(batches)["loss"].item() for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
