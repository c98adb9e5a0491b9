"""Every verb with its arguments, as help shows them: what scripts of users may name.

Makes the golden file beside it::

    PYTHONPATH=src python tests/unit/command_line_names.py > tests/unit/command_line_names.txt

A line that goes or changes there is a change that breaks somebody's script: say so in CHANGELOG.md.
"""

import contextlib
import io
import re
import sys

from actor_mimic.cli import VERBS, main

_ARGUMENT = re.compile(r" {2}((?:-{1,2}[a-z]|[A-Z][A-Z]).*?)(?: {2,}.*)?")


def help_of(*arguments: str) -> str:
    """What ``actor-mimic ARGUMENTS --help`` prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*arguments, "--help"])
    return text.getvalue()


def command_line_names() -> str:
    """One line for each verb, and below it one for each of its arguments, sorted."""
    lines = []
    for verb in VERBS:
        found = [_ARGUMENT.fullmatch(line.rstrip()) for line in help_of(verb).splitlines()]
        names = sorted(match[1] for match in found if match is not None)
        lines += [verb, *(f"  {name}" for name in names)]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(command_line_names())
