"""Settings of the world GAN: its networks and its losses."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from torch.optim import Adam, Optimizer

from lit_crl.core.checks import ConfigError, Fields

WorldLoss = Literal["none", "gan", "gan_reconstruction", "likelihood"]
#: Settings that a loss has no use for.
UNUSED: dict[str, tuple[str, ...]] = {
    "none": (),
    "gan": ("lambda_gan",),
    "gan_reconstruction": (),
    "likelihood": ("lambda_gan", "r1", "r2", "noise_dim"),
}


def world_adam(params: Iterable[Any]) -> Optimizer:
    """Adam for the world, without momentum (β₁ = 0, as in R3GAN): each network's goal moves."""
    return Adam(params, lr=1e-3, betas=(0.0, 0.99), fused=True)


@dataclass(frozen=True)
class WorldSettings:
    """The world GAN and what it minimises.

    Args:
        loss: ``none`` (there is no world), ``gan`` (relativistic), ``gan_reconstruction``
            (λ · L_GAN + the squared error of the mean over z), or ``likelihood`` (Gaussian,
            Bernoulli for observations of bits, or a mixture of Bernoullis for maps of bits).
        lambda_gan: λ of ``gan_reconstruction``, in L_GAN for each unit of squared error; the
            error is in units of the spread of Δobs.
        members: Number E of generators, each with its discriminator and heads.
        noise_dim: Length of the generators' noise z; a likelihood has one number for each
            dimension of the observation.
        hidden: Width of each hidden layer of generators and discriminators. Those of maps of bits
            have convolutions instead, and another width is refused.
        head_hidden: Width of each hidden layer of the heads for reward and end; for maps of bits,
            of those behind their convolutions.
        r1: Weight of the gradient penalty on real transitions.
        r2: Weight of the gradient penalty on imagined transitions.
        generator_optimizer: Optimizer of the generators.
        discriminator_optimizer: Optimizer of the discriminators and of the heads.
    """

    loss: WorldLoss = "none"
    lambda_gan: float = 4.0
    members: int = 5
    noise_dim: int = 4
    hidden: Sequence[int] = (128, 128)
    head_hidden: Sequence[int] = (128, 128)
    r1: float = 0.1
    r2: float = 0.1
    generator_optimizer: Callable[[Iterable[Any]], Optimizer] = world_adam
    discriminator_optimizer: Callable[[Iterable[Any]], Optimizer] = world_adam

    def __post_init__(self) -> None:
        """Check the numbers, and that the loss uses what was set."""
        checks = Fields("model.world", self)
        checks.one_of("loss", WorldLoss)
        checks.positive("lambda_gan", "members", "noise_dim")
        checks.non_negative("r1", "r2")
        checks.widths("hidden", "head_hidden")
        checks.optimizers("generator_optimizer", "discriminator_optimizer")
        defaults = {field.name: field.default for field in fields(self)}
        for name in UNUSED[self.loss]:
            if (given := getattr(self, name)) != defaults[name]:
                raise ConfigError(
                    f"model.world.{name} is {given}, but the loss {self.loss} does not use it: "
                    "leave it out, or choose another model.world.loss"
                )
