"""What the runs of a study found: a tidy table of numbers, and the comparison of the arms."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from lit_crl.evaluation.statistics import Estimate, Scores, improvement, interval, iqm, verdict
from lit_crl.study.plan import Job, Study

#: Columns of ``metrics.csv`` that are evaluations.
EVALUATION = "evaluation/"
#: Fewest seeds that a verdict is given for: intervals of fewer are too narrow.
MIN_SEEDS = 5


@dataclass(frozen=True)
class Row:
    """One number of one run; ``phase`` is ``validation`` (while training) or ``test`` (after)."""

    arm: str
    seed: int
    phase: str
    env_steps: int
    metric: str
    value: float


def collect(jobs: Iterable[Job]) -> list[Row]:
    """The evaluations of all runs that are done."""
    rows: list[Row] = []
    for job in jobs:
        if job.is_done:
            for seed in job.seeds:
                rows += rows_of(job.arm, seed, job.run_folder(seed))
    return rows


def rows_of(arm: str, seed: int, run_folder: Path) -> list[Row]:
    """The evaluations of one run, from its ``metrics.csv`` and ``summary.json``."""
    rows = []
    with (run_folder / "metrics.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            steps = int(line["env_steps"])
            rows += [
                Row(arm, seed, "validation", steps, name.removeprefix(EVALUATION), float(value))
                for name, value in line.items()
                if name.startswith(EVALUATION) and value
            ]
    summary = json.loads((run_folder / "summary.json").read_text())
    rows += [
        Row(arm, seed, "test", summary["env_steps"], name, float(value))
        for name, value in summary.items()
        if isinstance(value, (int, float)) and name not in ("seed", "env_steps")
    ]
    return rows


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write rows as they are, a line each; equal results give equal bytes."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


def read_csv(path: Path) -> list[Row]:
    """The rows that ``write_csv`` wrote."""
    with path.open(newline="") as file:
        return [
            Row(arm, int(seed), phase, int(steps), metric, float(value))
            for arm, seed, phase, steps, metric, value in list(csv.reader(file))[1:]
        ]


def final_scores(rows: Iterable[Row], metric: str) -> dict[str, Scores]:
    """A number of the test of every run ``[S]``, by arm."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.phase == "test" and row.metric == metric:
            found.setdefault(row.arm, {})[row.seed] = row.value
    return {arm: np.array([scores[s] for s in sorted(scores)]) for arm, scores in found.items()}


def curves(rows: Iterable[Row], metric: str) -> dict[str, tuple[list[int], list[Scores]]]:
    """A number of the validations by arm: env steps, and the seeds' values ``[S]`` at each."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        if row.phase == "validation" and row.metric == metric:
            found.setdefault(row.arm, {}).setdefault(row.env_steps, []).append(row.value)
    return {
        arm: (sorted(points), [np.array(points[steps]) for steps in sorted(points)])
        for arm, points in found.items()
    }


def standing(ours: Scores, theirs: Scores, our: Estimate, their: Estimate) -> str:
    """Verdict and probability of improvement, the first only where there are seeds enough."""
    probability = f"({improvement(ours, theirs):.2f})"
    if min(len(ours), len(theirs)) < MIN_SEEDS:
        return f"too few seeds {probability}"
    return f"{verdict(our, their)} {probability}"


@dataclass(frozen=True)
class Comparison:
    """How one arm did, and where it stands against some others."""

    arm: str
    seeds: int
    iqm: Estimate
    mean: float
    minimum: float
    against: dict[str, str]
    minutes: float


def compare(study: Study, rows: Sequence[Row]) -> list[Comparison]:
    """The arms by the study's metric, in the order of its file."""
    scores = {arm: each[:, None] for arm, each in final_scores(rows, study.metric).items()}
    estimates = {arm: interval(iqm, each) for arm, each in scores.items()}
    minutes = final_scores(rows, "wall_seconds")
    found = []
    for arm in (arm for arm in study.arms if arm in scores):
        others = (other for other in study.against if other in scores and other != arm)
        found.append(
            Comparison(
                arm,
                len(scores[arm]),
                estimates[arm],
                float(scores[arm].mean()),
                float(scores[arm].min()),
                {
                    other: standing(scores[arm], scores[other], estimates[arm], estimates[other])
                    for other in others
                },
                float(np.median(minutes[arm])) / 60,
            )
        )
    return found


def table(study: Study, comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparison."""
    against = [arm for arm in study.against if any(arm in c.against for c in comparisons)]
    header = ["arm", "seeds", "IQM [95 %]", "mean", "minimum"]
    header += [f"against {arm} (P better)" for arm in against] + ["minutes"]
    cells = [
        [
            c.arm,
            str(c.seeds),
            f"{c.iqm.value:.3f} [{c.iqm.low:.3f}, {c.iqm.high:.3f}]",
            f"{c.mean:.3f}",
            f"{c.minimum:.3f}",
            *(c.against.get(arm, "") for arm in against),
            f"{c.minutes:.1f}",
        ]
        for c in comparisons
    ]
    return header, cells


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
