"""The two protocols: their numbers are a promise to whoever compares scores."""

import dataclasses

import pytest

from actor_mimic.errors import UsageError
from actor_mimic.protocols import FRAME_SKIP, MAX_EPISODE_FRAMES, PROTOCOLS, protocol_named


@pytest.mark.parametrize(
    ("name", "sticky", "noops", "life_loss_ends", "epsilon"),
    [("paper", 0.0, 30, True, 0.05), ("sticky", 0.25, 0, False, 0.01)],
)
def test_the_numbers_of_each_protocol(name, sticky, noops, life_loss_ends, epsilon):
    assert dataclasses.astuple(protocol_named(name)) == (
        name,
        sticky,
        noops,
        life_loss_ends,
        epsilon,
    )


def test_there_are_two_and_each_is_found_by_its_name():
    assert list(PROTOCOLS) == ["paper", "sticky"]
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def test_an_episode_is_half_an_hour_of_play_at_sixty_frames_a_second():
    assert MAX_EPISODE_FRAMES == 30 * 60 * 60
    assert MAX_EPISODE_FRAMES // FRAME_SKIP == 27_000


def test_unknown_protocols_are_refused_with_a_hint():
    with pytest.raises(UsageError, match="expected one of paper, sticky; did you mean 'paper'"):
        protocol_named("papre")
