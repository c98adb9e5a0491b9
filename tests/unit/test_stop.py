"""Signals: what the first one does before and after the work has begun, and the second."""

import os
import signal

import pytest

from actor_mimic import cli
from actor_mimic.errors import Interrupted
from actor_mimic.verbs.arguments import STOP_SIGNALS, Stop


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_work_that_asks_is_told(number, capsys):
    stop = Stop("goes on")
    assert stop() is None

    os.kill(os.getpid(), number)

    assert stop() == number
    assert capsys.readouterr().err == "goes on\n"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_work_that_has_not_asked_yet_ends_where_it_is(number):
    stop = Stop()
    with pytest.raises(Interrupted) as left:
        os.kill(os.getpid(), number)

    assert left.value.exit_code == (130 if number == signal.SIGINT else 143)
    assert stop() == number


@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_a_second_signal_leaves_at_once(second, monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    stop = Stop()
    stop()
    os.kill(os.getpid(), signal.SIGTERM)
    assert left == []

    os.kill(os.getpid(), second)

    assert left == [130 if second == signal.SIGINT else 143]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_work_that_begins_anew_ends_where_it_is(number):
    """The next stage of a recipe: its games are being played again, which takes minutes."""
    stop = Stop()
    stop()
    stop.rearm()
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), number)

    with pytest.raises(Interrupted):
        stop.rearm()


def test_what_came_at_the_end_of_a_stage_is_not_forgotten_by_the_next():
    stop = Stop()
    stop()
    os.kill(os.getpid(), signal.SIGUSR1)
    with pytest.raises(Interrupted) as left:
        stop.rearm()

    assert left.value.exit_code == 143


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_while_a_verb_is_being_loaded(number, monkeypatch):
    monkeypatch.setattr(cli.VERBS["games"], "run", lambda _: os.kill(os.getpid(), number) or 0)
    with pytest.raises(SystemExit) as left:
        cli.main(["games"])

    assert left.value.code == (130 if number == signal.SIGINT else 143)
