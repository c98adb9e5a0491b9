"""Errors that a user can cause or meet, each with the exit status of the command line.

The numbers follow the BSD ``sysexits.h`` meanings where one fits. Mistakes of the code itself
stay plain ``ValueError``, ``TypeError`` or ``AssertionError``; only what a person can act on is
an ``ActorMimicError``, and its message says what was expected and what came.
"""

import difflib
import signal
from collections.abc import Iterable


class ActorMimicError(Exception):
    """Anything the command line reports as one line instead of a traceback."""

    exit_code: int = 1


class UsageError(ActorMimicError):
    """An unknown verb, option, game or value on the command line."""

    exit_code: int = 2


class DataError(ActorMimicError):
    """A file is missing, damaged, or made for another game, action set or shape."""

    exit_code: int = 65


class UnavailableError(ActorMimicError):
    """A dependency (the message has the install line) or a device is not there, or a task fails."""

    exit_code: int = 69


class DivergenceError(ActorMimicError):
    """Training produced a value that is not finite."""

    exit_code: int = 70


class CannotCreateError(ActorMimicError):
    """A directory or file cannot be created where the user asked for it."""

    exit_code: int = 73


class StorageError(ActorMimicError):
    """Reading or writing failed half-way: a full disk, a vanished mount."""

    exit_code: int = 74


class LockedError(ActorMimicError):
    """Another process owns the run directory; try again when it has ended."""

    exit_code: int = 75


class UnsafeError(ActorMimicError):
    """A file is refused as it stands, because reading it could run code or exhaust the machine."""

    exit_code: int = 77


class ConfigError(ActorMimicError):
    """A recipe or configuration has an unknown key or settings that contradict each other."""

    exit_code: int = 78


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Build the suggestion that ends an "unknown name" message.

    Case is ignored, because ``Pong`` for ``pong`` is the commonest slip. A choice that begins with
    what was typed, three letters or more, comes first: ``train`` is nearer to ``transfer`` by its
    letters, and means ``train-expert``.

    Args:
        name: what the user typed.
        choices: every valid name.

    Returns:
        ``"; did you mean 'pong'?"`` for the closest choice, or ``""`` when none is close.

    Example:
        >>> did_you_mean("pogn", ["boxing", "pong"])
        "; did you mean 'pong'?"
    """
    by_folded_name = {choice.casefold(): choice for choice in choices}
    folded = name.casefold()
    begun = [choice for choice in by_folded_name if len(folded) > 2 and choice.startswith(folded)]
    closest = begun or difflib.get_close_matches(folded, by_folded_name, n=1, cutoff=0.65)
    return f"; did you mean '{by_folded_name[closest[0]]}'?" if closest else ""


def check_choice(setting: str, value: object, choices: Iterable[str]) -> None:
    """Refuses a value that is none of a setting's.

    Raises:
        ConfigError: with the choices, and the closest one.
    """
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(
            f"unknown {setting} {value!r:.100}, expected one of {', '.join(choices)}"
            f"{did_you_mean(str(value), choices)}"
        )


class Interrupted(ActorMimicError):  # noqa: N818  (a stop that was asked for is no error)
    """Work was asked to stop by a signal; a stage's last checkpoint holds what it had done.

    Attributes:
        exit_code: 130 after an interrupt from the keyboard, 143 after any other signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by signal {signal_number}")
        self.exit_code = 130 if signal_number == signal.SIGINT else 143
