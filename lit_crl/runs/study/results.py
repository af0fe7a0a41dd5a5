"""The results of a study: the numbers of all runs as rows, and the comparison of the arms."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from lit_crl.evaluation.statistics import (
    Estimate,
    Scores,
    difference,
    holm,
    interval,
    iqm,
    paired_difference,
    verdict,
)
from lit_crl.runs.study.jobs import Job
from lit_crl.runs.study.plan import Study

#: Columns of ``metrics.csv`` that are evaluations.
EVALUATION = "evaluation/"
#: Success on the worst tenth of the held-out levels.
TAIL = "heldout_cvar10"
#: Env steps at which a run had solved its task; a run that never did has no such number.
SOLVED = "solved_at_env_steps"
#: Before the names of numbers of a run's best policy.
BEST_PREFIX = "best_"
#: Measures of generated levels, with their names in figures.
QUALITY = {
    "levels_valid_rate": "valid",
    "levels_unique_rate": "distinct",
    "levels_frontier_rate": "on the frontier",
    "reference_frontier_rate": "reference levels on the frontier",
    "levels_path_length_p50": "median path length",
}
#: Columns of ``results.csv`` that identify an evaluation.
KEYS = ("arm", "seed", "phase", "env_steps")
#: Fewest seeds of an arm with a verdict: with fewer, intervals are too narrow.
MIN_SEEDS = 5
TOO_FEW = "too few seeds"
#: The verdict of arms that are compared seed by seed while runs are missing.
UNPAIRED = "runs are missing"


@dataclass(frozen=True)
class Row:
    """One number of one run; ``phase`` is ``validation`` (in training) or ``test`` (at its end)."""

    arm: str
    seed: int
    phase: str
    env_steps: int
    metric: str
    value: float


def kept(study: Study) -> set[str]:
    """The numbers in ``results.csv``: those that the study names, its table and its figures.

    All others are in the runs' ``metrics.csv`` and ``summary.json``.
    """
    always = {"target_success_rate", "heldout_success_rate", TAIL, "wall_seconds", SOLVED}
    return {study.metric, BEST_PREFIX + study.metric, *study.curves, *QUALITY} | always


def collect(jobs: Iterable[Job], metrics: Container[str]) -> list[Row]:
    """The evaluations of all runs that are done."""
    return [
        row
        for job in jobs
        if job.is_done
        for row in rows_of(job.label, job.seed, job.run_folder)
        if row.metric in metrics
    ]


def rounded(value: Any) -> float:
    """Four significant digits: more than any interval over seeds needs.

    >>> rounded(2 / 3)
    0.6667
    """
    return float(f"{float(value):.4g}")


def rows_of(arm: str, seed: int, run_folder: Path) -> list[Row]:
    """The evaluations of one run, from its ``metrics.csv`` and ``summary.json``.

    Numbers that a run does not know have no row (empty cells, null, NaN): unknown is not 0.
    """
    rows = []
    with (run_folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            # Env steps of a run from a log do not change: its axis is updates.
            steps = int(line.get("updates") or line["env_steps"])
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
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Write a line for each evaluation, and a column for each metric."""
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
    return _means(rows, metric, "test")


def compared_scores(study: Study, rows: Iterable[Row]) -> dict[str, Scores]:
    """The number of every run ``[S]`` by which a study compares its arms, by arm."""
    if study.score == "last_half":
        return _means(in_last_half(rows), study.metric, "validation")
    prefix = BEST_PREFIX if study.score == "best" else ""
    return final_scores(rows, prefix + study.metric)


def in_last_half(rows: Iterable[Row]) -> list[Row]:
    """The validations in the last half of each run, up to its last validation.

    >>> rows = [Row("gan", 0, "validation", at, "return", 1.0) for at in (100, 200, 300, 400)]
    >>> [row.env_steps for row in in_last_half(rows)]
    [300, 400]
    """
    validations = [row for row in rows if row.phase == "validation"]
    last: dict[tuple[str, int], int] = defaultdict(int)
    for row in validations:
        last[row.arm, row.seed] = max(last[row.arm, row.seed], row.env_steps)
    return [row for row in validations if 2 * row.env_steps > last[row.arm, row.seed]]


def over_training(rows: Iterable[Row], metric: str) -> dict[str, Scores]:
    """A number's mean over the validations of every run ``[S]``, by arm."""
    return _means(rows, metric, "validation")


def _means(rows: Iterable[Row], metric: str, phase: str) -> dict[str, Scores]:
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.phase == phase and row.metric == metric:
            found[row.arm][row.seed].append(row.value)
    return {
        arm: np.array([np.mean(seeds[seed]) for seed in sorted(seeds)])
        for arm, seeds in found.items()
    }


