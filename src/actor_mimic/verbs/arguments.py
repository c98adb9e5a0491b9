"""What verbs share: how arguments are read, signals noticed and people told."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from actor_mimic.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from actor_mimic.storage.checkpoint import Checkpoint

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stop:
    """Remembers the first signal that asks to stop; a second one leaves at once.

    Called, it answers the number of that signal, or None. The stages ask between two steps, so
    that what they save is whole.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def __call__(self) -> int | None:
        """The number of the first signal, or None."""
        return self._number

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            os._exit(Interrupted(number).exit_code)
        self._number = number
        notice("stopping after one checkpoint; the same command goes on from there")


def notice(text: str) -> None:
    """Tells a person something, on standard error."""
    print(text, file=sys.stderr, flush=True)


def named_value(text: str, form: str) -> tuple[str, str]:
    """Splits ``NAME=VALUE``.

    Raises:
        UsageError: if there is no name, no value or no equals sign.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"expected {form}, got {text!r}")
    return name.strip(), value.strip()


def checkpoint_argument(text: str) -> "Checkpoint":
    """What a user names as a checkpoint: a run, ``RUN@best``, or a checkpoint directory.

    Raises:
        DataError: saying what was expected there and what is there.
    """
    from actor_mimic.storage.checkpoint import resolve_checkpoint

    path, at, which = text.rpartition("@")
    if at and which == "best":
        return resolve_checkpoint(Path(path), which="best")
    return resolve_checkpoint(Path(text))
