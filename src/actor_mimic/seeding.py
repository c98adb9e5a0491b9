"""Random streams, each named by the run's seed and a path of words and numbers.

A stream depends on its name alone: adding a game, an environment or a worker shifts no other
stream, and a resumed run finds the same ones again. The derivation is part of the checkpoint
format (episode seeds are recomputed on resume), so golden values in the tests hold it still.
"""

import hashlib
import json
import operator
from typing import Any, SupportsIndex

import numpy as np
import torch

from actor_mimic.errors import DataError

_SEED_BITS = 31  # the emulator takes its seed as a signed 32 bit integer
_STREAM_BYTES = 16  # what PCG64 holds: two streams of one experiment then never coincide


def derive_seed(run_seed: int, *path: str | SupportsIndex) -> int:
    """Derive the seed of one named stream, for consumers that take a plain integer.

    Args:
        run_seed: the seed of the whole run; any integer.
        *path: the name of the stream, for example ``"pong", "episode", environment, number``.
            The text ``"1"`` and the number ``1`` are different names.

    Returns:
        An integer in ``[0, 2**31)``, the same on every platform and Python version.

    Raises:
        TypeError: if the seed or a part of the path is neither text nor an integer.
    """
    digest = _digest(run_seed, path)
    return int.from_bytes(digest[:4], "big") >> (32 - _SEED_BITS)


def numpy_generator(run_seed: int, *path: str | SupportsIndex) -> np.random.Generator:
    """Make the NumPy generator of one named stream.

    Args:
        run_seed: the seed of the whole run.
        *path: the name of the stream, as for ``derive_seed``.

    Returns:
        A fresh PCG64 generator, seeded with 128 bits.

    Raises:
        TypeError: if the seed or a part of the path is neither text nor an integer.
    """
    digest = _digest(run_seed, path)
    entropy = int.from_bytes(digest[:_STREAM_BYTES], "big")
    return np.random.Generator(np.random.PCG64(entropy))


def torch_generator(run_seed: int, *path: str | SupportsIndex) -> torch.Generator:
    """Make the CPU generator of one named stream, for weights and other tensors.

    It lives on the CPU whatever the training device, so that a run starts from the same
    weights on every device.

    Args:
        run_seed: the seed of the whole run.
        *path: the name of the stream, as for ``derive_seed``.

    Returns:
        A fresh generator; the global one is left alone.

    Raises:
        TypeError: if the seed or a part of the path is neither text nor an integer.
    """
    return torch.Generator(device="cpu").manual_seed(derive_seed(run_seed, *path))


def generator_state(rng: np.random.Generator) -> dict[str, Any]:
    """Describe where a generator stands, for a checkpoint.

    Args:
        rng: a generator of this module; it does not move.

    Returns:
        A flat dictionary for JSON. The two 128 bit numbers are hexadecimal text, because many
        JSON readers round large integers.

    Raises:
        ValueError: if the generator is not a PCG64.
    """
    state = rng.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"only PCG64 generators are stored, got {state['bit_generator']}")
    return {
        "bit_generator": "PCG64",
        "state": hex(state["state"]["state"]),
        "increment": hex(state["state"]["inc"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def restore_generator(state: dict[str, Any]) -> np.random.Generator:
    """Make a generator that goes on where ``generator_state`` was taken.

    Args:
        state: the dictionary, perhaps after a round trip through JSON.

    Returns:
        A new generator with the same future, half-used 64 bit words included.

    Raises:
        DataError: if the dictionary is not one that ``generator_state`` writes.
    """
    try:
        if state["bit_generator"] != "PCG64":
            raise ValueError(f"the generator is {state['bit_generator']!r}, not 'PCG64'")
        words = {"state": int(state["state"], 16), "inc": int(state["increment"], 16)}
        bit_generator: Any = np.random.PCG64(0)  # NumPy's stub omits its plain-dictionary setter
        bit_generator.state = {
            "bit_generator": "PCG64",
            "state": words,
            "has_uint32": state["has_uint32"],
            "uinteger": state["uinteger"],
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"expected the state of a PCG64 generator, got {state!r} ({error})"
        ) from error
    return np.random.Generator(bit_generator)


def _digest(run_seed: int, path: tuple[str | SupportsIndex, ...]) -> bytes:
    # JSON keeps the parts apart and text distinct from numbers: ("a", "b") is not ("ab",).
    # Integers of NumPy count as integers, so that an array index can be part of a name.
    name: list[str | int] = [operator.index(run_seed)]
    name += [part if isinstance(part, str) else operator.index(part) for part in path]
    return hashlib.sha256(json.dumps(name).encode("ascii")).digest()
