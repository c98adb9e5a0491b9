"""Shipped experts: what is rounded, what is refused, and that their names stand for checkpoints."""

import dataclasses
import fnmatch
import json
import signal
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from expert_runs import CARTPOLE, NAME, make_run, network_of, ship

from actor_mimic import cli
from actor_mimic.compute import Compute, Workers
from actor_mimic.errors import DataError, DivergenceError, Interrupted, UsageError
from actor_mimic.flat_config import build_config, to_json
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.protocols import PROTOCOLS
from actor_mimic.report.zoo import card, markdown_table
from actor_mimic.stages import measure as measure_module
from actor_mimic.stages import shipping
from actor_mimic.stages.evaluate import summarise_scores
from actor_mimic.stages.measure import Measuring, measure_references
from actor_mimic.stages.shipping import MEASURED, shipped_tensors, training_command
from actor_mimic.storage import shipped as module
from actor_mimic.storage.checkpoint import resolve_checkpoint
from actor_mimic.storage.shipped import name_of_model, read_shipped, shipped_names
from actor_mimic.teachers.own import load_network, load_teacher
from benchmarks import zoo_table

ROOT = Path(__file__).parents[2]
ZOO_NAME = Path(f"zoo:{NAME}")
REAL_ZOO = module.ZOO


@pytest.fixture
def empty_zoo(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ZOO", tmp_path / "zoo")
    return tmp_path / "zoo"


@pytest.fixture
def zoo(empty_zoo, tmp_path):
    """One expert, of the run beside it."""
    ship(make_run(tmp_path / "run"))
    return empty_zoo


def test_an_expert_says_that_its_run_has_moved(tmp_path):
    run = make_run(tmp_path / "run")
    described = json.loads((run / "run.json").read_bytes())
    changed = [{"at": "2026-11-26T20:00:00+00:00", "settings": {"compute.threads": {"after": 1}}}]
    (run / "run.json").write_text(json.dumps(described | {"changed": changed}))
    assert shipping._origin(resolve_checkpoint(run), run)["changed"] == changed


@pytest.mark.usefixtures("zoo")
def test_an_expert_comes_back_as_it_went_but_for_the_rounding(tmp_path):
    trained = resolve_checkpoint(tmp_path / "run")
    found = resolve_checkpoint(ZOO_NAME)

    assert found.name == str(ZOO_NAME)
    assert sorted(path.name for path in found.path.iterdir()) == [
        "MANIFEST.json",
        "card.md",
        "model.safetensors",
        "scores.json",
    ]
    for attribute in ("kind", "tasks", "network", "config", "parents", "step"):
        assert getattr(found, attribute) == getattr(trained, attribute), attribute
    assert name_of_model(found.model_sha256) == str(ZOO_NAME)
    assert name_of_model(trained.model_sha256) is None
    told = found.manifest["shipped"]
    assert told["source_sha256"] == trained.model_sha256 != found.model_sha256
    assert (told["preset"], told["run_seconds"]) == ("classic", 12.5)
    assert "changed" not in told
    before, after = load_network(trained).state_dict(), load_network(found).state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.float32
        if name.startswith("head") or tensor.ndim == 1:
            assert torch.equal(after[name], tensor), name
        else:
            assert not torch.equal(after[name], tensor), name
            torch.testing.assert_close(after[name], tensor, rtol=2**-11, atol=2**-25)


def test_rounding_is_within_its_bounds_and_loses_less_than_bfloat16():
    sizes = torch.logspace(-9, 4, 4000, base=10.0)
    weights = (sizes * torch.where(torch.arange(4000) % 2 == 0, 1, -1)).reshape(40, 100)
    (rounded,) = shipped_tensors({"torso.layers.0.weight": weights}).values()

    assert rounded.dtype == torch.float16
    error = (rounded.float() - weights).abs()
    assert bool((error <= torch.maximum(weights.abs() * 2**-11, torch.tensor(2.0**-25))).all())
    usual = weights[(weights.abs() > 1e-3) & (weights.abs() < 1)]
    losses = [(usual.to(t).float() - usual).abs().mean() for t in (torch.float16, torch.bfloat16)]
    assert losses[0] < losses[1] / 7


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [(7e4, DataError, "65,504"), (float("nan"), DivergenceError, "torso.w")],
)
def test_what_does_not_fit_into_16_bits_is_refused(value, error, said):
    with pytest.raises(error, match=said):
        shipped_tensors({"torso.w": torch.tensor([[1.0, value]])})


