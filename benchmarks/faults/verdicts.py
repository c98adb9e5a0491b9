"""What trying something came to, for rows about input that must be refused."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actor_mimic.errors import ActorMimicError, ConfigError, DataError, UnsafeError, UsageError
from benchmarks.processes import ROOT

REFUSED = frozenset(
    error.exit_code for error in (UnsafeError, DataError, ConfigError, UsageError)
)  # 77, 65, 78, 2
ACCEPTED = 0
BROKEN = 1  # something that is no error of ours: a user would see a traceback


def exit_code(act: Callable[[], object]) -> int:
    """What the command line would end with."""
    try:
        act()
    except ActorMimicError as error:
        return error.exit_code
    except Exception:
        return BROKEN
    return ACCEPTED


def tally(codes: Mapping[str, int]) -> str:
    """Exit codes and how often each came: ``77 x 31, 65 x 9``."""
    counts = {code: list(codes.values()).count(code) for code in sorted(set(codes.values()))}
    return ", ".join(f"{code} x {count}" for code, count in counts.items())


def tree(directory: Path) -> set[str]:
    """Everything below a directory, links not followed."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@dataclass(frozen=True)
class Look:
    """What looking through files took, in a process of its own.

    Attributes:
        codes: exit code for each file, by name.
        slowest_s: processor time of any file, which a busy machine does not change.
        peak_bytes: the most memory that the process ever had, Python included.
        loaded_torch: whether PyTorch was loaded for it.
    """

    codes: dict[str, int]
    slowest_s: float
    peak_bytes: int
    loaded_torch: bool


_LOOK = """
import json, re, resource, sys, time
from pathlib import Path
from actor_mimic.teachers.archives import open_foreign
from benchmarks.faults.verdicts import exit_code
codes, seconds = {}, [0.0]
for path in sorted(Path(sys.argv[1]).iterdir()):
    started = time.process_time()
    codes[path.name] = exit_code(lambda: open_foreign(path))
    seconds.append(time.process_time() - started)
# What Linux tells by getrusage was taken over from the process that started this one.
status = Path("/proc/self/status")
if status.exists():
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([codes, max(seconds), peak, "torch" in sys.modules]))
"""


def look_through(directory: Path) -> Look:
    """`open_foreign` on every file of a directory, before anything is decoded."""
    return Look(*run_python(_LOOK, str(directory), cwd=directory.parent))


def run_python(
    code: str, *arguments: str, cwd: Path, variables: Mapping[str, str] | None = None
) -> Any:
    """The JSON that a program prints in its last line, in a process of its own.

    Raises:
        subprocess.CalledProcessError: if it failed.
    """
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(os.path.isabs, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": paths} | dict(variables or {}),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def timed(act: Callable[[], object]) -> tuple[int, float]:
    """Exit code, and seconds of processor time."""
    started = time.process_time()
    code = exit_code(act)
    return code, time.process_time() - started
