"""Drawing levels until enough of them are valid."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import LevelEnv

#: How many levels are drawn at once at most.
MAX_AT_ONCE = 2**16


def valid_levels(
    draw: Callable[[int], Tensor], n: int, env: LevelEnv, most: int, arm: str, remedy: str
) -> Tensor:
    """The first ``n`` valid ones ``[n, d]`` of the levels that ``draw`` gives.

    Args:
        draw: Draws any number of levels, ``k -> [k, d]``.
        n: How many.
        env: Knows which levels are valid.
        most: How many may be drawn in all.
        arm: What messages call the arm.
        remedy: What to do where hardly any are valid.

    Raises:
        ConfigError: If hardly any of them is valid.
    """
    found, at_once, drawn = draw(0), n, 0
    while len(found) < n:
        if drawn >= most:
            raise ConfigError(
                f"data.curriculum.arm is {arm!r}, but of {drawn:,} of its levels only {len(found)} "
                f"are valid: {remedy}"
            )
        levels = draw(at_once)
        found, drawn = torch.cat([found, levels[env.valid(levels)]]), drawn + at_once
        at_once = min(2 * at_once, MAX_AT_ONCE)
    return found[:n]
