"""From a foreign file to tensors, and nothing but tensors.

`read_weights` is the one way in: a path goes in, names and dense, finite tensors come out::

    file --looked through (archives)--> clean bytes --another process (decoder)--> safetensors
         --checked like any file from outside--> tensors

There is no second way, for no file: what one of these refuses is not read.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from actor_mimic.errors import DataError
from actor_mimic.teachers.archives import MAX_NAME, open_foreign, read_safetensors
from actor_mimic.teachers.confined import decode_confined


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
        UnavailableError, StorageError: as `decode_confined`.
    """
    file = open_foreign(path)
    answer = decode_confined(path, file.kind, file.weights)
    # Whatever was done to the process that wrote it: this is a file from outside.
    checked = read_safetensors(path, io.BytesIO(answer), len(answer))
    try:
        tensors = safetensors.torch.load(checked)
    # The library promises no exception of its own.
    except Exception as error:
        raise DataError(f"{path}: expected tensors, but {error!s:.300}") from error
    _check_tensors(path, tensors)
    return ForeignWeights(file.kind, file.sha256, tensors)


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if len(name) > MAX_NAME:
            raise DataError(
                f"{path}: expected names of at most {MAX_NAME} letters, got {name!r:.100}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{path}: expected finite weights, got NaN or infinity in {name!r:.100}"
            )
