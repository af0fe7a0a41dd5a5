"""When a run has solved its task."""

import math
from collections.abc import Mapping, Sequence

import gymnasium

from lit_crl.envs import GymnasiumEnv, LevelEnv

#: Share of target episodes that must succeed.
SOLVED_RATE = 0.9
#: A Trainer keeps results in float32, where .9 is a little less.
ROUNDING = 1e-6
#: Validations running that must meet the bar: a single one may have been lucky.
RUNNING = 2


def return_threshold(env: LevelEnv) -> float | None:
    """The mean return from which on Gymnasium calls the task solved; None: unknown."""
    if isinstance(env, GymnasiumEnv):
        return env.success_return
    return None if env.gymnasium_id is None else gymnasium.spec(env.gymnasium_id).reward_threshold


def meets_bar(results: Mapping[str, float], threshold: float | None) -> bool:
    """Whether a validation met the bar.

    It is ``SOLVED_RATE`` of the target episodes where success is known, and else a mean return of
    ``threshold``. A task that has neither is never solved.

    >>> meets_bar({"target_success_rate": 0.9, "target_return_mean": -200.0}, -110.0)
    True
    >>> meets_bar({"target_return_mean": -200.0}, -110.0)
    False
    """
    if "target_success_rate" in results:
        return results["target_success_rate"] >= SOLVED_RATE - ROUNDING
    return threshold is not None and results.get("target_return_mean", -math.inf) >= threshold


def solved_at(validations: Sequence[tuple[int, bool]]) -> int | None:
    """Env steps of the first of ``RUNNING`` validations running that met the bar; None: never.

    Args:
        validations: Real env steps of each validation, in order, and whether it met the bar.

    >>> solved_at([(100, True), (200, False), (300, True), (400, True), (500, False)])
    300
    >>> solved_at([(100, True), (200, False), (300, True)]) is None
    True
    """
    held = 0
    for index, (_, is_met) in enumerate(validations):
        held = held + 1 if is_met else 0
        if held == RUNNING:
            return validations[index + 1 - RUNNING][0]
    return None
