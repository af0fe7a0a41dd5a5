"""Reward for going where the world's members disagree: pure functions, one equation each.

The bonus is computed when a transition is used, and never stored: the world goes on learning. What
is evaluated learns from the task's reward alone; an *explorer* beside it learns from
``explorer_reward``.

**After an end** there is nothing new: the step that ends earns its bonus, and its discount is 0,
as for the task's reward. Two rules keep this from punishing finishing:

- Only what is *newer than usual* earns anything: at the mean disagreement of real data, and below,
  the bonus is 0. Among known things, to finish and to dither are then worth the same, and the
  smallest reward for finishing decides. (With a bonus for every step, as disagreement / 5 would be,
  dithering for ever is worth weight / 5 / (1 − γ): at weight .3 and γ .99 six times the reward of 1
  for which one should finish.) A place above the mean is worth staying in until it is known.
- Another episode follows, in which the explorer goes on exploring. So an end is worth, beside its
  reward, what novelty is worth where episodes begin: ``novelty_ahead``, discounted. Without it, an
  explorer to whom novelty is still worth 10 would not give that up for a goal that pays 1.
"""

import torch
from torch import Tensor

#: Disagreement that is no news: its mean on real data, the unit in which it is measured.
USUAL = 1.0
#: Disagreement beyond which nothing is newer.
CLIP = 5.0


def novelty(disagreement: Tensor, clip: float = CLIP) -> Tensor:
    """How much newer than usual a step is, in [0, 1]: 0 up to 1 mean of real data, 1 from ``clip``.

    min(max(d − 1, 0) / (clip − 1), 1). It does not depend on the task's rewards.

    Args:
        disagreement: d, in units of its mean on real data ``[...]``.
        clip: Above 1.

    >>> novelty(torch.tensor([0.0, 1.0, 3.0, 5.0, 100.0]))
    tensor([0.0000, 0.0000, 0.5000, 1.0000, 1.0000])
    """
    return (disagreement.clamp(USUAL, clip) - USUAL) / (clip - USUAL)


def bonus(disagreement: Tensor, weight: Tensor | float, clip: float = CLIP) -> Tensor:
    """The bonus, weight · novelty.

    >>> bonus(torch.tensor([1.0, 3.0]), 0.5)
    tensor([0.0000, 0.2500])
    """
    return weight * novelty(disagreement, clip)


def falling(weight: float, progress: float) -> float:
    """The weight after the share ``progress`` of the run.

    Curiosity falls linearly, to exactly 0. Caution, a negative weight, stays as it is: dreams err
    as long as there are any.

    >>> falling(0.25, 0.0), falling(0.25, 0.5), falling(0.25, 1.0), falling(0.25, 1.5)
    (0.25, 0.125, 0.0, 0.0)
    >>> falling(-0.25, 0.5)
    -0.25
    """
    return weight if weight < 0 else weight * (1 - min(progress, 1.0))


def reward_scale(reward: Tensor) -> Tensor:
    """The largest size of a real reward ``[n]``; 1 while there has been none but 0.

    >>> reward_scale(torch.tensor([-3.0, 1.0])), reward_scale(torch.zeros(2))
    (tensor(3.), tensor(1.))
    """
    largest = reward.abs().amax() if len(reward) else reward.new_zeros(())
    return torch.where(largest > 0, largest, 1.0)


def novelty_ahead(explorer: Tensor, judge: Tensor, scale: Tensor, most: Tensor) -> Tensor:
    """What novelty alone is worth in states ``[n]``: V_explorer − V_judge / scale, in [0, most].

    Args:
        explorer: Values of reward and curiosity, ``[n]``.
        judge: Values of the task's reward, ``[n]``.
        scale: Unit of the explorer's reward, see ``reward_scale``.
        most: The largest return of bonuses.

    >>> explorer, judge = torch.tensor([3.0, 0.5, 99.0]), torch.tensor([20.0, 10.0, 0.0])
    >>> novelty_ahead(explorer, judge, torch.tensor(10.0), torch.tensor(30.0))
    tensor([ 1.,  0., 30.])
    """
    return torch.minimum((explorer - judge / scale).clamp_min(0), most)


def explorer_reward(reward: Tensor, scale: Tensor | float, bonus: Tensor) -> Tensor:
    """What the explorer learns from: reward / scale + bonus.

    With ``scale`` from ``reward_scale`` a task whose rewards are all multiplied by 1000 is explored
    alike.

    >>> explorer_reward(torch.tensor([1000.0]), 1000.0, torch.tensor([0.25]))
    tensor([1.2500])
    """
    return reward / scale + bonus
