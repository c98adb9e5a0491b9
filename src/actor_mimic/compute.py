"""Where and how the arithmetic runs: device, precision, threads. Chosen once per run, recorded."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from actor_mimic.errors import ConfigError, UnavailableError

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
        """Sets the process-wide thread count and the float32 matrix precision of CUDA."""
        torch.set_num_threads(self.threads)
        if self.device != "cpu":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True


def choose_compute(device: str = "auto", precision: str = "auto", threads: int = 0) -> Compute:
    """Resolves ``auto`` on this machine.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the torsos: ``auto``, ``float32`` or ``bfloat16``. ``auto`` takes bfloat16
            where the processor multiplies it natively; emulated, it is slower than float32.
        threads: of PyTorch on the CPU; 0 takes all cores that this process may use.

    Raises:
        UnavailableError: if CUDA is asked for and there is none.
        ConfigError: if a name is unknown.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and device.partition(":")[0] != "cuda":
        raise ConfigError(f"unknown device {device!r}, expected auto, cpu, cuda or cuda:N")
    if device != "cpu" and not torch.cuda.is_available():
        raise UnavailableError(f"device {device!r} was asked for, and PyTorch finds no CUDA here")
    if precision == "auto":
        native = device != "cpu" or cpu_multiplies_bfloat16()
        precision = "bfloat16" if native else "float32"
    if precision not in PRECISIONS:
        raise ConfigError(
            f"unknown precision {precision!r}, expected auto, {' or '.join(PRECISIONS)}"
        )
    return Compute(device, precision, threads or available_cores())


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions; False where it cannot be read (not Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in text or "amx_bf16" in text
