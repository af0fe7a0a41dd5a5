"""What the numbers of a world mean, in words: each verdict is a pure function of the numbers.

A verdict is a sentence for the user, or None where the numbers it needs are absent or look right.
"""

from collections.abc import Mapping

#: Dreams may pay this much more than the real task, as a share of the real return.
GAP_BOUND = 0.5
#: Looks running at which something must look wrong before it is said: a single one may be chance.
RUNNING = 2
#: Disagreement below this, in units of Δobs, is none.
NO_DISAGREEMENT = 1e-5
#: From this conditional spread on, in units of Δobs, data are not deterministic.
NOISY = 0.2
#: A generator that spreads less than this share of the data's spread ignores z.
IGNORED = 0.25
#: Dreams are blind if this many ends are missing: chance leaves out 5 of 5 once in 150 times.
MISSED_ENDS = 5.0

Numbers = Mapping[str, float]


def gap_bound(real_return: float, reward_scale: float) -> float:
    """By how much a return in dreams may exceed the real one.

    It is half the size of the real return, or half the largest reward where that is more.

    >>> gap_bound(-200.0, 1.0), gap_bound(0.0, 1.0)
    (100.0, 0.5)
    """
    return GAP_BOUND * max(abs(real_return), reward_scale)


def dreams_pay_too_much(numbers: Numbers, reward_scale: float) -> bool:
    """Whether the dream return has left the real return behind, this time."""
    if "world/dream_return_gap" not in numbers:
        return False
    gap = numbers["world/dream_return_gap"]
    return gap > gap_bound(numbers["world/dream_return"] - gap, reward_scale)


def exploited(numbers: Numbers, reward_scale: float, running: int) -> str | None:
    """Whether dreams have paid too much ``running`` times running, this time included."""
    if running < RUNNING:
        return None
    gap, dreamed = numbers["world/dream_return_gap"], numbers["world/dream_return"]
    bound = gap_bound(dreamed - gap, reward_scale)
    return (
        f"The world is exploited: twice running the policy's return was much higher in dreams (now "
        f"{dreamed:.4g}) than in the real task ({dreamed - gap:.4g}); the gap should be at most "
        f"{bound:.4g}. Try a smaller data.world.gate, data.world.horizon or data.world.share, or "
        "more data.world.updates."
    )


def members_agree(numbers: Numbers) -> bool:
    """Whether the members agree as much far from the data as near them, this time."""
    if "world/disagreement" not in numbers:
        return False
    near, far = numbers["world/disagreement"], numbers["world/disagreement_far"]
    return far <= near or far <= NO_DISAGREEMENT


def frozen(numbers: Numbers, running: int) -> str | None:
    """Whether members have agreed ``running`` times running, this time included."""
    if running < RUNNING:
        return None
    near, far = numbers["world/disagreement"], numbers["world/disagreement_far"]
    return (
        "Curiosity is frozen: twice running the world's members disagreed no more in places drawn "
        f"at random (now {far:.2g} of the usual Δobs) than on held-back real steps ({near:.2g}): "
        "the bonus leads nowhere and the gate cuts nothing. Try a smaller data.world.member_share "
        "or more model.world.members, unless the real steps have been everywhere."
    )


def ignores_noise(numbers: Numbers) -> str | None:
    """Whether data under the same condition differ, members agree on it, and z does nothing."""
    if "world/z_used" not in numbers:
        return None
    noise = numbers["world/data_noise"]
    is_noise = noise > NOISY and numbers["world/disagreement"] < noise / 2
    if not is_noise or numbers["world/z_used"] >= IGNORED:
        return None
    return (
        f"The world ignores its noise z: what follows a real step spreads by {noise:.2g} of the "
        f"usual Δobs, and what it imagines by {numbers['world/z_used']:.0%} of that, so dreams "
        "follow a mean that may never happen. Try model.world.loss gan, a smaller "
        "model.world.r1 and r2, or more data.world.updates."
    )


def missed_ends(numbers: Numbers, dreamed_steps: int) -> float:
    """Ends that as many real steps would have had as were dreamed, if no dream had any; else 0."""
    if numbers.get("world/dreamed_ends", 1.0) > 0:
        return 0.0
    return numbers["world/real_ends"] * dreamed_steps / 1000


def blind_to_ends(numbers: Numbers, dreamed_steps: int, running: int) -> str | None:
    """Whether dreams have missed ``MISSED_ENDS`` ends ``running`` times, this time included."""
    if running < RUNNING:
        return None
    missed = missed_ends(numbers, dreamed_steps)
    return (
        f"The world is blind to ends: none in {dreamed_steps:,} imagined steps, where as many real "
        f"steps had {missed:.0f}, and so the time before. Try more data.world.rare or "
        "data.world.updates, or more dreams from visited states (a smaller "
        "data.world.first_states)."
    )
