"""From a foreign file to tensors, and nothing but tensors.

`read_weights` is the one way in: a path goes in, names and dense, finite tensors come out, so
that it can be moved into a process of its own whole.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from actor_mimic.errors import DataError, UnsafeError
from actor_mimic.teachers.archives import MAX_MEMBERS, MAX_NAME, open_foreign

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
CLEANRL_WEIGHTS = "model_weights"  # beside the arguments of the training script


@dataclass(frozen=True)
class ForeignWeights:
    """What a foreign file holds.

    Attributes:
        kind: ``sb3``, ``torch`` or ``safetensors``; see `archives`.
        sha256: of the file.
        tensors: by their names in the file; on the CPU, dense and finite.
    """

    kind: str
    sha256: str
    tensors: dict[str, Tensor]


def read_weights(path: Path) -> ForeignWeights:
    """Reads the tensors of a foreign file; no code of its runs.

    Raises:
        UnsafeError: if it is no honest file: see `archives.open_foreign`; or if its tensors share
            memory in part, or claim more than they have.
        DataError: if it is damaged, or has no tensors, or some that are not finite.
    """
    file = open_foreign(path)
    try:
        if file.kind == "safetensors":
            loaded: Any = safetensors.torch.load(file.weights)
        else:
            # Said outright, so that no environment variable can change it.
            loaded = torch.load(
                io.BytesIO(file.weights), map_location="cpu", weights_only=True, mmap=False
            )
    # PyTorch promises no exception of its own; the file has been looked through, so what is left
    # is damage.
    except Exception as error:
        raise DataError(f"{path}: expected tensors, but {error!s:.300}") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get(CLEANRL_WEIGHTS), Mapping):
        loaded = loaded[CLEANRL_WEIGHTS]
    return ForeignWeights(file.kind, file.sha256, _check_tensors(path, loaded))


def _check_tensors(path: Path, loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping) or not 0 < len(loaded) <= MAX_MEMBERS:
        raise DataError(f"{path}: expected a dictionary of tensors, got {type(loaded).__name__}")
    tensors: dict[str, Tensor] = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or len(name) > MAX_NAME or type(tensor) is not Tensor:
            raise DataError(
                f"{path}: expected named tensors, got {name!r:.100}: {type(tensor).__name__}"
            )
        if tensor.layout != torch.strided or tensor.dtype not in DTYPES or tensor.is_quantized:
            raise UnsafeError(
                f"{path}: refused: expected dense tensors of floats or integers, got {name!r:.100} "
                f"of {tensor.dtype}, {tensor.layout}"
            )
        if not tensor.is_contiguous():
            raise UnsafeError(
                f"{path}: refused: expected contiguous tensors, got {name!r:.100} of shape "
                f"{tuple(tensor.shape)} with strides {tensor.stride()}"
            )
        tensors[name] = tensor
    _check_memory(path, tensors)
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"{path}: expected finite weights, got NaN or infinity in {name!r}")
    return tensors


def _check_memory(path: Path, tensors: Mapping[str, Tensor]) -> None:
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
                raise UnsafeError(f"{path}: refused: expected tensors that share no memory")
            end = stop
