"""Verbs run in the process of the tests: a process of their own costs seconds of imports each."""

import io
import os
import signal
import sys

import pytest
import torch

from actor_mimic.cli import main


class StandardError(io.StringIO):
    # What every open file has, and neither StringIO nor what pytest puts in its place.
    mode = "w"
    name = "<stderr>"


def verb(*arguments: str) -> tuple[int, str]:
    """Runs ``actor-mimic ARGUMENTS`` in the current directory.

    Returns:
        the exit code, and what was said on standard error.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", StandardError())
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        said = sys.stderr.getvalue()
    restore_process()
    return left.value.code or 0, said


def restore_process() -> None:
    """Takes back what a verb sets for its process and the tests share."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    os.environ.pop("OMP_WAIT_POLICY", None)
