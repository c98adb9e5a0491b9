"""``actor-mimic``: reads the command line, runs a verb, turns errors into exit codes.

Data goes to standard output, everything else to standard error.
"""

import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from types import FrameType
from typing import Any, ClassVar, Protocol, runtime_checkable

import tyro

from actor_mimic import __version__
from actor_mimic.errors import ActorMimicError, Interrupted, StorageError, UsageError, did_you_mean
from actor_mimic.report.printable import can_draw
from actor_mimic.storage.run_dir import installed_versions
from actor_mimic.verbs.arguments import STOP_SIGNALS, notice
from actor_mimic.verbs.check import Verify
from actor_mimic.verbs.foreign import Import
from actor_mimic.verbs.learn import Distill, MultitaskDQN, Run, TrainExpert, Transfer
from actor_mimic.verbs.look import Doctor, Evaluate, Games, Report, Show
from actor_mimic.verbs.play import Play
from actor_mimic.verbs.settings import refuse_as_options
from actor_mimic.verbs.stage import Common
from actor_mimic.verbs.zoo import Zoo

DESCRIPTION = """Experts into one network that plays all their games, and on to new ones.

Begin with:
  actor-mimic run demo
  actor-mimic VERB --help
  actor-mimic --version
  actor-mimic --print-completion bash        # or zsh, fish

Exit codes: 0 done, 2 wrong usage, 65 bad data or checkpoint, 69 something is not installed or a
task keeps failing, 70 learning diverged, 73 cannot create, 74 input or output failed, 75 locked by
another process, 77 refused as unsafe, 78 bad configuration, 130 interrupted, 143 terminated."""

SHELLS = ("bash", "zsh", "fish")


@runtime_checkable  # the tests check types as the code runs
class Verb(Protocol):
    """What every verb can do once its arguments have been read."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def quiet(self) -> bool:
        """Whether to say nothing but errors."""
        ...

    def run(self) -> int:
        """Does it; returns the exit code."""
        ...


VERBS: dict[str, type[Verb]] = {
    "run": Run,
    "train-expert": TrainExpert,
    "distill": Distill,
    "multitask-dqn": MultitaskDQN,
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

# The verbs that learn, and whose settings each of them takes.
STAGES_OF = {
    "train-expert": "expert",
    "distill": "distill",
    "multitask-dqn": "multitask-dqn",
    "transfer": "transfer",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script; leaves with a documented exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
    except SystemExit as leaving:
        code = leaving.code
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The reader has left; keep Python from complaining of it at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        # While PyTorch loads and teachers are read; what then learns has a `Stop` of its own.
        for number in STOP_SIGNALS:
            signal.signal(number, _interrupt)
        verb = _read(arguments)
        with ExitStack() as silence:
            if verb.quiet:
                nobody = silence.enter_context(open(os.devnull, "w", encoding="utf-8"))
                silence.enter_context(redirect_stderr(nobody))
            code = verb.run()
        sys.stdout.flush()
        return code
    except ActorMimicError as error:
        notice(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        return 0
    except OSError as error:  # such as a full disk under the output
        notice(f"error: {error}")
        return StorageError.exit_code


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(number)


def _read(arguments: list[str]) -> Verb:
    """The verb that the arguments ask for; ``--help`` and wrong usage leave from here."""
    if arguments == ["--version"]:
        versions = {"actor-mimic": __version__} | installed_versions()
        for package, version in versions.items():
            print(f"{package} {version or 'is not installed'}")
        sys.exit(0)
    if arguments[:1] == ["--print-completion"]:
        print(_completion(_shell(arguments[1:])))
        sys.exit(0)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in VERBS:
        raise UsageError(
            f"unknown verb {arguments[0]!r}, expected one of {', '.join(VERBS)}"
            f"{did_you_mean(arguments[0], VERBS)}"
        )
    if arguments and (stage := STAGES_OF.get(arguments[0])):
        own = VERBS[arguments[0]].__dataclass_fields__
        refuse_as_options(stage, arguments[1:], own.keys() | Common.__dataclass_fields__.keys())
    # Before PyTorch is loaded: its threads would otherwise wait for each other by spinning, which
    # takes the cores from the emulators and, on a busy machine, from themselves (decision 4).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Help goes to one stream and wrong usage to the other, and tyro looks at the first alone.
    tyro._experimental_options["ansi_codes"] = can_draw(sys.stdout) and can_draw(sys.stderr)
    return _parse(arguments or ["--help"])


def _parse(arguments: list[str]) -> Verb:
    return tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="actor-mimic",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _completion(shell: str) -> str:
    """A script that tells a shell the verbs, options and choices."""
    script = io.StringIO()
    with redirect_stdout(script), suppress(SystemExit):
        _parse(["--tyro-write-completion", shell, "-"])
    # A description of several lines would be offered as several words.
    return re.sub(
        r"^COMPLETION_SPEC = .*$",
        lambda spec: re.sub(r"\\+n *", " ", spec[0]),
        script.getvalue(),
        flags=re.MULTILINE,
    )


def _shell(arguments: list[str]) -> str:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        said = " ".join(arguments)
        raise UsageError(
            f"--print-completion: expected {', '.join(SHELLS)}, got {said!r:.100}"
            f"{did_you_mean(said, SHELLS)}"
        )
    return arguments[0]
