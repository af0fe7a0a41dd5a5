"""Pictures in a task's own units: a still ground, drawn once, and what moves on it, drawn fast.

The ground comes from matplotlib, with axes and legend, or is a map of tiles. Pillow draws on a copy
of it for each picture, three times as large as it is shown: that smooths the edges.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, cast

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

#: How much larger than shown things are drawn.
FINE = 3
#: Pixels of an inch, as shown: sets the size of matplotlib's letters.
DPI = 100
#: Pixels beside a line of words, and the least width of a picture with one.
MARGIN, LEAST_WIDTH = 8, 240


class Canvas:
    """A ground to draw on, and where on it the task's points lie."""

    def __init__(self, ground: Image.Image, unit: ArrayLike, origin: ArrayLike) -> None:
        """Hold a ground; the point (x, y) is at the fine pixel ``origin + (x, y) · unit``."""
        self.ground, self.unit, self.origin = ground, np.asarray(unit), np.asarray(origin)

    def pen(self) -> "Pen":
        """Begin a picture."""
        return Pen(self)


class Pen:
    """One picture on its way: everything is drawn over what is there already."""

    def __init__(self, canvas: Canvas) -> None:
        """Begin with a copy of the canvas's ground."""
        self.canvas, self.image = canvas, canvas.ground.copy()
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
        """What was drawn, as large as it is shown."""
        return np.asarray(self.image.reduce(FINE))


def on_axes(draw: Callable[[Axes], None], width: int, height: int, legend: bool = True) -> Canvas:
    """A canvas whose ground is what ``draw`` puts into matplotlib axes.

    Args:
        draw: Draws limits, labels and all that stands still.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        legend: Explain labelled things above the axes.
    """
    small: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6, "lines.markersize": 4}
    with matplotlib.rc_context(STYLE | small):
        # Without pyplot: no figure is open afterwards, and threads may draw.
        figure = Figure((width / DPI, height / DPI), dpi=DPI * FINE, layout="constrained")
        agg: Any = FigureCanvasAgg(figure)  # its methods have no types
        axes = figure.add_subplot()
        draw(axes)
        labelled = axes.get_legend_handles_labels()
        if legend and labelled[0]:
            figure.legend(*labelled, loc="outside upper center", ncols=4, handlelength=1.2)
        agg.draw()
        ground = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3].copy())
        zero, one = axes.transData.transform([(0.0, 0.0), (1.0, 1.0)])
    flip = np.array([1.0, -1.0])  # pixels are counted from the top
    return Canvas(ground, (one - zero) * flip, (zero[0], ground.height - zero[1]))


def on_tiles(tiles: Picture, side: int) -> Canvas:
    """A canvas of tiles [rows, columns, 3], ``side`` pixels wide.

    The point (column, row) is the middle of a tile.
    """
    side = side * FINE
    ground = tiles.repeat(side, axis=0).repeat(side, axis=1)
    for line in range(side, len(ground), side):  # thin lines between the tiles
        ground[line - 1 : line + 2] = 255
    for line in range(side, ground.shape[1], side):
        ground[:, line - 1 : line + 2] = 255
    return Canvas(Image.fromarray(ground), (side, side), (side / 2, side / 2))


@lru_cache(64)
def strip(words: str, width: int, height: int, colour: str = DARK, size: int = 11) -> Picture:
    """A line of words on white, to go above or below a picture; small enough to fit in."""
    image = Image.new("RGB", (width, height), WHITE)
    fitting = size * min(1.0, (width - 2 * MARGIN) / max(font(size).getlength(words), 1))
    pen = ImageDraw.Draw(image)
    pen.text((MARGIN, height / 2), words, colour, font(fitting), anchor="lm")
    return np.asarray(image)


def enlarged(picture: Picture) -> Picture:
    """A small picture, each pixel several wide, so that words fit beside it."""
    times = -(-LEAST_WIDTH // picture.shape[1])
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def with_note(picture: Picture, words: str) -> Picture:
    """A picture with a line of words below it."""
    return np.concatenate((picture, strip(words, picture.shape[1], 18, size=10)))


@cache
def font(size: float) -> ImageFont.FreeTypeFont:
    """The figures' own letters, ``size`` pixels high."""
    return ImageFont.truetype(findfont(FontProperties(family=STYLE["font.family"])), size)


def _flat(points: ArrayLike) -> list[float]:
    return cast(list[float], np.asarray(points).ravel().tolist())
