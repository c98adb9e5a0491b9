"""What is drawn, by pixels counted by hand."""

import sys

import numpy as np
import pytest

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.errors import UnavailableError
from actor_mimic.report import film_panel
from actor_mimic.report.film_panel import (
    BAR,
    CHOSEN,
    FRAME,
    LARGE,
    SMALL,
    TRACK,
    Panel,
    Sheet,
    Shot,
    action_label,
    score_label,
    task_label,
)

ATARI = (160, 210)


def panel(actions, *, picture_size=ATARI, size=LARGE, task="pong"):
    return Panel(picture_size, task=task, who="student", actions=actions, size=size)


def shot(policy, chosen=0, *, picture_size=ATARI, over=False, score=0.0, seed=0):
    width, height = picture_size
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Shot(picture, np.asarray(policy, dtype=np.float64), chosen, score, 7, over=over)


def drawn(of, what):
    canvas = np.full((of.height, of.width, 3), 99, dtype=np.uint8)
    of.draw(canvas, what)
    return canvas


def count(pixels, colour):
    return int((pixels == np.array(colour)).all(axis=-1).sum())


def test_lying_bars_are_as_long_as_actions_are_probable():
    """Pong at twice its size is 320 wide: two columns of 156 with 8 between, 3 rows of 24.

    The first line above the picture and the second take 56, the picture 420, the gap 8: 484.
    """
    of = panel(["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"])
    assert of.bars == [(0, 484, 156, 24), (0, 512, 156, 24), (0, 540, 156, 24),
                       (164, 484, 156, 24), (164, 512, 156, 24), (164, 540, 156, 24)]  # fmt: skip
    assert (of.width, of.height) == (320, 564)

    canvas = drawn(of, shot([0.5, 0.25, 0.0, 0.25, 0.0, 0.0], chosen=3))

    row = canvas[486]  # above the letters, under the frame
    assert count(row[0:156], BAR) == 78
    assert count(row[0:156], TRACK) == 78
    assert (row[:78] == BAR).all()
    # 39 of 156, of which the frame hides two; it also ends the track.
    assert (row[164:166] == FRAME).all()
    assert (row[166:203] == CHOSEN).all()
    assert (row[203:318] == TRACK).all()
    assert (row[318:320] == FRAME).all()
    assert (canvas[484:486, 164:320] == FRAME).all()
    assert count(canvas[514, 0:156], BAR) == 39
    assert count(canvas[542, 0:156], TRACK) == 156


def test_upright_bars_are_as_high_as_actions_are_probable():
    """160 less three gaps of 2 are four bars of 38; their tops are at 40 + 210 + 8."""
    of = panel(["NOOP", "FIRE", "RIGHT", "LEFT"], size=SMALL)
    assert of.bars == [(0, 258, 38, 28), (40, 258, 38, 28), (80, 258, 38, 28), (120, 258, 38, 28)]

    canvas = drawn(of, shot([0.5, 0.25, 0.25, 0.0], chosen=1))

    assert (canvas[272:286, 0:38] == BAR).all()
    assert (canvas[258:272, 0:38] == TRACK).all()
    assert (canvas[279:286, 40:78] == CHOSEN).all()
    assert (canvas[258:260, 40:78] == FRAME).all()
    assert (canvas[260:279, 40:78] == TRACK).all()
    assert (canvas[279:286, 80:118] == BAR).all()
    assert (canvas[258:286, 120:158] == TRACK).all()


@pytest.mark.parametrize("actions", [1, 18, 60, 256])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_any_number_of_actions_can_be_drawn(actions, size):
    of = panel([f"a/{action}" for action in range(actions)], size=size)

    canvas = drawn(of, shot(np.full(actions, 1.0 / actions)))

    assert {box[2:] for box in of.bars} == {of.bars[0][2:]}
    assert all(width > 0 for _, _, width, _ in of.bars)
    assert actions > 100 or all(left + width <= of.width for left, _, width, _ in of.bars)
    assert count(canvas[of.bars[0][1] :], CHOSEN) > 0 or actions > 18


def test_all_of_the_probability_is_the_whole_track():
    of = panel(["NOOP", "FIRE"])
    canvas = drawn(of, shot([1.0, 0.0], chosen=1))
    left, top, width, _ = of.bars[0]
    assert count(canvas[top + 2, left : left + width], BAR) == width


