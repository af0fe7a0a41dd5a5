"""The mathematics of the GAN: pure tensor functions, one equation each.

``real`` and ``fake`` are the discriminator's logits for real and generated levels, ``[B]``.
``p`` is a success probability p̂(level), ``[...]``. All losses are means over the batch and are
minimised. They are written with ``softplus`` on logits, which cannot overflow.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

GANLoss = Literal["relativistic", "non_saturating", "least_squares", "hinge"]
#: δ: p̂ is not told apart from 0 or 1 when it is closer than this; about one in a hundred outcomes.
RESOLUTION = 0.01


class Critic(Protocol):
    """A discriminator with a success head."""

    def __call__(self, level: Tensor) -> Tensor:
        """Realness logits ``[B]``."""

    def success_logit(self, level: Tensor) -> Tensor:
        """Logits ``[B]`` of p̂."""


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """``hard`` forward, the gradient of ``soft`` backward, Bengio et al. 2013, §4."""
    return hard + (soft - soft.detach())  # in this order nothing is rounded


def non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """−E[log D(x)] − E[log(1 − D(G(z)))], Goodfellow et al. 2014, eq. 1.

    >>> non_saturating_discriminator(torch.zeros(4), torch.zeros(4))  # undecided: 2 log 2
    tensor(1.3863)
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """−E[log D(G(z))], Goodfellow et al. 2014, §3."""
    return F.softplus(-fake).mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[softplus(−(D(x) − D(G(z))))], Jolicoeur-Martineau 2019; R3GAN, Huang et al. 2024, eq. 2.

    Only the difference of the logits counts:

    >>> relativistic_discriminator(torch.tensor([3.0]), torch.tensor([3.0]))
    tensor(0.6931)
    """
    return F.softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """E[softplus(−(D(G(z)) − D(x)))], the same pairing seen from the generator."""
    return F.softplus(real - fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 − D(x))] + E[max(0, 1 + D(G(z)))], Lim & Ye 2017; Miyato et al. 2018, eq. 16.

    >>> hinge_discriminator(torch.tensor([0.5, 2.0]), torch.tensor([-1.0, -3.0]))
    tensor(0.2500)
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """−E[D(G(z))], Miyato et al. 2018, eq. 17."""
    return -fake.mean()


def labelled_least_squares_discriminator(real: Tensor, label: Tensor, fake: Tensor) -> Tensor:
    """E[y(D(x) − 1)² + (1 − y)(D(x) + 1)²] + E[(D(G(z)) + 1)²], Florensa et al. 2018, eq. 5.

    ``label`` y ``[B]`` is 1 for a level of the right difficulty and 0 for one that is too easy or
    too hard. With all labels 1 this is LSGAN (Mao et al. 2017) with targets (−1, 1).

    >>> real, label, fake = torch.tensor([[1.0, 1.0], [1.0, 0.0], [-1.0, -1.0]])
    >>> labelled_least_squares_discriminator(real, label, fake)  # wrong about the second
    tensor(2.)
    """
    return (real - 2 * label + 1).square().mean() + (fake + 1).square().mean()


def least_squares_generator(fake: Tensor) -> Tensor:
    """E[(D(G(z)) − 1)²]: the generator's target is the label of a good level.

    Florensa et al. 2018 write the target as c = 0; their code uses 1, and so does this function.
    """
    return (fake - 1).square().mean()


def discriminator_loss(kind: GANLoss, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
    """The discriminator's adversarial loss; only ``least_squares`` uses ``label``."""
    if kind == "relativistic":
        return relativistic_discriminator(real, fake)
    if kind == "non_saturating":
        return non_saturating_discriminator(real, fake)
    if kind == "hinge":
        return hinge_discriminator(real, fake)
    return labelled_least_squares_discriminator(real, label, fake)


def generator_loss(kind: GANLoss, real: Tensor, fake: Tensor) -> Tensor:
    """L_GAN, the generator's adversarial loss; only ``relativistic`` uses ``real``."""
    if kind == "relativistic":
        return relativistic_generator(real, fake)
    if kind == "non_saturating":
        return non_saturating_generator(fake)
    if kind == "hinge":
        return hinge_generator(fake)
    return least_squares_generator(fake)


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], level: Tensor
) -> tuple[Tensor, Tensor]:
    """½‖∇_x D(x)‖² of each level ``[B]``: R1 on reals, R2 on fakes, Mescheder et al. 2018, eq. 9.

    The discriminator must judge each row of ``level [B, d]`` by itself. Also returns its logits
    ``[B]``, which are computed on the way. Both results can be differentiated.

    >>> gradient_penalty(lambda level: 3 * level[:, 0], torch.ones(2, 5))
    (tensor([4.5000, 4.5000]), tensor([3., 3.]))
    """

    def total(level: Tensor) -> tuple[Tensor, Tensor]:
        logit = discriminator(level)
        return logit.sum(), logit

    gradient, logit = torch.func.grad(total, has_aux=True)(level)
    return 0.5 * gradient.flatten(1).square().sum(dim=1), logit


