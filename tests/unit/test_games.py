import dataclasses
import math

import pytest

from actor_mimic.games import (
    GAMES,
    MULTITASK_GAMES,
    TRANSFER_SOURCE_GAMES,
    TRANSFER_TARGET_GAMES,
    GameScores,
    human_normalised,
)


def test_every_game_is_a_rom_of_ale():
    roms = pytest.importorskip("ale_py.roms")

    assert set(GAMES) <= set(roms.get_all_rom_ids())


def test_the_benchmark_is_whole():
    assert len(GAMES) == 57
    assert list(GAMES) == sorted(GAMES)
    # Sums of both columns, so that no digit changes unseen.
    assert math.fsum(game.random for game in GAMES.values()) == pytest.approx(50864.9)
    assert math.fsum(game.human for game in GAMES.values()) == pytest.approx(606494.2)


def test_human_play_is_better_than_random_play():
    assert all(game.human > game.random for game in GAMES.values())


@pytest.mark.parametrize(
    ("games", "size"),
    [(MULTITASK_GAMES, 8), (TRANSFER_SOURCE_GAMES, 13), (TRANSFER_TARGET_GAMES, 7)],
)
def test_game_sets_hold_distinct_known_games(games, size):
    assert len(games) == len(set(games)) == size
    assert set(games) <= set(GAMES)


def test_a_transfer_target_is_never_a_source():
    assert not set(TRANSFER_SOURCE_GAMES) & set(TRANSFER_TARGET_GAMES)


@pytest.mark.parametrize(
    ("task", "score", "expected"),
    [
        ("pong", -20.7, 0.0),  # random play
        ("pong", 14.6, 1.0),  # human play
        ("pong", 21.0, 41.7 / 35.3),
        ("breakout", 16.1, 0.5),  # half-way between 1.7 and 30.5
        ("boxing", -11.9, -1.0),  # as far below random play as a human is above it
    ],
)
def test_human_normalised_by_hand(task, score, expected):
    assert human_normalised(task, score) == pytest.approx(expected)


@pytest.mark.parametrize("task", ["gym:CartPole-v1", "tetris", "Pong", ""])
def test_no_human_score_is_invented(task):
    assert human_normalised(task, 1.0) is None


def test_scores_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GAMES["pong"].human = 0.0
    assert GAMES["pong"] == GameScores(random=-20.7, human=14.6)
