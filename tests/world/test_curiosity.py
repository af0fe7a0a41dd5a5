"""Curiosity in a corridor whose values are computed exactly: finishing is not punished.

In cell i of the corridor one can go on or dither. Going on from the last cell finishes. ``step``
has the reward of each (cell, action), of a learner that knows the world as it is.
"""

import torch
from torch import Tensor

from lit_crl.world.curiosity import (
    bonus,
    explorer_reward,
    falling,
    novelty,
    novelty_ahead,
    reward_scale,
)

LENGTH, GAMMA, WEIGHT = 12, 0.99, 0.3
ON, DITHER = 0, 1


def after() -> tuple[Tensor, Tensor]:
    """The next cell, and γ or 0, of each (cell, action)."""
    cell = torch.arange(LENGTH)
    following = torch.stack((cell + 1, cell), 1).clamp_max(LENGTH - 1)
    discount = torch.full((LENGTH, 2), GAMMA)
    discount[-1, ON] = 0.0
    return following, discount


def optimal(step: Tensor) -> Tensor:
    """Q* by value iteration, ``[cells, actions]``."""
    following, discount = after()
    q = torch.zeros(LENGTH, 2, dtype=torch.float64)
    for _ in range(4_000):  # .99⁴⁰⁰⁰ is nothing
        q = step + discount * q.amax(1)[following]
    return q


def value(step: Tensor, action: int) -> Tensor:
    """V of always taking ``action``, solved as a linear system, ``[cells]``."""
    following, discount = after()
    chain = torch.zeros(LENGTH, LENGTH, dtype=torch.float64)
    chain[torch.arange(LENGTH), following[:, action]] = discount[:, action].double()
    return torch.linalg.solve(torch.eye(LENGTH, dtype=torch.float64) - chain, step[:, action])


def known() -> Tensor:
    """Disagreement in a corridor that is known: at most its mean on real data."""
    rng = torch.Generator().manual_seed(0)
    return torch.rand(LENGTH, 2, generator=rng, dtype=torch.float64)


def finishing_pays(reward: float) -> Tensor:
    step = torch.zeros(LENGTH, 2, dtype=torch.float64)
    step[-1, ON] = reward
    return step


def test_by_the_bonus_alone_finishing_a_known_corridor_is_worth_what_dithering_is():
    step = bonus(known(), WEIGHT)
    assert (value(step, ON) >= value(step, DITHER)).all()
    assert (value(step, ON) >= optimal(step).amax(1)).all()

    # A bonus for every step, however well known, would punish it.
    always = WEIGHT * known() / 5
    assert (value(always, ON) < value(always, DITHER)).all()
    assert (optimal(always + finishing_pays(1.0)).argmax(1) == DITHER).any()


def test_the_smallest_reward_then_makes_finishing_best():
    step = bonus(known(), WEIGHT) + finishing_pays(1e-3)
    assert (optimal(step).argmax(1) == ON).all()


def test_the_end_itself_may_be_new():
    disagreement = known()
    disagreement[-1, ON] = 5.0
    step = bonus(disagreement, WEIGHT)
    torch.testing.assert_close(
        value(step, ON), WEIGHT * GAMMA ** torch.arange(LENGTH - 1, -1, -1).double()
    )
    assert (optimal(step).argmax(1) == ON).all()


def test_where_dithering_is_new_the_explorer_dithers_and_who_is_judged_finishes():
    disagreement = known()
    disagreement[3, DITHER] = 5.0
    task = finishing_pays(1.0)
    explorer = optimal(explorer_reward(task, 1.0, bonus(disagreement, WEIGHT)))
    assert explorer.argmax(1)[3] == DITHER
    assert (optimal(task).argmax(1) == ON).all()
    # At the end of the run both want the same.
    last = bonus(disagreement, falling(WEIGHT, 1.0))
    assert (last == 0).all()
    assert torch.equal(optimal(explorer_reward(task, 1.0, last)), optimal(task))


def test_an_end_does_not_cost_what_is_new_at_the_start() -> None:
    """From the last cell one may finish, for 1, or go back to the start, where dithering is new."""
    disagreement = known()
    disagreement[0, DITHER] = 5.0
    following, discount = after()
    following[-1, DITHER] = 0  # not dithering, but going back
    one, most = torch.tensor(1.0), torch.tensor(WEIGHT / (1 - GAMMA))

    def values(step: Tensor, ahead: Tensor) -> Tensor:
        step = step.clone()
        step[-1, ON] += GAMMA * ahead
        q = torch.zeros(LENGTH, 2, dtype=torch.float64)
        for _ in range(4_000):
            q = step + discount * q.amax(1)[following]
        return q

    task, nothing = finishing_pays(1.0), torch.zeros(())
    judge = values(task, nothing)
    curious = explorer_reward(task, 1.0, bonus(disagreement, WEIGHT))
    assert values(curious, nothing)[-1].argmax() == DITHER  # 29 by going back, and 1 by finishing
    ahead = nothing
    for _ in range(20):  # it is measured anew again and again
        explorer = values(curious, ahead)
        ahead = novelty_ahead(explorer[0].amax(), judge[0].amax(), one, most)
    assert ahead > 25 and explorer[-1].argmax() == ON


def test_caution_stays_away_from_what_is_not_known():
    disagreement = known()
    disagreement[-1, ON] = 5.0
    step = bonus(disagreement, -WEIGHT) + finishing_pays(0.1)
    assert optimal(step)[-1].argmax() == DITHER
    assert (bonus(known(), -WEIGHT) == 0).all()


def test_the_scale_of_the_rewards_changes_nothing():
    disagreement = 3 * known()
    expected = optimal(explorer_reward(finishing_pays(1.0), 1.0, bonus(disagreement, WEIGHT)))
    for factor in (1e-3, 1e3):
        reward = factor * finishing_pays(1.0)
        scale = reward_scale(reward.flatten())
        found = optimal(explorer_reward(reward, scale, bonus(disagreement, WEIGHT)))
        torch.testing.assert_close(found, expected)
    assert reward_scale(torch.zeros(0)) == 1


def test_novelty_against_a_naive_one():
    rng = torch.Generator().manual_seed(0)
    disagreement = 12 * torch.rand(200, generator=rng)
    for clip in (2.0, 5.0, 10.0):
        naive = [min(max(d - 1, 0) / (clip - 1), 1.0) for d in disagreement.tolist()]
        torch.testing.assert_close(novelty(disagreement, clip), torch.tensor(naive))
