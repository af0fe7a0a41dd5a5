"""Fast drawing in a task's own units, over a background that is drawn once.

The background is a matplotlib figure with axes and legend, or a map of tiles. For each picture,
Pillow draws on a copy of it at three times the final size: scaling down smooths the edges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from lit_crl.runs.pictures.style import DARK, STYLE, WHITE

Array = NDArray[Any]
#: Bytes [H, W, 3].
Picture = NDArray[np.uint8]

#: How many times larger than the final picture things are drawn.
FINE = 3
#: Final pixels per inch; this sets the size of matplotlib's letters.
DPI = 100
#: Pixels left and right of a line of text, and the least width of a picture with one.
MARGIN, LEAST_WIDTH = 8, 240


@dataclass
class Canvas:
    """A background, and where the task's points lie on it.

    The point (x, y) is at the fine pixel ``origin + (x, y) · unit``.
    """

    background: Image.Image
    unit: Array
    origin: Array


class Pen:
    """Draws one picture over a copy of a canvas's background."""

    def __init__(self, canvas: Canvas) -> None:
        """Start with the background."""
        self.canvas, self.image = canvas, canvas.background.copy()
        self._draw = ImageDraw.Draw(self.image)

    def at(self, points: ArrayLike) -> Array:
        """Fine pixels (across, down) of points [..., 2]."""
        pixels: Array = self.canvas.origin + np.asarray(points, np.float64) * self.canvas.unit
        return pixels

    def line(self, points: ArrayLike, colour: str, width: float) -> None:
        """A line through points [n, 2], ``width`` pixels wide; nothing for fewer than two."""
        if len(pixels := self.at(points)) > 1:
            self._draw.line(_flat(pixels), colour, round(width * FINE), joint="curve")

    def polygon(self, points: ArrayLike, colour: str) -> None:
        """A filled polygon with these corners [n, 2]."""
        self._draw.polygon(_flat(self.at(points)), colour)

    def disc(self, middle: ArrayLike, radius: float, colour: str, rim: str = WHITE) -> None:
        """A disc of ``radius`` pixels with a thin rim."""
        self._circle(self.at(middle), np.full(2, radius * FINE), colour, rim)

    def ring(self, middle: ArrayLike, radius: float, colour: str) -> None:
        """A circle whose radius is in the task's units."""
        self._circle(self.at(middle), np.abs(radius * self.canvas.unit), None, colour)

    def _circle(self, middle: Array, radii: Array, fill: str | None, rim: str) -> None:
        self._draw.ellipse(_flat([middle - radii, middle + radii]), fill, rim, width=2 * FINE)

    def picture(self) -> Picture:
        """The picture at its final size."""
        return np.asarray(self.image.reduce(FINE))


def on_axes(draw: Callable[[Axes], None], width: int, height: int) -> Canvas:
    """A canvas whose background ``draw`` draws into matplotlib axes.

    Args:
        draw: Sets limits and labels, and draws everything that does not move.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """
    small: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6, "lines.markersize": 4}
    with matplotlib.rc_context(STYLE | small):
        # Without pyplot no figure stays open, and threads may draw.
        figure = Figure((width / DPI, height / DPI), dpi=DPI * FINE, layout="constrained")
        agg: Any = FigureCanvasAgg(figure)  # its methods have no types
        axes = figure.add_subplot()
        draw(axes)
        labelled = axes.get_legend_handles_labels()
        if labelled[0]:
            figure.legend(*labelled, loc="outside upper center", ncols=4, handlelength=1.2)
        agg.draw()
        background = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3].copy())
        zero, one = axes.transData.transform([(0.0, 0.0), (1.0, 1.0)])
    flip = np.array([1.0, -1.0])  # pixels are counted from the top
    return Canvas(background, (one - zero) * flip, np.array([zero[0], background.height - zero[1]]))


def on_tiles(tiles: Picture, side: int) -> Canvas:
    """A canvas of tiles [rows, columns, 3], each ``side`` pixels wide.

    The point (column, row) is the middle of a tile.
    """
    side = side * FINE
    background = tiles.repeat(side, axis=0).repeat(side, axis=1)
    for line in range(side, len(background), side):  # thin lines between the tiles
        background[line - 1 : line + 2] = 255
    for line in range(side, background.shape[1], side):
        background[:, line - 1 : line + 2] = 255
    return Canvas(Image.fromarray(background), np.full(2, side), np.full(2, side / 2))


@lru_cache(64)
def strip(words: str, width: int, height: int, colour: str = DARK, size: int = 11) -> Picture:
    """A line of text on white to put above or below a picture, shrunk until it fits."""
    image = Image.new("RGB", (width, height), WHITE)
    fitting = size * min(1.0, (width - 2 * MARGIN) / max(font(size).getlength(words), 1))
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, height / 2), words, colour, font(fitting), anchor="lm")
    return np.asarray(image)


def enlarged(picture: Picture) -> Picture:
    """A small picture with each pixel repeated, so that text fits above and below it."""
    times = -(-LEAST_WIDTH // picture.shape[1])
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def with_note(picture: Picture, words: str) -> Picture:
    """A picture with a line of text below it."""
    return np.concatenate((picture, strip(words, picture.shape[1], 18, size=10)))


def tiled(pictures: Sequence[Picture] | Array, columns: int, gap: int) -> Picture:
    """Pictures [n, H, W, 3] as one, ``columns`` in a row, ``gap`` (even) white pixels apart.

    >>> tiled(np.zeros((5, 3, 4, 3), np.uint8), columns=2, gap=2).shape
    (15, 12, 3)
    """
    rim = (gap // 2, gap // 2)
    added = (0, -len(pictures) % columns)
    framed = np.pad(pictures, (added, rim, rim, (0, 0)), constant_values=255)
    _, height, width, _ = framed.shape
    rows = framed.reshape(-1, columns, height, width, 3).swapaxes(1, 2)
    return rows.reshape(-1, columns * width, 3)


def spread(count: int, at_most: int) -> NDArray[np.intp]:
    """Indices of at most ``at_most`` of ``count`` things, evenly spread from first to last.

    >>> spread(21, 6).tolist(), spread(2, 6).tolist()
    ([0, 4, 8, 12, 16, 20], [0, 1])
    """
    return np.unique(np.linspace(0, count - 1, at_most).round().astype(np.intp))


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """The figures' own letters, ``size`` pixels high."""
    return ImageFont.truetype(findfont(FontProperties(family=STYLE["font.family"])), size)


def _flat(points: ArrayLike) -> list[float]:
    flat: list[float] = np.asarray(points).ravel().tolist()
    return flat
