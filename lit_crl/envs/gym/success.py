"""The success of the episodes of an environment, as far as somebody says it."""

import numpy as np

from lit_crl.envs.gym.returned import Array


def successes(reported: Array, returns: Array, success_return: float | None) -> tuple[Array, Array]:
    """Which episodes are solved by now, and of which that is known, bool ``[N]`` each.

    Args:
        reported: What infos last said ``[N]``: 1, 0, or -1 for nothing.
        returns: The episodes' returns so far ``[N]``.
        success_return: Return that is a success where infos say nothing; None: none is.

    >>> successes(np.array([1, 0, -1]), np.array([0.0, 9.0, 9.0]), success_return=5.0)
    (array([ True, False,  True]), array([ True,  True,  True]))
    >>> successes(np.array([1, 0, -1]), np.array([0.0, 9.0, 9.0]), success_return=None)
    (array([ True, False, False]), array([ True,  True, False]))
    """
    known = reported >= 0
    if success_return is None:
        return reported == 1, known
    return np.where(known, reported == 1, returns >= success_return), np.ones_like(known)
