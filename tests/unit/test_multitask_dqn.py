"""One DQN for several tasks: its update against a slow twin, what is shared, what comes of it."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from actor_mimic.compute import Workers
from actor_mimic.config import EvaluateConfig, MultitaskDQNConfig
from actor_mimic.errors import ConfigError, DivergenceError
from actor_mimic.flat_config import build_config
from actor_mimic.learners.dqn import DQNLearner
from actor_mimic.learners.multitask_dqn import MultitaskDQNLearner
from actor_mimic.networks.branched import BranchedNetwork
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.replay.frame_replay import TransitionBatch
from actor_mimic.stages.launch import run_distill, run_evaluate, run_multitask_dqn, run_transfer
from actor_mimic.stages.stage_run import Launch
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.storage.records import Record
from actor_mimic.teachers.player import load

# Both have NOOP and RIGHT; FIRE is only the first game's, UP only the second's.
TASKS = {"pong": ("NOOP", "FIRE", "RIGHT"), "boxing": ("NOOP", "RIGHT", "UP")}
HEADS = ("shared", "per_task", "branched")
BATCH = 6


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def student(head: str = "shared", seed: int = 0) -> Student:
    spec = TorsoSpec("nature", (2, 36, 36), width=0.0625, norm="all")
    made = Student(spec, TASKS, generator=generator(seed), head=head, scores_are_logits=False)
    if head == "shared":
        # What a game has not would always be its best action.
        illegal = ~sum(m.legal() for m in made.action_maps.values()).bool()
        with torch.no_grad():
            made.network.head.bias[illegal] += 50.0
            made.network.head.bias[made.alphabet.index("FIRE")] += 2.0
            made.network.head.bias[made.alphabet.index("UP")] += 4.0
    return made


def drawn(seed: int, size: int = BATCH) -> list[TransitionBatch]:
    random = generator(seed)

    def images() -> Tensor:
        return torch.randint(0, 256, (size, 2, 36, 36), dtype=torch.uint8, generator=random)

    return [
        TransitionBatch(
            obs=images(),
            actions=torch.randint(0, 3, (size,), generator=random),
            returns=torch.randn(size, generator=random),
            next_obs=images(),
            # Every third step was the last of its game.
            discounts=torch.where(torch.arange(size) % 3 == 2, 0.0, 0.9),
        )
        for _ in TASKS
    ]


def learner(network: Student, *, double: bool = False, workers: int = 1, rate: float = 0.0):
    return MultitaskDQNLearner(
        network,
        torch.optim.SGD(network.parameters(), lr=rate),
        double=double,
        target_period_updates=3,
        max_gradient_norm=0.0,
        workers=Workers(workers),
    )


def gradients(network: Student) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def slow_scores(network: Student, number: int, observation: Tensor) -> Tensor:
    """The alphabet's scores of one observation; minus infinity where the game has no action."""
    task = list(TASKS)[number]
    if isinstance(network.network, BranchedNetwork):
        maps = network.network.torso(observation[None])
        own = network.network.heads[number](network.network.hidden[number](maps))[0]
        scores = torch.full((len(network.alphabet),), -torch.inf)
        for action, slot in enumerate(network.action_maps[task].slots):
            scores[slot] = own[action]
        return scores
    scores = network.network(observation[None]).scores[0]
    return torch.where(network.action_maps[task].legal(), scores, -torch.inf)


