"""Rows D1 to D7: files of weights made to run code, to exhaust the machine, or to be mistaken.

Every row first shows that its trap works: a gadget fires where pickles are trusted, and an honest
file is imported. A row fails if one hostile file is not refused, whatever else it does.
"""

import base64
import json
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from actor_mimic.envs.make import describe_task
from actor_mimic.storage.checkpoint import read_checkpoint
from actor_mimic.teachers.decoder import decode
from actor_mimic.teachers.foreign import ImportOptions, import_teacher
from actor_mimic.teachers.own import load_network
from actor_mimic.teachers.weights import read_weights
from benchmarks.faults import gadgets
from benchmarks.faults.forgery import CARTPOLE, expert, forge, student
from benchmarks.faults.row import Row
from benchmarks.faults.verdicts import ACCEPTED, REFUSED, exit_code, look_through, tally, tree

ZIP_LIMITS = (200 << 20, 2.0)  # bytes of the whole process, seconds for one file
SAFETENSORS_LIMITS = (100 << 20, 1.0)


def gadgets_beside_weights(scratch: Path) -> Row:
    """D1: honest weights of Stable-Baselines3 beside gadgets, which are never decoded."""
    canary = _armed(scratch)
    honest = gadgets.torch_file(gadgets.sb3_state())
    (scratch / "honest.zip").write_bytes(gadgets.sb3_zip(honest))
    options = ImportOptions(CARTPOLE)
    expected = import_teacher(scratch / "honest.zip", scratch / "honest", options).model_sha256
    failures = 0
    for protocol in gadgets.PROTOCOLS:
        bare = pickle.dumps(gadgets.Gadget(canary), protocol)
        serialised = {":type:": "x", ":serialized:": base64.b64encode(bare).decode()}
        data = json.dumps({"policy_class": serialised, "lr_schedule": serialised}).encode()
        poisoned = gadgets.zipped(
            {
                "data": data,
                "policy.pth": honest,
                "policy.optimizer.pth": bare,
                "pytorch_variables.pth": gadgets.with_pickle(honest, bare),
            }
        )
        path = scratch / f"{protocol}.zip"
        path.write_bytes(poisoned)
        imported = import_teacher(path, scratch / str(protocol), options)
        failures += imported.model_sha256 != expected or canary.exists()
    trials = len(gadgets.PROTOCOLS)
    return Row(
        "D1",
        "agents of Stable-Baselines3 with gadgets in `data` and beside the weights are imported",
        trials,
        failures,
        f"{failures} of {trials} ran code or changed the weights",
        f"0 of {trials}",
        failures == 0,
    )


def gadgets_as_weights(scratch: Path) -> Row:
    """D2: gadgets where weights should be, also where PyTorch is told to trust all files.

    Each file goes the whole way, and then its bytes go to PyTorch alone, as if the first look had
    let them pass.
    """
    canary = _armed(scratch)
    files = gadgets.gadget_files(canary)
    codes, ran, slipped = {}, 0, 0
    for forced in (False, True):
        with _variable("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1" if forced else None):
            for name, content in files.items():
                path = scratch / name
                path.write_bytes(content)
                codes[f"{name} {forced}"] = exit_code(lambda path=path: read_weights(path))
                slipped += exit_code(lambda: decode("torch", content)) == ACCEPTED  # noqa: B023
                ran += canary.exists()
                if canary.exists():
                    canary.rmdir()
    failures = ran + slipped + sum(code not in REFUSED for code in codes.values())
    return Row(
        "D2",
        f"{len(files)} gadget files, twice: as usual, and with PyTorch told to trust them; then "
        "again without our first look",
        len(codes),
        failures,
        f"{ran} of {len(codes)} ran code; exit codes {tally(codes)}",
        f"0 of {len(codes)} run code, all refused",
        failures == 0,
    )


def zips(scratch: Path) -> Row:
    """D3: zips that expand, overlap or lead elsewhere."""
    return _looked_through("D3", "zip bombs and zips that lie", gadgets.hostile_zips(), scratch)


def lying_safetensors(scratch: Path) -> Row:
    """D4: safetensors whose headers lie."""
    files = gadgets.hostile_safetensors()
    return _looked_through("D4", "safetensors that lie", files, scratch)


