"""Settings of the level GAN: its networks, its losses, and the levels that it makes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.optim import Adam, Optimizer

from lit_crl.core.checks import Fields
from lit_crl.gan.equations import GANLoss


def gan_adam(params: Iterable[Any]) -> Optimizer:
    """Adam for the GAN, without momentum (β₁ = 0, as in R3GAN): each network's goal moves."""
    return Adam(params, lr=5e-4, betas=(0.0, 0.99), fused=True)


@dataclass(frozen=True)
class GanSettings:
    """The level GAN and what it minimises.

    Args:
        loss: Adversarial loss: ``relativistic``, ``non_saturating``, ``least_squares`` (labelled,
            as in Goal-GAN) or ``hinge``.
        lambda_gan: λ of the generator's objective ``challenge + λ · L_GAN``. A large λ makes
            levels like those that the policy reached, a small one levels that it solves every
            other time.
        r1: Weight of the gradient penalty on real levels.
        r2: Weight of the gradient penalty on generated levels.
        hidden: Width of each hidden layer of generator and discriminator.
        noise_dim: Length of the generator's noise z; 0: max(8, twice the level's length), or 32
            for maps.
        ema_rate: Share of the generator's weights in each update of its moving average. The
            average makes the levels that are played.
        level_noise: Standard deviation of the noise that is added to levels before they are
            played, as a share of the level space. Of maps: share of the tiles that change.
        generator_optimizer: Optimizer of the generator.
        discriminator_optimizer: Optimizer of the discriminator and its success head.
    """

    loss: GANLoss = "relativistic"
    lambda_gan: float = 2.0
    r1: float = 0.5
    r2: float = 0.5
    hidden: Sequence[int] = (128, 128)
    noise_dim: int = 0
    ema_rate: float = 0.005
    level_noise: float = 0.05
    generator_optimizer: Callable[[Iterable[Any]], Optimizer] = gan_adam
    discriminator_optimizer: Callable[[Iterable[Any]], Optimizer] = gan_adam

    def __post_init__(self) -> None:
        """Check the numbers."""
        fields = Fields("model.gan", self)
        fields.one_of("loss", GANLoss)
        fields.non_negative("lambda_gan", "r1", "r2", "noise_dim", "level_noise")
        fields.widths("hidden")
        fields.positive_unit_interval("ema_rate")
        fields.optimizers("generator_optimizer", "discriminator_optimizer")
