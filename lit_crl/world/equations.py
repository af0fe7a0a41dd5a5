"""The mathematics of the world GAN: pure tensor functions, one equation each.

Everything has a leading axis of E members: losses are ``[E]``, one of each member. They are means
over the member's rows ``[E, B, ...]``. An objective is their *sum*, so that a member's gradient
does not depend on how many others there are. ``mask [E, B]`` says which rows count.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_crl.gan.equations import gradient_penalty

#: Largest shift of log odds, and how often the interval of possible ones is halved.
LARGEST_SHIFT, BISECTIONS = 30.0, 40


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each member's ``values [E, B]`` where ``mask [E, B]`` is 1; 0 where it never is.

    >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0], [1.0, 1.0, 1.0]]),
    ...             torch.tensor([[True, True, False], [False, False, False]]))
    tensor([2., 0.])
    """
    return (mask * values).sum(-1) / mask.sum(-1).clamp_min(1)


def relativistic(better: Tensor, worse: Tensor, mask: Tensor) -> Tensor:
    """E[softplus(−(D(better) − D(worse)))] of each member, Jolicoeur-Martineau 2019.

    The logits ``[E, B]`` are those of a real and an imagined target under the same condition. The
    discriminators want the real one to be the better one, and the generators want the opposite.

    >>> relativistic(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3))
    tensor([0.6931, 0.6931])
    """
    return masked_mean(F.softplus(worse - better), mask)


def logits_and_norms(
    discriminators: Callable[[Tensor], Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits of ``rows [E, B, c + d]`` and ½‖∇D‖² there, ``[E, B]`` each."""

    def by_rows(flat: Tensor) -> Tensor:
        return discriminators(flat.view_as(rows)).flatten()

    norm, logit = gradient_penalty(by_rows, rows.flatten(0, 1))
    return logit.view(rows.shape[:2]), norm.view(rows.shape[:2])


def discriminator_losses(
    discriminators: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mask: Tensor,
    r1: float,
    r2: float,
) -> dict[str, Tensor]:
    """The adversarial loss and, if r1 or r2 is above 0, the penalty r1 · R1 + r2 · R2.

    ``real`` and ``fake [E, B, c + d]`` are conditions with their targets; ``discriminators`` gives
    their logits ``[E, B]``. A penalty costs four times as much as its logits: one whose weight is
    0 is not computed.
    """
    logits, penalties = [], []
    for rows, weight in ((real, r1), (fake, r2)):
        if weight == 0:
            logits.append(discriminators(rows))
        else:
            logit, norm = logits_and_norms(discriminators, rows)
            logits.append(logit)
            penalties.append(weight * masked_mean(norm, mask))
    real_logit, fake_logit = logits
    losses = {"discriminator_loss": relativistic(real_logit, fake_logit, mask)}
    if penalties:
        losses["penalty"] = torch.stack(penalties).sum(0)
    return losses


def generator_loss(
    discriminators: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mask: Tensor
) -> Tensor:
    """L_GAN of the imagined rows ``fake [E, B, c + d]``, through frozen discriminators."""
    with torch.no_grad():
        real_logit = discriminators(real)
    return relativistic(discriminators(fake), real_logit, mask)


def squared_error_of_mean(target: Tensor, draw: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """‖y − E_z[G(z)]‖² / d, without bias, from two independent draws: E[(y − g₁)(y − g₂)] / d.

    The squared error of a single draw would be larger by the variance over z, so that minimising
    it would teach the generator to ignore z. Here the variance has no part: draws on both sides of
    the target are as good as their mean.

    Args:
        target: What followed, ``[E, B, d]``.
        draw: One draw of the generator, ``[E, B, d]``.
        other: Another one, with other noise.
        mask: Rows that count, ``[E, B]``.

    >>> y, ones = torch.zeros(1, 4, 1), torch.ones(1, 4, 1)
    >>> first, second = torch.tensor([[-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]])[..., None]
    >>> squared_error_of_mean(y, first[None], second[None], torch.ones(1, 4))
    tensor([0.])
    >>> squared_error_of_mean(y, 3 * ones, 3 * ones, torch.ones(1, 4))
    tensor([9.])
    """
    return masked_mean(((target - draw) * (target - other)).mean(-1), mask)


def gaussian_loss(target: Tensor, mean: Tensor, log_std: Tensor, mask: Tensor) -> Tensor:
    """−log N(y; μ, σ²) for each dimension, without its constant ½ log 2π; all ``[E, B, d]``.

    >>> one = torch.ones(1, 1, 1)
    >>> gaussian_loss(3 * one, one, 0 * one, torch.ones(1, 1))
    tensor([2.])
    """
    square = ((target - mean) * torch.exp(-log_std)).square()
    return masked_mean((0.5 * square + log_std).mean(-1), mask)


def bernoulli_loss(target: Tensor, logit: Tensor, mask: Tensor) -> Tensor:
    """−log P(bits) for each bit, from log odds ``[E, B, d]``."""
    nll = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return masked_mean(nll.mean(-1), mask)


def flipped(bits: Tensor, flips: Tensor) -> Tensor:
    """Bits after some of them flipped, b + f − 2 b f: exclusive or, linear in either; ``[...]``.

    >>> flipped(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0]))
    tensor([0., 1., 1., 0.])
    """
    return bits + flips - 2 * bits * flips


def bernoulli_mixture_loss(
    target: Tensor, logit: Tensor, log_weight: Tensor, mask: Tensor
) -> Tensor:
    """−log Σ_m π_m Π_i P_m(bit i), for each bit: Bishop 2006, eq. 9.47, of each member, ``[E]``.

    Bits of one component are independent. What happens together, as a thing that vanishes in one
    cell and appears in the next, is a component.

    Args:
        target: Bits ``[E, B, d]``.
        logit: Log odds of each bit in each of M components, ``[E, B, M, d]``.
        log_weight: log π, ``[E, B, M]``.
        mask: Rows that count, ``[E, B]``.

    >>> sure, even = 99 * torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]]]]), torch.full((1, 1, 2), 0.5)
    >>> bernoulli_mixture_loss(torch.ones(1, 1, 2), sure, even.log(), torch.ones(1, 1))  # ½ log 2
    tensor([0.3466])
    """
    # log P(bit) is −softplus(logit), and that much more where the bit is 1.
    log_likelihood = (logit * target.unsqueeze(-2) - F.softplus(logit)).sum(-1)
    nll = -torch.logsumexp(log_weight + log_likelihood, -1)
    return masked_mean(nll, mask) / target.shape[-1]


def reward_loss(logits: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each member's rewards, from ``logits`` and two-hot targets ``[E, B, A]``.

    It may have rows that are drawn more often: their share does not move the minimum where the
    reward follows from (obs, action, next obs).
    """
    return -(weights * logits.log_softmax(-1)).sum(-1).mean(-1)


