"""What is shown of a running stage, with and without a terminal."""

import io
import re

import pytest

from actor_mimic.progress import StageProgress, describe_scores, key_figures
from actor_mimic.report.printable import printable
from actor_mimic.storage.records import Record

HOSTILE = "[bold]x[/bold]\x1b[31m\x07\u202ered:smile:"


class File(io.StringIO):
    # What every open file has and StringIO lacks.
    mode = "w"
    name = "file"


class Terminal(File):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")


def train(step, **values):
    values = {"steps_per_s": 100.0, "updates_per_s": 12.5, "loss": 0.5} | values
    return Record("train", step, 0, values, 1.0)


def test_lines_are_rare_but_evaluations_always_shown():
    stream = File()
    with StageProgress("student", 1_000, stream=stream) as progress:
        for step in range(100, 1_000, 100):
            progress.show(train(step, **{"pong/score": 3.25, "epsilon": 0.1}))
            progress.on_game("pong", 1, 3)
        for step in (400, 800):
            values = {"pong/mean": 1.0, "pong/episodes": 10}
            progress.show(Record("evaluation", step, 0, values, 1.0))
        progress.show(Record("checkpoint", 800, 0, {"model_sha256": "x"}, 1.0))

    assert stream.getvalue().splitlines() == [
        "student: 100 / 1,000 steps, 100 steps/s, 12 updates/s, 0:00:09 left, pong 3.2, loss 0.5, "
        "epsilon 0.10",
        "student: at 400 steps: pong 1.0 (10 games)",
        "student: at 800 steps: pong 1.0 (10 games)",
    ]


def test_without_an_interval_every_record_is_a_line():
    stream = File()
    with StageProgress("student", 1_000, stream=stream, interval_s=0.0) as progress:
        progress.show(train(100))
        progress.on_game("pong", 2, 3)
        progress.notice("be careful")

    lines = stream.getvalue().splitlines()
    assert lines[1:] == ["student: evaluating pong: 2 of 3 games", "student: be careful"]


def test_games_show_their_rate_and_the_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("actor_mimic.progress.time.monotonic", lambda: now[0])
    stream = File()
    with StageProgress("student", 1_000, stream=stream, interval_s=0.0) as progress:
        for task, finished in (("pong", 0), ("pong", 2), ("pong", 6), ("boxing", 0), ("boxing", 1)):
            progress.on_game(task, finished, 6)
            now[0] += 20.0

    assert stream.getvalue().splitlines() == [
        "student: evaluating pong: 2 of 6 games, 6.0 games/min, 0:00:40 left",
        "student: evaluating pong: 6 of 6 games",
        "student: evaluating boxing: 1 of 6 games, 3.0 games/min, 0:01:40 left",
    ]


def test_a_terminal_gets_a_bar_with_rate_time_left_and_figures():
    stream = Terminal()
    with StageProgress("student", 1_000, stream=stream) as progress:
        progress.show(train(500, **{"pong/score": 3.25}))
        progress.on_game("pong", 1, 3)
        progress.show(Record("evaluation", 500, 0, {"pong/mean": 1.0}, 1.0))

    text = stream.getvalue()
    assert "500 / 1,000 steps, 0:00:05 left" in text
    assert "100 steps/s, 12 updates/s, pong 3.2, loss 0.5" in text
    assert "student: at 500 steps: pong 1.0" in text


def test_all_that_is_promised_fits_a_narrow_terminal(monkeypatch):
    """Steps, both rates, mean return, epsilon, loss and time left, in 100 columns, uncut."""
    monkeypatch.setenv("COLUMNS", "100")
    task = "gym:CartPole-v1"
    values = {
        f"{task}/score": 487.6,
        "steps_per_s": 12_345.6,
        "updates_per_s": 1_234.5,
        "loss": 0.001234,
        "epsilon": 0.05,
    }
    stream = Terminal()
    with StageProgress(f"expert {task}", 12_500_000, stream=stream) as progress:
        progress.show(Record("train", 1_234_567, 0, values, 1.0))

    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in stream.getvalue().split("\n")]
    bar = next(line for line in lines if "left" in line)
    figures = next(line for line in lines if "epsilon" in line)
    assert bar.startswith(f"expert {task} \u2501\u2501")
    assert bar.rstrip().endswith(" 1,234,567 / 12,500,000 steps, 0:15:13 left")
    assert figures.rstrip() == (
        f"  12,346 steps/s, 1,234 updates/s, {task} 487.6, loss 0.00123, epsilon 0.05"
    )
    assert max(len(line) for line in lines) <= 100


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"updates_per_s": 0.0}, "100 steps/s, 0 updates/s, loss"),  # the replay fills
        ({"updates_per_s": 0.32}, "100 steps/s, 0.3 updates/s"),
        ({"updates_per_s": None}, "100 steps/s, 0:00:05 left"),
        ({"steps_per_s": None}, "steps, 12 updates/s, loss"),
    ],
)
def test_rates_that_are_small_or_unknown(rates, said):
    stream = File()
    with StageProgress("student", 1_000, stream=stream) as progress:
        progress.show(train(500, **rates))

    assert said in stream.getvalue()


