"""Arithmetic of the benchmarks; what they measure is not measured here."""

import argparse
import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

from actor_mimic.errors import DataError
from actor_mimic.flat_config import build_config
from actor_mimic.networks.torsos import Torso, TorsoSpec
from actor_mimic.report.aggregate import collect
from actor_mimic.stages.configured import torso_spec
from actor_mimic.storage.records import Record
from benchmarks import floors, loops, one_loop, one_network, parts, timing
from benchmarks.documents import replace_table
from benchmarks.sb3_student import shortfall
from benchmarks.several_games import GAMES, config_of, ratio
from benchmarks.summary import (
    PARTS,
    Verdict,
    median,
    medians,
    of_floor,
    of_sb3,
    print_loops,
    verdicts,
)
from benchmarks.time_to_score import first_reached
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]


def a_round(*, ours: float, sb3_1: float, sb3_8: float, floor: float = 100.0) -> dict:
    return {
        "loops": {"dqn-like-sb3": {"steps_per_s": ours}, "dqn-own-batch": {"steps_per_s": ours}},
        "floors": {"dqn-like-sb3": {"steps_per_s": floor}},
        "sb3": {"1": {"steps_per_s": sb3_1}, "8": {"steps_per_s": sb3_8}},
    }


ROUNDS = [
    a_round(ours=300.0, sb3_1=100.0, sb3_8=50.0),  # 3 times one, 6 times eight environments
    a_round(ours=400.0, sb3_1=50.0, sb3_8=200.0),  # 8, 2
    a_round(ours=350.0, sb3_1=70.0, sb3_8=10.0),  # 5, 35
]


@pytest.mark.parametrize("name", ["dqn-like-sb3", "dqn-own-batch"])
def test_what_runs_beside_sb3_has_its_network(name):
    theirs = build_config("expert", {"task": "pong", "preset": "sb3"})
    assert WORKLOADS[name].config("pong").network == theirs.network


def test_ratios_to_sb3_are_taken_within_a_round_and_against_the_faster():
    assert median(ROUNDS, of_sb3("dqn-like-sb3", "1")) == 5.0
    assert median(ROUNDS, of_sb3("dqn-like-sb3", "8")) == 6.0
    assert median(ROUNDS, of_sb3("dqn-like-sb3")) == 3.0


def test_targets_are_multiples_of_sb3_with_one_environment():
    like, own = verdicts([*ROUNDS, a_round(ours=210.0, sb3_1=70.0, sb3_8=10.0)])  # 3
    few, _ = verdicts(ROUNDS[:1])

    assert (like.limit, like.measured, like.passed) == (3.0, 4.0, True)
    assert (own.limit, own.measured, own.passed) == (4.0, 4.0, True)
    assert (few.limit, few.measured, few.passed) == (3.0, 3.0, True)


def test_a_loops_share_of_its_floor_is_of_medians(capsys):
    loop = {"steps_per_s": 30.0, "median_steps_per_s": 40.0, "peak_memory_mib": 1.0}
    parts_us = {"us_per_step": dict.fromkeys(PARTS, 1.0)}
    one = {
        "loops": {"dqn": loop | parts_us},
        "floors": {"dqn": {"steps_per_s": 50.0} | parts_us},
    }
    assert of_floor("dqn")(one) == 0.8
    assert medians([one])["dqn"] == {
        **{"steps_per_s": 30.0, "median_steps_per_s": 40.0, "floor": 50.0},
        **{"of_floor": 0.8, "of_floor_by_mean": 0.6},
    }
    print_loops([one])
    assert re.search(r"DQN +30 +40 +50 +0\.80 +1\n", capsys.readouterr().out)


def test_a_slow_moment_is_in_the_speed_of_a_loop_and_not_in_its_median(monkeypatch):
    now = 0.0

    class State:
        steps = updates = 0
        _rollout = SimpleNamespace(start=lambda: None)

        def advance(self) -> None:
            nonlocal now
            now += 4.0 if self.steps == 40 else 0.125
            self.steps, self.updates = self.steps + 4, self.updates + 1

    monkeypatch.setattr(one_loop.time, "perf_counter", lambda: now)

    speed = one_loop.loop_speed(State(), warm_steps=8, seconds=6.0)

    # After two of warm-up 16 advances of an eighth of a second, and one of four seconds.
    assert speed == {
        **{"steps_per_s": 68 / 6.0, "median_steps_per_s": 32.0, "steps": 68, "updates": 17}
    }


def test_variants_take_turns_and_the_median_of_their_times_counts(monkeypatch):
    now, calls = 0.0, []

    def timed(name: str, duration_s: float):
        def call() -> None:
            nonlocal now
            calls.append(name)
            # A switch takes three slow calls, and something interferes with a timed one.
            first = sum(1 for _ in itertools.takewhile(name.__eq__, reversed(calls)))
            now += duration_s * (10.0 if first <= 3 or len(calls) == 11 else 1.0)

        return call

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    variants = {"slow": timed("slow", 2.0), "fast": timed("fast", 0.5)}

    rates = timing.median_rates(variants, items=4, seconds=8.0, turns=2)

    assert rates == {"slow": 2.0, "fast": 8.0}
    turns = [(name, len([*own])) for name, own in itertools.groupby(calls)]
    assert turns == [("slow", 6), ("fast", 6), ("slow", 6), ("fast", 11)]