def tensors(scratch: Path) -> Row:
    """D5: files of ``torch.save`` whose tensors are not dense, finite numbers."""
    files = {
        name: gadgets.torch_file(content) for name, content in gadgets.hostile_tensors().items()
    }
    files["a storage larger than its bytes"] = gadgets.lying_storage()
    codes = {}
    for number, (name, content) in enumerate(files.items()):
        path = scratch / f"{number}.pt"
        path.write_bytes(content)
        codes[name] = exit_code(lambda path=path: read_weights(path))
    return _refusals("D5", "tensors that are sparse, strided, quantised, shared, ...", codes)


def misfits(scratch: Path) -> Row:
    """D6: weights that fit no network, in foreign files and in forged checkpoints of ours."""
    codes: dict[str, int] = {}
    honest = gadgets.state()
    for name, wrong in _misfitting(honest).items():
        path = scratch / f"{len(codes)}.pt"
        path.write_bytes(gadgets.torch_file(wrong))
        target = scratch / f"imported-{len(codes)}"
        codes[name] = exit_code(
            lambda path=path, target=target: import_teacher(path, target, ImportOptions(CARTPOLE))
        )
        if target.exists():
            codes[name] = ACCEPTED
    made = {"expert": expert(scratch / "expert"), "student": student(scratch / "student")}
    for kind, path in made.items():
        read = read_checkpoint(path)
        load_network(read)  # the trap: an honest one is taken
        for name, change in _forgeries(read.load_tensors("model")).items():
            target = scratch / f"forged-{len(codes)}"
            forge(path, target, **change)
            codes[f"{kind}: {name}"] = exit_code(
                lambda target=target: load_network(read_checkpoint(target))
            )
    return _refusals("D6", "weights of the wrong names, shapes, types or values", codes)


def other_tasks(scratch: Path) -> Row:
    """D7: an agent of every task is offered as one of every other."""
    tasks = (CARTPOLE, "gym:Acrobot-v1", "gym:MountainCar-v0", "pong", "boxing")
    codes = {}
    for one in tasks:
        shape, actions = describe_task(one)
        path = scratch / f"{len(codes)}.pt"
        path.write_bytes(gadgets.torch_file(_agent(shape, len(actions))))
        for other in tasks:
            target = scratch / f"imported-{len(codes)}"
            code = exit_code(
                lambda path=path, target=target, other=other: import_teacher(
                    path, target, ImportOptions(other)
                )
            )
            if one == other:
                assert code == ACCEPTED, f"an honest agent of {one} was refused"
            else:
                codes[f"{one} as {other}"] = code
    return _refusals("D7", "agents offered as those of another game", codes)


def _armed(scratch: Path) -> Path:
    """Where the canary would be; it is seen to come where a pickle is trusted."""
    canary = (scratch / "canary").absolute()
    pickle.loads(pickle.dumps(gadgets.Gadget(canary)))  # noqa: S301  (the point of it)
    assert canary.exists(), "the gadget does not work"
    canary.rmdir()
    return canary


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _looked_through(name: str, what: str, files: Mapping[str, bytes], scratch: Path) -> Row:
    """What the first look refuses it must refuse cheaply; what it lets pass goes the whole way."""
    most_bytes, most_s = ZIP_LIMITS if name == "D3" else SAFETENSORS_LIMITS
    directory = scratch / "files"
    directory.mkdir()
    for number, content in enumerate(files.values()):
        (directory / f"{number:03d}").write_bytes(content)
    before = tree(scratch)
    look = look_through(directory)
    codes = dict(zip(files, (look.codes[key] for key in sorted(look.codes)), strict=True))
    passed_on = [index for index, code in enumerate(codes.values()) if code == ACCEPTED]
    for index in passed_on:
        path = directory / f"{index:03d}"
        codes[list(files)[index]] = exit_code(lambda path=path: read_weights(path))
    written = len(tree(scratch) - before)
    bounded = look.peak_bytes <= most_bytes and look.slowest_s <= most_s and not look.loaded_torch
    failures = sum(code not in REFUSED for code in codes.values()) + written + (not bounded)
    return Row(
        name,
        f"{what}; {len(codes) - len(passed_on)} are refused before PyTorch is loaded",
        len(codes),
        failures,
        f"{len(codes)} files, exit codes {tally(codes)}; at most {look.peak_bytes >> 20} MiB, "
        f"{look.slowest_s:.2f} s; {written} files written",
        f"all refused, {most_bytes >> 20} MiB, {most_s:g} s, 0 files written",
        failures == 0,
    )