def test_the_greedy_action_is_that_of_the_trained_network():
    network = network_of(TorsoSpec("nature", (4, 84, 84), 0.5, "all"), num_outputs=6)
    twin = network_of(TorsoSpec("nature", (4, 84, 84), 0.5, "all"), num_outputs=6, seed=1)
    tensors = shipped_tensors(network.state_dict())
    twin.load_state_dict(tensors)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (256, 4, 12, 12), dtype=np.uint8)
    obs = torch.from_numpy(coarse.repeat(7, axis=2).repeat(7, axis=3))

    with torch.no_grad():
        one, other = network(obs).scores, twin(obs).scores
    assert len(one.argmax(dim=1).unique()) > 1, "a network of one action agrees with anything"
    assert float((one.argmax(dim=1) == other.argmax(dim=1)).float().mean()) >= 0.99
    torch.testing.assert_close(other, one, rtol=0.0, atol=2e-3)
    sizes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert 9 * sizes <= 35_000_000


def test_scores_are_of_this_very_file_under_every_protocol(zoo):
    expert = read_shipped(NAME)

    *own, random = expert.evaluations
    assert [(r["protocol"], r["epsilon"]) for r in own] == list(MEASURED)
    assert {r["checkpoint"] for r in own} == {expert.model_sha256}
    assert (random["checkpoint"], random["protocol"], random["epsilon"]) == ("random", "paper", 1.0)
    assert expert.random_play("paper") == random
    for result in expert.evaluations:
        scores = result["tasks"][CARTPOLE]
        assert scores.keys() >= {"mean", "median", "stderr", "ci95", "scores"}
        assert len(scores["scores"]) == scores["episodes"] == 2
    text = (zoo / NAME / "card.md").read_text()
    assert text == card(expert)
    assert len(text.strip().splitlines()) == 3
    assert "--set=exploration_fraction=0.5" in text
    assert "means of 2 games" in text


def test_what_has_been_measured_is_not_played_again(zoo, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in (zoo / NAME).iterdir()}

    def fail(*_, **__):
        raise AssertionError("played")

    monkeypatch.setattr(measure_module, "play_games", fail)
    ship(tmp_path / "run")

    assert {path.name: path.read_bytes() for path in (zoo / NAME).iterdir()} == files
    with pytest.raises(AssertionError, match="played"):
        ship(tmp_path / "run", episodes=3)