def augmented(level: Tensor, places: Tensor | None, noise: Tensor | None) -> Tensor:
    """T(x): a level as the discriminator sees it, Zhao et al. 2020 (DiffAugment), eq. 4 and 5.

    T is a symmetry of the levels, and then noise. Reals and generated levels get it alike, and the
    generator's gradient passes through it. So the discriminator of few reals cannot learn them by
    heart, and the generator does not learn to make noise.

    Args:
        level: Levels x of the unit cube ``[B, d]``.
        places: Where each coordinate comes from in ``[x, −x]``, ``[B, d]``; None: they stay.
        noise: What is added ``[B, d]``; None: nothing.

    >>> augmented(torch.tensor([[0.1, 0.2]]), torch.tensor([[1, 2]]), None)  # they change places
    tensor([[ 0.2000, -0.1000]])
    """
    if places is not None:
        level = torch.cat([level, -level], -1).gather(-1, places)
    return level if noise is None else level + noise


def discriminator_losses(
    discriminator: Callable[[Tensor], Tensor],
    kind: GANLoss,
    real: Tensor,
    label: Tensor,
    fake: Tensor,
    r1: float,
    r2: float,
) -> dict[str, Tensor]:
    """The adversarial loss and, if r1 or r2 is above 0, the penalty r1 · R1 + r2 · R2.

    ``real`` and ``fake`` are levels in the unit cube ``[B, d]``, ``label [B]`` as above.
    """
    both = torch.cat([real, fake])
    penalty, logit = (
        gradient_penalty(discriminator, both) if r1 + r2 > 0 else (None, discriminator(both))
    )
    real_logit, fake_logit = logit.chunk(2)
    losses = {"gan/discriminator_loss": discriminator_loss(kind, real_logit, fake_logit, label)}
    if penalty is not None:
        at_real, at_fake = penalty.chunk(2)
        losses["gan/penalty"] = r1 * at_real.mean() + r2 * at_fake.mean()
    return losses


def generator_losses(
    discriminator: Critic, kind: GANLoss, real: Tensor, fake: Tensor
) -> tuple[Tensor, Tensor]:
    """Challenge and L_GAN of generated levels ``fake [B, d]``, through a frozen discriminator."""
    with torch.no_grad():
        real_logit = discriminator(real)
    adversarial = generator_loss(kind, real_logit, discriminator(fake))
    return challenge(discriminator.success_logit(fake)), adversarial


def learnability(p: Tensor) -> Tensor:
    """4 p (1 − p): 1 where the policy solves a level every other time, 0 where never or always.

    Rutherford et al. 2024 (SFL), eq. 1, scaled to a maximum of 1.

    >>> learnability(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    tensor([0.0000, 0.7500, 1.0000, 0.0000])
    """
    return 4 * p * (1 - p)


def challenge(logit: Tensor) -> Tensor:
    """E[KL(½ ‖ q)] = E[−½ log q − ½ log(1 − q)] − log 2, in nats, from the logits of p̂ ``[B]``.

    q = δ + (1 − 2 δ) p̂ is p̂ as far as outcomes can tell it from 0 and 1 (δ = 0.01). The challenge
    is 0 where the policy solves every generated level every other time. It still has a gradient
    where all levels are hopeless or solved: at p̂ = 0.01 it is 0.24 for each unit of logit, at 0.001
    it is 0.04. (For −4 p̂ (1 − p̂) these are 0.04 and 0.004.) Without δ the gradient would stay at ½,
    however sure p̂ is, and the generator would collapse to the one level that is slightly harder
    than all others.

    >>> [round(float(challenge(torch.tensor([logit]))), 3) for logit in (-5.0, 0.0, 5.0)]
    [1.366, 0.0, 1.366]
    """
    q = RESOLUTION + (1 - 2 * RESOLUTION) * torch.sigmoid(logit)
    return -0.5 * (q.log() + (1 - q).log()).mean() - math.log(2)


def success_loss(logit: Tensor, success: Tensor) -> Tensor:
    """Binary cross-entropy of the success head against observed outcomes in {0, 1}."""
    return F.binary_cross_entropy_with_logits(logit, success)


def generator_objective(challenge: Tensor, adversarial: Tensor, lambda_gan: float) -> Tensor:
    """The generator's objective: challenge + λ · L_GAN."""
    return challenge + lambda_gan * adversarial
