"""What the runs of a study found: a tidy table of numbers, and the comparison of the arms."""

import csv
import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lit_crl.evaluation.statistics import (
    Estimate,
    Scores,
    difference,
    interval,
    iqm,
    verdict,
)
from lit_crl.runs.study.plan import Job, Study

#: Columns of ``metrics.csv`` that are evaluations.
EVALUATION = "evaluation/"
#: Success on the worst tenth of the held-out levels.
TAIL = "heldout_cvar10"
#: What says how good generated levels are, and how a figure calls it.
QUALITY = {
    "levels_valid_rate": "valid",
    "levels_unique_rate": "distinct",
    "levels_frontier_rate": "on the frontier",
    "reference_frontier_rate": "reference levels on the frontier",
    "levels_path_length_p50": "median length of the way",
}
#: Columns of ``results.csv`` that say which evaluation a line is.
KEYS = ("arm", "seed", "phase", "env_steps")
#: Fewest seeds of an arm that a verdict is given for: intervals of fewer are too narrow.
MIN_SEEDS = 5
TOO_FEW = "too few seeds"


@dataclass(frozen=True)
class Row:
    """One number of one run; ``phase`` is ``validation`` (while training) or ``test`` (after)."""

    arm: str
    seed: int
    phase: str
    env_steps: int
    metric: str
    value: float


def kept(study: Study) -> set[str]:
    """What a study keeps of its runs' numbers: what it names, and what its table and figures show.

    All others stay in the runs' ``metrics.csv`` and ``summary.json``.
    """
    always = {"target_success_rate", "heldout_success_rate", TAIL, "wall_seconds"}
    return {study.metric, *study.curves, *QUALITY} | always


def collect(jobs: Iterable[Job], metrics: Container[str]) -> list[Row]:
    """The evaluations of all runs that are done."""
    done = (job for job in jobs if job.is_done)
    rows = (row for job in done for row in rows_of(job.label, job.seed, job.run_folder))
    return [row for row in rows if row.metric in metrics]


def rounded(value: Any) -> float:
    """Four significant digits: more than any interval over seeds has, and short in a file."""
    return float(f"{float(value):.4g}")


def rows_of(arm: str, seed: int, run_folder: Path) -> list[Row]:
    """The evaluations of one run, from its ``metrics.csv`` and ``summary.json``.

    What a run does not know has no row: an empty cell, null, NaN, no such key. Unknown is not 0.
    """
    rows = []
    with (run_folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            steps = int(line["env_steps"])
            rows += [
                Row(arm, seed, "validation", steps, name.removeprefix(EVALUATION), rounded(value))
                for name, value in line.items()
                if name.startswith(EVALUATION) and value and is_number(float(value))
            ]
    summary = json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
    rows += [
        Row(arm, seed, "test", summary.get("env_steps") or 0, name, rounded(value))
        for name, value in summary.items()
        if is_number(value) and name not in ("seed", "env_steps")
    ]
    return rows


def is_number(value: Any) -> bool:
    """Whether it is one, and finite."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write a line for each evaluation, a column for each metric; equal rows give equal bytes."""
    lines: dict[tuple[str, int, str, int], dict[str, str]] = {}
    for row in rows:
        evaluation = (row.arm, row.seed, row.phase, row.env_steps)
        lines.setdefault(evaluation, {})[row.metric] = f"{row.value:.4g}"
    metrics = dict.fromkeys(name for numbers in lines.values() for name in numbers)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*KEYS, *metrics])
        for evaluation, numbers in lines.items():
            writer.writerow([*evaluation, *(numbers.get(name, "") for name in metrics)])


def read_csv(path: Path) -> list[Row]:
    """The rows that ``write_csv`` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(line["arm"], int(line["seed"]), line["phase"], int(line["env_steps"]), name, value)
            for line in csv.DictReader(file)
            for name, value in ((n, float(v)) for n, v in line.items() if n not in KEYS and v)
        ]


def final_scores(rows: Iterable[Row], metric: str) -> dict[str, Scores]:
    """A number of the test of every run ``[S]``, by arm."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.phase == "test" and row.metric == metric:
            found.setdefault(row.arm, {})[row.seed] = row.value
    return {arm: np.array([scores[s] for s in sorted(scores)]) for arm, scores in found.items()}


def curves(rows: Iterable[Row], metric: str) -> dict[str, tuple[list[int], list[Scores]]]:
    """A number of the validations by arm: env steps, and the seeds' values ``[S]`` at each.

    Arms that charge env steps of their own validate at other times in every seed: the steps are
    those of the seed with most validations, and between its own validations a seed's values lie on
    a line. Before its first and after its last one it has none; steps at which fewer than half of
    the seeds have one are left out.
    """
    found: dict[str, dict[int, dict[int, float]]] = {}
    for row in rows:
        if row.phase == "validation" and row.metric == metric:
            seeds = found.setdefault(row.arm, {})
            seeds.setdefault(row.seed, {})[row.env_steps] = row.value
    return {arm: _aligned(list(seeds.values())) for arm, seeds in found.items()}


