"""What a figure depends on besides the code: machine, versions, settings, date."""

import os
import platform
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actor_mimic.compute import available_cores, cpu_multiplies_bfloat16
from actor_mimic.storage.run_dir import installed_versions
from benchmarks import USERS_WAIT_POLICY

# The last minute's, when this process began: about 0 on a quiet machine.
LOAD_BEFORE = round(os.getloadavg()[0], 2)
_CPU_INFO = Path("/proc/cpuinfo")


def processor() -> str:
    """The processor's name, where the system tells it."""
    found = re.search(r"^model name\s*:\s*(.*)$", _cpu_info(), re.M)
    return found[1] if found else platform.processor()


def has_instructions(flag: str) -> bool | None:
    """Whether the processor has an instruction set; None where that cannot be read."""
    found = re.search(r"^flags\s*:\s*(.*)$", _cpu_info(), re.M)
    return flag in found[1].split() if found else None


def memory_gib() -> float:
    """Memory of the whole machine."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return round(pages / 2**30, 1)


def facts(module: str) -> dict[str, Any]:
    """What goes on top of every file of results.

    Args:
        module: as in ``python -m MODULE``; the arguments are this process's own.
    """
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "system": f"{platform.system()} {platform.machine()}",
            "cores": available_cores(),
            "memory_gib": memory_gib(),
            "avx2": has_instructions("avx2"),
            "avx512": has_instructions("avx512f"),
            "bfloat16": cpu_multiplies_bfloat16(),
            "load_before": LOAD_BEFORE,
        },
        "versions": installed_versions(),
        # Ours, and SB3's; None is PyTorch as it comes.
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "sb3_omp_wait_policy": USERS_WAIT_POLICY,
    }


def _cpu_info() -> str:
    return _CPU_INFO.read_text() if _CPU_INFO.exists() else ""
