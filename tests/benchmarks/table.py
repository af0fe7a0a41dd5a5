"""The tables of the last benchmark: for the terminal and, by ``python table.py``, for README.md."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from protocol import EPISODES
from results import OURS
from rich.table import Table
from rich.text import Text
from tasks import TASKS

RESULTS = Path(__file__).with_name("results.json")
#: Behind the name of the task.
COLUMNS = (
    "env-steps/s",
    "min – max",
    "with compilation",
    "updates/s",
    "of the ceiling",
    "eager is",
    "compiled is",
    "greedy return",
)


def columns(task: str) -> list[str]:
    """The headings of a task's table."""
    return [TASKS[task].title, *COLUMNS]


def rows(task: str, results: Mapping[str, Any]) -> list[list[str]]:
    """A row of cells for each contender, below ``columns``; last, if known, the ceiling."""
    found, ceiling = results["tasks"][task], None
    if TASKS[task].schedule.layers == TASKS["cartpole"].schedule.layers:
        ceiling = results["ceiling"]
    cells = [
        _row(TASKS[task].learned, name, one, found["ratios"], ceiling)
        for name, one in found["contenders"].items()
    ]
    return cells + [_bound(ceiling, kind) for kind in ("layer", "large") if ceiling is not None]


def _row(
    learned: float,
    name: str,
    found: Mapping[str, Any],
    ratios: Mapping[str, Any],
    ceiling: Mapping[str, Any] | None,
) -> list[str]:
    speed, updates = found["env_steps_per_second"], found["updates_per_second"]["median"]
    compiled = found["compile_seconds"]["median"] > 0
    with_compile = found["env_steps_per_second_with_compile"]["median"]
    times = (ratios.get(ours, {}).get(name) for ours in OURS)
    bound = None if ceiling is None else ceiling["updates_per_second"]["large"]
    return [
        found["label"] + (" (slice)" if found["slice"] else ""),
        f"{speed['median']:,.0f}",
        f"{speed['min']:,.0f} – {speed['max']:,.0f}",
        f"{with_compile:,.0f}" if compiled else "",
        f"{updates:,.0f}",
        "" if bound is None else f"{updates / bound:.1%}",
        *("" if ratio is None else _interval(ratio) for ratio in times),
        _greedy(found["greedy_return"], learned),
    ]


def _bound(ceiling: Mapping[str, Any], kind: str) -> list[str]:
    updates = ceiling["updates_per_second"]
    return [
        f"matrix products alone, {ceiling['gflops'][kind]:.0f} GFLOP/s",
        f"{ceiling['env_steps_per_second'][kind]:,.0f}",
        "",
        "",
        f"{updates[kind]:,.0f}",
        f"{updates[kind] / updates['large']:.1%}",
        *[""] * 3,
    ]


def _interval(ratio: Mapping[str, float]) -> str:
    least, greatest = _number(ratio["min"]), _number(ratio["max"])
    return f"{_number(ratio['median'])}× [{least} – {greatest}]"


def _number(ratio: float) -> str:
    decimals = 0 if ratio >= 10 else 1 if ratio >= 1 else 2
    return f"{ratio:.{decimals}f}"


def _greedy(returns: Mapping[str, float] | None, learned: float) -> str:
    if returns is None:
        return "–"
    text = f"{returns['median']:.0f} [{returns['min']:.0f}]"
    return text if returns["median"] >= learned else text + ", did not learn"


def caption(results: Mapping[str, Any]) -> str:
    """What the numbers mean, and where they were measured."""
    machine, ceiling = results["machine"], results["ceiling"]
    layer, large = (" × ".join(map(str, ceiling["shapes"][kind])) for kind in ("layer", "large"))
    found = [one for task in results["tasks"].values() for one in task["contenders"].values()]
    slices = {one["slice"] for one in found} - {None}
    rounds = max(len(one["runs"]) for one in found)
    lengths = {task["schedule"]["env_steps"]: None for task in results["tasks"].values()}
    parts = [
        f"Medians of {rounds} interleaved runs of {' / '.join(f'{n:,}' for n in lengths)} env "
        f"steps on one core ({machine['cpu']}), without process start, imports and, unless said, "
        "compilation.",
        "Eager is, compiled is: how many times as fast, median [least – greatest] of the rounds.",
        f"Ceiling: the {ceiling['mflop_per_update']:.1f} MFLOP of an update's matrix products, at "
        f"the core's rate in a product of {layer}, the largest in an update, or of {large}.",
        f"Greedy return: mean of {EPISODES} episodes in Gymnasium's environment, median [worst] "
        "of the runs.",
    ]
    if slices:
        steps = " or ".join(f"{steps:,}" for steps in sorted(slices))
        parts.append(
            f"Slice: the first {steps} env steps; where the warm-up was timed, the rest is scaled "
            "to the whole schedule."
        )
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    commit = results["git_commit"] or "unknown"
    parts.append(f"{results['date']}, commit {commit}, Python {machine['python']}, {versions}.")
    return " ".join(parts)


def rich_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """The tables for the terminal; below the last, what they mean."""
    for task in results["tasks"]:
        is_last = task == [*results["tasks"]][-1]
        # Text: in a string, rich would take brackets for markup.
        note = Text(caption(results)) if is_last else None
        table = Table(caption=note, caption_justify="left")
        first, *others = columns(task)
        table.add_column(first, no_wrap=True)
        for heading in others:
            table.add_column(heading, justify="right")
        for row in rows(task, results):
            table.add_row(*map(Text, row))
        yield table


def markdown(results: Mapping[str, Any]) -> str:
    """The tables for README.md beside this file."""
    parts = []
    for task in results["tasks"]:
        lines = [columns(task), ["---"] + ["--:"] * len(COLUMNS), *rows(task, results)]
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join([*parts, caption(results)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the tables of README.md.")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    print(markdown(json.loads(parser.parse_args().results.read_text())))
