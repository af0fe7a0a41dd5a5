"""The table of the last benchmark, for the terminal and, by ``python table.py``, for README.md."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol import EPISODES, LEARNED, SCHEDULE
from results import OURS
from rich.table import Table
from rich.text import Text

RESULTS = Path(__file__).with_name("results.json")
COLUMNS = (
    "DQN on CartPole-v1",
    "env-steps/s",
    "min – max",
    "with compilation",
    "updates/s",
    "of the ceiling",
    "eager is",
    "compiled is",
    "greedy return",
)


def rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row of cells for each contender, in the order of ``COLUMNS``; last, the ceiling."""
    found = results["contenders"].items()
    return [_row(name, one, results["ratios"]) for name, one in found] + [
        _bound(results["ceiling"], kind) for kind in ("layer", "large")
    ]


def _row(
    name: str, found: Mapping[str, Any], ratios: Mapping[str, Mapping[str, float]]
) -> list[str]:
    speed = found["env_steps_per_second"]
    compiled = found["compile_seconds"]["median"] > 0
    with_compile = found["env_steps_per_second_with_compile"]["median"]
    times = (ratios.get(ours, {}).get(name) for ours in OURS)
    return [
        found["label"] + (" (slice)" if found["slice"] else ""),
        f"{speed['median']:,.0f}",
        f"{speed['min']:,.0f} – {speed['max']:,.0f}",
        f"{with_compile:,.0f}" if compiled else "",
        f"{found['updates_per_second']['median']:,.0f}",
        f"{found['share_of_ceiling']:.1%}",
        *("" if ratio is None else _times(ratio) for ratio in times),
        _greedy(found["greedy_return"]),
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


def _times(ratio: float) -> str:
    decimals = 0 if ratio >= 10 else 1 if ratio >= 1 else 2
    return f"{ratio:.{decimals}f}×"


def _greedy(returns: Mapping[str, float] | None) -> str:
    if returns is None:
        return "–"
    text = f"{returns['median']:.0f} [{returns['min']:.0f}]"
    return text if returns["median"] >= LEARNED else text + ", did not learn"


def caption(results: Mapping[str, Any]) -> str:
    """What the numbers mean, and where they were measured."""
    machine, ceiling = results["machine"], results["ceiling"]
    layer, large = (" × ".join(map(str, ceiling["shapes"][kind])) for kind in ("layer", "large"))
    slices = {found["slice"] for found in results["contenders"].values()} - {None}
    rounds = max(len(found["runs"]) for found in results["contenders"].values())
    parts = [
        f"Medians of {rounds} interleaved runs of {SCHEDULE.env_steps:,} env steps on one core "
        f"({machine['cpu']}), without process start, imports and, unless said, compilation.",
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


def rich_table(results: Mapping[str, Any]) -> Table:
    """The table for the terminal."""
    # Text: in a string, rich would take brackets for markup.
    table = Table(caption=Text(caption(results)), caption_justify="left")
    table.add_column(COLUMNS[0], no_wrap=True)
    for heading in COLUMNS[1:]:
        table.add_column(heading, justify="right")
    for row in rows(results):
        table.add_row(*map(Text, row))
    return table


def markdown(results: Mapping[str, Any]) -> str:
    """The table for README.md beside this file."""
    lines = [COLUMNS, ["---"] + ["--:"] * (len(COLUMNS) - 1), *rows(results)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{caption(results)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the table of README.md.")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    print(markdown(json.loads(parser.parse_args().results.read_text())))
