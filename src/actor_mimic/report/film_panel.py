"""One game of a film: its picture, what is known of it, and the policy as bars under it.

::

    Space Invaders                 1,230      game, score
    student                     step 412      who plays, step
    .----------------------------------.
    |             picture              |      enlarged by a whole number
    '----------------------------------'
    [NOOP=====      ] [LEFT=           ]      probability of each action; the chosen one framed
    [FIRE=          ] [RIGHT=========  ]

Small panels, of which many stand in one film, have upright bars without names, a white edge over
the chosen one, and score and step in the second line. Coordinates are pixels from the upper left
corner of a panel.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from actor_mimic.errors import UnavailableError
from actor_mimic.report.printable import printable

Canvas = UInt8[np.ndarray, "height width 3"]
Mask = UInt8[np.ndarray, "rows columns"]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, width, height

# Blue and vermilion keep apart for every kind of colour vision; white is legible on both.
BACKGROUND: Colour = (16, 18, 24)
TRACK: Colour = (43, 48, 60)
BAR: Colour = (0, 104, 168)
CHOSEN: Colour = (184, 76, 0)
FRAME: Colour = (255, 255, 255)
INK: Colour = (242, 244, 248)
DIM: Colour = (166, 174, 188)

GAP = 8  # between picture and bars, columns of bars, and panels
NARROWEST_BAR = 140  # takes ALE's longest name
BAR_HEIGHT = 24
BAR_GAP = 4
STRIP_HEIGHT = 28
TEXT_INSET = 8
SCORE_ROOM = 100  # at the end of the first line
STEP_ROOM = 180  # at the end of the second


@dataclass(frozen=True)
class Size:
    """How large the parts of a panel are, in pixels.

    Attributes:
        width: what pictures are enlarged to, as far as a whole number allows; of a panel the least.
        most: what pictures are shrunk to.
        title, text: sizes of the letters of the two lines above the picture.
        head: height of both lines.
        named: whether bars lie and bear the names of their actions.
    """

    width: int
    most: int
    title: int
    text: int
    head: int
    named: bool


LARGE = Size(width=320, most=640, title=22, text=16, head=56, named=True)
SMALL = Size(width=160, most=200, title=15, text=14, head=40, named=False)


@dataclass(frozen=True)
class Shot:
    """One moment of a game.

    Attributes:
        picture: what the game draws.
        policy: probability of each action.
        chosen: the action that was taken.
        score: of the game so far.
        step: decisions so far.
        over: the game has ended; the picture is dimmed.
    """

    picture: Canvas
    policy: Float[np.ndarray, " actions"]
    chosen: int
    score: float
    step: int
    over: bool = False


class Panel:
    """Draws the shots of one game.

    Args:
        picture_size: width and height of its pictures.
        task: what is played.
        who: plays it.
        actions: their names.
        size: how large to draw.

    Attributes:
        width, height: in pixels, both even.
        bars: where each action's bar lies when its probability is 1.

    Raises:
        UnavailableError: if Pillow is not installed.
    """

    def __init__(
        self,
        picture_size: tuple[int, int],
        *,
        task: str,
        who: str,
        actions: Sequence[str],
        size: Size,
    ) -> None:
        self._size = size
        width, height = picture_size
        self._enlarge = max(1, size.width // width)
        self._shrink = -(-width // size.most)
        shown_width = width // self._shrink * self._enlarge
        shown_height = height // self._shrink * self._enlarge
        self.width = _even(max(size.width, shown_width))
        # Even, because an MP4 has one sample of colour for every two pixels.
        self._picture_at = ((self.width - shown_width) // 4 * 2, size.head)
        self.bars = self._lay_out(len(actions), _even(size.head + shown_height + GAP))
        self.height = _even(max(top + height for _, top, _, height in self.bars))
        self._names = [
            _fitting(action_label(name), size.text, box[2] - 2 * TEXT_INSET)
            for name, box in zip(actions, self.bars, strict=True)
        ]
        self._still = np.full((self.height, self.width, 3), BACKGROUND, dtype=np.uint8)
        title_room = self.width - (SCORE_ROOM if size.named else 0)
        _write(self._still, (0, 0), _fitting(task_label(task), size.title, title_room))
        if size.named:
            name = _fitting(printable(who), size.text, self.width - STEP_ROOM)
            _write(self._still, (0, self._second_line), name, DIM)

    def draw(self, canvas: Canvas, shot: Shot) -> None:
        """Draws a shot over a canvas of the panel's size."""
        canvas[:] = self._still
        self._draw_figures(canvas, shot)
        picture = _resized(shot.picture, self._enlarge, self._shrink)
        left, top = self._picture_at
        height, width = picture.shape[:2]
        canvas[top : top + height, left : left + width] = picture // 2 if shot.over else picture
        for action, probability in enumerate(shot.policy):
            self._draw_bar(canvas, action, float(probability), action == shot.chosen)

    @property
    def _second_line(self) -> int:
        return self._size.title + 6

    def _draw_figures(self, canvas: Canvas, shot: Shot) -> None:
        size = self._size
        score = _text(score_label(shot.score), size.title if size.named else size.text)
        step = f"step {shot.step:,}"
        if shot.over:
            step = f"game over, {step}" if size.named else "game over"
        if size.named:
            _write(canvas, (self.width - score.shape[1], 0), score)
        else:
            _write(canvas, (0, self._second_line), score)
        count = _text(step, size.text)
        _write(canvas, (self.width - count.shape[1], self._second_line), count, DIM)

    def _draw_bar(self, canvas: Canvas, action: int, probability: float, is_chosen: bool) -> None:
        left, top, width, height = self.bars[action]
        track = canvas[top : top + height, left : left + width]
        track[:] = TRACK
        colour = CHOSEN if is_chosen else BAR
        if not self._size.named:
            track[height - round(probability * height) :] = colour
            if is_chosen:
                track[:2] = FRAME  # above only: a low bar must be seen
            return
        track[:, : round(probability * width)] = colour
        if is_chosen:
            track[:2] = track[-2:] = FRAME
            track[:, :2] = track[:, -2:] = FRAME
        name = self._names[action]
        _write(track, (TEXT_INSET, (height - name.shape[0]) // 2), name)

    def _lay_out(self, actions: int, top: int) -> list[Box]:
        """Lying bars fill columns from above; upright ones stand in one row."""
        if not self._size.named:
            gap = 2 if 4 * actions < self.width else 0
            width = max(1, (self.width + gap) // actions - gap)
            return [(a * (width + gap), top, width, STRIP_HEIGHT) for a in range(actions)]
        columns = min(actions, (self.width + GAP) // (NARROWEST_BAR + GAP))
        rows = -(-actions // columns)
        width = (self.width + GAP) // columns - GAP
        return [
            (a // rows * (width + GAP), top + a % rows * (BAR_HEIGHT + BAR_GAP), width, BAR_HEIGHT)
            for a in range(actions)
        ]


class Sheet:
    """Panels in rows, on one canvas.

    Args:
        panels: at least one; each has a cell of the size of the largest.
        columns: panels in a row.

    Attributes:
        size: width and height in pixels, both even.
    """

    def __init__(self, panels: Sequence[Panel], columns: int) -> None:
        self._panels = list(panels)
        self._columns = columns
        self._cell_width = max(panel.width for panel in panels) + 2 * GAP
        self._cell_height = max(panel.height for panel in panels) + 2 * GAP
        rows = -(-len(panels) // columns)
        self.size = (columns * self._cell_width, rows * self._cell_height)

    def draw(self, shots: Sequence[Shot]) -> Canvas:
        """A new canvas with one shot for each panel."""
        width, height = self.size
        canvas = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
        for index, (panel, shot) in enumerate(zip(self._panels, shots, strict=True)):
            row, column = divmod(index, self._columns)
            left = column * self._cell_width + (self._cell_width - panel.width) // 4 * 2
            top = row * self._cell_height + GAP
            panel.draw(canvas[top : top + panel.height, left : left + panel.width], shot)
        return canvas


def task_label(task: str) -> str:
    """``space_invaders`` as Space Invaders, ``gym:CartPole-v1`` as CartPole-v1."""
    prefix, colon, name = task.partition(":")
    return printable(name if colon else prefix.replace("_", " ").title())


def action_label(name: str) -> str:
    """ALE's names as they are; of a task whose actions have only numbers, those."""
    return printable(f"action {name.rpartition('/')[2]}" if "/" in name else name)


def score_label(score: float) -> str:
    """``1,230``; with one decimal where it has any."""
    return f"{score:,.0f}" if score == int(score) else f"{score:,.1f}"


def _even(number: int) -> int:
    return number + number % 2


def _resized(picture: Canvas, enlarge: int, shrink: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """Every pixel repeated, or the means of squares of pixels; rows that make none are cut off."""
    if shrink > 1:
        height, width = (side // shrink for side in picture.shape[:2])
        kept = picture[: height * shrink, : width * shrink]
        squares = kept.reshape(height, shrink, width, shrink, 3)
        picture = squares.mean(axis=(1, 3)).astype(np.uint8)
    return picture.repeat(enlarge, axis=0).repeat(enlarge, axis=1)


@functools.cache
def _font(size: int) -> Any:
    try:
        from PIL import ImageFont
    except ImportError as error:
        raise UnavailableError(
            "films need Pillow; install it with: pip install 'actor-mimic[video]'"
        ) from error
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=1024)
def _text(text: str, size: int) -> Mask:
    """How much of every pixel one line of text covers, 255 for all of it."""
    font = _font(size)
    from PIL import Image, ImageDraw

    image = Image.new("L", (max(1, round(font.getlength(text))), sum(font.getmetrics())))
    ImageDraw.Draw(image).text((0, 0), text, fill=255, font=font)
    return np.asarray(image)


def _fitting(text: str, size: int, width: int) -> Mask:
    """The text, or as much of its beginning as there is room for."""
    kept, font = text, _font(size)
    while round(font.getlength(kept)) > width and text:
        text = text[:-1]
        kept = f"{text.rstrip()}..."
    return _text(kept, size)


def _write(
    canvas: Canvas,
    at: tuple[int, int],
    text: Mask,
    colour: Colour = INK,
) -> None:
    """Blends a text into a canvas; what hangs over is cut off."""
    left, top = max(0, at[0]), max(0, at[1])
    under = canvas[top : top + text.shape[0], left : left + text.shape[1]]
    share = text[: under.shape[0], : under.shape[1], None] / 255.0
    under[:] = np.rint(under * (1.0 - share) + np.asarray(colour) * share)
