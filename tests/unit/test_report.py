"""The report: figures against numbers worked by hand, damage, and hostile text."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from report_runs import (
    EXPERT,
    STUDENT,
    add_run,
    score,
    small_recipe,
    write_json,
)

from actor_mimic.errors import DataError, UnavailableError
from actor_mimic.report.aggregate import Point, Score, collect
from actor_mimic.report.curves import area_above
from actor_mimic.report.page import write_report
from actor_mimic.report.tables import (
    score_rows,
    show_apart,
    show_score,
    transfer_rows,
)
from actor_mimic.report.terminal import text_table


@pytest.fixture
def runs(tmp_path):
    return small_recipe(tmp_path / "mine")


def test_a_student_is_placed_between_random_play_and_its_expert(runs):
    expert, student, random = score_rows(collect(runs))

    assert (expert.random, expert.expert, expert.student) == (
        Score(0.0, (-1.0, 1.0), 30),
        Score(20.0, (19.0, 21.0), 30),
        None,
    )
    assert student.ratio == pytest.approx(0.9)  # (18 - 0) / (20 - 0)
    assert student.cells() == (
        "student",
        "0",
        "pong",
        "0.0 [-1.0, 1.0]",
        "20.0 [19.0, 21.0]",
        "18.0 [17.0, 19.0]",
        "90%",
        "-",
        "-",
        "-",
        "30",
        "yes",
    )
    assert random.cells()[3:] == ("2.0 [1.0, 3.0]", *["-"] * 6, "30", "-")


def test_a_network_without_teachers_is_placed_beside_the_experts_of_the_student(runs):
    tasks = {"tasks": ["pong", "boxing"]}
    scores = {"pong": score(5.0, 4.0, 6.0), "boxing": score(7.0, 6.0, 8.0)}
    add_run(runs, "together", "multitask-dqn", tasks, scores=scores, sha="c" * 64)

    pong, boxing = (row for row in score_rows(collect(runs)) if row.stage == "together")

    assert pong.expert == Score(20.0, (19.0, 21.0), 30)
    assert pong.student == Score(5.0, (4.0, 6.0), 30)
    assert pong.ratio == pytest.approx(0.25)
    assert (boxing.student, boxing.expert, boxing.ratio) == (Score(7.0, (6.0, 8.0), 30), None, None)


def test_arms_of_a_transfer(runs):
    cold, warm = transfer_rows(collect(runs))

    assert (cold.arm, cold.origin, cold.area_ratio) == ("cold", "random weights", 1.0)
    # Above random play's 2: 50 x (2 + 6) / 2 + 50 x (6 + 10) / 2 = 600 beside 100 x 4 / 2 = 200.
    assert (warm.origin, warm.area_ratio) == ("student", pytest.approx(3.0))
    # What was brought along counts for the maximum, and not for what was learned.
    assert (warm.last_mean, warm.maximum) == (10.0, 12.0)
    assert [row.cells()[-1] for row in (cold, warm)] == ["no", "yes"]


def test_arms_of_other_seeds_budgets_and_protocols_are_not_compared(runs):
    for number, config in enumerate(
        ({"total_steps": 200}, {"protocol": "sticky"}, {"task": "krull"}), start=1
    ):
        base = {"task": "breakout", "parents": [STUDENT]}
        add_run(runs, f"warm{number}", "transfer", base | config, curve=[(0, 4.0), (100, 12.0)])
    add_run(runs, "warm", "transfer", {"task": "breakout", "parents": [STUDENT]}, seed=1)

    rows = {(row.arm, row.seed): row for row in transfer_rows(collect(runs))}

    assert [key for key, row in rows.items() if row.area_ratio is not None] == [
        ("cold (paper)", "0"),
        ("warm (paper)", "0"),
    ]


def test_what_was_not_measured_is_a_dash(tmp_path):
    add_run(tmp_path, "student", "distill", {"tasks": ["pong"], "parents": [EXPERT]})
    add_run(tmp_path, "arm", "transfer", {"task": "pong", "parents": [STUDENT]})

    (student,) = score_rows(collect(tmp_path))
    (arm,) = transfer_rows(collect(tmp_path))
    assert student.cells() == ("student", "0", "pong", *["-"] * 9)
    assert arm.cells() == ("pong", "arm", "0", "model ffffffffffff", *["-"] * 6)


def test_a_teacher_from_elsewhere_is_known_by_what_the_student_kept(runs):
    student = add_run(
        runs,
        "other",
        "distill",
        {"tasks": ["pong"], "parents": ["9" * 64]},
        scores={"pong": score(18.0, 17.0, 19.0)},
        sha="8" * 64,
    )
    kept = {"checkpoint": "9" * 64, "protocol": "paper", "epsilon": 0.05}
    write_json(
        student / "evaluations" / "teacher.json",
        kept | {"tasks": {"pong": score(16.0, 15.0, 17.0)}},
    )

    row = score_rows(collect(runs))[-1]

    assert row.expert is not None
    assert row.expert.mean == 16.0
    assert row.ratio == pytest.approx(18 / 16)


def test_another_protocol_is_another_figure(runs):
    add_run(
        runs,
        "sticky",
        "evaluate",
        {"tasks": ["pong"], "protocol": "sticky"},
        scores={"pong": score(5.0, 4.0, 6.0)},
        sha=STUDENT,
    )

    row = score_rows(collect(runs))[-1]

    assert (row.random, row.expert, row.student) == (None, None, Score(5.0, (4.0, 6.0), 30))


def test_an_expert_no_better_than_random_play_gives_no_ratio(runs):
    path = runs / "pong-expert/seed-0/complete.json"
    content = json.loads(path.read_text())
    write_json(path, content | {"scores": {"pong": score(-1.0, -2.0, 0.0)}})

    assert score_rows(collect(runs))[1].ratio is None


@pytest.mark.parametrize(
    ("points", "floor", "end", "expected"),
    [
        ([(0, 1.0), (10, 3.0)], 0.0, 10, 20.0),
        ([(0, 1.0), (10, 3.0)], 1.0, 10, 10.0),
        ([(0, 1.0), (10, 3.0)], 0.0, 5, 7.5),  # 1 to 2 over 5 steps
        ([(0, 0.0), (10, 0.0)], 1.0, 10, -10.0),
        ([(0, 1.0)], 0.0, 0, None),
        ([(0, 1.0), (10, 3.0)], 0.0, 11, None),
    ],
)
def test_area_by_hand(points, floor, end, expected):
    assert area_above([Point(*point) for point in points], floor, end) == expected


def test_intervals_apart():
    low, high, both = Score(0.0, (0.0, 1.0)), Score(2.0, (1.5, 3.0)), Score(1.0, (0.5, 1.6))

    assert [show_apart(s, low) for s in (high, both, low, Score(9.0), None)] == [
        "yes",
        "no",
        "no",
        "-",
        "-",
    ]
    assert show_score(Score(12345.6, (-1.25, 1e6))) == "12,346 [-1.2, 1,000,000]"


def test_the_text_has_both_tables(runs):
    text = text_table(runs)

    assert re.search(r"^student +pong .* 90% .* yes$", text, re.MULTILINE)
    assert re.search(r"^breakout +warm .* 3\.00 +yes$", text, re.MULTILINE)
    assert "95 % bootstrap interval" in " ".join(text.split())
    assert "protocol paper, evaluation epsilon 0.05" in text


def test_experts_and_students_show_their_evaluations_and_the_human_scale(runs):
    path = runs / "pong-expert/seed-0"
    figures = score(20.0, 19.0, 21.0) | {"human_normalised": 1.15}
    curve = [(0, 25.0), *((step, float(step)) for step in range(1, 13))]
    add_run(runs, "pong-expert", "expert", {"task": "pong"},
            scores={"pong": figures}, sha=EXPERT, curve=curve)  # fmt: skip

    expert = score_rows(collect(runs))[0]

    assert path.is_dir()
    # Steps 3 to 12; the best stood before learning.
    assert (expert.last_mean, expert.maximum) == (7.5, 25.0)
    assert expert.cells()[7:10] == ("115%", "7.5", "25.0")


def test_several_seeds_have_a_mean(runs):
    add_run(runs, "pong-expert", "expert", {"task": "pong"},
            scores={"pong": score(10.0, 9.0, 11.0)}, sha="1" * 64, seed=1)  # fmt: skip
    add_run(runs, "student", "distill", {"tasks": ["pong"], "parents": ["1" * 64]},
            scores={"pong": score(5.0, 4.0, 6.0)}, sha="2" * 64, seed=1)  # fmt: skip
    base = {"task": "breakout", "parents": [STUDENT], "width": 1.0}
    add_run(runs, "warm", "transfer", base, seed=1)

    rows = {(row.stage, row.seed): row for row in score_rows(collect(runs))}
    arms = {(row.arm, row.seed): row for row in transfer_rows(collect(runs))}

    assert rows["pong-expert", "mean"].expert == Score(15.0, (10.0, 20.0))  # 10, 15, 20 at 1:2:1
    assert rows["student", "mean"].ratio == pytest.approx((0.9 + 0.5) / 2)
    assert ("random-play", "mean") not in rows
    # The second seed is not done: no mean pretends otherwise.
    assert arms["warm", "mean"].final is None
    assert re.search(r"^student +mean +pong ", text_table(runs), re.MULTILINE)


def test_the_text_fits_100_columns(runs):
    big = score(123456.7, 100000.0, 150000.0) | {"human_normalised": 12.5}
    for seed in (0, 1):
        for game in ("crazy_climber", "video_pinball"):
            add_run(runs, f"{game}-expert", "expert", {"task": game}, scores={game: big},
                    sha=f"{seed}{game}", curve=[(0, 1e5), (9, 1e5)], seed=seed)  # fmt: skip
            add_run(runs, f"{game}-from-the-student", "transfer", {"task": game},
                    scores={game: big}, sha=f"t{seed}{game}", curve=[(0, 1e5), (9, 1e5)],
                    seed=seed)  # fmt: skip

    text = text_table(runs)

    assert max(len(line) for line in text.splitlines()) <= 100
    assert "123,457 [100,000, 150,000]" in text
    assert re.search(
        r"^crazy_clim\S*expert +0 +crazy_climber +100,000 +100,000$", text, re.MULTILINE
    )


def test_two_protocols_are_told_apart(runs):
    add_run(runs, "sticky", "evaluate", {"tasks": ["pong"], "protocol": "sticky"},
            scores={"pong": score(5.0, 4.0, 6.0)}, sha=STUDENT)  # fmt: skip

    page_text = write_report(runs).read_text()

    assert "protocol sticky, evaluation epsilon 0.01" in page_text
    assert "student (paper)" in page_text


def test_a_single_run_has_a_report(runs):
    path = write_report(runs / "student" / "seed-0")

    assert "18.0 [17.0, 19.0]" in path.read_text()


def test_a_directory_without_runs_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="expected the runs of a recipe"):
            write_report(path)


def test_the_page_says_what_was_run_and_how_to_repeat_it(runs):
    text = write_report(runs).read_text()

    for part in (">mine</p>", "<h1>One network plays 1 game</h1>", "what it is", "2.13.0"):
        assert part in text
    for part in ("actor-mimic run mine", "0:01:01", "not installed", "seed 0"):
        assert part in text
    code = (
        "import sys; from pathlib import Path; from actor_mimic.report.page import write_report; "
        "write_report(Path(sys.argv[1]))"
    )
    other = {**os.environ, "PYTHONHASHSEED": "7"}  # nothing hangs on the order of a set
    subprocess.run([sys.executable, "-c", code, str(runs)], check=True, env=other)
    assert text == (runs / "report.html").read_text()


def test_the_policy_allows_the_one_style_the_one_script_and_nothing_else(runs):
    text = write_report(runs).read_text()

    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = [
        base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for content in (style, script)
    ]
    assert (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    ) in text
    # No other address than places on the page; no style that the policy would refuse.
    assert not re.search(r"https?://|href=\"(?!#)|url\((?!#)|@import|\sstyle=|\son\w+=", text)


@pytest.mark.parametrize("name", ["run.json", "complete.json", "records.jsonl"])
@pytest.mark.parametrize("content", ["", "[]", "{", "3\n", '{"scores": {"pong": []}}', "[" * 9999])
def test_damage_is_listed_and_the_rest_is_shown(runs, name, content):
    (runs / "pong-expert" / "seed-0" / name).write_text(content)

    text = write_report(runs).read_text()

    assert "18.0 [17.0, 19.0]" in text
    assert ("Not read" in text) == (
        content in ("[]", "{", "3\n", "[" * 9999, "")
        and not (name == "records.jsonl" and not content.endswith("\n"))
    )


@pytest.mark.parametrize(
    "values",
    [
        {"mean": "12"},
        {"mean": True},
        {"mean": None},
        {"mean": 10**400},
        {"mean": 1.0, "ci95": "x", "episodes": "many"},
        {"mean": 1.0, "ci95": [1, None], "episodes": -1.5},
        3,
    ],
)
def test_values_of_another_type_are_missing(runs, values):
    path = runs / "pong-expert/seed-0/complete.json"
    write_json(path, {"scores": {"pong": values}, "seconds": "long", "model_sha256": 3})

    row = score_rows(collect(runs))[0]

    assert row.expert in (None, Score(1.0))
    write_report(runs)


@pytest.mark.parametrize("stages", [3, [3], [{"name": "../pong-expert"}], [{"name": 3}], None])
def test_a_strange_recipe_file_leads_nowhere_else(runs, stages):
    write_json(runs / "recipe.json", {"recipe": 3, "stages": stages})

    assert [run.name for run in collect(runs).runs] == [
        "cold",
        "pong-expert",
        "random-play",
        "student",
        "warm",
    ]


def test_reporting_needs_no_torch():
    code = "import sys, actor_mimic.report.page; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_jinja_the_extra_is_named(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)

    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[report\]'"):
        write_report(runs)