def slow_loss(
    online: Student, target: Student, batches: Sequence[TransitionBatch], *, double: bool
) -> Tensor:
    """The formulas, one example after the other, over the whole alphabet."""
    losses = []
    for number, (task, names) in enumerate(TASKS.items()):
        batch = batches[number]
        for row in range(len(batch.actions)):
            value = batch.returns[row]
            if batch.discounts[row] > 0.0:
                with torch.no_grad():
                    valued = slow_scores(target, number, batch.next_obs[row])
                    chooser = online if double else target
                    best = slow_scores(chooser, number, batch.next_obs[row]).argmax()
                value = value + batch.discounts[row] * valued[best]
            name = names[int(batch.actions[row])]
            slot = online.alphabet.index(name if online.head == "shared" else f"{task}:{name}")
            error = (slow_scores(online, number, batch.obs[row])[slot] - value).abs()
            losses.append(0.5 * error**2 if error <= 1.0 else error - 0.5)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_an_update_is_that_of_the_formulas(head: str, double: bool) -> None:
    network, batches = student(head), drawn(1)
    made = learner(network, double=double)
    made.target_student.load_state_dict(student(head, seed=5).state_dict())
    expected = slow_loss(network, made.target_student, batches, double=double)
    expected.backward()
    wanted = gradients(network)

    metrics = made.update(batches)

    assert metrics["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    for name, gradient in gradients(network).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-3, atol=1e-6, msg=name)
    each = [metrics[f"{task}/td_loss"].item() for task in TASKS]
    assert sum(each) / 2 == pytest.approx(expected.item(), rel=1e-5)
    assert abs(metrics["pong/q_value"].item()) < 10.0  # of its own actions


@pytest.mark.parametrize("head", HEADS)
def test_a_task_moves_nothing_that_is_anothers(head: str) -> None:
    """The second game's targets are what it has already, so only the first one pulls."""
    network, batches = student(head), drawn(2)
    with torch.no_grad():
        boxing = network.play("boxing", batches[1].obs).scores
        returns = boxing.gather(1, batches[1].actions[:, None])[:, 0]
    still = TransitionBatch(
        batches[1].obs, batches[1].actions, returns, batches[1].next_obs, torch.zeros(BATCH)
    )
    learner(network).update([batches[0], still])
    found = gradients(network)

    rows = {task: list(network.action_maps[task].slots) for task in TASKS}
    if head == "branched":
        own = [n for n in found if n.startswith(("network.hidden.1", "network.heads.1"))]
        assert len(own) >= 4
        assert not any(found[name].any() for name in own)
        assert found["network.hidden.0.layers.0.weight"].any()
        assert found["network.heads.0.weight"].any()
    else:
        head_gradient = found["network.head.weight"].abs().sum(dim=1)
        others = [r for r in range(len(network.alphabet)) if r not in rows["pong"]]
        assert head_gradient[rows["pong"]].gt(0.0).any()
        assert not head_gradient[others].any()
    assert found["network.torso.layers.0.weight"].any()


def test_actions_of_the_same_name_share_an_output_and_no_others_do() -> None:
    slots = {head: student(head).action_maps for head in HEADS}

    def common(head: str) -> int:
        return len(set(slots[head]["pong"].slots) & set(slots[head]["boxing"].slots))

    assert [common(head) for head in HEADS] == [2, 0, 0]


def test_two_workers_take_the_step_that_one_takes() -> None:
    found = []
    for workers in (1, 2):
        network = student("branched")
        learner(network, workers=workers).update(drawn(3, size=20))
        found.append(gradients(network))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_one_task_is_an_ordinary_dqn() -> None:
    names = ("cart/0", "cart/1")
    spec = TorsoSpec("mlp", (4,), width=0.25, norm="all")
    network = Student(spec, {"cart": names}, generator=generator(0), scores_are_logits=False)
    plain = QNetwork(spec, 2, generator=generator(1))
    plain.load_state_dict(network.network.state_dict())
    settings = {"double": True, "target_period_updates": 2, "max_gradient_norm": 1.0}
    many = MultitaskDQNLearner(
        network, torch.optim.SGD(network.parameters(), lr=0.1), workers=Workers(), **settings
    )
    one = DQNLearner(
        plain, torch.optim.SGD(plain.parameters(), lr=0.1), workers=Workers(), **settings
    )
    for seed in range(5):
        random = generator(seed)
        batch = TransitionBatch(
            obs=torch.randn(8, 4, generator=random),
            actions=torch.randint(0, 2, (8,), generator=random),
            returns=torch.randn(8, generator=random),
            next_obs=torch.randn(8, 4, generator=random),
            discounts=torch.full((8,), 0.9),
        )
        several = many.update([batch])
        alone = one.update(**vars(batch))
        assert several["loss"].item() == alone["loss"].item()
        assert several["cart/q_value"].item() == pytest.approx(alone["q_value"].item())

    for name, value in plain.state_dict().items():
        assert torch.equal(network.network.state_dict()[name], value)


def test_the_target_network_follows_at_its_period_and_is_saved() -> None:
    network = student()
    made = learner(network, rate=0.01)
    first = copy.deepcopy(network.state_dict())
    for update in range(1, 5):
        made.update(drawn(update))
        now = network.state_dict() if update == 3 else None
        held = made.target_student.state_dict()
        if update < 3:
            assert all(torch.equal(held[n], first[n]) for n in first)
        if now is not None:
            third = copy.deepcopy(now)
            assert all(torch.equal(held[n], now[n]) for n in now)

    tensors, state = made.state_dict()
    again = learner(student(seed=9))
    again.load_state_dict(tensors, json.loads(json.dumps(state)))
    assert again.updates == 4
    assert all(torch.equal(again.target_student.state_dict()[n], third[n]) for n in third)


def test_batches_must_be_equal_and_one_for_each_task() -> None:
    made, batches = learner(student()), drawn(0)
    with pytest.raises(ValueError, match=r"equal size.*got sizes \[6\]"):
        made.update(batches[:1])
    with pytest.raises(ValueError, match=r"got sizes \[6, 4\]"):
        made.update([batches[0], drawn(0, size=4)[1]])


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    network, batches = student(), drawn(0)
    batches[1].returns[2] = np.inf
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(DivergenceError):
        learner(network, rate=0.1).update(batches)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# The stage

CARTPOLE, CAR = "gym:CartPole-v1", "gym:MountainCar-v0"
SMALL = {
    "tasks": [CARTPOLE, CAR],
    "steps_per_task": 96,
    "num_envs": 4,
    "update_every_steps": 8,
    "batch_size": 16,
    "learning_starts_steps": 24,
    "replay_capacity_steps": 200,
    "record_every_steps": 32,
    "eval_every_steps": 96,
    "eval_episodes": 1,
    "final_episodes": 2,
    "checkpoint_every_steps": 96,
    "width": 0.25,
}


def config(**changes: object) -> MultitaskDQNConfig:
    made = build_config("multitask-dqn", SMALL | changes)
    assert isinstance(made, MultitaskDQNConfig)
    return made


def launched(path: Path) -> Launch:
    return Launch(path, device="cpu", precision="float32", threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    path = tmp_path_factory.mktemp("multitask") / "run"
    return path, list(run_multitask_dqn(config(), launched(path)))


def test_records_say_how_each_task_goes(run: tuple[Path, list[Record]]) -> None:
    kinds = [record.kind for record in run[1]]
    assert [kinds.count(k) for k in ("train", "evaluation", "final")] == [6, 3, 1]
    train = [record.values for record in run[1] if record.kind == "train"][-1]
    evaluation, final = ([r for r in run[1] if r.kind == k][-1] for k in ("evaluation", "final"))
    for task in (CARTPOLE, CAR):
        assert {f"{task}/td_loss", f"{task}/q_value", f"{task}/score"} <= train.keys()
        assert evaluation.values[f"{task}/episodes"] == 1
        assert final.values[f"{task}/episodes"] == 2
    assert {"loss", "epsilon", "steps_per_s"} <= train.keys()
    assert final.step == 192
    means = [float(final.values[f"{task}/mean"] or 0.0) for task in (CARTPOLE, CAR)]
    assert final.values["merit"] == pytest.approx(sum(means) / 2)


def test_what_comes_of_it_is_a_student(run: tuple[Path, list[Record]], tmp_path: Path) -> None:
    checkpoint = resolve_checkpoint(run[0])
    assert checkpoint.kind == "student"
    assert checkpoint.network["scores_are_logits"] is False
    assert list(checkpoint.tasks) == [CARTPOLE, CAR]
    assert load(run[0]).act(np.zeros(4, dtype=np.float32), CARTPOLE) in (0, 1)

    (played,) = run_evaluate(EvaluateConfig(episodes=1), launched(tmp_path / "eval"), checkpoint)
    assert {f"{CARTPOLE}/mean", f"{CAR}/mean"} <= played.values.keys()

    settings = {
        "tasks": [CAR, CARTPOLE],
        "steps_per_task": 64,
        "envs_per_task": 4,
        "learning_starts_steps": 16,
        "replay_capacity_steps": 200,
        "batch_size_per_task": 8,
        "eval_every_steps": 0,
        "final_episodes": 1,
        "temperature": 0.25,
    }
    taught = build_config("distill", settings)
    teachers = dict.fromkeys((CAR, CARTPOLE), checkpoint)
    list(run_distill(taught, launched(tmp_path / "student"), teachers))
    state = resolve_checkpoint(tmp_path / "student").load_state()
    assert state["temperatures"] == [0.25, 0.25]  # of values, and not of logits


def test_what_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'wide_mlp' has no convolutions"):
        list(run_multitask_dqn(config(head="branched"), launched(tmp_path / "a")))
    with pytest.raises(ConfigError, match="all give vectors, or all images"):
        list(run_multitask_dqn(config(tasks=[CARTPOLE, "pong"]), launched(tmp_path / "b")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": []}, "different and at least one"),
        ({"tasks": [CAR, CAR]}, "different and at least one"),
        ({"head": "convolutions"}, "head"),
        ({"num_quantiles": 4}, "num_quantiles must be 1"),
        ({"algorithm": "dqn"}, "unknown setting 'algorithm'"),
        ({"preset": "fast"}, "preset"),
        ({"learning_starts_steps": 3}, r"learning_starts_steps 3 must be at least"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


@pytest.mark.parametrize("head", HEADS)
def test_a_transfer_starts_from_what_the_tasks_have_shared(head: str, tmp_path: Path) -> None:
    settings = {
        "tasks": ["pong", "boxing"],
        "steps_per_task": 48,
        "learning_starts_steps": 24,
        "eval_every_steps": 0,
        "final_episodes": 0,
        "head": head,
        "width": 0.125,
    }
    list(run_multitask_dqn(config(**settings), launched(tmp_path / "parent")))
    parent = resolve_checkpoint(tmp_path / "parent")
    asked = {
        "task": "breakout",
        "total_steps": 32,
        "learning_rate": 1e-30,  # no weight moves
        "num_envs": 4,
        "update_every_steps": 8,
        "learning_starts_steps": 24,
        "eval_every_steps": 0,
        "final_episodes": 0,
    }
    list(run_transfer(build_config("transfer", asked), launched(tmp_path / "child"), parent))

    child = resolve_checkpoint(tmp_path / "child")
    origins = {entry["name"]: entry["origin"] for entry in child.manifest["tensor_origins"]}
    before, after = parent.load_tensors("model"), child.load_tensors("model")
    copied = {name for name, origin in origins.items() if origin == "copied"}
    assert all(torch.equal(after[name], before[f"network.{name}"]) for name in copied)
    assert origins.pop("torso.background") == "fresh"  # the new game's own
    fresh = {name.rsplit(".", 1)[0] for name in origins.keys() - copied}
    hidden = {"torso.layers.10", "torso.layers.11"} if head == "branched" else set()
    assert fresh == {"head"} | hidden
    if head == "branched":
        copying = build_config("transfer", asked | {"head": "copy"})
        with pytest.raises(ConfigError, match="hidden layers"):
            list(run_transfer(copying, launched(tmp_path / "copying"), parent))