def _aligned(seeds: Sequence[Mapping[int, float]]) -> tuple[list[int], list[Scores]]:
    """Env steps, and the values that the seeds have there, from each one's own steps and values."""
    steps = max((sorted(seed) for seed in seeds), key=len)
    nothing = float("nan")
    lines = [
        np.interp(steps, sorted(seed), [seed[at] for at in sorted(seed)], nothing, nothing)
        for seed in seeds
    ]
    values = np.stack(lines, axis=1)
    known = ~np.isnan(values)
    kept = 2 * known.sum(axis=1) >= len(seeds)
    return (
        [step for step, keep in zip(steps, kept, strict=True) if keep],
        [each[has] for each, has in zip(values[kept], known[kept], strict=True)],
    )


def over_training(rows: Iterable[Row], metric: str) -> dict[str, Scores]:
    """A number's mean over the validations of every run ``[S]``, by arm."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row.phase == "validation" and row.metric == metric:
            found.setdefault(row.arm, {}).setdefault(row.seed, []).append(row.value)
    return {
        arm: np.array([np.mean(seeds[s]) for s in sorted(seeds)]) for arm, seeds in found.items()
    }


@dataclass(frozen=True)
class Standing:
    """Where an arm stands against another one: its difference in the metric, and a verdict.

    Where an arm has fewer than ``MIN_SEEDS``, the verdict is ``too few seeds``, and the difference
    has no interval.
    """

    difference: Estimate
    verdict: str

    def __str__(self) -> str:
        """Its cell of the table."""
        value, low, high = self.difference
        if self.verdict == TOO_FEW:
            return f"{value:+.3f} {TOO_FEW}"
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}] {self.verdict}"


@dataclass(frozen=True)
class Comparison:
    """How one arm did, and where it stands against some others; None is what no run of it knows."""

    arm: str
    seeds: int
    iqm: Estimate
    mean: float
    minimum: float
    tail: Estimate | None
    against: dict[str, Standing]
    minutes: float | None


def compare(study: Study, rows: Sequence[Row]) -> list[Comparison]:
    """The arms by the study's metric, in the order of its file, without those that lack it."""
    scores = {arm: each[:, None] for arm, each in final_scores(rows, study.metric).items()}
    minutes, tails = final_scores(rows, "wall_seconds"), final_scores(rows, TAIL)
    standings = compare_pairs(study, scores)
    return [
        Comparison(
            arm,
            len(scores[arm]),
            interval(iqm, scores[arm]),
            float(scores[arm].mean()),
            float(scores[arm].min()),
            interval(iqm, tails[arm][:, None]) if arm in tails else None,
            {other: standings[arm, other] for other in study.against if (arm, other) in standings},
            float(np.median(minutes[arm])) / 60 if arm in minutes else None,
        )
        for arm in study.arms
        if arm in scores
    ]


def compare_pairs(study: Study, scores: Mapping[str, Scores]) -> dict[tuple[str, str], Standing]:
    """How every arm stands against those of ``study.against``.

    The intervals of one table are simultaneous: each of its pairs counts, once.

    Args:
        study: Says which arms are compared, and what margin was named.
        scores: Final scores ``[S, 1]`` of each arm.
    """
    pairs = [
        (one, other)
        for one, other in combinations([arm for arm in study.arms if arm in scores], 2)
        if one in study.against or other in study.against
    ]
    found = {}
    for one, other in pairs:
        ours, theirs = scores[one], scores[other]
        if min(len(ours), len(theirs)) < MIN_SEEDS:
            value = float(iqm(ours) - iqm(theirs))
            apart, opposite = Estimate(value, value, value), Estimate(-value, -value, -value)
            found[one, other], found[other, one] = (
                Standing(apart, TOO_FEW),
                Standing(opposite, TOO_FEW),
            )
            continue
        apart = difference(iqm, ours, theirs, len(pairs))
        for pair, each in (((one, other), apart), ((other, one), apart.negated())):
            found[pair] = Standing(each, verdict(each, study.equivalence_margin))
    return found


def table(study: Study, comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparison."""
    against = [arm for arm in study.against if any(arm in c.against for c in comparisons)]
    has_tail = any(c.tail for c in comparisons)
    header = ["arm", "seeds", "IQM [95 %]", "mean", "minimum"]
    header += ["CVaR 10 % [95 %]"] * has_tail
    header += [*(f"against {arm}" for arm in against), "minutes"]
    cells = [
        [
            c.arm,
            str(c.seeds),
            shown(c.iqm),
            f"{c.mean:.3f}",
            f"{c.minimum:.3f}",
            *[shown(c.tail) if c.tail else ""] * has_tail,
            *(str(c.against.get(arm, "")) for arm in against),
            "" if c.minutes is None else f"{c.minutes:.1f}",
        ]
        for c in comparisons
    ]
    return header, cells


def shown(estimate: Estimate) -> str:
    """An estimate in a cell of the table."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
