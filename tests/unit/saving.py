"""Small checkpoints to be saved, killed and damaged by the tests of the storage."""

import os
import warnings

import torch

from actor_mimic.storage.checkpoint import write_checkpoint

MANIFEST_KEYS = {
    "kind": "expert",
    "tasks": {"pong": ["noop"]},
    "parents": [],
    "config": {"a": 1},
    "network": {},
}


def numbers(step):
    return torch.arange(12, dtype=torch.float32).reshape(3, 4) + step


def save(directory, step, **changes):
    arguments = {
        "tensors": {"model": {"w": numbers(step)}, "optimizer": {"m": numbers(-step)}},
        "state": {"counter": step},
        "manifest": MANIFEST_KEYS,
    }
    return write_checkpoint(directory, step=step, **(arguments | changes))


def segments(checkpoint):
    """Files of the replay, oldest first."""
    return [checkpoint.path / name for name in checkpoint.manifest["segments"]]


def segment(value):
    return {"frames": torch.full((5, 7), value, dtype=torch.uint8)}


def ignore(_path, _reason):
    pass


def in_child(action):
    """Runs ``action`` in a fork; its exit status. Importing torch again would take seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside torch's idle threads
        pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def names(directory):
    return sorted(path.name for path in directory.iterdir())