@pytest.mark.parametrize(("size", "zoom"), [(LARGE, 2), (SMALL, 1)])
@pytest.mark.parametrize("over", [False, True])
def test_the_picture_is_enlarged_by_a_whole_number(size, zoom, over):
    of, what = panel(["NOOP"], size=size), shot([1.0], over=over)
    canvas = drawn(of, what)

    part = canvas[size.head : size.head + 210 * zoom, : 160 * zoom]
    expected = np.kron(what.picture, np.ones((zoom, zoom, 1), dtype=np.uint8))
    assert np.array_equal(part, expected // 2 if over else expected)


def test_a_large_picture_is_shrunk_to_the_means_of_squares():
    of = panel(["a/0", "a/1"], picture_size=(402, 6), size=SMALL)
    what = shot([0.5, 0.5], picture_size=(402, 6))
    assert of.width == 160

    canvas = drawn(of, what)

    first = what.picture[:3, :3].reshape(9, 3).mean(axis=0).astype(np.uint8)
    left = (160 - 134) // 4 * 2
    assert np.array_equal(canvas[SMALL.head, left], first)


def test_every_name_of_an_atari_action_fits_its_bar():
    of = panel(ATARI_ALPHABET)
    for name, text in zip(ATARI_ALPHABET, of._names, strict=True):
        assert text.shape == film_panel._text(name, LARGE.text).shape


@pytest.mark.parametrize("game", ["montezuma_revenge", "space_invaders", "name_this_game"])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_long_names_of_games_fit(game, size):
    room = size.width - (film_panel.SCORE_ROOM if size.named else 0)
    whole = film_panel._text(task_label(game), size.title)
    assert film_panel._fitting(task_label(game), size.title, room).shape == whole.shape


def test_what_does_not_fit_is_cut():
    text = film_panel._fitting("x" * 200, 16, 100)
    assert 80 < text.shape[1] <= 100
    assert film_panel._fitting("", 16, 0).shape[1] == 1


def test_the_score_stands_at_the_right_end():
    of = panel(["NOOP"])
    one, other = (drawn(of, shot([1.0], score=score)) for score in (7.0, 123456.0))

    changed = np.flatnonzero((one[: LARGE.title] != other[: LARGE.title]).any(axis=(0, 2)))
    assert changed.min() > 200
    assert changed.max() > 300


@pytest.mark.parametrize("sizes", [[ATARI], [ATARI, ATARI], [ATARI, (601, 401), (3, 2)]])
@pytest.mark.parametrize("columns", [1, 2])
def test_films_have_even_sides_and_every_panel_its_cell(sizes, columns):
    panels = [panel(["NOOP", "FIRE"], picture_size=size) for size in sizes]
    sheet = Sheet(panels, columns)
    shots = [shot([0.5, 0.5], picture_size=size) for size in sizes]

    canvas = sheet.draw(shots)

    assert canvas.shape == (sheet.size[1], sheet.size[0], 3)
    assert sheet.size[0] % 2 == sheet.size[1] % 2 == 0
    for index, (of, what) in enumerate(zip(panels, shots, strict=True)):
        alone, (row, column) = drawn(of, what), divmod(index, columns)
        left = column * sheet.size[0] // columns + (sheet.size[0] // columns - of.width) // 2
        top = row * sheet.size[1] // -(-len(panels) // columns) + 8
        found = [
            np.array_equal(canvas[top : top + of.height, x : x + of.width], alone)
            for x in (left - 1, left, left + 1)
        ]
        assert any(found)


def test_labels():
    assert task_label("space_invaders") == "Space Invaders"
    assert task_label("gym:CartPole-v1") == "CartPole-v1"
    assert task_label("a\x1b[2Jb") == "A[2Jb"
    assert action_label("RIGHTFIRE") == "RIGHTFIRE"
    assert action_label("gym:CartPole-v1/1") == "action 1"
    assert [score_label(score) for score in (1230.0, -21.0, 0.25)] == ["1,230", "-21", "0.2"]


def test_without_pillow_the_install_line_is_named(monkeypatch):
    film_panel._font.cache_clear()
    film_panel._text.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[video\]'"):
        panel(["NOOP"])
