import signal

import pytest

from actor_mimic import errors
from actor_mimic.errors import ActorMimicError, Interrupted, did_you_mean

EXIT_CODES = {
    "UsageError": 2,
    "DataError": 65,
    "UnavailableError": 69,
    "DivergenceError": 70,
    "CannotCreateError": 73,
    "StorageError": 74,
    "LockedError": 75,
    "UnsafeError": 77,
    "ConfigError": 78,
}


def test_exit_codes_are_the_documented_ones():
    raised = {
        error.__name__: error.exit_code
        for error in ActorMimicError.__subclasses__()
        if error is not Interrupted
    }

    assert raised == EXIT_CODES
    assert ActorMimicError.exit_code == 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)]
)
def test_a_stop_has_the_exit_code_of_its_signal(number, code):
    assert Interrupted(number).exit_code == code


@pytest.mark.parametrize("name", EXIT_CODES)
def test_message_is_kept(name):
    with pytest.raises(ActorMimicError, match="expected pong, got boxing"):
        raise getattr(errors, name)("expected pong, got boxing")


@pytest.mark.parametrize(
    ("typed", "suggestion"),
    [
        ("pogn", "; did you mean 'pong'?"),
        ("PONG", "; did you mean 'pong'?"),
        ("gym:cartpole-v1", "; did you mean 'gym:CartPole-v1'?"),
        ("box", "; did you mean 'boxing'?"),  # the beginning of a name, however much is missing
        ("P", ""),
        ("nothing", ""),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(typed, suggestion):
    assert did_you_mean(typed, ["boxing", "pong", "gym:CartPole-v1"]) == suggestion


def test_did_you_mean_takes_any_iterable_and_none():
    assert did_you_mean("pong", iter(["pong"])) == "; did you mean 'pong'?"
    assert did_you_mean("pong", []) == ""
