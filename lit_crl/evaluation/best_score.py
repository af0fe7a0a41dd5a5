"""Which policy of a run is the best, by validations that are noisy."""

from collections.abc import Sequence

#: Validations running that a score is the mean of.
VALIDATIONS = 3


def score(returns: Sequence[float]) -> float | None:
    """The score of a policy: a mean return that it has reached and held.

    It is the mean of ``target_return_mean`` over the policy's own validation and those before it,
    ``VALIDATIONS`` in all; or its own, if that is lower. The return decides because every task has
    one, the policy learns to raise it, and it tells policies apart that all succeed.

    The largest of many noisy numbers is mostly luck. Here a lucky validation counts for a third of
    a score, so it loses to three good ones running; an unlucky one, or a policy that has just
    forgotten the task, counts in full.

    >>> score([0.0, 0.0, 90.0]), score([60.0, 60.0, 60.0]), score([90.0, 90.0, 0.0])
    (30.0, 60.0, 0.0)

    Args:
        returns: ``target_return_mean`` of each validation so far, oldest first.

    Returns:
        The score of the last one's policy; None if there are fewer than ``VALIDATIONS``.
    """
    if len(returns) < VALIDATIONS:
        return None
    return min(returns[-1], sum(returns[-VALIDATIONS:]) / VALIDATIONS)
