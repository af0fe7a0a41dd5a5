"""How many env steps each arm of a study needs until its task is solved."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import numpy as np

from lit_crl.evaluation.solved import ROUNDING, solved_at
from lit_crl.evaluation.statistics import interval, iqm
from lit_crl.runs.study.plan import Study
from lit_crl.runs.study.results import TOO_FEW, UNPAIRED, Row, Standing, compare_pairs


class Solved(NamedTuple):
    """How one run came to solve its task."""

    #: Env steps of the first of two validations running that met the bar; None: never.
    at: int | None
    #: The run's budget.
    env_steps: int
    #: Share of the validations from then on that met the bar; 0 if it was never solved.
    held: float

    @property
    def cost(self) -> int:
        """Env steps until it was solved; the whole budget if it never was."""
        return self.env_steps if self.at is None else self.at


def solved_runs(rows: Iterable[Row], metric: str, bar: float) -> dict[str, list[Solved]]:
    """How each run of each arm came to meet the bar, by seed.

    Args:
        rows: Evaluations of all runs.
        metric: The number that must reach the bar.
        bar: The smallest value that meets it.
    """
    found: dict[str, dict[int, list[tuple[int, bool]]]] = defaultdict(lambda: defaultdict(list))
    budgets: dict[tuple[str, int], int] = {}
    for row in rows:
        if row.metric != metric:
            continue
        if row.phase == "validation":
            # Values are kept to four digits, so .9 may have become a little less.
            found[row.arm][row.seed].append((row.env_steps, row.value >= bar - ROUNDING))
        else:
            budgets[row.arm, row.seed] = row.env_steps
    return {
        arm: [
            _solved(sorted(seeds[seed]), budgets[arm, seed])
            for seed in sorted(seeds)
            if (arm, seed) in budgets
        ]
        for arm, seeds in found.items()
    }


def _solved(validations: Sequence[tuple[int, bool]], env_steps: int) -> Solved:
    at = solved_at(validations)
    if at is None:
        return Solved(None, env_steps, 0.0)
    after = [is_met for steps, is_met in validations if steps >= at]
    return Solved(at, env_steps, sum(after) / len(after))


def efficiency_table(study: Study, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Compare the arms by env steps until they solve the task: header and cells.

    Fewer steps are better: an arm that is ahead has a negative difference. Without ``study.bar``,
    or without validations of its metric, there are no cells.
    """
    solved = {} if study.bar is None else solved_runs(rows, study.metric, study.bar)
    solved = {arm: solved[arm] for arm in study.arms if solved.get(arm)}
    steps = {arm: np.array([[float(run.cost)] for run in runs]) for arm, runs in solved.items()}
    # The margin is one of the metric and not of steps.
    standings = compare_pairs(
        replace(study, equivalence_margin=None), {arm: -each for arm, each in steps.items()}
    )
    against = [arm for arm in study.against if any(other == arm for _, other in standings)]
    header = ["arm", "solved", "median", "worst", "IQM [95 %]", "held afterwards"]
    header += [f"against {arm}" for arm in against]
    cells = []
    for arm, runs in solved.items():
        value, low, high = interval(iqm, steps[arm])
        costs = [run.cost for run in runs]
        held = [run.held for run in runs if run.at is not None]
        cells.append(
            [
                arm,
                f"{len(held)} of {len(runs)}",
                f"{median(costs):,.0f}",
                f"{max(costs):,}",
                f"{value:,.0f} [{low:,.0f}, {high:,.0f}]",
                f"{np.mean(held):.0%}" if held else "",
                *(_shown(standings.get((arm, other))) for other in against),
            ]
        )
    return header, cells


def _shown(standing: Standing | None) -> str:
    """A difference in env steps, ours minus theirs."""
    if standing is None:
        return ""
    value, low, high = standing.difference.negated()
    if standing.verdict in (TOO_FEW, UNPAIRED):
        return f"{value:+,.0f} {standing.verdict}"
    return f"{value:+,.0f} [{low:+,.0f}, {high:+,.0f}] {standing.verdict}"
