"""Checkpoints of ours with something wrong in them and every hash right, as a forger makes them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.student import Student
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.storage.checkpoint import write_checkpoint
from actor_mimic.storage.manifest import MANIFEST, encode_manifest
from actor_mimic.storage.tensor_files import file_entry

CARTPOLE = "gym:CartPole-v1"
ACTIONS = [f"{CARTPOLE}/0", f"{CARTPOLE}/1"]


def written(directory: Path, network: QNetwork | Student, tasks: dict[str, list[str]]) -> Path:
    """An honest checkpoint; its directory."""
    return write_checkpoint(
        directory,
        step=1,
        tensors={"model": network.state_dict()},
        state={},
        manifest={
            "kind": "student" if isinstance(network, Student) else "expert",
            "tasks": tasks,
            "network": network.to_json(),
            "config": {},
            "parents": [],
        },
    ).path


def expert(directory: Path) -> Path:
    """One of an untrained expert of CartPole."""
    generator = torch.Generator().manual_seed(0)
    network = QNetwork(TorsoSpec("mlp", (4,), 0.25), len(ACTIONS), generator=generator)
    return written(directory, network, {CARTPOLE: ACTIONS})


def student(directory: Path) -> Path:
    """One of an untrained student of CartPole."""
    generator = torch.Generator().manual_seed(0)
    network = Student(TorsoSpec("mlp", (4,), 0.25), {CARTPOLE: ACTIONS}, generator=generator)
    return written(directory, network, {CARTPOLE: ACTIONS})


def forge(
    honest: Path,
    target: Path,
    *,
    tensors: Mapping[str, torch.Tensor] | None = None,
    manifest: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    state: Any = None,
) -> Path:
    """A copy with other tensors, another state, or other things in its manifest or its network."""
    shutil.copytree(honest, target)
    content = json.loads((target / MANIFEST).read_bytes())
    if tensors is not None:
        (target / "model.safetensors").unlink()
        save_file(dict(tensors), target / "model.safetensors")
        content["files"]["model.safetensors"] = file_entry(target / "model.safetensors")
    if state is not None:
        (target / "state.json").write_text(json.dumps(state))
        content["files"]["state.json"] = file_entry(target / "state.json")
    content |= dict(manifest or {})
    content["network"] |= dict(network or {})
    (target / MANIFEST).write_bytes(encode_manifest(content))
    return target