@pytest.mark.parametrize("name", loops.NAMES)
def test_a_floor_has_the_layers_of_its_loop(name):
    config = WORKLOADS[name].config("assault")
    torso = Torso(torso_spec(config.network, (4, 84, 84)))
    layers, hidden = parts.bare_torso(config.network.width, config.network.norm)

    assert [p.shape for p in layers.parameters()] == [p.shape for p in torso.parameters()]
    assert hidden == torso.num_features


@pytest.mark.parametrize("centred", [True, False])
def test_a_floor_shows_its_network_what_the_loop_shows(centred):
    made_of = parts.Parts(0.5, "all", centred, regression=False, low=False, threads=1, seconds=0.0)
    with parts._Pool(1) as pool:
        setting = parts._Setting(made_of, 2, "channels_last", pool)
    torso = Torso(TorsoSpec("nature", (4, 84, 84), 0.5, "all", centred))
    if centred:
        torso.background.fill_(0.5)

    torch.testing.assert_close(setting.images(slice(0, 2)), torso.prepared(setting.obs))


@pytest.mark.parametrize(
    ("name", "centred", "regression", "passes", "seconds_per_step"),
    [  # were everything done once a second: emulation, acting, samples trained
        ("pqn", True, False, [1], 1 + 1 + 2),
        ("dqn", True, False, [1, 2], 1 + 1 + 8 * 2),  # each is bootstrapped from too
        ("distill", True, True, [1], 1 + 2 + 2),  # the teachers look too
        ("distill-nature", False, True, [1], 1 + 2 + 1),
    ],
)
def test_a_floor_does_what_its_loop_does(
    monkeypatch, name, centred, regression, passes, seconds_per_step
):
    asked = []

    class Counted(parts.Parts):
        def emulation(self, *_):
            return parts.Part(1.0, "", {})

        def acting(self, _, passes=1):
            asked.append(passes)
            return parts.Part(1.0, "", {})

        def training(self, _):
            assert (self.centred, self.regression) == (centred, regression)
            return parts.Part(1.0, "", {})

    monkeypatch.setattr(floors, "Parts", Counted)
    options = argparse.Namespace(precision="float32", game="assault", seconds=1.0)

    assert floors.measure(name, options)["steps_per_s"] == pytest.approx(1 / seconds_per_step)
    assert asked == passes


@pytest.mark.parametrize(
    ("bound", "measured", "passed"),
    [
        ("at least", 0.8, True),
        ("at least", 0.79, False),
        ("at most", 0.8, True),
        ("at most", 0.81, False),
    ],
)
def test_a_target_is_met_at_its_limit(bound, measured, passed):
    assert Verdict("speed", bound, 0.8, measured).passed == passed


def train(step: int, score: float | None, episodes: int, wall_s: float) -> Record:
    values = {"pong/score": score, "episodes": episodes, "steps_per_s": 100.0}
    return Record("train", step, 0, values, wall_s)


def evaluation(step: int, mean: float, wall_s: float) -> Record:
    return Record("evaluation", step, 0, {"merit": mean, "pong/mean": mean}, wall_s)


RECORDS = [
    evaluation(0, -21.0, 5.0),
    train(1_000, None, 0, 15.0),
    train(2_000, 19.0, 99, 25.0),  # the mean of 99 games only
    train(3_000, 18.5, 120, 35.0),
    evaluation(3_000, 18.0, 45.0),
    train(4_000, 20.0, 150, 55.0),
    evaluation(4_000, 12.0, 65.0),
]


def test_time_to_score_by_hand():
    evaluated, trained = first_reached(RECORDS, 18.0)

    # 3,000 steps at 100 a second; the two evaluations before took the rest of the wall time.
    assert evaluated["figure"] == "evaluation"
    assert evaluated["reached"] == {
        "score": 18.0,
        "step": 3_000,
        "wall_s": 45.0,
        "learning_s": 30.0,
    }
    assert trained["figure"] == "training games"
    assert trained["reached"]["step"] == 3_000
    assert trained["best"] == 20.0


def test_a_score_that_was_never_reached():
    assert [entry["reached"] for entry in first_reached(RECORDS, 21.0)] == [None, None]


def test_several_games_are_held_against_the_harmonic_mean_of_the_single_ones():
    # One game at 300 and seven at 600 steps/s: a step of each of the eight takes 8 / 533.3 s.
    alone = dict.fromkeys(GAMES, 600.0) | {"pong": 300.0}

    together = {"together 1": 380.0, "together 2": 500.0, "together 3": 560.0}
    assert ratio(alone | together) == pytest.approx(0.9)


def test_the_single_games_and_the_eight_have_the_same_environments_and_batch():
    for games in (GAMES, GAMES[:1]):
        config = config_of(games)

        assert config.envs_per_task * len(games) == 256
        assert config.batch_size_per_task * len(games) == 256


def test_a_shortfall_is_a_share_of_the_teachers_absolute_mean():
    assert shortfall(-100.0, -104.0) == pytest.approx(0.04)
    assert shortfall(500.0, 450.0) == pytest.approx(0.1)
    assert shortfall(-100.0, -90.0) == 0.0


def test_a_table_takes_the_place_of_the_one_before():
    begin, end = "<!-- x: written by make x, not by hand -->", "<!-- end of x -->"
    old = f"before\n{begin}\nold\n{end}\nafter\n"

    assert replace_table(old, "x", "make x", "new") == f"before\n{begin}\nnew\n{end}\nafter\n"
    for broken in ("nothing", begin, end + begin, old + old):
        with pytest.raises(ValueError, match="once each"):
            replace_table(broken, "x", "make x", "new")


def test_the_student_tables_of_the_committed_demo():
    """Against the tables that its page shows of the same records."""
    demo = collect(ROOT / "results/demo")
    table = (ROOT / "results/demo/table.txt").read_text()

    *_, line = one_network.over_stages(demo).splitlines()
    ratios = re.findall(r"^student +(\w+) .* (\d+%) +\d+% +yes$", table, re.MULTILINE)
    assert [share for _, share in ratios] == line.split(" | ")[3:7]
    (mean,) = re.findall(r"^student: (\d+% \[.*?\]) of the way", table, re.MULTILINE)
    # The page has no decimal.
    finer, coarser = (re.findall(r"[\d.]+", text) for text in (line.split(" | ")[7], mean))
    assert [*map(float, finer)] == pytest.approx([*map(float, coarser)], abs=0.55)
    _, _, *lines = one_network.over_tasks(demo, "student").splitlines()[:6]
    assert [row.split(" | ")[0][2:] for row in lines] == [game for game, _ in ratios]
    assert [row.split(" | ")[5].split()[0] for row in lines] == [share for _, share in ratios]


def test_a_figure_of_its_own_has_the_colours_of_the_page():
    demo = collect(ROOT / "results/demo")
    root = ElementTree.fromstring(one_network.figure(demo, "student"))

    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert (root.attrib["width"], root.attrib["height"]) == ("388.8", "149.04")
    style = root.findtext("{*}style")
    assert style.count("--student: #") == 2  # of light and of dark screens
    classes = {name for e in root.iter() for name in e.attrib.get("class", "").split()}
    assert {f"{kind}-student" for kind in ("fill", "stroke")} <= classes
    assert all(f".{name} {{" in style for name in classes)
    assert one_network.better(demo, ("student", "another")) == "student"


def test_the_tables_and_figures_of_one_network_are_those_of_the_committed_records(
    capsys, monkeypatch
):
    found, figures = one_network.tables()
    assert "study" in found
    documents = [path.read_text() for path in one_network.DOCUMENTS]
    for name in found:
        assert any(f"<!-- {name}: written by" in document for document in documents)
    for document in documents:
        assert "<!-- students: written by" in document
        assert one_network.written(document, found) == document
    for file, drawn in figures.items():
        assert file.read_text() == drawn

    monkeypatch.setattr(one_network, "tables", lambda: (found, figures))  # they take ten seconds
    one_network.main([])
    assert found["study"] in capsys.readouterr().out


def test_the_tables_and_the_figure_of_eight_games_are_written(tmp_path, monkeypatch):
    """From the demo, in the place of the records of eight games."""
    (tmp_path / one_network.RECIPE).symlink_to(ROOT / "results/demo")
    begin, end = (
        "<!-- {}: written by python -m benchmarks.one_network, not by hand -->",
        "<!-- end of {} -->",
    )
    places = [f"{begin}\n{end}".format(name, name) for name in ("students", "games")]
    paths = [tmp_path / "README.md", tmp_path / "FIRST.md"]
    for path, mine in zip(paths, (places, places[:1]), strict=True):
        path.write_text("\n".join(mine))
    monkeypatch.setattr(one_network, "ROOT", tmp_path)
    monkeypatch.setattr(one_network, "DOCUMENTS", paths)
    monkeypatch.setattr(one_network, "FULL_SIZE", ("student",))

    one_network.main(["--write"])

    document, first = (path.read_text() for path in paths)
    assert one_network.over_stages(collect(ROOT / "results/demo")) in document
    assert one_network.over_stages(collect(ROOT / "results/demo")) in first
    assert one_network.over_tasks(collect(ROOT / "results/demo"), "student") in document
    assert one_network.over_tasks(collect(ROOT / "results/demo"), "student") not in first
    assert (tmp_path / "games.svg").read_text().startswith("<svg")
    with pytest.raises(DataError, match="expected a student of all games"):
        one_network.better(collect(ROOT / "results/demo"), ("another",))
