"""The figures of a study: curves with bands over env steps, performance profiles, and sweeps."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from lit_crl.evaluation.statistics import Estimate, Scores, interval, iqm, performance_profile
from lit_crl.runs.pictures.style import LINES, styled

#: Bootstrap samples of each point of a curve.
REPETITIONS = 2_000

#: For each arm the env steps, and the seeds' scores [S] at each.
Curves = Mapping[str, tuple[Sequence[int], Sequence[Scores]]]


def label_of(metric: str) -> str:
    """A metric's name in words.

    >>> label_of("heldout_success_rate")
    'held-out success rate'
    """
    return metric.replace("heldout", "held-out").replace("_", " ")


@styled
def curves_with_bands(curves: Curves, metric: str, title: str, axis: str) -> Figure:
    """IQM over the seeds and its 95 % interval, for each arm, over an ``axis`` named in words."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    _draw_bands(axes, curves)
    axes.set(xlabel=axis, ylabel=f"{label_of(metric)} (IQM, 95 % interval)", title=title)
    if metric.endswith("_rate"):
        axes.set_ylim(-0.04, 1.04)
    figure.legend(loc="outside right upper")
    return figure


@styled
def performance_profiles(scores: Mapping[str, Scores], metric: str, title: str) -> Figure:
    """Share of an arm's seeds that score above each threshold."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    everything = np.concatenate(list(scores.values()))
    span = max(float(np.ptp(everything)), 1e-3)
    thresholds = np.linspace(everything.min() - 0.05 * span, everything.max(), 201)
    for (arm, each), (colour, line) in zip(scores.items(), cycle(LINES), strict=False):
        share = performance_profile(each, thresholds)
        axes.step(thresholds, share, where="post", color=colour, linestyle=line, label=arm)
    axes.set(xlabel=f"{label_of(metric)} at the end, τ", ylabel="share of seeds above τ")
    axes.set(title=title, ylim=(-0.04, 1.04))
    figure.legend(loc="outside right upper")
    return figure


@styled
def generator_quality(panels: Mapping[str, Curves], title: str) -> Figure:
    """IQM over the seeds, with its interval, of each measure of generated levels, a panel each."""
    figure, grid = _row_of_panels(len(panels))
    for axes, (name, curves) in zip(grid, panels.items(), strict=True):
        _draw_bands(axes, curves)
        axes.set_title(name, fontsize=10)
        axes.set_ylim(bottom=0)
    figure.suptitle(title)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def sweep(panels: Mapping[str, Mapping[str, Scores]], at: Mapping[str, float], key: str) -> Figure:
    """IQM over the seeds and its interval against a setting; arms without it are level lines.

    Args:
        panels: The seeds' scores ``[S]`` of each arm, by the name of a panel.
        at: The setting in each arm that has it.
        key: The setting's name.
    """
    figure, grid = _row_of_panels(len(panels))
    for axes, (name, scores) in zip(grid, panels.items(), strict=True):
        found = {arm: _band(each) for arm, each in scores.items()}
        points = sorted((at[arm], *found[arm]) for arm in found if arm in at)
        where, value, low, high = np.array(points).T
        axes.plot(where, value, color=LINES[0][0], marker="o", label=f"by {key}")
        axes.fill_between(where, low, high, color=LINES[0][0], alpha=0.18, linewidth=0)
        others = [arm for arm in found if arm not in at]
        for arm, (colour, _) in zip(others, cycle(LINES[1:]), strict=False):
            axes.axhline(found[arm].value, color=colour, linestyle="--", label=arm)
            axes.axhspan(found[arm].low, found[arm].high, color=colour, alpha=0.12, linewidth=0)
        largest = where.max()
        smallest = where[where > 0].min(initial=largest)
        if 0 < 100 * smallest <= largest:
            axes.set_xscale("symlog", linthresh=smallest)  # 0 may be among the values
            axes.set_xlim(min(where.min(), smallest) - 0.3 * smallest, 2 * largest)
            axes.tick_params(axis="x", rotation=45)
        axes.set_xticks(where, [f"{x:g}" for x in where])
        axes.minorticks_off()
        axes.set_ylim(bottom=min(0.0, low.min()), top=1.1 * max(high.max(), 0.01))
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(key)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _row_of_panels(n: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(2.9 * n + 1.6, 3.2), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False)[0])


def _band(scores: Scores) -> Estimate:
    return interval(iqm, scores[:, None], repetitions=REPETITIONS)


def _draw_bands(axes: Axes, curves: Curves) -> None:
    for (arm, (steps, values)), (colour, line) in zip(curves.items(), cycle(LINES), strict=False):
        points = [_band(each) for each in values]
        axes.plot(steps, [p.value for p in points], color=colour, linestyle=line, label=arm)
        low, high = [p.low for p in points], [p.high for p in points]
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("env steps")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