def end_log_odds(drawn: int, extra: int, share: Tensor, extra_share: Tensor) -> Tensor:
    """By how much extra rows raise the log odds of an end.

    A minibatch has ``drawn`` rows as they come, a ``share`` of which are ends, and of ``extra``
    rows more only the ends count. An end is then drawn 1 + extra · extra_share / (drawn · share)
    times as often as by itself. It is 0 where there are no ends.

    >>> share = torch.tensor([0.002, 0.0])
    >>> end_log_odds(100, 20, share, torch.tensor([1.0, 0.0])).exp()  # 20 ends beside 0.2
    tensor([101.0000,   1.0000])
    """
    times = 1 + extra * extra_share / (drawn * share)
    return torch.where(share > 0, times.log(), torch.zeros_like(share))


def end_loss(logit: Tensor, ended: Tensor, log_odds: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of ends that are drawn more often than they come, with that undone.

    With ``log_odds [E]`` added (King & Zeng 2001, eq. 7; Menon et al. 2021, eq. 10) the logit fits
    the rows as they are drawn. So the logit itself, ``[E, B]``, is the log odds in the data, and
    stays what it is when the share of ends in the data moves.

    >>> rare, ended = torch.tensor([[-6.0]]), torch.ones(1, 1)
    >>> end_loss(rare, ended, torch.tensor([6.0]), torch.ones(1, 1))  # even odds: log 2
    tensor([0.6931])
    """
    drawn_logit = logit + log_odds.unsqueeze(-1)
    nll = F.binary_cross_entropy_with_logits(drawn_logit, ended, reduction="none")
    return masked_mean(nll, mask)


def matching_shift(logit: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """What to add to log odds of an end, ``[E]``, so that as many ends are expected as came.

    It solves Σᵢ wᵢ σ(zᵢ + b) = ends for each member. A head that has seen a handful of ends tells
    them from other steps long before its log odds say how sure it could be, and a dream that ends
    too rarely pays for the end more than once. The order of the steps stays as it was. It is 0
    where no step ended, or all did.

    Args:
        logit: Log odds z of each step, ``[E, n]``.
        weight: How many steps each one stands for, ``[n]``.
        ends: How many steps ended; 0-dimensional.

    >>> logit, ones = torch.tensor([[-9.0, -3.0]]), torch.ones(2)
    >>> torch.sigmoid(logit + matching_shift(logit, ones, torch.tensor(1.0))).sum()
    tensor(1.0000)
    """
    low = torch.full_like(logit[:, 0], -LARGEST_SHIFT)
    high = -low
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = (weight * torch.sigmoid(logit + middle[:, None])).sum(1)
        low, high = torch.where(found < ends, middle, low), torch.where(found < ends, high, middle)
    return torch.where((ends > 0) & (ends < weight.sum()), (low + high) / 2, 0.0)


def disagreement(centre: Tensor, counts: Tensor) -> Tensor:
    """How far members are apart: standard deviation over E, mean over dimensions; ``[N]``.

    Pathak et al. 2019, eq. 1, with deviations for variances, so that it has the target's unit.
    What members expect is compared, not what they draw: noise is not ignorance.

    Args:
        centre: What each member expects, ``[E, N, d]``.
        counts: Dimensions that count, ``[d]``.

    >>> centre = torch.tensor([[[0.0, 0.0]], [[2.0, 9.0]]])
    >>> disagreement(centre, torch.tensor([True, False]))
    tensor([1.])
    """
    apart = centre.std(0, correction=0)
    return (apart * counts).sum(-1) / counts.sum().clamp_min(1)


def one_step_error(target: Tensor, centre: Tensor, counts: Tensor) -> Tensor:
    """Root mean square of what followed minus what the members expect on average; a scalar.

    In units of targets, the spread of Δobs: 1 is as wrong as the guess that nothing changes, and
    what is drawn at random leaves an error in any world.

    Args:
        target: What followed, ``[N, d]``.
        centre: What each member expects, ``[E, N, d]``.
        counts: Dimensions that count, ``[d]``.

    >>> target, centre = torch.tensor([[3.0, 9.0]]), torch.tensor([[[0.0, 0.0]], [[2.0, 0.0]]])
    >>> one_step_error(target, centre, torch.tensor([True, False]))
    tensor(2.)
    """
    square = (target - centre.mean(0)).square() * counts
    return (square.sum() / (len(target) * counts.sum()).clamp_min(1)).sqrt()
