"""What verbs share: how arguments are read, signals noticed and people told."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from actor_mimic.errors import Interrupted, UsageError, did_you_mean
from actor_mimic.report.printable import printable_lines

if TYPE_CHECKING:
    from actor_mimic.storage.checkpoint import Checkpoint

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
GOES_ON = "stopping after one checkpoint; the same command goes on from there"


class _Names(tuple[str, ...]):
    """Choices for help and completion; `one_of` itself says what is wrong with another."""

    def __contains__(self, _: object) -> bool:
        return True


def one_of(*names: str) -> PrimitiveConstructorSpec[Any]:
    """An argument that is one of these names; a name near one of them is asked about."""

    def read(given: list[str]) -> str:
        if given[0] not in names:
            raise ValueError(
                f"expected one of {', '.join(names)}, got {given[0]!r:.100}"
                f"{did_you_mean(given[0], names)}"
            )
        return given[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}",
        instance_from_str=read,
        is_instance=lambda value: value is None or value in names,
        str_from_instance=lambda value: [str(value)],
        choices=_Names(names),
    )


def numeric(
    kind: type[int] | type[float], metavar: str, expected: str
) -> PrimitiveConstructorSpec[Any]:
    """An argument that is a number; what is none is told in one sentence.

    Args:
        kind: of number; what Python reads as one, ``1_000_000`` too.
        metavar: what help calls it.
        expected: what to say of it to whoever gave something else.
    """

    def read(given: list[str]) -> int | float:
        try:
            return kind(given[0])
        except ValueError as error:
            raise ValueError(f"expected {expected}, got {given[0]!r:.100}") from error

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


LEFT_OUT = arg(help_behavior_hint="")
_WHOLE = numeric(int, "N", "a whole number, such as 30 or 1_000_000")
# What help calls the values. An option that may be left out says in its text what happens then.
Task = Annotated[str, arg(metavar="TASK")]
OptionalTask = Annotated[str | None, arg(metavar="TASK", help_behavior_hint="")]
Tasks = Annotated[tuple[str, ...], arg(metavar="TASK [TASK ...]", help_behavior_hint="")]
CheckpointName = Annotated[str, arg(metavar="CHECKPOINT")]
RunPath = Annotated[Path, arg(metavar="PATH")]
OptionalRun = Annotated[str | None, arg(metavar="RUN", help_behavior_hint="")]
OptionalPath = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
Number = Annotated[int, _WHOLE]
OptionalNumber = Annotated[int | None, _WHOLE, LEFT_OUT]
OptionalPreset = Annotated[str | None, one_of("fast", "classic", "gpu", "nature", "sb3"), LEFT_OUT]
OptionalMultitaskPreset = Annotated[str | None, one_of("nature", "sb3"), LEFT_OUT]
OptionalDistillPreset = Annotated[str | None, one_of("paper", "authors-code"), LEFT_OUT]
OptionalAlgorithm = Annotated[str | None, one_of("pqn", "dqn"), LEFT_OUT]
OptionalProtocol = Annotated[str | None, one_of("paper", "sticky"), LEFT_OUT]
OptionalReplay = Annotated[str | None, one_of("until_done", "full", "none"), LEFT_OUT]
OptionalHead = Annotated[str | None, one_of("fresh", "copy"), LEFT_OUT]
OptionalStudentHead = Annotated[str | None, one_of("shared", "per_task"), LEFT_OUT]
OptionalMultitaskHead = Annotated[str | None, one_of("shared", "per_task", "branched"), LEFT_OUT]
OptionalActivation = Annotated[
    str | None, one_of("relu", "tanh", "elu", "gelu", "leaky_relu", "silu"), LEFT_OUT
]
Protocol = Annotated[str, one_of("paper", "sticky")]
Precision = Annotated[str, one_of("auto", "float32", "bfloat16")]
Compiled = Annotated[str, one_of("auto", "on", "off")]
OptionalProbability = Annotated[float | None, numeric(float, "P", "a number"), LEFT_OUT]
Device = Annotated[str, arg(metavar="DEVICE")]
ProjectName = Annotated[str, arg(metavar="NAME")]
Switch = Annotated[bool, arg(help_behavior_hint="")]
Quiet = Annotated[bool, arg(aliases=["-q"], help_behavior_hint="")]


class Stop:
    """Remembers the first signal that asks to stop; a second one leaves at once.

    Called, it answers the number of that signal, or None. The stages ask between two steps, so
    that what they save is whole. Until somebody has asked for the first time, nothing has been
    done that could be saved, and it may take longer than who sent the signal will wait: networks
    are built. So such a signal ends the work where it is.

    Args:
        saying: what to tell a person when the first signal comes.
    """

    def __init__(self, saying: str = GOES_ON) -> None:
        self._saying = saying
        self._number: int | None = None
        self._asked = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def __call__(self) -> int | None:
        """The number of the first signal, or None."""
        self._asked = True
        return self._number

    def rearm(self) -> None:
        """Begins anew, for work of which nothing has been done yet.

        Raises:
            Interrupted: if a signal has come already.
        """
        # In this order: one that comes in between is raised where it comes.
        self._asked = False
        if self._number is not None:
            raise Interrupted(self._number)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self._number is not None:
            os._exit(Interrupted(number).exit_code)
        self._number = number
        if not self._asked:
            raise Interrupted(number)
        notice(self._saying)


def notice(text: str) -> None:
    """Tells a person something, on standard error; nobody need be there to read it."""
    with suppress(OSError):
        print(printable_lines(text), file=sys.stderr, flush=True)


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
    """What a user names as a checkpoint: a run, ``RUN@best``, a checkpoint directory, ``zoo:NAME``.

    Raises:
        DataError: saying what was expected there and what is there.
        UsageError: if no expert of that name is shipped.
    """
    from actor_mimic.storage.checkpoint import resolve_checkpoint

    path, at, which = text.rpartition("@")
    if at and which == "best":
        return resolve_checkpoint(Path(path), which="best")
    return resolve_checkpoint(Path(text))


def check_probability(option: str, value: float) -> None:
    """Refuses what is none.

    Raises:
        UsageError: naming the option.
    """
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"{option} must lie in [0, 1], got {value}")


def check_task(task: str, checkpoint: "Checkpoint | None") -> None:
    """Refuses what the checkpoint does not play, or, of random play, a game that does not exist.

    Raises:
        UsageError: with the closest name that would do.
    """
    if checkpoint is not None:
        if task not in checkpoint.tasks:
            from actor_mimic.teachers.own import not_played

            raise UsageError(not_played(checkpoint.name, checkpoint.tasks, task))
        return
    from actor_mimic.tasks import is_atari

    if is_atari(task):
        from actor_mimic.envs.atari import check_game

        check_game(task)
