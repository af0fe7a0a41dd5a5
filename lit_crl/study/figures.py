"""The figures of a study: curves with bands over env steps, and performance profiles."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib

matplotlib.use("Agg", force=False)
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lit_crl.evaluation.statistics import Scores, interval, iqm, performance_profile

#: Okabe & Ito's colours, which remain distinct under colour blindness, and a line style each.
STYLES = [
    ("#0072B2", "-"),
    ("#E69F00", "--"),
    ("#009E73", "-."),
    ("#CC79A7", ":"),
    ("#D55E00", "-"),
    ("#56B4E9", "--"),
    ("#000000", "-."),
    ("#8C6D31", ":"),
]

Curves = Mapping[str, tuple[Sequence[int], Sequence[Scores]]]


def label_of(metric: str) -> str:
    """A metric's name in words."""
    return metric.replace("heldout", "held-out").replace("_", " ")


def curves_with_bands(curves: Curves, metric: str, title: str) -> Figure:
    """IQM over the seeds and its 95 % interval, for each arm."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for (arm, (steps, values)), (colour, line) in zip(curves.items(), cycle(STYLES), strict=False):
        points = [interval(iqm, each[:, None], repetitions=500) for each in values]
        axes.plot(steps, [p.value for p in points], color=colour, linestyle=line, label=arm)
        low, high = [p.low for p in points], [p.high for p in points]
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="env steps", ylabel=f"{label_of(metric)} (IQM, 95 % interval)", title=title)
    if metric.endswith("_rate"):
        axes.set_ylim(-0.04, 1.04)
    axes.xaxis.set_major_formatter(matplotlib.ticker.EngFormatter(sep=""))
    _finish(figure)
    return figure


def performance_profiles(scores: Mapping[str, Scores], metric: str, title: str) -> Figure:
    """Share of an arm's seeds that score above each threshold."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    everything = np.concatenate(list(scores.values()))
    span = max(float(np.ptp(everything)), 1e-3)
    thresholds = np.linspace(everything.min() - 0.05 * span, everything.max(), 201)
    for (arm, each), (colour, line) in zip(scores.items(), cycle(STYLES), strict=False):
        share = performance_profile(each, thresholds)
        axes.step(thresholds, share, where="post", color=colour, linestyle=line, label=arm)
    axes.set(
        xlabel=f"{label_of(metric)} at the end, τ", ylabel="share of seeds above τ", title=title,
        ylim=(-0.04, 1.04),
    )  # fmt: skip
    _finish(figure)
    return figure


def _finish(figure: Figure) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