def _refusals(name: str, what: str, codes: Mapping[str, int]) -> Row:
    failures = sum(code not in REFUSED for code in codes.values())
    return Row(
        name,
        what,
        len(codes),
        failures,
        f"{len(codes) - failures} of {len(codes)} refused, exit codes {tally(codes)}",
        f"{len(codes)} of {len(codes)}",
        failures == 0,
    )


def _misfitting(honest: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    first, last = "network.0.weight", "network.4.weight"
    return {
        "transposed": honest | {first: honest[first].t().contiguous()},
        "a length less": honest | {first: honest[first][:, :3].contiguous()},
        "an action more": honest | {last: torch.zeros(3, 8), "network.4.bias": torch.zeros(3)},
        "one layer does not read the other": honest | {"network.2.weight": torch.zeros(8, 9)},
        "no bias": {name: value for name, value in honest.items() if name != "network.2.bias"},
        "one more": honest | {"network.2.gain": torch.ones(8)},
        "a layer of another kind": honest | {"network.1.weight": torch.ones(8)},
        "images": _agent((4, 84, 84), 2),
        "one channel": _agent((1, 84, 84), 2),
        "whole numbers": {name: value.long() for name, value in honest.items()},
        "NaN": honest | {first: honest[first] * torch.nan},
        "infinity": honest | {first: honest[first] / 0.0},
        "no numbers": honest | {first: torch.zeros(0, 4)},
        "one number": honest | {first: torch.zeros(())},
    }


def _forgeries(honest: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    first = next(name for name, value in honest.items() if value.ndim == 2)
    names = {CARTPOLE: [f"{CARTPOLE}/{index}" for index in range(3)]}
    torso = {"kind": "mlp", "obs_shape": [4], "width": 0.25, "norm": "none"}
    return {
        "NaN": {"tensors": honest | {first: honest[first] * torch.nan}},
        "transposed": {"tensors": honest | {first: honest[first].t().contiguous()}},
        "one more": {"tensors": honest | {"more": torch.ones(1)}},
        "one less": {"tensors": {n: value for n, value in honest.items() if n != first}},
        "whole numbers": {"tensors": {name: value.long() for name, value in honest.items()}},
        "complex": {"tensors": honest | {first: honest[first].to(torch.complex64)}},
        "a width of 10^6": {"network": {"torso": torso | {"width": 1e6}}},
        "a width of 10^300": {"network": {"torso": torso | {"width": 1e300}}},
        "observations of 2^62": {"network": {"torso": torso | {"obs_shape": [1 << 62]}}},
        "observations of text": {"network": {"torso": torso | {"obs_shape": ["4"]}}},
        "a network of another kind": {"network": {"torso": torso | {"kind": "eval"}}},
        "a torso that is a list": {"network": {"torso": [torso]}},
        "an action more than outputs": {"manifest": {"tasks": names}},
        "no tasks": {"manifest": {"tasks": {}}},
        "2,000 tasks": {"manifest": {"tasks": {f"t{index}": ["a"] for index in range(2000)}}},
        "tasks of numbers": {"manifest": {"tasks": {CARTPOLE: 2}}},
        "the same action twice": {"manifest": {"tasks": {CARTPOLE: ["a", "a"]}}},
    }


def _agent(obs_shape: tuple[int, ...], num_actions: int) -> dict[str, Tensor]:
    """An agent of CleanRL's, all zero."""
    if len(obs_shape) == 1:
        sizes = {"0": (8, obs_shape[0]), "2": (num_actions, 8)}
    else:
        sizes = {
            "0": (2, obs_shape[0], 8, 8),
            "2": (2, 2, 4, 4),
            "4": (2, 2, 3, 3),
            "7": (8, 2 * 7 * 7),
            "9": (num_actions, 8),
        }
    weights = {f"network.{index}.weight": torch.zeros(size) for index, size in sizes.items()}
    return weights | {f"network.{index}.bias": torch.zeros(s[0]) for index, s in sizes.items()}
