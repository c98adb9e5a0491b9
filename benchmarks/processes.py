"""Every measurement in a process of its own, which prints one line of JSON at its end.

A fresh process has fresh threads, and a peak of memory that is its own. So this project, its
floor and other people's programs are measured under the same conditions, in turn.
"""

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import USERS_WAIT_POLICY

ROOT = Path(__file__).parents[1]


class MeasurementError(Exception):
    """A measurement ended without a result; the message is the end of what it said."""


def run_own(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The result of ``python -m MODULE ARGUMENTS`` under this interpreter.

    Raises:
        MeasurementError: if there is none.
    """
    return _run([sys.executable, "-m", module, *arguments], dict(os.environ))


def run_foreign(python: Path, script: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """The result of a script under another interpreter, which sees nothing of this project.

    Raises:
        MeasurementError: if there is none.
    """
    environment = {name: v for name, v in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if USERS_WAIT_POLICY is not None:
        environment["OMP_WAIT_POLICY"] = USERS_WAIT_POLICY
    # -I: neither PYTHONPATH nor the script's directory, whose modules bear common names.
    return _run([str(python), "-I", str(script), *arguments], environment)


def peak_memory_mib() -> float:
    """The most memory that this process has held so far; its children not counted."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`, which on Linux begins with the peak of the process that started this one.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.M)
        if found:
            return round(int(found[1]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return round(peak * unit / 2**20, 1)


def _run(command: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise MeasurementError(f"{' '.join(command)}:\n{done.stderr.strip()[-2000:]}")
    return json.loads(lines[-1])