@pytest.mark.usefixtures("zoo")
@pytest.mark.parametrize(
    ("changes", "versions", "of_the_teacher", "of_random_play"),
    [
        ({}, {}, 0, 0),
        ({"episodes": 1}, {}, 0, 0),
        ({"episodes": 3}, {}, 3, 3),  # more than it was shipped with
        ({"epsilon": 0.02}, {}, 2, 0),
        ({"epsilon": 1.0}, {}, 2, 0),  # as random as random play, and yet not it
        ({"protocol": PROTOCOLS["sticky"]}, {}, 2, 2),
        ({}, {"ale-py": "0.0.1"}, 2, 2),
    ],
)
def test_a_shipped_expert_is_measured_before_it_teaches_only_where_it_was_not_yet(
    tmp_path, monkeypatch, changes, versions, of_the_teacher, of_random_play
):
    played = {True: 0, False: 0}

    def play(_, act, tasks, episodes):
        played[act is None] += episodes
        yield from ((task, summarise_scores(task, [7.0] * episodes)) for task in tasks)

    monkeypatch.setattr(Measuring, "play", play)
    installed = measure_module.installed_versions() | versions
    monkeypatch.setattr(measure_module, "installed_versions", lambda: installed)
    source = resolve_checkpoint(ZOO_NAME)
    teacher = load_teacher(source, CARTPOLE, Compute("cpu", "float32", 1))
    measuring = Measuring(
        tmp_path, PROTOCOLS["paper"], 0.05, 2, 0, 1, lambda: None, lambda *_: None
    )

    records = measure_references(
        [teacher], {CARTPOLE: source}, dataclasses.replace(measuring, **changes), Workers()
    )

    expert = read_shipped(NAME)
    for record, who, games, result in zip(
        records,
        (source.model_sha256, "random"),
        (of_the_teacher, of_random_play),
        (expert.evaluation("paper", 0.05), expert.random_play("paper")),
        strict=True,
    ):
        assert played[who == "random"] == games
        assert result is not None
        expected = 7.0 if games else result["tasks"][CARTPOLE]["mean"]
        assert record.values[f"{CARTPOLE}/mean"] == expected
        # Whoever played: a report of the run finds the figure in the run.
        (kept,) = (tmp_path / "evaluations").glob(f"{who[:16]}-*.json")
        content = json.loads(kept.read_text())
        assert content["checkpoint"] == who
        assert content["tasks"][CARTPOLE]["mean"] == expected
        if not games:
            assert content == result
            assert kept.stem.endswith(f"-{NAME}-paper-{result['epsilon']:g}-2-{result['seed']}")


def test_stopped_it_leaves_the_zoo_as_it_was_and_keeps_what_was_measured(
    zoo, tmp_path, monkeypatch
):
    other = make_run(tmp_path / "other", seed=1)
    old = resolve_checkpoint(ZOO_NAME).model_sha256
    played = []
    play_games = measure_module.play_games

    def count(*arguments, **options):
        played.append(options["epsilon"])
        return play_games(*arguments, **options)

    monkeypatch.setattr(measure_module, "play_games", count)
    with pytest.raises(Interrupted):
        ship(other, stop=lambda: signal.SIGINT if len(played) == 2 else None)

    assert [path.name for path in zoo.iterdir()] == [NAME]
    assert resolve_checkpoint(ZOO_NAME).model_sha256 == old
    new = ship(other)
    assert played == [0.05, 0.01, 0.01, 0.01, 1.0]  # the second one twice
    assert resolve_checkpoint(ZOO_NAME).model_sha256 == new.model_sha256 != old


def test_only_experts_of_runs_are_shipped(empty_zoo, tmp_path):
    run = make_run(tmp_path / "run", kind="transfer")
    with pytest.raises(DataError, match="got a transfer"):
        ship(run)
    (checkpoint,) = (run / "checkpoints").iterdir()
    checkpoint.rename(tmp_path / "alone")
    with pytest.raises(UsageError, match="expected a run"):
        ship(tmp_path / "alone")
    assert not empty_zoo.exists()


def test_a_module_that_a_run_names_is_not_imported(empty_zoo, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(tmp_path)
    run = make_run(tmp_path / "run", plays="gym:evil_module:CartPole-v1")

    with pytest.raises(DataError, match="whose module would be imported"):
        ship(run)
    assert not empty_zoo.exists()


def test_scores_of_other_weights_are_refused(zoo):
    path = zoo / NAME / "scores.json"
    content = json.loads(path.read_text())
    content["evaluations"][1]["checkpoint"] = "f" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="other weights"):
        read_shipped(NAME)
    scores = content["evaluations"][1]["tasks"][CARTPOLE]
    for damage in (
        {"ci95": "x"}, {"ci95": [1.0]}, {"ci95": [1.0, "2"]}, {"mean": True},
        {"human_normalised": "much"}, {"episodes": 2.0},
    ):  # fmt: skip
        content["evaluations"][1]["tasks"] = {CARTPOLE: scores | damage}
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"scores of {CARTPOLE}"):
            read_shipped(NAME)
    content["evaluations"][1]["tasks"] = {"pong": scores}
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"scores of {CARTPOLE}"):
        read_shipped(NAME)
    path.write_text('{"schema": 1, "evaluations": [{}]}')
    with pytest.raises(DataError, match="expected evaluations"):
        read_shipped(NAME)


