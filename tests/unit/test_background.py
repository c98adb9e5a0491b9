"""Networks that are centred: where backgrounds come from, and what becomes of them."""

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from actor_mimic.compute import Compute
from actor_mimic.config import ExpertConfig, TransferConfig
from actor_mimic.envs.vector_step import VectorStep
from actor_mimic.errors import ConfigError, Interrupted
from actor_mimic.flat_config import build_config
from actor_mimic.learners.target_network import TargetNetwork
from actor_mimic.learners.warm_start import warm_start
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import HEADS, Student
from actor_mimic.networks.torsos import TorsoSpec, take_away
from actor_mimic.networks.working_copy import WorkingCopy
from actor_mimic.protocols import protocol_named
from actor_mimic.stages import background
from actor_mimic.stages.env_groups import make_task_envs
from actor_mimic.stages.evaluate import summarise_scores
from actor_mimic.stages.expert import fresh_network
from actor_mimic.stages.launch import run_expert
from actor_mimic.stages.measure import Measuring
from actor_mimic.stages.stage_run import Launch
from actor_mimic.stages.transfer import with_network_of
from actor_mimic.storage.checkpoint import Checkpoint, resolve_checkpoint
from actor_mimic.storage.run_dir import is_complete
from actor_mimic.teachers.own import load_network

