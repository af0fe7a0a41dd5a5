"""The mathematics of the GAN: pure tensor functions, one equation each.

``real`` and ``fake`` are the discriminator's logits for real and generated levels, ``[B]``.
``p`` is a success probability p̂(level), ``[...]``. All losses are means over the batch and are
meant to be minimised. They are written with ``softplus`` on logits, which cannot overflow.
"""

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

GANLoss = Literal["relativistic", "non_saturating", "least_squares", "hinge"]
#: δ: how far from 0 and 1 success probabilities are told apart; about one in a hundred outcomes.
RESOLUTION = 0.01


class Critic(Protocol):
    """A discriminator with a success head."""

    def __call__(self, level: Tensor) -> Tensor:
        """Realness logits ``[B]``."""

    def success_logit(self, level: Tensor) -> Tensor:
        """Logits ``[B]`` of p̂."""


def non_saturating_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """−E[log D(x)] − E[log(1 − D(G(z)))], Goodfellow et al. 2014, eq. 1."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def non_saturating_generator(fake: Tensor) -> Tensor:
    """−E[log D(G(z))], Goodfellow et al. 2014, §3."""
    return F.softplus(-fake).mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[softplus(−(D(x) − D(G(z))))], Jolicoeur-Martineau 2019; R3GAN, Huang et al. 2024, eq. 2."""
    return F.softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """E[softplus(−(D(G(z)) − D(x)))], the same pairing seen from the generator."""
    return F.softplus(real - fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 − D(x))] + E[max(0, 1 + D(G(z)))], Lim & Ye 2017; Miyato et al. 2018, eq. 16."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """−E[D(G(z))], Miyato et al. 2018, eq. 17."""
    return -fake.mean()


def labelled_least_squares_discriminator(real: Tensor, label: Tensor, fake: Tensor) -> Tensor:
    """E[y(D(x) − 1)² + (1 − y)(D(x) + 1)²] + E[(D(G(z)) + 1)²], Florensa et al. 2018, eq. 5.

    ``label`` y ``[B]`` is 1 for a level of the right difficulty and 0 for one that is too easy or
    too hard. With all labels 1 this is LSGAN (Mao et al. 2017) with targets (−1, 1).
    """
    return (real - 2 * label + 1).square().mean() + (fake + 1).square().mean()


def least_squares_generator(fake: Tensor) -> Tensor:
    """E[(D(G(z)) − 1)²]: the generator's target is the label of a good level.

    Florensa et al. 2018 write the target as c = 0; their code uses 1, and so does this function.
    """
    return (fake - 1).square().mean()


def discriminator_loss(kind: GANLoss, real: Tensor, fake: Tensor, label: Tensor) -> Tensor:
    """The discriminator's adversarial loss of that kind; only least squares looks at ``label``."""
    if kind == "relativistic":
        return relativistic_discriminator(real, fake)
    if kind == "non_saturating":
        return non_saturating_discriminator(real, fake)
    if kind == "hinge":
        return hinge_discriminator(real, fake)
    return labelled_least_squares_discriminator(real, label, fake)


def generator_loss(kind: GANLoss, real: Tensor, fake: Tensor) -> Tensor:
    """L_GAN, the generator's adversarial loss of that kind; only relativistic looks at ``real``."""
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

    The discriminator must judge ``level [B, d]`` row by row. Also returns its logits ``[B]``, which
    it has at hand. Both can be minimised.
    """

    def total(level: Tensor) -> tuple[Tensor, Tensor]:
        logit = discriminator(level)
        return logit.sum(), logit

    gradient, logit = torch.func.grad(total, has_aux=True)(level)
    return 0.5 * gradient.flatten(1).square().sum(dim=1), logit


def discriminator_losses(
    discriminator: Callable[[Tensor], Tensor],
    kind: GANLoss,
    real: Tensor,
    label: Tensor,
    fake: Tensor,
    r1: float,
    r2: float,
) -> dict[str, Tensor]:
    """The adversarial loss and, if weighted, the penalty r1 · R1 + r2 · R2 of the critic.

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
    """4 p (1 − p): 1 where the policy solves a level every other time, 0 at never and always.

    Rutherford et al. 2024 (SFL), eq. 1, scaled to a maximum of 1.
    """
    return 4 * p * (1 - p)


def challenge(logit: Tensor) -> Tensor:
    """E[KL(½ ‖ q)] = E[−½ log q − ½ log(1 − q)] − log 2, in nats, from the logits of p̂ ``[B]``.

    q = δ + (1 − 2 δ) p̂ is p̂ as far as outcomes can tell it from 0 and 1 (δ = 0.01). The challenge
    is 0 where the policy solves every generated level every other time. It still pulls where all
    levels are hopeless or solved: at p̂ = 0.01 by 0.24 for each unit of logit, at 0.001 by 0.04. (Of
    −4 p̂ (1 − p̂) these are 0.04 and 0.004.) Without δ the pull would stay at ½, however sure p̂ is,
    and the generator would collapse into the one level that is a trifle harder than all others.
    """
    q = RESOLUTION + (1 - 2 * RESOLUTION) * torch.sigmoid(logit)
    return -0.5 * (q.log() + (1 - q).log()).mean() - math.log(2)


def success_loss(logit: Tensor, success: Tensor) -> Tensor:
    """Binary cross-entropy of the success head against observed outcomes in {0, 1}."""
    return F.binary_cross_entropy_with_logits(logit, success)


def generator_objective(challenge: Tensor, adversarial: Tensor, lambda_gan: float) -> Tensor:
    """What the generator minimises: challenge + λ · L_GAN."""
    return challenge + lambda_gan * adversarial
