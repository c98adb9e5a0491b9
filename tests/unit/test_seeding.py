"""Seeds: golden values, because a changed derivation would break every stored run."""

import hashlib
import json

import numpy as np
import pytest
import torch

from actor_mimic.errors import DataError
from actor_mimic.seeding import (
    derive_seed,
    generator_state,
    numpy_generator,
    restore_generator,
    torch_generator,
)


@pytest.mark.parametrize(
    ("name", "golden"),
    [
        ((0,), 1751011464),
        ((0, "pong"), 1401428522),
        ((7, "pong", "episode", 3, 12), 1975121077),
        ((-1, "\u00e9"), 1466267436),
    ],
)
def test_golden_seeds(name: tuple[int | str, ...], golden: int) -> None:
    assert derive_seed(int(name[0]), *name[1:]) == golden


def test_a_seed_is_the_top_31_bits_of_the_hash_of_its_name() -> None:
    digits = hashlib.sha256(b'[7, "pong", 3]').hexdigest()[:8]

    assert derive_seed(7, "pong", 3) == int(digits, 16) // 2


def test_golden_streams() -> None:
    raw = numpy_generator(7, "pong").bit_generator.random_raw(2)

    assert raw.tolist() == [1236421323714130861, 15272106636647876309]
    assert torch_generator(7, "pong").initial_seed() == derive_seed(7, "pong")
    assert torch_generator(7, "pong").device.type == "cpu"


def test_names_do_not_run_together() -> None:
    names: list[tuple[str | int, ...]] = [
        (), ("ab",), ("a", "b"), ("b", "a"), ("a", ""), ("", "a"), ('a", "b',),
        (1,), ("1",), (1, 1), (11,),
    ]  # fmt: skip
    seeds = {derive_seed(seed, *name) for name in names for seed in (0, 1)}

    assert len(seeds) == 2 * len(names)


def test_seeds_fill_31_bits_and_no_more() -> None:
    seeds = [derive_seed(0, number) for number in range(2000)]

    assert min(seeds) >= 0
    assert 0.99 * 2**31 < max(seeds) < 2**31
    assert len(set(seeds)) == 2000


def test_numpy_integers_name_the_same_stream_as_python_ones() -> None:
    assert derive_seed(3, 5) == derive_seed(3, np.int64(5))


def test_a_float_is_no_part_of_a_name() -> None:
    with pytest.raises(TypeError):
        derive_seed(0, 1.5)  # type: ignore[arg-type]


def test_torch_generators_repeat_and_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first = torch.rand(4, generator=torch_generator(7, "weights"))
    second = torch.rand(4, generator=torch_generator(7, "weights"))

    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_a_restored_generator_goes_on_where_the_first_stood() -> None:
    rng = numpy_generator(1, "replay")
    rng.random(5)
    rng.integers(10, size=3, dtype=np.uint32)  # leaves half of a 64 bit word for later

    text = json.dumps(generator_state(rng))
    twin = restore_generator(json.loads(text))

    assert json.loads(text)["has_uint32"] == 1
    for _ in range(3):
        assert rng.integers(1 << 20, dtype=np.uint32) == twin.integers(1 << 20, dtype=np.uint32)
        assert rng.random() == twin.random()


def test_reading_the_state_does_not_move_the_generator() -> None:
    rng = numpy_generator(1)

    assert generator_state(rng) == generator_state(rng)


@pytest.mark.parametrize(
    "damage",
    [
        {"bit_generator": "MT19937"},
        {"state": "not hexadecimal"},
        {"state": 12},
        {"increment": None},
        {"increment": "-0x1"},
        {"state": "0x1" + 32 * "0"},
        {"uinteger": "x"},
    ],
)
def test_damaged_states_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises(DataError, match="PCG64"):
        restore_generator(generator_state(numpy_generator(1)) | damage)


def test_incomplete_states_are_refused() -> None:
    with pytest.raises(DataError, match="PCG64"):
        restore_generator({"bit_generator": "PCG64"})


def test_other_bit_generators_are_not_stored() -> None:
    with pytest.raises(ValueError, match="MT19937"):
        generator_state(np.random.Generator(np.random.MT19937(0)))