CPU = Compute("cpu", "float32", 1)
SPEC = TorsoSpec("nature", (4, 84, 84), width=0.25, norm="all", centred=True)
IMAGES = torch.randint(
    0, 256, (5, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


class Counting:
    """Frames of one pixel: step t of environment n shows 10 t + n. No game ever ends."""

    task = "counting"
    num_envs = 2
    frame_shape = (1, 1)
    frame_dtype = np.uint8
    stack_size = 4
    frame_skip = 4
    steps_per_s = 15.0
    action_names = ("NOOP",)

    def __init__(self) -> None:
        self.time = 0
        self.closed = False

    def frames(self) -> np.ndarray:
        return np.array([[[10 * self.time]], [[10 * self.time + 1]]], dtype=np.uint8)

    def reset(self) -> np.ndarray:
        return self.frames()

    def send(self, _actions: np.ndarray) -> None:
        self.time += 1

    def recv(self) -> VectorStep:
        no, zero = np.zeros(2, dtype=bool), np.zeros(2, dtype=np.float32)
        frames = self.frames()
        return VectorStep(frames, frames, zero, zero, no, no, no, no)

    def state_dict(self) -> dict:
        raise NotImplementedError

    def load_state_dict(self, _state: dict) -> None:
        raise NotImplementedError

    def catch_up(self) -> Iterator[None]:
        raise NotImplementedError

    def picture(self) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def test_mean_over_environments_and_every_fifth_step(monkeypatch):
    env = Counting()
    monkeypatch.setattr(background, "make_envs", lambda *_, **__: env)
    monkeypatch.setattr(background, "NUM_ENVS", 2)
    monkeypatch.setattr(background, "STEPS", 15)
    (mean,) = background.mean_frames(["counting"], seed=0, protocol=protocol_named("paper"))

    # Seen at steps 0, 5 and 10: 0 and 1, 50 and 51, 100 and 101.
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, torch.tensor([[50.5 / 255.0]]))
    assert env.closed


def test_a_game_looks_the_same_to_the_same_seed(monkeypatch):
    monkeypatch.setattr(background, "STEPS", 50)
    paper = protocol_named("paper")
    one, again, other = (
        background.mean_frames(["pong"], seed=s, protocol=paper, num_threads=n)[0]
        for s, n in ((0, 1), (0, 2), (1, 1))
    )

    assert one.shape == (84, 84)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # Most of the field is one grey, 87 of 255.
    assert one.median() == pytest.approx(87 / 255)
    assert (one - other).abs().mean() < 0.01


def test_looking_can_be_stopped():
    with pytest.raises(Interrupted):
        background.mean_frames(["pong"], seed=0, protocol=protocol_named("paper"), stop=lambda: 15)


def test_a_student_of_vectors_is_never_centred():
    spec = TorsoSpec("mlp", (4,), centred=True)
    with pytest.raises(ConfigError, match="only images have a background"):
        Student(spec, GAMES, generator=None)


def expert(**changes: object) -> tuple[ExpertConfig, QNetwork]:
    config = build_config("expert", {"task": "pong", "num_envs": 8, "width": 0.25, **changes})
    assert isinstance(config, ExpertConfig)
    (env,) = make_task_envs(config, CPU)
    network = fresh_network(config, env)
    env.close()
    background.see_backgrounds(network, config, 1, lambda: None)
    return config, network


def test_fast_starts_centred_and_at_zero(monkeypatch):
    monkeypatch.setattr(background, "STEPS", 50)
    config, network = expert()
    _, plain = expert(centred=False)
    (looks,) = background.mean_frames(["pong"], seed=config.seed, protocol=protocol_named("paper"))

    assert torch.equal(network.torso.background, looks)
    assert torch.equal(network(IMAGES).scores, torch.zeros(5, 6))
    # All else is as without.
    ours = dict(network.torso.named_parameters())
    assert all(torch.equal(value, ours[name]) for name, value in plain.torso.named_parameters())
    assert not plain.torso.spec.centred
    assert plain(IMAGES).scores.abs().min() > 0


@pytest.mark.parametrize(
    ("stage", "preset"),
    [
        ("expert", "nature"),
        ("expert", "sb3"),
        ("multitask-dqn", "nature"),
        ("multitask-dqn", "sb3"),
        ("distill", "paper"),
        ("distill", "authors-code"),
    ],
)
def test_published_presets_start_as_published(stage, preset):
    asked = {"task": "pong"} if stage == "expert" else {"tasks": ["pong"]}
    assert not build_config(stage, asked | {"preset": preset}).network.centred
    assert build_config(stage, asked).network.centred


def test_vectors_have_no_background():
    config = build_config("expert", {"task": "gym:CartPole-v1", "num_envs": 8})
    assert isinstance(config, ExpertConfig)
    (env,) = make_task_envs(config, CPU)
    network = fresh_network(config, env)
    env.close()

    assert config.network.centred
    assert not network.torso.spec.centred
    assert network(torch.ones(1, 4)).scores.abs().min() > 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_are_read_less_the_background(precision):
    network = QNetwork(SPEC, 3, generator=torch.Generator().manual_seed(1))
    Compute("cpu", precision, 1).place(network)
    looks = torch.linspace(0, 1, 84 * 84).view(84, 84)
    network.torso.background.copy_(looks)
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with torch.no_grad(), autocast:
        scaled = IMAGES.to(dtype) * (1 / 255.0) - looks.to(dtype)
        expected = network.torso.layers(scaled).float()
        found = network(IMAGES).features

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    copy = WorkingCopy(network).network
    assert torch.equal(copy(IMAGES).scores, network(IMAGES).scores)
    assert copy.torso.background is network.torso.background


def test_a_centred_parent_leaves_the_new_game_its_own_background():
    parent = QNetwork(SPEC, 3, generator=torch.Generator().manual_seed(1))
    target = QNetwork(SPEC, 2, generator=torch.Generator().manual_seed(2))
    parent.torso.background.fill_(0.25)
    target.torso.background.fill_(0.75)
    origins = warm_start(
        target,
        parent.state_dict(),
        source_outputs=("NOOP", "FIRE", "UP"),
        target_actions=("NOOP", "DOWN"),
        head="fresh",
    )

    assert (target.torso.background == 0.75).all()
    assert {o.name: o.origin for o in origins}["torso.background"] == "fresh"
    assert torch.equal(target.torso.layers[0].weight, parent.torso.layers[0].weight)


def test_a_transfer_is_centred_as_its_parent_is():
    config = build_config("transfer", {"task": "pong"})
    assert isinstance(config, TransferConfig)
    assert config.network.centred  # where there is no parent
    for spec in (SPEC, replace(SPEC, centred=False)):
        parent = Mock(spec=Checkpoint, network={"torso": spec.to_json()})
        assert with_network_of(config, parent).network.centred == spec.centred


GAMES = {"pong": ("NOOP", "UP"), "boxing": ("NOOP", "FIRE", "UP")}


def student(precision: str = "float32", head: str = "shared") -> Student:
    """A centred student of two games, whose backgrounds are a ramp down and a ramp across."""
    made = Student(SPEC, GAMES, generator=torch.Generator().manual_seed(3), head=head)
    Compute("cpu", precision, 1).place(made)
    ramp = torch.linspace(0, 1, 84)
    assert made.backgrounds is not None
    made.backgrounds[0] = ramp[:, None]
    made.backgrounds[1] = ramp
    return made


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_background_is_taken_from_every_frame_however_images_lie(dtype, layout):
    images = (IMAGES / 255).to(dtype, memory_format=layout)
    ramp = torch.linspace(0, 1, 84) + torch.linspace(0, 1, 84)[:, None]
    expected = torch.stack([torch.stack([f - ramp.to(dtype) for f in stack]) for stack in images])

    take_away(images, ramp)

    assert torch.equal(images, expected)
    assert images.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_student_takes_away_the_background_of_each_game(precision):
    """As a network of one game does, which has the same weights and that game's background."""
    two = student(precision)
    for index, game in enumerate(GAMES):
        one = QNetwork(SPEC, len(two.alphabet), generator=torch.Generator().manual_seed(3))
        Compute("cpu", precision, 1).place(one)
        one.torso.background.copy_(two.backgrounds[index])
        assert torch.equal(two.play(game, IMAGES).features, one(IMAGES).features)


@pytest.mark.parametrize("head", HEADS)
def test_one_batch_of_all_games_is_read_as_each_by_itself(head):
    """Also where it is cut elsewhere than between the games."""
    two = student(head=head)
    obs = [IMAGES[:3], IMAGES.flip(0)]
    whole = torch.cat([two.encode(game, own) for game, own in zip(GAMES, obs, strict=True)])

    assert torch.equal(two.encode_all(obs), whole)
    for rows in (range(0, 8), range(0, 2), range(1, 3), range(2, 5), range(3, 8), range(6, 7)):
        assert torch.equal(two.encode_all(obs, rows), whole[rows.start : rows.stop])
    with torch.no_grad():
        for mine, (game, own) in zip(two.play_all(obs), zip(GAMES, obs, strict=True), strict=True):
            torch.testing.assert_close(mine.scores, two.play(game, own).scores)


def test_a_student_is_stored_with_its_backgrounds():
    before = student()
    again = Student.from_json(before.to_json())
    assert all(tensor.is_meta for tensor in again.state_dict().values())
    again.to_empty(device="cpu")
    again.load_state_dict(before.state_dict())

    assert torch.equal(again.backgrounds, before.backgrounds)
    assert torch.equal(again.play("boxing", IMAGES).scores, before.play("boxing", IMAGES).scores)
    assert WorkingCopy(student("bfloat16")).network.backgrounds.dtype == torch.float32


def test_a_target_network_has_the_backgrounds_that_are_set_later():
    online = student()
    target = TargetNetwork(online, period_updates=10)
    online.backgrounds[0].fill_(0.5)

    assert (target.network.backgrounds[0] == 0.5).all()


def test_a_student_looks_at_its_games_before_the_first_step(monkeypatch):
    asked = []

    def mean_frames(tasks, *, seed, protocol, num_threads, stop):
        asked.append((list(tasks), seed, protocol.name, num_threads, stop()))
        return [torch.full((84, 84), 0.1), torch.full((84, 84), 0.2)]

    monkeypatch.setattr(background, "mean_frames", mean_frames)
    two = student()
    config = build_config("distill", {"tasks": list(GAMES), "seed": 5, "protocol": "sticky"})
    background.see_backgrounds(two, config, 3, lambda: 15)

    assert asked == [(["pong", "boxing"], 5, "sticky", 3, 15)]
    assert [float(looks.mean()) for looks in two.backgrounds] == pytest.approx([0.1, 0.2])


def test_games_look_side_by_side_as_they_do_alone(monkeypatch):
    monkeypatch.setattr(background, "STEPS", 30)
    paper = protocol_named("paper")
    both = background.mean_frames(["pong", "boxing"], seed=1, protocol=paper)
    alone = [background.mean_frames([task], seed=1, protocol=paper)[0] for task in GAMES]

    assert all(map(torch.equal, both, alone))
    assert not torch.equal(*both)


def test_a_run_that_goes_on_does_not_look_again(tmp_path, monkeypatch):
    looked = []

    def mean_frames(tasks, **_):
        looked.append(list(tasks))
        return [torch.full((84, 84), 0.25)]

    def play(_self, _act, tasks, episodes):
        yield from ((task, summarise_scores(task, [0.0] * episodes)) for task in tasks)

    monkeypatch.setattr(background, "mean_frames", mean_frames)
    monkeypatch.setattr(Measuring, "play", play)
    small = {"num_envs": 2, "rollout_steps": 4, "minibatch_size": 8, "width": 0.125}
    steps = {"total_steps": 32, "checkpoint_every_steps": 8, "record_every_steps": 8}
    config = build_config("expert", {"task": "pong"} | small | steps)

    def stop():
        return 15 if list(tmp_path.glob("run/checkpoints/step-*8")) else None

    with pytest.raises(Interrupted):
        list(run_expert(config, Launch(tmp_path / "run", precision="float32", stop=stop)))
    assert looked == [["pong"]]
    list(run_expert(config, Launch(tmp_path / "run", precision="float32")))

    assert looked == [["pong"]]
    assert is_complete(tmp_path / "run")
    network = load_network(resolve_checkpoint(tmp_path / "run"))
    assert (network.torso.background == 0.25).all()
