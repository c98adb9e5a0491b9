"""How near a student is to its teachers: gaps, weights, held-out measures by hand, whole runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actor_mimic.compute import Compute, Workers
from actor_mimic.errors import ConfigError, DataError, Interrupted
from actor_mimic.flat_config import build_config
from actor_mimic.learners.mimic import MimicLearner, Objective
from actor_mimic.networks.q_network import Output, QNetwork
from actor_mimic.networks.regressors import build_regressor
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.stages.fidelity import (
    GAP_FLOOR,
    HELD_OUT_EVERY,
    Fidelity,
    gap_weights,
    remaining_gaps,
)
from actor_mimic.stages.launch import run_distill
from actor_mimic.stages.players import live_player
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint, write_checkpoint
from actor_mimic.storage.records import Record, read_records
from actor_mimic.teachers.own import load_teacher
from actor_mimic.teachers.teacher import Teacher
from actor_mimic.temperatures import mean_entropy

CART, CAR = "gym:CartPole-v1", "gym:MountainCar-v0"
CPU = Compute("cpu", "float32", 1)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaps_by_hand():
    scores = {"as poor as random": 2.0, "half way": 11.0, "better": 30.0, "worse": -9.0}
    teachers, randoms = dict.fromkeys(scores, 20.0), dict.fromkeys(scores, 2.0)

    assert remaining_gaps(scores, teachers, randoms) == {
        "as poor as random": 1.0,
        "half way": 0.5,
        "better": 0.0,
        "worse": 1.0,
    }
    assert remaining_gaps({"x": 5.0}, {"x": 1.0}, {"x": 1.0}) == {"x": 0.0}


def test_weights_are_in_proportion_to_gaps_above_a_floor_and_of_mean_one():
    assert gap_weights([1.0, 0.5, 0.0]) == pytest.approx([3 / 1.6, 1.5 / 1.6, 3 * GAP_FLOOR / 1.6])
    assert gap_weights([0.0, 0.0]) == [1.0, 1.0]
    assert gap_weights([0.3]) == [1.0]


def made_learner(feature_weight: float = 0.5) -> tuple[MimicLearner, Teacher]:
    names = ("x/0", "x/1", "x/2")
    student = Student(TorsoSpec("mlp", (4,), 0.25), {"x": names}, generator=generator(1))
    taught = QNetwork(TorsoSpec("mlp", (4,), 0.125), 3, generator=generator(2))
    width = student.network.torso.num_features
    learner = MimicLearner(
        student,
        nn.ModuleList([build_regressor("linear", width, 16, generator=generator(3))]),
        torch.optim.SGD(student.parameters(), lr=0.1),
        objective=Objective("cross_entropy", (0.5,), feature_weight),
        max_gradient_norm=0.0,
        workers=Workers(),
    )
    return learner, Teacher("x", names, (4,), 16, "0" * 64, taught, "cpu")


def numbers(value: Tensor) -> np.ndarray:
    return value.detach().double().numpy()


def test_held_out_measures_by_hand():
    learner, teacher = made_learner()
    fidelity = Fidelity(learner, [teacher], Workers(2))  # who have 8 rows each
    act, plain = fidelity.act, live_player(learner.student, Workers(2))
    batches = [torch.randn(16, 4, generator=generator(seed)) for seed in range(9)]
    for obs in batches:
        assert np.array_equal(act({"x": obs})["x"], plain({"x": obs})["x"])

    looked_at = torch.cat(batches[::HELD_OUT_EVERY])
    student, taught = learner.student.play("x", looked_at), teacher.label(looked_at)
    scores, values = numbers(student.scores), numbers(taught.scores) / 0.5
    policies = [
        np.exp(s - s.max(1, keepdims=True)) / np.exp(s - s.max(1, keepdims=True)).sum(1)[:, None]
        for s in (scores, values)
    ]
    target = numbers(taught.features)
    error = ((numbers(learner.regressors[0](student.features)) - target) ** 2).sum()
    seen = fidelity.take()
    assert seen == pytest.approx(
        {
            "x/held_out_agreement": (scores.argmax(1) == values.argmax(1)).mean(),
            "x/held_out_divergence": (policies[1] * np.log(policies[1] / policies[0]))
            .sum(1)
            .mean(),
            "x/feature_error": error / ((target - target.mean(axis=0)) ** 2).sum(),
        },
        abs=1e-5,
    )
    assert fidelity.take() == {}


def test_without_a_feature_weight_there_is_no_feature_error():
    learner, teacher = made_learner(feature_weight=0.0)
    fidelity = Fidelity(learner, [teacher], Workers())
    fidelity.act({"x": torch.randn(8, 4)})

    assert fidelity.take().keys() == {"x/held_out_agreement", "x/held_out_divergence"}


def test_a_regressor_that_knows_the_mean_only_has_an_error_of_one():
    learner, teacher = made_learner()
    obs = torch.randn(64, 4, generator=generator(0))
    (regressor,) = learner.regressors
    assert isinstance(regressor, nn.Linear)
    with torch.no_grad():
        regressor.weight.zero_()
        regressor.bias.copy_(teacher.label(obs).features.mean(dim=0))
    fidelity = Fidelity(learner, [teacher], Workers())
    fidelity.act({"x": obs})

    assert fidelity.take()["x/feature_error"] == pytest.approx(1.0, abs=1e-5)


# Whole runs


def expert(path: Path, task: str, length: int, actions: int, favourite: list[float]) -> Checkpoint:
    """A network whose scores are made of one observation, exact enough for a test."""
    names = tuple(f"{task}/{action}" for action in range(actions))
    network = QNetwork(TorsoSpec("mlp", (length,), 0.25), actions, generator=generator(5))
    with torch.no_grad():
        network.head.bias.copy_(torch.tensor(favourite))
    return write_checkpoint(
        path,
        step=1,
        tensors={"model": network.state_dict()},
        state={},
        manifest={
            "kind": "expert",
            "tasks": {task: list(names)},
            "network": network.to_json(),
            "config": {},
            "parents": [],
        },
    )


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    path = tmp_path_factory.mktemp("experts")
    return {
        CART: expert(path / "cart", CART, 4, 2, [0.0, 0.02]),
        CAR: expert(path / "car", CAR, 2, 3, [0.0, 5.0, 9.0]),
    }


SETTINGS = {
    "tasks": [CART, CAR],
    "steps_per_task": 256,
    "envs_per_task": 4,
    "learning_starts_steps": 16,
    "replay_capacity_steps": 400,
    "batch_size_per_task": 8,
    "record_every_steps": 64,
    "eval_every_steps": 128,
    "eval_episodes": 2,
    "final_episodes": 2,
    "checkpoint_every_steps": 128,
    "teacher_entropy": 0.4,
    "task_weights": "gap",
    "actor": "mixture",
}


def learn(path: Path, experts: dict[str, Checkpoint], **changes: object) -> list[Record]:
    launch = Launch(path, device="cpu", precision="float32", threads=1)
    return list(run_distill(build_config("distill", SETTINGS | changes), launch, experts))


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, experts: dict[str, Checkpoint]
) -> tuple[Path, list[Record]]:
    path = tmp_path_factory.mktemp("whole")
    return path, learn(path, experts)


def test_evaluations_say_how_near_the_student_is(whole: tuple[Path, list[Record]]):
    _, records = whole
    measured = {
        (record.values["who"], record.values["task"]): record
        for record in records
        if record.kind == "measure"
    }
    evaluations = [record for record in records if record.kind == "evaluation"]
    assert len(evaluations) == 5  # at 0, 128, ... 512 steps
    for record in evaluations:
        for task in (CART, CAR):
            values = record.values
            teacher = measured["teacher", task].values[f"{task}/mean"]
            assert values[f"{task}/gap"] == teacher - values[f"{task}/mean"]
            assert 0.0 <= values[f"{task}/held_out_agreement"] <= 1.0
            assert values[f"{task}/held_out_divergence"] > -1e-5
            assert values[f"{task}/feature_error"] > 0.0
        assert sum(record.values[f"{task}/weight"] for task in (CART, CAR)) == pytest.approx(2.0)
    # The car's teacher never leaves the valley, so nothing is left to be learnt from it.
    assert evaluations[0].values[f"{CAR}/weight"] < evaluations[0].values[f"{CART}/weight"]
    assert records[-1].kind == "final"
    assert records[-1].values.keys() >= {"merit", f"{CART}/gap", f"{CART}/held_out_agreement"}


def test_where_evaluations_weigh_the_tasks_their_interval_is_part_of_the_method(
    whole: tuple[Path, list[Record]], experts: dict[str, Checkpoint]
):
    path, _ = whole
    assert learn(path, experts, record_every_steps=32) == []  # done, and may be recorded otherwise
    with pytest.raises(ConfigError, match="eval_every_steps"):
        learn(path, experts, eval_every_steps=64)


def test_temperatures_are_measured_once_and_give_the_wanted_entropy(
    whole: tuple[Path, list[Record]], experts: dict[str, Checkpoint]
):
    path, records = whole
    (found,) = [record.values for record in records if record.kind == "temperatures"]
    kept = json.loads((path / "temperatures.json").read_text())
    state = resolve_checkpoint(path).load_state()

    assert kept["share"] == 0.4
    for index, (task, actions) in enumerate(((CART, 2), (CAR, 3))):
        temperature = found[f"{task}/temperature"]
        assert kept["tasks"][task]["temperature"] == temperature == state["temperatures"][index]
        assert kept["tasks"][task]["entropy_nats"] == pytest.approx(
            0.4 * math.log(actions), abs=1e-4
        )
        assert kept["tasks"][task]["model_sha256"] == experts[task].model_sha256
    # The cart's scores lie 0.02 apart, the car's 4; so do the temperatures, about.
    assert found[f"{CAR}/temperature"] > 20 * found[f"{CART}/temperature"]
    teacher = load_teacher(experts[CAR], CAR, CPU)
    start = teacher.label(torch.tensor([[-0.5, 0.0]])).scores
    assert mean_entropy(start, found[f"{CAR}/temperature"]) == pytest.approx(
        0.4 * math.log(3), abs=0.1
    )


def stop_half_way(path: Path, experts: dict[str, Checkpoint]) -> None:
    """After an evaluation has set the weights, in the middle of the mixture."""
    stopping: list[int] = []
    launch = Launch(
        path,
        device="cpu",
        precision="float32",
        threads=1,
        stop=lambda: stopping[0] if stopping else None,
    )
    for record in run_distill(build_config("distill", SETTINGS), launch, experts):
        if record.kind == "train" and record.step >= 192:
            stopping.append(2)


def test_a_stopped_run_goes_on_as_the_whole_one(
    tmp_path: Path, whole: tuple[Path, list[Record]], experts: dict[str, Checkpoint]
):
    with pytest.raises(Interrupted):
        stop_half_way(tmp_path, experts)
    learn(tmp_path, experts)

    def told(path: Path) -> list[tuple[str, int, dict]]:
        return [
            (r.kind, r.step, r.values)
            for r in read_records(path / "records.jsonl")
            if r.kind in ("evaluation", "final")
        ]

    assert resolve_checkpoint(tmp_path).model_sha256 == resolve_checkpoint(whole[0]).model_sha256
    assert told(tmp_path) == told(whole[0])


@pytest.mark.parametrize(
    "content",
    ['{"tasks": 3}', "{}", "3", '{"tasks": {"x": {}}}', '{"tasks": {}}']
    + [
        json.dumps({"tasks": {task: {"temperature": temperature} for task in (CART, CAR)}})
        for temperature in (0, -1, "inf", "x", None, 10**400)
    ],
)
def test_damaged_temperatures_are_named(
    tmp_path: Path, experts: dict[str, Checkpoint], content: str
):
    (tmp_path / "temperatures.json").write_text(content)
    with pytest.raises(DataError, match=r"temperatures\.json"):
        learn(tmp_path, experts)


def test_a_teacher_without_preferences_is_named(tmp_path: Path, experts: dict[str, Checkpoint]):
    network = QNetwork(TorsoSpec("mlp", (4,), 0.25), 2, generator=generator(5))
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
    manifest = dict(experts[CART].manifest)
    flat = write_checkpoint(
        tmp_path / "flat",
        step=1,
        tensors={"model": network.state_dict()},
        state={},
        manifest={k: manifest[k] for k in ("kind", "tasks", "network", "config", "parents")},
    )
    with pytest.raises(DataError, match=f"teacher of {CART}, teacher_entropy: .*the same score"):
        learn(tmp_path / "run", experts | {CART: flat})

    # What it scored was kept, and the run can be begun with a temperature instead.
    assert list((tmp_path / "run/evaluations").iterdir())
    assert learn(tmp_path / "run", experts | {CART: flat}, teacher_entropy=0.0)


def test_a_student_of_values_teaches_values(tmp_path: Path, experts: dict[str, Checkpoint]):
    """Its features are held against its teachers' as they are: both have as many."""
    like_them = {"network": "mlp", "width": 0.25, "regressor": "identity", "feature_weight": 1.0}
    records = learn(tmp_path, experts, objective="mse", teacher_entropy=0.0, **like_them)

    student = resolve_checkpoint(tmp_path)
    assert student.manifest["network"]["scores_are_logits"] is False
    assert not load_teacher(student, CART, CPU).scores_are_logits
    for name in (f"{CART}/feature_loss", f"{CAR}/policy_loss"):
        losses = [record.values[name] for record in records if name in record.values]
        assert losses[-1] < 0.5 * losses[0]


def test_students_are_teachers_of_logits_unless_they_learnt_values(tmp_path: Path):
    for number, logits in enumerate((True, False)):
        student = Student(
            TorsoSpec("mlp", (4,)),
            {CART: (f"{CART}/0", f"{CART}/1"), CAR: (f"{CAR}/0", f"{CAR}/1", f"{CAR}/2")},
            generator=generator(0),
            vectors=(4, 2),
            scores_are_logits=logits,
        )
        checkpoint = write_checkpoint(
            tmp_path / str(number),
            step=1,
            tensors={"model": student.state_dict()},
            state={},
            manifest={
                "kind": "student",
                "tasks": {task: list(names) for task, names in student.task_actions.items()},
                "network": student.to_json(),
                "config": {},
                "parents": [],
            },
        )
        teacher = load_teacher(checkpoint, CAR, CPU)
        obs = torch.randn(3, 2, generator=generator(1))
        output: Output = teacher.label(obs)

        assert teacher.scores_are_logits is logits
        assert (teacher.obs_shape, teacher.num_features) == ((2,), 128)
        assert torch.equal(output.scores, student.play(CAR, obs).scores)