@pytest.mark.parametrize("before_s", [0.0, 7_200.0])
def test_the_time_left_has_evaluations_in_it_and_no_filling_of_a_replay(before_s):
    """Learning is first seen at 200 steps; of the 30 s since then 20 went into games.

    What the run took before it was continued does not count.
    """
    stream = File()
    with StageProgress("student", 1_000, stream=stream, interval_s=0.0) as progress:
        for step, updates, wall_s in ((100, 0.0, 1.0), (200, 1.0, 2.0), (300, 1.0, 32.0)):
            values = {"steps_per_s": 10.0, "updates_per_s": updates}
            progress.show(Record("train", step, 0, values, before_s + wall_s))

    assert [line.rpartition(", ")[2] for line in stream.getvalue().splitlines()] == [
        "0 updates/s",
        "0:01:20 left",  # 800 steps at 10 a second
        "0:03:30 left",  # 700 steps at 30 / 100 s each
    ]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    stream = Terminal()
    with StageProgress("student", 1_000, stream=stream) as progress:
        progress.show(train(500))

    assert stream.getvalue() == (
        "student: 500 / 1,000 steps, 100 steps/s, 12 updates/s, 0:00:05 left, loss 0.5\n"
    )


@pytest.mark.parametrize("stream", [File(), Terminal()], ids=["lines", "bars"])
def test_foreign_text_is_shown_as_it_is_and_steers_nothing(stream):
    with StageProgress(HOSTILE, 1_000, stream=stream) as progress:
        progress.show(train(500, **{f"{HOSTILE}/score": 1.0}))
        progress.on_game(HOSTILE, 1, 3)
        progress.show(Record("evaluation", 500, 0, {f"{HOSTILE}/mean": 1.0}, 1.0))
        progress.notice(HOSTILE)

    text = stream.getvalue()
    assert "[bold]x[/bold]" in text
    assert ":smile:" in text
    assert "\x1b[31m\x07" not in text
    assert "\x07" not in text
    assert "\u202e" not in text


def test_a_stage_that_only_plays_has_no_bar_of_steps():
    stream = Terminal()
    with StageProgress("random-play", 0, stream=stream) as progress:
        progress.on_game("pong", 2, 3)
        progress.show(Record("final", 0, 0, {"pong/mean": -20.5}, 1.0))

    assert "steps" not in stream.getvalue()
    assert "random-play: final: pong -20.5" in stream.getvalue()


def test_the_bar_is_closed_when_the_stage_fails():
    stream = Terminal()

    def fail():
        with StageProgress("s", 10, stream=stream) as progress:
            progress.show(train(5))
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()

    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_key_figures_of_many_tasks_stay_short():
    values = {f"game{n}/score": 1.0 for n in range(13)} | {
        f"game{n}/agreement": 0.5 for n in (0, 1)
    }

    assert key_figures(values) == [
        "game0 1.0",
        "game1 1.0",
        "game2 1.0",
        "and 10 more tasks",
        "agreement 50%",
    ]


def test_scores_with_their_interval():
    values = {"a/b/mean": 2.0, "a/b/ci95_low": 1.0, "a/b/ci95_high": 3.0, "a/b/episodes": 30}

    assert describe_scores(values) == "a/b 2.0 [1.0, 3.0] (30 games)"
    assert describe_scores({"pong/mean": None}) == "no scores"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\tc", "a b c"),
        ("\x1b]0;title\x07x", "]0;titlex"),
        ("\u200bzero\u2066width", "zerowidth"),
        ("\ud800lone", "lone"),
        ("\x9b31mx", "31mx"),
        (3, "3"),
        ("x" * 20, "xxxxxxx..."),
    ],
)
def test_printable(text, expected):
    assert printable(text, max_length=10 if len(str(text)) == 20 else 100) == expected