@pytest.mark.parametrize(
    ("values", "preset", "settings"),
    [
        ({"preset": "fast"}, "fast", []),
        ({"preset": "fast", "exploration_fraction": 0.5}, "fast", ["exploration_fraction=0.5"]),
        ({"preset": "nature", "width": 0.5, "seed": 3}, "nature", ["width=0.5"]),
        ({"algorithm": "dqn", "n_step": 5}, None, ["n_step=5"]),
    ],
)
def test_the_command_of_a_run_trains_it_again(values, preset, settings):
    config = build_config("expert", {"task": "pong", "total_steps": 200_000} | values)
    stored = to_json(config)
    found, command = training_command(stored, {"centred": stored["centred"]})

    assert found == preset
    assert [part[6:] for part in command.split() if part.startswith("--set=")] == settings
    verb = cli._read(command.split()[1:])
    asked = {"task": "pong", "seed": verb.common.seed, "total_steps": verb.common.total_steps}
    asked |= {"protocol": verb.common.protocol} | dict(s.split("=") for s in verb.common.set)
    start = {"algorithm": verb.algorithm} if preset is None else {"preset": verb.preset}
    assert build_config("expert", asked | start) == config


def test_a_run_older_than_centring_is_trained_again_without_it():
    config = to_json(build_config("expert", {"task": "pong"}))
    del config["centred"]

    assert training_command(config, {})[1].endswith(" --set=centred=False")
    assert "--set" not in training_command(config, {"centred": True})[1]


@pytest.mark.usefixtures("zoo")
def test_the_table_of_the_documents_is_made_of_the_scores():
    expert = read_shipped(NAME)
    table = markdown_table([expert])
    mean = expert.scores("sticky", 0.01)["mean"]

    assert table.count("\n") == 2
    random = expert.random_play("paper")["tasks"][CARTPOLE]["mean"]
    assert f"| `{ZOO_NAME}` | 2,500,000 | {random:.1f} |" in table
    assert f"| {mean:.1f} [" in table


def test_what_is_shipped_is_whole_small_and_says_so():
    experts = [read_shipped(name) for name in shipped_names()]

    assert sum(expert.size for expert in experts) <= 35_000_000
    for expert in experts:
        resolve_checkpoint(Path(f"zoo:{expert.name}"))
        measured = {(r["protocol"], r["epsilon"]) for r in expert.evaluations}
        assert measured == {*MEASURED, ("paper", 1.0)}, expert.name
        assert expert.random_play("paper") is not None, expert.name
        games = {r["tasks"][expert.task]["episodes"] for r in expert.evaluations}
        assert games == {100}, expert.name
        assert (expert.path / "card.md").read_text() == card(expert), expert.name
    for path, table in zoo_table.tables().items():
        text = path.read_text()
        assert zoo_table.written(text, table) == text, (
            f"{path}: python -m benchmarks.zoo_table --write"
        )


def test_records_of_another_run_are_refused(tmp_path):
    pong = read_shipped("pong")
    zoo_table.check_records(pong, ROOT / "results/zoo/pong")
    with pytest.raises(DataError, match=r"the run that pong was shipped from .* found others"):
        zoo_table.check_records(pong, ROOT / "results/zoo/boxing")
    with pytest.raises(DataError, match="found none"):
        zoo_table.check_records(pong, tmp_path)


def test_the_wheel_takes_the_experts_along():
    """Everything below the package, but for what git ignores."""
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert targets["targets"]["wheel"] == {"packages": ["src/actor_mimic"]}
    assert targets.keys() == {"targets"}
    assert (ROOT / "src/actor_mimic") in REAL_ZOO.parents
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line]
    for part in ("zoo", "pong", "model.safetensors", "MANIFEST.json", "scores.json", "card.md"):
        assert not any(fnmatch.fnmatch(part, pattern) for pattern in ignored), part
