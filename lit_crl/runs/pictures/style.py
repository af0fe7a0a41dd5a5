"""One look for all figures and pictures, in colours that colour-blind people can tell apart."""

from typing import Any

import matplotlib
from cycler import cycler

#: Okabe & Ito's colours (https://jfly.uni-koeln.de/color/), distinct under colour blindness.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PURPLE, VERMILLION, SKY, BLACK = "#CC79A7", "#D55E00", "#56B4E9", "#000000"
#: For walls, ground and guide lines.
DARK, GREY, PALE = "#3C3C3C", "#8C8C8C", "#C8C8C8"
LIGHT, WHITE = "#F0F0F0", "#FFFFFF"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, BLACK, DARK, GREY, PALE, LIGHT, WHITE)

#: Meaning of colours in pictures: the agent, its path so far, and its goal.
AGENT, TRAIL, GOAL = BLUE, SKY, ORANGE
#: p̂ from 0 to 1: as bright as it is high, also in print and under colour blindness.
P_HAT = "viridis"

#: Lines of many arms: Okabe & Ito's colours, then some of Paul Tol's, each with a line style.
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

#: Decorator: a function draws with this look, whatever the user's own settings of matplotlib are.
styled = matplotlib.rc_context(STYLE)
