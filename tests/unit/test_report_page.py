"""The page: numbers by hand, what is refused, films, size, and text that wants to be markup."""

import base64
import json
import os
import re
from html.parser import HTMLParser
from itertools import zip_longest

import numpy as np
import pytest
from hostile_text import FIELDS, PAYLOADS, hostile_recipe
from report_runs import STUDENT, add_evaluation, add_run, score, small_recipe, write_json

from actor_mimic.errors import UnavailableError, UsageError
from actor_mimic.report import figures
from actor_mimic.report.aggregate import Likeness, Point, collect
from actor_mimic.report.contents import learning_panels
from actor_mimic.report.curves import thinned
from actor_mimic.report.films import MAX_BYTES, embed, find_films
from actor_mimic.report.page import write_report
from actor_mimic.report.tables import score_rows
from actor_mimic.report.terminal import text_table
from tests.made_up_run import make_run

MP4 = b"\0\0\0\x20ftypisom"


class Structure(HTMLParser):
    """Elements with the names of their attributes, addresses, and the text between."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.addresses, self.words = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.words.append(data)

    def handle_comment(self, data):
        self.elements.append(("comment", data))


class Tables(HTMLParser):
    """The sortable tables of a page by their captions: rows of cells as text."""

    def __init__(self, page):
        super().__init__()
        self.tables, self._text, self._rows = {}, None, []
        self.feed(page)

    def handle_starttag(self, tag, _attrs):
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th", "caption"):
            self._text = ""

    def handle_data(self, data):
        if self._text is not None:
            self._text += data

    def handle_endtag(self, tag):
        if tag == "table":
            self._rows = []
        elif tag == "caption":
            self._rows = self.tables.setdefault(self._text, [])
        elif tag in ("td", "th"):
            self._rows[-1].append(" ".join(self._text.split()))
        if tag in ("td", "th", "caption"):
            self._text = None


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    said = set()

    def say(field):
        said.add(field)
        return f"field {field}"

    root = hostile_recipe(tmp_path_factory.mktemp("harmless") / "x", say)
    assert said == set(FIELDS)
    return Structure(write_report(root).read_text())


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_text_is_inert_in_every_field(tmp_path, harmless, payload):
    root = hostile_recipe(tmp_path / "x", lambda field: f"{payload}field {field}")

    text = write_report(root).read_text()
    page = Structure(text)

    # Not the lists themselves: their difference would take minutes to print.
    pairs = zip_longest(page.elements, harmless.elements)
    assert next((pair for pair in pairs if pair[0] != pair[1]), None) is None
    assert all(re.match(r"#|data:video/mp4;base64,", address) for address in page.addresses)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800-\udfff]", text)
    assert text.count("<script>") == text.count("</script>") == 1


def test_the_fields_do_arrive(harmless):
    words = " ".join(harmless.words)

    unseen = {"metric", "whose evaluation", "not a number", "origin", "parent"}
    for field in set(FIELDS) - unseen:
        assert f"field {field}" in words, field
    assert len(PAYLOADS) * len(FIELDS) >= 300


def two_games(root, seeds):
    """Ratios of two games by seed: random play at 0, experts at 20 and 100."""
    for seed, ratios in enumerate(seeds):
        parents = [f"{game}{seed}" * 4 for game in "pb"]
        student = {}
        for game, best, sha, ratio in zip(("pong", "boxing"), (20.0, 100.0), parents, ratios,
                                          strict=True):  # fmt: skip
            add_run(root, f"{game}-expert", "expert", {"task": game}, sha=sha, seed=seed,
                    scores={game: score(best, best, best)})  # fmt: skip
            if ratio is not None:
                student[game] = score(ratio * best, 0.0, best)
        run = add_run(root, "student", "distill", {"tasks": ["pong", "boxing"], "parents": parents},
                      sha=f"s{seed}" * 4, seed=seed, scores=student)  # fmt: skip
        for game in ("pong", "boxing"):
            content = {"checkpoint": "random", "protocol": "paper"}
            tasks = {game: score(0.0, 0.0, 0.0)}
            write_json(run / f"evaluations/{game}.json", content | {"tasks": tasks})
    return root


def test_numbers_of_the_page_by_hand(tmp_path):
    root = two_games(tmp_path / "x", [(0.5, 1.0), (0.7, 1.6)])

    tables = Tables(write_report(root).read_text()).tables

    assert tables["Scores of student"][1:] == [
        # Means over seeds, and the bootstrap over two seeds: the lower, the mean, the higher.
        ["pong", "0.0 [0.0, 0.0]", "14.6", "20.0 [20.0, 20.0]", "12.0 [10.0, 14.0]",
         "60% [50%, 70%]", "-"],
        ["boxing", "0.0 [0.0, 0.0]", "12.1", "100.0 [100.0, 100.0]", "130.0 [100.0, 160.0]",
         "130% [100%, 160%]", "-"],
    ]  # fmt: skip
    expert_scale = tables["Over all games of student"][1]
    # Of 0.5, 0.7, 1.0, 1.6: the middle two; the median of 0.6 and 1.3; what 0.5 and 0.7 lack,
    # by 4; the root of 0.6 x 1.3. All seeds at their lowest in both games come in one draw of 16,
    # more than 1 in 40: the root of 0.5 x 1.0, and of 0.7 x 1.6.
    assert expert_scale == ["student", "expert", "85% [75%, 115%]", "95% [75%, 115%]",
                            "95% [75%, 115%]", "88% [71%, 106%]", "20% [15%, 25%]", "2",
                            "2 seeds"]  # fmt: skip
    human_scale = tables["Over all games of student"][2]
    # (10 + 20.7) / 35.3 = 0.870, (14 + 20.7) / 35.3 = 0.983, 99.9 / 12 = 8.325, 159.9 / 12 = 13.325
    assert human_scale[4].startswith("588%")
    assert human_scale[2].startswith("465%")
    line = "student: 88% [71%, 106%] of the way from random play to its experts, geometric mean of "
    assert f"\n{line}2 games\n" in text_table(root)


def test_a_game_no_better_than_random_play_makes_the_geometric_mean_nothing(tmp_path):
    root = two_games(tmp_path / "x", [(-0.5, 1.0)])

    assert "\nstudent: 0% of the way from random play" in text_table(root)


def test_the_seeds_of_a_game_stand_together_over_their_mean(tmp_path):
    collection = collect(two_games(tmp_path / "x", [(0.5, 1.0), (0.7, 1.6)]))

    rows = [(row.task, row.seed) for row in score_rows(collection) if row.stage == "student"]

    assert rows == [(game, seed) for game in ("pong", "boxing") for seed in ("0", "1", "mean")]


def test_intervals_of_one_seed_are_over_its_games(runs):
    """Two games of 8 and 12 beside an expert's 20 and 20 and random play's 0 and 0."""
    for path, games in (
        ("pong-expert/seed-0/complete.json", [20.0, 20.0]),
        ("student/seed-0/complete.json", [8.0, 12.0]),
    ):
        content = json.loads((runs / path).read_text())
        mean = sum(games) / 2
        content["scores"]["pong"] |= {"mean": mean, "scores": games}
        write_json(runs / path, content)
    add_evaluation(runs / "student/seed-0", "random", "pong",
                   score(0.0, 0.0, 0.0) | {"scores": [0.0, 0.0]})  # fmt: skip

    (row,) = Tables(write_report(runs).read_text()).tables["Scores of student"][1:]

    # 8, 10 and 12 with probabilities 1/4, 1/2, 1/4.
    assert row[5] == "50% [40%, 60%]"


def test_missing_cells_are_refused_unless_allowed_by_name(tmp_path):
    root = two_games(tmp_path / "x", [(0.5, 1.0), (0.7, None)])
    notices = []

    refused = write_report(root, notice=notices.append).read_text()
    allowed = Tables(write_report(root, allow_missing=["boxing"]).read_text()).tables

    rows = Tables(refused).tables["Over all games of student"][1:]
    assert [row[:2] for row in rows] == [["its experts", "human"]]
    assert "to do without: --allow-missing boxing" in refused
    assert ["expert-normalised, student" in notices[0], len(notices)] == [True, 2]
    assert allowed["Over all games of student"][1][:3] == ["student", "expert", "60% [50%, 70%]"]
    assert [row[7] for row in allowed["Over all games of student"][1:]] == ["1", "1", "2"]
    with pytest.raises(UsageError, match="no student here plays it; did you mean 'boxing'"):
        write_report(root, allow_missing=["boxin"])


def test_arms_over_seeds_by_hand(runs):
    add_run(runs, "cold", "transfer", {"task": "breakout"}, seed=1,
            curve=[(0, 2.0), (50, 6.0), (100, 10.0)])  # fmt: skip
    add_run(runs, "warm", "transfer", {"task": "breakout", "parents": [STUDENT]}, seed=1,
            curve=[(0, 2.0), (50, 12.0), (100, 12.0)])  # fmt: skip

    cold, warm = Tables(write_report(runs).read_text()).tables["Arms on breakout"][1:]

    # Areas above 2. cold: 200 and 400; warm: 600 and 750. 1350 / 600; 600 / 400; 750 / 200.
    assert cold[:3] == ["random weights cold", "2", "1.00"]
    assert warm[:3] == ["student warm", "2", "2.25 [1.50, 3.75]"]
    # cold ends at a mean of 8; warm's goes from 3 to 10 in 50 steps and is there after 5/7.
    assert cold[3:] == ["100 400 frames", "1.0\u00d7"]
    assert warm[3:] == ["36 143 frames", "2.8\u00d7"]


def test_size_against_the_experts_and_tensors_that_were_copied(runs):
    for stage, more in (
        ("student", {"parameters": 500_000, "teacher_parameters": {"pong": 2_000_000}}),
        ("warm", {"tensor_origins": [
            {"name": "torso.a", "origin": "copied", "rows": 3},
            {"name": "head.b", "origin": "rows", "rows": 2},
            {"name": "head.c", "origin": "fresh", "rows": 0},
        ]}),
    ):  # fmt: skip
        path = runs / stage / "seed-0/complete.json"
        write_json(path, json.loads(path.read_text()) | more)

    text = write_report(runs).read_text()

    assert re.search(r"<b>25%</b><span>of its expert&#39;s parameters</span>", text)
    assert "500k beside 2M in 1 expert" in text
    assert "warm: 1 of 3 tensors copied from student, not head.b, head.c" in text
    assert re.search(r'<li class="rows">head.b <small>2 rows copied</small>', text)


def test_experts_without_a_student_are_counted(tmp_path):
    for game in ("pong", "boxing"):
        add_run(tmp_path / "zoo", game, "expert", {"task": game})

    assert "<h1>2 experts</h1>" in write_report(tmp_path / "zoo").read_text()


def test_a_run_that_stands_alone_begins_with_its_score(runs):
    path = runs / "pong-expert/seed-0/complete.json"
    content = json.loads(path.read_text())
    content["scores"]["pong"]["human_normalised"] = 1.15
    write_json(path, content)

    text = write_report(path.parent).read_text()

    assert "<h1>An expert of pong</h1>" in text
    assert "<b>20.0</b><span>points on pong</span>" in text
    assert "95 % interval [19.0, 21.0]; 115% of the published human" in text


def test_a_curve_ends_at_the_score_of_its_own_stage(runs, monkeypatch):
    for name, mean in (("pong-expert", 20.0), ("pong-expert-2", 5.0)):
        add_run(runs, name, "expert", {"task": "pong"}, sha=name,
                curve=[(0, 0.0), (100, mean)],
                scores={"pong": score(mean, mean, mean)})  # fmt: skip
    ends = []
    monkeypatch.setattr(
        figures, "curve_panel", lambda *_, final, **__: ends.append(final.mean) or "<svg/>"
    )
    collection = collect(runs)

    panels = learning_panels(collection, score_rows(collection), ("expert",))

    assert [panel.caption for panel in panels] == ["pong-expert", "pong-expert-2"]
    assert ends == [20.0, 5.0]


def test_games_that_were_learnt_from_are_a_curve_too(runs, monkeypatch):
    """Beside evaluations, and alone where there are none; no game has ended before step 40."""
    played = {"training": [(20, None), (40, 1.0), (100, 4.0)], "scores": {}}
    add_run(runs, "quiet", "expert", {"task": "pong"}, sha="q" * 64, **played)
    add_run(runs, "seen", "expert", {"task": "boxing"}, sha="s" * 64,
            curve=[(0, 0.0), (80, 3.0)], **played)  # fmt: skip
    drawn = {}
    monkeypatch.setattr(
        figures, "curve_panel", lambda title, *found, **_: drawn.update({title: found}) or "<svg/>"
    )
    collection = collect(runs)

    learning_panels(collection, score_rows(collection), ("expert",))

    assert drawn["pong"][0] is None
    assert drawn["boxing"][0].steps == (0.0, 80.0)
    for task in ("pong", "boxing"):
        training = drawn[task][1]
        assert (training.steps, training.mean) == ((40.0, 100.0), (1.0, 4.0))
    monkeypatch.undo()
    assert "Learning curve of pong, expert, up to 100 steps" in write_report(runs).read_text()


@pytest.mark.parametrize("length", [1, 2, 149, 150, 301, 1_000])
def test_a_long_curve_is_thinned_evenly(length):
    points = [Point(step, 0.0) for step in range(length)]

    kept = [point.step for point in thinned(points)]

    assert kept[-1] == length - 1
    assert len(set(np.diff(kept))) <= 1
    assert min(length, 75) <= len(kept) <= 150
    assert thinned([]) == []


def test_a_network_without_teachers_is_shown_as_a_student(runs):
    run = add_run(runs, "together", "multitask-dqn", {"task": "pong"}, sha="c" * 64,
                  scores={"pong": score(5.0, 4.0, 6.0)}, curve=[(0, 0.0), (100, 5.0)])  # fmt: skip
    add_film(run, "grid")

    text = write_report(runs).read_text()

    assert 'aria-label="Learning curve of pong, student' in text
    assert "together: one network, all its games" in text
    assert "<h1>One network plays 1 game</h1>" in write_report(run).read_text()


def test_likeness_is_that_of_held_out_states_as_last_recorded(runs, monkeypatch):
    """An error of 69 is written out, and its row ends with the axis."""
    held_out = {"held_out_agreement": 0.75, "held_out_divergence": 0.5, "feature_error": 69.2}
    lines = [
        {"kind": kind, "step": step, "values": {f"pong/{name}": value for name, value in values}}
        for kind, step, values in (
            ("evaluation", 50, [(name, 2 * value) for name, value in held_out.items()]),
            ("evaluation", 100, [*held_out.items()]),
            ("train", 100, [("agreement", 0.1), ("divergence", 0.1)]),
        )
    ]
    common = {"update": 0, "wall_s": 0.0}
    (runs / "student/seed-0/records.jsonl").write_text(
        "".join(json.dumps(line | common) + "\n" for line in lines)
    )
    drawn, draw = [], figures._bars
    monkeypatch.setattr(
        figures,
        "_bars",
        lambda values, *words, **how: drawn.append(values) or draw(values, *words, **how),
    )

    text = write_report(runs).read_text()

    assert drawn == [{"pong": 0.75}, {"pong": 0.5}, {"pong": 69.2}]
    assert "Error of the feature regression of student and its teachers, game by game" in text
    assert ">75%<" in text
    assert ">69.2<" in text
    assert "Of the features: 1 is what their mean would reach" in text


@pytest.mark.parametrize("agreement", [-0.1, 1.1, 1e300, None, "0.5"])
def test_an_agreement_that_is_no_share_is_missing(runs, agreement):
    values = {"pong/held_out_agreement": agreement, "pong/held_out_divergence": 0.5}
    line = {"kind": "evaluation", "step": 1, "update": 0, "wall_s": 0.0, "values": values}
    (runs / "student/seed-0/records.jsonl").write_text(json.dumps(line) + "\n")

    assert not any(run.likeness for run in collect(runs).runs)


def test_likeness_without_features_has_two_figures():
    alike = {"pong": Likeness(0.5, 0.25, held_out=True)}

    found = figures.likeness_figures(alike, "student")

    assert [re.search('aria-label="Policy (\\w+)', svg)[1] for svg in found] == [
        "agreement",
        "divergence",
    ]


def add_film(run, name, content=MP4):
    (run / "films").mkdir(exist_ok=True)
    (run / "films" / f"{name}.mp4").write_bytes(content)


def test_films_are_inside_and_the_best_come_first(runs):
    expert, student, warm = (runs / s / "seed-0" for s in ("pong-expert", "student", "warm"))
    for run, name in ((warm, "breakout"), (expert, "pong"), (student, "pong"), (student, "grid")):
        add_film(run, name, MP4 + name.encode())

    collection = collect(runs)
    titles = [film.title for film in find_films(collection)]
    text = write_report(runs).read_text()

    assert titles == ["student: one network, all its games", "pong: student", "pong: pong-expert",
                      "breakout: warm"]  # fmt: skip
    uris = re.findall(r'src="data:video/mp4;base64,([^"]*)"', text)
    assert [base64.b64decode(uri)[len(MP4) :] for uri in uris] == [b"grid", b"pong", b"pong",
                                                                  b"breakout"]  # fmt: skip
    add_film(student, "pong-beside")
    assert [film.title for film in find_films(collect(runs))][1:] == [
        "pong: student and expert", "breakout: warm"]  # fmt: skip


def test_films_that_are_none_or_too_many_are_named(runs, tmp_path):
    student = runs / "student/seed-0"
    add_film(student, "grid", b"<html><script>alert(1)</script></html>")
    add_film(student, "pong")
    (tmp_path / "secret.mp4").write_bytes(MP4)
    (runs / "warm/seed-0/films").mkdir()
    os.symlink(tmp_path / "secret.mp4", runs / "warm/seed-0/films/breakout.mp4")

    inside, left_out = embed(find_films(collect(runs)))

    assert [film.title for film in inside] == ["pong: student"]
    assert "expected an MP4 file" in left_out[0]
    assert "symbolic link" in left_out[1]
    assert embed(find_films(collect(runs))[1:2], max_bytes=11) == (
        [], [f"{student}/films/pong.mp4: 12 bytes more than a page has room for"])  # fmt: skip


def test_a_page_stays_below_15_megabytes(tmp_path):
    root = make_run(tmp_path, films=False)
    for game in ("pong", "boxing", "enduro", "seaquest"):
        add_film(root / "student/seed-0", f"{game}-beside", MP4 + bytes(2 * MAX_BYTES // 5))

    path = write_report(root)

    assert 10_000_000 < path.stat().st_size < 15_000_000
    assert path.read_text().count("<video") == 2
    assert path.read_text().count("bytes more than a page has room for") == 2


def test_without_matplotlib_the_extra_is_named(runs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)

    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[report\]'"):
        write_report(runs)


@pytest.fixture
def runs(tmp_path):
    return small_recipe(tmp_path / "mine")
