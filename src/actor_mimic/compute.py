"""Where and how the arithmetic runs: device, precision, threads. Recorded, and kept on resume."""

import ctypes
import importlib.util
import itertools
import os
import re
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from actor_mimic.errors import ConfigError, UnavailableError, did_you_mean

CGROUPS = Path("/sys/fs/cgroup")  # version 2

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MAX_WORKERS = 4
LEAST_ROWS = 8  # of a worker: below this a pass costs what it costs for one row

# Of glibc's `mallopt`, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # more is refused
_LARGEST_TRIM_THRESHOLD = 2**31 - 1

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Compute:
    """The choices that change results in the last digits.

    A resumed run keeps them, unless others are asked for.
    """

    device: str
    precision: str
    threads: int
    compiled: bool = False

    def place(self, module: nn.Module) -> None:
        """Moves a module to the device and sets the precision of the torsos inside it.

        Output layers stay in float32 whatever the precision.
        """
        module.to(self.device)
        for part in module.modules():
            if hasattr(part, "precision"):
                part.precision = PRECISIONS[self.precision]  # type: ignore[assignment]

    def fixed_shape(self, network: Callable[[Tensor], Result]) -> Callable[[Tensor], Result]:
        """The network as it is to be called where batches always have the same shape.

        Compiled and replayed as a CUDA graph, if this is a compiled run. What it returns, and the
        gradients that are computed from it, may be overwritten by the next call of any network of
        this run. The network itself is its eager twin, on the same weights.
        """
        if not self.compiled:
            return network
        compiled = torch.compile(network, dynamic=False, fullgraph=True, mode="reduce-overhead")

        def replayed(inputs: Tensor) -> Result:
            # Else PyTorch would keep apart what every call returned, and record a graph for each.
            torch.compiler.cudagraph_mark_step_begin()
            return compiled(inputs)

        return replayed

    @property
    def num_workers(self) -> int:
        """Threads that share the rows of a batch among them; 1 on a GPU, which needs no help."""
        return min(self.threads, MAX_WORKERS) if self.device == "cpu" else 1

    def workers(self) -> "Workers":
        """A pool of `num_workers`."""
        return Workers(self.num_workers)

    def start(self) -> None:
        """Sets the process-wide thread count, and how CUDA computes.

        Every worker gets its share of the threads for what PyTorch splits up itself. Beside a GPU
        that is a few: what is left to the CPU is small, and the emulators need the cores.

        Matrix products and convolutions in float32 stay in float32: TF32 would round their
        inputs to 11 bits, and who asks for float32 beside bfloat16 asks for more.
        """
        on_cpu = self.device == "cpu"
        share = self.threads // self.num_workers if on_cpu else min(self.threads, MAX_WORKERS)
        torch.set_num_threads(max(1, share))
        _keep_freed_memory()
        if not on_cpu:
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = True
        if self.compiled:
            # Graphs of networks of an earlier stage; PyTorch refuses to keep many of them.
            torch.compiler.reset()
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)


