"""One look for all figures and pictures, with colours that colour-blind people can tell apart."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
from cycler import cycler

#: Okabe & Ito's colours (https://jfly.uni-koeln.de/color/), distinct under colour blindness.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PURPLE, VERMILLION, SKY, BLACK = "#CC79A7", "#D55E00", "#56B4E9", "#000000"
#: Walls and ground, and what is only there for orientation.
DARK, GREY, PALE = "#3C3C3C", "#8C8C8C", "#C8C8C8"
LIGHT, WHITE = "#F0F0F0", "#FFFFFF"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK, DARK, GREY, PALE, LIGHT, WHITE)

#: What colours mean in pictures: who acts, its way so far, and where it should go.
AGENT, TRAIL, GOAL = BLUE, SKY, ORANGE
#: p̂ from 0 to 1: as bright as it is high, also in print and under colour blindness.
P_HAT = "viridis"

#: Lines of many arms: Okabe & Ito's colours, then some of Paul Tol's, a line style each.
LINES = [
    (BLUE, "-"),
    (ORANGE, "--"),
    (GREEN, "-."),
    (PURPLE, ":"),
    (VERMILLION, "-"),
    (SKY, "--"),
    (BLACK, "-."),
    ("#8C6D31", ":"),
    ("#882255", "-"),
    ("#44AA99", "--"),
    ("#332288", "-."),
    ("#999933", ":"),
]

STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=[colour for colour, _ in LINES[:7]]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.facecolor": WHITE,
    "font.family": "DejaVu Sans",  # comes with matplotlib, and has p̂ and λ
    "font.size": 10,
    "image.cmap": P_HAT,
    "image.interpolation": "nearest",
    "legend.frameon": False,
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """``draw`` with this look, whatever the user's own settings of matplotlib are."""

    @wraps(draw)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped
