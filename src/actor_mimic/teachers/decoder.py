"""The program that decodes a foreign file; it runs in a process of its own (`confined`).

Bytes come in on standard input, safetensors go out on standard output. A file that is refused
ends it with the error's exit code, and the reason on standard error.

Everything that decoding needs is loaded before the bytes are looked at; then the process gives up
the rest, for good (`_give_up`). So whoever found a hole in a parser would find himself in a process
without tokens that can open no file and no connection, start no other process, and is ended soon.
"""

import contextlib
import io
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from actor_mimic.errors import ActorMimicError, DataError, UnsafeError
from actor_mimic.teachers.archives import MAX_WEIGHTS_BYTES

CLEANRL_WEIGHTS = "model_weights"  # beside the arguments of the training script
CPU_S = 60
# Decoding, copies of what shares memory, and writing hold the weights some five times.
MEMORY_FACTOR = 8
MEMORY_BYTES = 256 << 20

_STATM = Path("/proc/self/statm")


def main() -> int:
    """Decodes standard input, whose kind is the last argument; returns the exit code."""
    torch.set_num_threads(1)
    _practise()
    content = sys.stdin.buffer.read()
    _give_up(len(content))
    try:
        answer = decode(sys.argv[-1], content)
        if len(answer) > MAX_WEIGHTS_BYTES:
            raise UnsafeError(f"refused: expected at most {MAX_WEIGHTS_BYTES} bytes of tensors")
    except ActorMimicError as error:
        sys.stderr.write(str(error))
        return error.exit_code
    except MemoryError:
        sys.stderr.write("refused: expected tensors, got what takes more memory than any do")
        return UnsafeError.exit_code
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()
    return 0


def decode(kind: str, content: bytes) -> bytes:
    """Tensors of a file that has been looked through (`archives`), as safetensors.

    Checks what that format cannot say: that they are dense, and share no memory but whole.

    Args:
        kind: ``safetensors``, or anything else for a file of ``torch.save``.
        content: of the file.

    Raises:
        UnsafeError: if they are not what they claim to be.
        DataError: if there are none, or they are damaged.
    """
    try:
        if kind == "safetensors":
            loaded: Any = safetensors.torch.load(content)
        else:
            # Said outright, so that no environment variable can change it.
            loaded = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True, mmap=False
            )
    except MemoryError:
        raise
    # PyTorch promises no exception of its own; the file has been looked through, so what is left
    # is damage.
    except Exception as error:
        raise DataError(f"expected tensors, but {error!s:.300}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get(CLEANRL_WEIGHTS), Mapping):
        loaded = loaded[CLEANRL_WEIGHTS]
    tensors = _dense(loaded)
    _check_memory(tensors)
    try:
        return safetensors.torch.save(_apart(tensors))
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"expected plain tensors, but {error!s:.300}") from error


def _dense(loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping) or not loaded:
        raise DataError(f"expected a dictionary of tensors, got {type(loaded).__name__}")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or type(tensor) is not Tensor:
            raise DataError(f"expected named tensors, got {name!r:.100}: {type(tensor).__name__}")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise UnsafeError(
                f"refused: expected dense tensors of floats or integers, got {name!r:.100} of "
                f"{tensor.dtype}, {tensor.layout}"
            )
        if not tensor.is_contiguous():
            raise UnsafeError(
                f"refused: expected contiguous tensors, got {name!r:.100} of shape "
                f"{tuple(tensor.shape)} with strides {tensor.stride()}"
            )
    return dict(loaded)


def _check_memory(tensors: Mapping[str, Tensor]) -> None:
    """Two tensors are the same memory, as tied weights are, or none of it."""
    places: dict[int, set[tuple[int, int]]] = {}
    for tensor in tensors.values():
        start = int(tensor.storage_offset()) * tensor.element_size()
        place = (start, start + tensor.numel() * tensor.element_size())
        places.setdefault(tensor.untyped_storage().data_ptr(), set()).add(place)
    for taken in places.values():
        end = 0
        for start, stop in sorted(taken):
            if start < end:
                raise UnsafeError("refused: expected tensors that share no memory")
            end = stop


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each in memory of its own, as safetensors wants them."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.detach().clone() if storage in seen else tensor.detach()
        seen.add(storage)
    return apart


def _practise() -> None:
    """Decodes a good file and a bad one, so that nothing is left to be loaded later."""
    file = io.BytesIO()
    tensors = {"weight": torch.zeros(1)}
    torch.save(tensors, file)  # noqa: TID251  (read again by this process, and never written)
    decode("torch", file.getvalue())
    decode("safetensors", safetensors.torch.save(tensors))
    for kind in ("torch", "safetensors"):
        with contextlib.suppress(DataError):
            decode(kind, b"neither")


def _give_up(size: int) -> None:
    """Leaves this process what decoding so many bytes takes, for good.

    No file, socket or pipe beside the three standard streams can be opened, no process or thread
    be started (but by root, whom that limit does not bind), no more be written than an answer can
    have. Memory is bounded where the system bounds it, which Linux does and macOS does not.
    """
    spent = int(time.process_time()) + 1
    limits = {
        resource.RLIMIT_NOFILE: 3,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: MAX_WEIGHTS_BYTES,
        resource.RLIMIT_CPU: spent + CPU_S,
    }
    if _STATM.exists():
        mapped = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = mapped + MEMORY_FACTOR * size + MEMORY_BYTES
    for limit, value in limits.items():
        _, most = resource.getrlimit(limit)
        left = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(limit, (left, left))
