"""Tensors in files: safetensors only, checked before they are parsed and synced when written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from actor_mimic.errors import DataError
from actor_mimic.storage.durable import file_sha256, sync_path
from actor_mimic.storage.manifest import check_tensor_header, regular_size


def load_tensor_file(path: Path) -> dict[str, Tensor]:
    """Load a safetensors file onto the CPU; its header is bounded before it is parsed.

    Raises:
        DataError: if it is missing or damaged.
    """
    check_tensor_header(path)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: expected tensors, but {error}") from error


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write and sync a safetensors file; its manifest entry.

    Raises:
        OSError, SafetensorError: if the disk is full or broken.
        DataError: if there are so many tensors that the header would be refused when read.
    """
    seen: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        on_cpu = tensor.detach().to("cpu").contiguous()
        # Tied weights are saved twice: the format refuses tensors that share memory.
        storage = on_cpu.untyped_storage().data_ptr()
        plain[name] = on_cpu.clone() if storage in seen else on_cpu
        seen.add(storage)
    path.touch(exist_ok=False)
    mode = path.stat().st_mode
    safetensors.torch.save_file(plain, path)
    # The library makes the file readable by its owner only; the user's umask decides here.
    path.chmod(mode)
    sync_path(path)
    check_tensor_header(path)
    return file_entry(path)


def file_entry(path: Path) -> dict[str, Any]:
    """Size and hash of a file, as the manifest lists them."""
    return {"size": regular_size(path), "sha256": file_sha256(path)}
