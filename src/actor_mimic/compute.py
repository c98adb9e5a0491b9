"""Where and how the arithmetic runs: device, precision, threads. Chosen once per run, recorded."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from actor_mimic.errors import ConfigError, UnavailableError, did_you_mean

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Compute:
    """The choices that change results in the last digits, so a resumed run keeps them."""

    device: str
    precision: str
    threads: int

    def place(self, module: nn.Module) -> None:
        """Moves a module to the device and sets the precision of the torsos inside it.

        Output layers stay in float32 whatever the precision.
        """
        module.to(self.device)
        for part in module.modules():
            if hasattr(part, "precision"):
                part.precision = PRECISIONS[self.precision]  # type: ignore[assignment]

    def start(self) -> None:
        """Sets the process-wide thread count, and how CUDA computes.

        Matrix products in float32 stay in float32: TF32 would round the inputs of the output
        layers to 11 bits, and these layers are why there is float32 beside bfloat16.
        """
        torch.set_num_threads(self.threads)
        if self.device != "cpu":
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.benchmark = True


def choose_compute(device: str = "auto", precision: str = "auto", threads: int = 0) -> Compute:
    """Resolves ``auto`` on this machine.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the torsos: ``auto``, ``float32`` or ``bfloat16``. ``auto`` takes bfloat16
            where the processor multiplies it natively; emulated, it is slower than float32.
        threads: of PyTorch on the CPU; 0 takes all cores that this process may use.

    Raises:
        UnavailableError: if CUDA is asked for and there is none, or not that many devices.
        ConfigError: if a name is unknown, or the number of threads is negative.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _check_device(device)
    if threads < 0:
        raise ConfigError(f"threads must be 0 (all cores) or more, got {threads}")
    if precision == "auto":
        native = device != "cpu" or cpu_multiplies_bfloat16()
        precision = "bfloat16" if native else "float32"
    if precision not in PRECISIONS:
        raise ConfigError(
            f"unknown precision {precision!r}, expected auto, {' or '.join(PRECISIONS)}"
        )
    return Compute(device, precision, threads or available_cores())


def _check_device(device: str) -> None:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(
            f"unknown device {device!r}, expected auto, cpu, cuda or cuda:N"
            f"{did_you_mean(device, ('auto', 'cpu', 'cuda'))}"
        )
    if device == "cpu":
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(device.partition(":")[2] or 0) >= found:
        raise UnavailableError(
            f"device {device!r} was asked for, and PyTorch finds {found} CUDA devices here"
        )


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions; False where that cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in text or "amx_bf16" in text


def available_memory_bytes() -> int:
    """Memory that a new allocation can take without swapping; a guess where it cannot be read."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
        return int(kib) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def require_memory(needed_bytes: int, purpose: str) -> None:
    """Refuses what cannot fit, before hours are spent on it.

    Raises:
        ConfigError: if less than the needed bytes (and a tenth more) are free.
    """
    available = available_memory_bytes()
    if needed_bytes * 1.1 > available:
        raise ConfigError(
            f"{purpose} needs {needed_bytes / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are "
            "free; choose a smaller replay_capacity_steps"
        )