def curves(rows: Iterable[Row], metric: str) -> dict[str, tuple[list[int], list[Scores]]]:
    """A number of the validations by arm: env steps, and the seeds' values ``[S]`` at each.

    Arms that spend env steps on choosing levels validate at different times in each seed. The steps
    are those of the seed with most validations; the other seeds' values are interpolated, but not
    before their first or after their last validation. Steps at which fewer than half of the seeds
    have a value are left out.
    """
    found: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.phase == "validation" and row.metric == metric:
            found[row.arm][row.seed][row.env_steps] = row.value
    return {arm: _aligned(list(seeds.values())) for arm, seeds in found.items()}


def _aligned(seeds: Sequence[Mapping[int, float]]) -> tuple[list[int], list[Scores]]:
    """Common env steps, and the seeds' values at each, from every seed's values by env step."""
    steps = max((sorted(seed) for seed in seeds), key=len)
    lines = []
    for seed in seeds:
        at = sorted(seed)
        lines.append(np.interp(steps, at, [seed[step] for step in at], np.nan, np.nan))
    found = [
        (step, values[~np.isnan(values)])
        for step, values in zip(steps, np.stack(lines, axis=1), strict=True)
    ]
    enough = [(step, values) for step, values in found if 2 * len(values) >= len(seeds)]
    return [step for step, _ in enough], [values for _, values in enough]


@dataclass(frozen=True)
class Standing:
    """Where an arm stands against another: its difference in the metric, and a verdict.

    If an arm has fewer than ``MIN_SEEDS`` seeds, or paired seeds are missing, the verdict says so,
    and the difference has no interval.
    """

    difference: Estimate
    verdict: str

    def __str__(self) -> str:
        """Its cell of the table."""
        value, low, high = self.difference
        if self.verdict in (TOO_FEW, UNPAIRED):
            return f"{value:+.3f} {self.verdict}"
        return f"{value:+.3f} [{low:+.3f}, {high:+.3f}] {self.verdict}"


def compare_pairs(study: Study, scores: Mapping[str, Scores]) -> dict[tuple[str, str], Standing]:
    """Where every arm stands against those of ``study.against``.

    Verdicts hold together over all pairs, each of which counts once.

    Args:
        study: Has the arms to compare, the margin of equivalence, and whether seeds are paired.
        scores: Scores ``[S, 1]`` of each arm.
    """
    pairs = [
        (one, other)
        for one, other in combinations([arm for arm in study.arms if arm in scores], 2)
        if one in study.against or other in study.against
    ]
    unjudged = {pair: reason for pair in pairs if (reason := _why_unjudged(study, scores, pair))}
    compare = paired_difference if study.paired else difference

    def judge(pair: tuple[str, str]) -> Callable[[int], Estimate]:
        one, other = pair
        return lambda pairs: compare(iqm, scores[one], scores[other], pairs)

    apart = holm({pair: judge(pair) for pair in pairs if pair not in unjudged})
    for one, other in unjudged:
        apart[one, other] = Estimate(*3 * [float(iqm(scores[one]) - iqm(scores[other]))])
    found = {}
    for one, other in pairs:
        each = apart[one, other]
        for pair, ours in (((one, other), each), ((other, one), each.negated())):
            words = unjudged.get((one, other)) or verdict(ours, study.equivalence_margin)
            found[pair] = Standing(ours, words)
    return found


def _why_unjudged(study: Study, scores: Mapping[str, Scores], pair: tuple[str, str]) -> str:
    """What two arms have in the place of a verdict; empty if they get one."""
    one, other = (len(scores[arm]) for arm in pair)
    if min(one, other) < MIN_SEEDS:
        return TOO_FEW
    return UNPAIRED if study.paired and one != other else ""


def table(study: Study, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Compare the arms by the study's metric: header and cells, without arms that lack it."""
    scores = {arm: each[:, None] for arm, each in compared_scores(study, rows).items()}
    arms = [arm for arm in study.arms if arm in scores]
    seconds = final_scores(rows, "wall_seconds")
    tails = {arm: each for arm, each in final_scores(rows, TAIL).items() if arm in arms}
    standings = compare_pairs(study, scores)
    against = [arm for arm in study.against if any(other == arm for _, other in standings)]
    header = ["arm", "seeds", "IQM [95 %]", "mean", "minimum", *["CVaR 10 % [95 %]"] * bool(tails)]
    header += [*(f"against {arm}" for arm in against), "minutes"]
    cells = []
    for arm in arms:
        each = scores[arm]
        line = [arm, str(len(each)), shown(interval(iqm, each))]
        line += [f"{each.mean():.3f}", f"{each.min():.3f}"]
        if tails:
            line.append(shown(interval(iqm, tails[arm][:, None])) if arm in tails else "")
        line += [str(standings.get((arm, other), "")) for other in against]
        line.append(f"{np.median(seconds[arm]) / 60:.1f}" if arm in seconds else "")
        cells.append(line)
    return header, cells


def shown(estimate: Estimate) -> str:
    """An estimate in a cell of the table."""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table as Markdown.

    >>> print(markdown(["arm", "mean"], [["gan", "0.9"]]), end="")
    | arm | mean |
    | --- | --- |
    | gan | 0.9 |
    """
    lines = [header, ["---"] * len(header), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
