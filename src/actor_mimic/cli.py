"""``actor-mimic``: reads the command line, runs a verb, turns errors into exit codes.

Data goes to standard output, everything else to standard error.
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import tyro

from actor_mimic import __version__
from actor_mimic.errors import ActorMimicError, Interrupted, UsageError, did_you_mean
from actor_mimic.verbs.arguments import notice
from actor_mimic.verbs.check import Verify
from actor_mimic.verbs.foreign import Import
from actor_mimic.verbs.learn import Distill, Run, TrainExpert, Transfer
from actor_mimic.verbs.look import Doctor, Evaluate, Games, Play, Report, Show
from actor_mimic.verbs.zoo import Zoo

DESCRIPTION = """Experts into one network that plays all their games, and on to new ones.

Begin with:  actor-mimic run demo

Exit codes: 0 done, 2 wrong usage, 65 bad data or checkpoint, 69 something is not installed or a
task keeps failing, 70 learning diverged, 73 cannot create, 74 input or output failed, 75 locked by
another process, 77 refused as unsafe, 78 bad configuration, 130 interrupted, 143 terminated."""


@runtime_checkable  # the tests check types as the code runs
class Verb(Protocol):
    """What every verb can do once its arguments have been read."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        ...


VERBS: dict[str, type[Verb]] = {
    "run": Run,
    "train-expert": TrainExpert,
    "distill": Distill,
    "transfer": Transfer,
    "import": Import,
    "evaluate": Evaluate,
    "play": Play,
    "show": Show,
    "verify": Verify,
    "report": Report,
    "zoo": Zoo,
    "games": Games,
    "doctor": Doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; leaves with a documented exit code."""
    sys.exit(_run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: list[str]) -> int:
    try:
        code = _read(arguments).run()
        sys.stdout.flush()
        return code
    except ActorMimicError as error:
        notice(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        notice("interrupted")
        return Interrupted(signal.SIGINT).exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _read(arguments: list[str]) -> Verb:
    """The verb that the arguments ask for; ``--help`` and wrong usage leave from here."""
    if arguments == ["--version"]:
        print(f"actor-mimic {__version__}")
        sys.exit(0)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        raise UsageError(
            f"unknown verb {arguments[0]!r}, expected one of {', '.join(VERBS)}"
            f"{did_you_mean(arguments[0], VERBS)}"
        )
    # Before PyTorch is loaded: its threads would otherwise wait for each other by spinning, which
    # takes the cores from the emulators and, on a busy machine, from themselves (decision 4).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="actor-mimic",
        description=DESCRIPTION,
        args=arguments or ["--help"],
        config=(tyro.conf.FlagCreatePairsOff,),
    )