def _keep_freed_memory() -> None:
    """Tells glibc to keep what is freed, where that is the C library.

    Every update allocates the same tensors anew. By default each of some MiB is mapped and given
    back on its own, and the kernel clears its pages again each time: 1,500 page faults for a
    minibatch of 128 images (decision 10).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)


class Workers:
    """Threads that each do one part of a batch.

    PyTorch splits every single operation over its threads, and they wait for each other after
    each. Here a thread takes some rows through the whole network instead: on two cores a training
    step of the half-width Nature network takes half as long (``python -m benchmarks.parts``).

    Args:
        count: how many; 1 works in the calling thread alone.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1, "worker") if count > 1 else None

    def map(self, part: Callable[[slice], Part], num_rows: int) -> list[Part]:
        """The results of ``part`` for consecutive slices of ``range(num_rows)``, in their order.

        The slices depend on the number of rows and of workers alone, so a run can be repeated.

        Raises:
            Exception: what a part raises, once all parts have ended.
        """
        first, *others = _even_slices(num_rows, self._busy(num_rows))
        if self._pool is None or not others:
            return [part(slice(0, num_rows))]
        futures = [self._pool.submit(part, rows) for rows in others]
        try:
            mine = part(first)
        finally:
            # Nobody may still read the weights when the caller goes on.
            wait(futures)
        return [mine, *(future.result() for future in futures)]

    def map_each(
        self, functions: Sequence[Callable[[Any], Result]], inputs: Sequence[Tensor | range]
    ) -> list[list[Result]]:
        """Every function of its own inputs; whoever is free takes the next piece.

        ::

            piece       16 rows of function 0 | 8 of function 1 | 8 of function 2
            worker                0           |        1        | the first that is free

        No piece has more rows than each worker would have of all, and nothing smaller is cut: three
        functions of as many rows take two workers as long as four. Pieces depend on the numbers of
        rows and of workers alone, so a run can be repeated, whoever takes them.

        Args:
            functions: called from several threads.
            inputs: for each function.

        Returns:
            Of each function the results for consecutive pieces of its rows.

        Raises:
            Exception: what a function raises, once all others have ended.
        """
        num_rows = sum(map(len, inputs))
        share = max(1, -(-num_rows // self._busy(num_rows)))
        pieces = [
            (index, own[rows])
            for index, own in enumerate(inputs)
            for rows in _even_slices(len(own), -(-len(own) // share))
        ]
        found: list[list[Result]] = [[] for _ in pieces]
        waiting = deque(enumerate(pieces))

        def work(_: slice) -> None:
            while waiting:
                try:
                    number, (index, piece) = waiting.popleft()
                except IndexError:  # another was faster
                    return
                found[number].append(functions[index](piece))

        self.map(work, num_rows)
        results: list[list[Result]] = [[] for _ in functions]
        for (index, _), result in zip(pieces, found, strict=True):
            results[index] += result
        return results

    def infer(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """``function(inputs)`` without gradients, every worker for its rows.

        Args:
            function: one row of output for each row of input; called from several threads.
            inputs: on the device of whatever the function uses.
        """

        @torch.no_grad()  # it holds for the thread that calls
        def part(rows: slice) -> Tensor:
            return function(inputs[rows])

        return torch.cat(self.map(part, len(inputs)))

    def _busy(self, num_rows: int) -> int:
        """How many have something to do."""
        return max(1, min(self.count, num_rows // LEAST_ROWS))


def _even_slices(length: int, count: int) -> list[slice]:
    """Consecutive parts of a length, as equal as can be."""
    bounds = [length * index // count for index in range(count + 1)] if count else []
    return list(map(slice, bounds, bounds[1:]))


def cut(inputs: Sequence[Tensor | range], rows: slice) -> list[Any]:
    """What falls to some rows, counted through all inputs, of each of them; it may be nothing."""
    firsts = itertools.accumulate(map(len, inputs), initial=0)
    return [
        own[max(rows.start - first, 0) : max(rows.stop - first, 0)]
        for first, own in zip(firsts, inputs, strict=False)  # the last is where all end
    ]


def choose_compute(
    device: str = "auto", precision: str = "auto", threads: int = 0, compiled: str = "auto"
) -> Compute:
    """Resolves ``auto`` on this machine.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the torsos: ``auto``, ``float32`` or ``bfloat16``. ``auto`` takes bfloat16
            where the device multiplies it natively (a GPU of compute capability 8.0 or more);
            emulated, it is slower than float32.
        threads: of PyTorch on the CPU; 0 takes all cores that this process may use.
        compiled: ``on`` (CUDA only), ``off``, or ``auto``: on CUDA where there is what PyTorch
            compiles with, Triton and a C compiler.

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
        native = cpu_multiplies_bfloat16() if device == "cpu" else _cuda_multiplies_bfloat16(device)
        precision = "bfloat16" if native else "float32"
    if precision not in PRECISIONS:
        raise ConfigError(
            f"unknown precision {precision!r}, expected auto, {' or '.join(PRECISIONS)}"
        )
    if compiled not in ("auto", "on", "off"):
        raise ConfigError(f"compiled must be auto, on or off, got {compiled!r}")
    if compiled == "on" and device == "cpu":
        raise ConfigError("compiled = on needs device = cuda: a CPU has its workers instead")
    compiles = compiled == "on" or (compiled == "auto" and device != "cpu" and _compiles(device))
    return Compute(device, precision, threads or available_cores(), compiles)


def _compiles(device: str) -> bool:
    """Whether PyTorch can compile for a GPU: it needs Triton, a C compiler, and a GPU of 2017."""
    return (
        importlib.util.find_spec("triton") is not None
        and bool(os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang"))))
        and torch.cuda.get_device_capability(device) >= (7, 0)
    )


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
    """Cores that this process may run on, and whose time its control group may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [cores or 1]
    for group in _control_groups():
        quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            limits.append(max(1, int(quota) // int(period)))
    return min(limits)


def _cuda_multiplies_bfloat16(device: str) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions; False where that cannot be read."""
    text = _read(Path("/proc/cpuinfo")) or ""
    return "avx512_bf16" in text or "amx_bf16" in text


def available_memory_bytes() -> int:
    """Memory that a new allocation can take without swapping; a guess where it cannot be read.

    The least of what the machine and each control group around this process have left. Cached
    files do not count as taken where the kernel says how much of them it would give back.
    """
    left = [_machine_memory_bytes()]
    for group in _control_groups():
        limit = _read(group / "memory.max") or ""
        used = _read(group / "memory.current") or ""
        if limit.isdecimal() and used.isdecimal():
            cached = re.search(r"^inactive_file (\d+)$", _read(group / "memory.stat") or "", re.M)
            taken = int(used) - (int(cached[1]) if cached else 0)
            left.append(max(0, int(limit) - max(0, taken)))
    return min(left)


def _machine_memory_bytes() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(Path("/proc/meminfo")) or "", re.M)
    if found:
        return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _control_groups() -> list[Path]:
    """Directories of the version 2 control group of this process and of those around it."""
    found = re.search(r"^0::/(.*)$", _read(Path("/proc/self/cgroup")) or "", re.M)
    if not found:
        return []
    own = CGROUPS / found[1]
    return [group for group in (own, *own.parents) if group.is_relative_to(CGROUPS)]


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def free_bytes(device: str) -> int:
    """Memory that can still be taken on a device; the CPU's is main memory."""
    return available_memory_bytes() if device == "cpu" else torch.cuda.mem_get_info(device)[0]


def require_memory(
    needed_bytes: int,
    purpose: str,
    settings: str = "replay_capacity_steps",
    device: str = "cpu",
) -> None:
    """Refuses what cannot fit, before hours are spent on it.

    Args:
        needed_bytes: of the device's memory.
        purpose: what for.
        settings: which would make it less.
        device: the CPU's is main memory.

    Raises:
        ConfigError: if less than the needed bytes (and a tenth more) are free.
    """
    available = free_bytes(device)
    if needed_bytes * 1.1 > available:
        raise ConfigError(
            f"{purpose} needs {needed_bytes / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are "
            f"free; choose a smaller {settings}"
        )
