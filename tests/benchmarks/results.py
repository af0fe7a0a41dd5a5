"""From runs to results: rates, medians, ratios and the share of what the core could reach."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from ceiling import LARGE, LAYER, update_flops
from contenders import CONTENDERS
from protocol import Run
from tasks import TASKS, Schedule

OURS = ("ours_eager", "ours_compiled")


class Rates(NamedTuple):
    """How fast one run was, over the whole schedule."""

    env_steps: float
    env_steps_with_compile: float
    updates: float


def rates(run: Run, schedule: Schedule) -> Rates:
    """Env steps and updates per second.

    The warm-up is cheap, and a slice has a larger share of it than the schedule: where its time
    is known, the rest of the slice is scaled to the schedule's length.
    """
    env_steps, updates, seconds = run.env_steps, float(run.updates), run.seconds
    if env_steps < schedule.env_steps and run.warmup_seconds is not None:
        scale = (schedule.env_steps - schedule.warmup) / (env_steps - schedule.warmup)
        env_steps, updates = schedule.env_steps, updates * scale
        seconds = run.warmup_seconds + scale * (seconds - run.warmup_seconds)
    return Rates(
        env_steps / seconds, env_steps / (seconds + run.compile_seconds), updates / seconds
    )


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest."""
    values = list(values)
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ceiling(measured: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What the core's matrix products allow, from the best of all measurements."""
    best = {kind: max(m[kind] for m in measured) for kind in ("large", "layer")}
    bound = {kind: 1e9 * gflops / update_flops() for kind, gflops in best.items()}
    return {
        "shapes": {"large": LARGE, "layer": LAYER},
        "gflops": best,
        "mflop_per_update": update_flops() / 1e6,
        "updates_per_second": bound,
        "env_steps_per_second": {
            kind: b * TASKS["cartpole"].schedule.steps_per_update for kind, b in bound.items()
        },
    }


def contender(name: str, runs: Sequence[Run], schedule: Schedule) -> dict[str, Any]:
    """All runs of one contender, and what is quoted of them."""
    found = [rates(run, schedule) for run in runs]
    env_steps, with_compile, updates = zip(*found, strict=True)
    returns = [run.greedy_return for run in runs if run.greedy_return is not None]
    return {
        "label": CONTENDERS[name].label,
        "slice": runs[0].env_steps if runs[0].env_steps < schedule.env_steps else None,
        "env_steps_per_second": spread(env_steps),
        "env_steps_per_second_with_compile": spread(with_compile),
        "compile_seconds": spread(run.compile_seconds for run in runs),
        "updates_per_second": spread(updates),
        "greedy_return": spread(returns) if returns else None,
        "runs": [asdict(run) for run in runs],
    }


def ratios(
    runs: Mapping[str, Sequence[Run]], schedule: Schedule, field: str
) -> dict[str, dict[str, dict[str, float]]]:
    """How many times faster ours is than every other: median, least and greatest of the rounds.

    Of each round the two runs are compared that were made one soon after the other.
    """
    speed = {
        name: [getattr(rates(run, schedule), field) for run in of_one]
        for name, of_one in runs.items()
    }
    return {
        ours: {
            name: spread(a / b for a, b in zip(speed[ours], others, strict=True))
            for name, others in speed.items()
            if name != ours
        }
        for ours in OURS
        if ours in speed
    }


def of_task(name: str, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Everything that follows from the runs of one task."""
    schedule = TASKS[name].schedule
    return {
        "schedule": asdict(schedule),
        "contenders": {who: contender(who, of_one, schedule) for who, of_one in runs.items()},
        "ratios": ratios(runs, schedule, "env_steps"),
        "ratios_with_compile": ratios(runs, schedule, "env_steps_with_compile"),
    }


def summarise(
    runs: Mapping[str, Mapping[str, Sequence[Run]]], ceilings: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Everything that follows from the runs, by task and contender, and the measured ceilings."""
    return {
        "ceiling": ceiling(ceilings),
        "tasks": {name: of_task(name, of_one) for name, of_one in runs.items()},
        "versions": {
            package: number
            for contenders in runs.values()
            for of_one in contenders.values()
            for run in of_one
            for package, number in run.versions.items()
        },
    }
