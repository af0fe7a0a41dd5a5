"""Training of small worlds, which the tests of the room share."""

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from lit_crl.envs import MountainCar
from lit_crl.training.batches import WorldMinibatch, like, tensors_of
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.flat.tracing import traced
from lit_crl.training.updates import Engine, Report, world_update
from lit_crl.world.batch import RealSteps
from lit_crl.world.equations import end_log_odds
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


class Adams:
    """An engine in plain torch: each network with an optimizer of its own."""

    def __init__(self, networks: Mapping[nn.Module, Any]) -> None:
        self.optimizers = {n: make(n.parameters()) for n, make in networks.items()}

    @classmethod
    def of(cls, world: TransitionGan, settings: WorldSettings) -> "Adams":
        networks = {
            world.generators: settings.generator_optimizer,
            world.heads: settings.discriminator_optimizer,
        }
        if world.discriminators is not None:
            networks[world.discriminators] = settings.discriminator_optimizer
        return cls(networks)

    def descend(
        self, network: nn.Module, loss: Callable[[], Any], norm: str, max_norm: float = math.inf
    ) -> dict[str, Tensor]:
        minimised, report = loss()
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(minimised, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.contiguous()  # a fused step takes it as it lies in memory
        self.optimizers[network].step()
        return {name: number.detach() for name, number in report.items()}

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        raise AssertionError("no network of the world follows another")


def steps(n: int, rng: torch.Generator) -> RealSteps:
    """``n`` steps of mountain cars from random places; one in a hundred reaches the flag."""
    env = MountainCar(1)
    # Right of the wall: a car that hits it stops at once.
    low, high = torch.tensor([-1.1, -0.07]), torch.tensor([0.5, 0.07])
    obs = low + (high - low) * torch.rand(n, 2, generator=rng)
    action = torch.randint(3, (n,), generator=rng)
    next_obs, reward, terminated = env.dynamics(obs, obs, action)
    return RealSteps(obs, action, reward, terminated, next_obs, torch.ones(n, dtype=torch.bool))


def minibatch(
    world: TransitionGan, rows: RealSteps, rng: torch.Generator, size: int = 128, extra: int = 32
) -> WorldMinibatch:
    """Rows as they come and rare ones, drawn for each member from all."""
    members, n = world.heads.end.members, len(rows.obs)
    index = torch.randint(n, (members, size), generator=rng)
    rare = rows.terminated.nonzero().squeeze(1)
    if len(rare) == 0:
        extra = 0
        rare = torch.arange(n)
    often = rare[torch.randint(len(rare), (members, extra), generator=rng)]
    share = rows.terminated.float().mean().expand(members)
    log_odds = end_log_odds(size, extra, share, torch.ones(members))
    drawn, extras = (RealSteps(*(field[i] for field in rows)) for i in (index, often))
    return WorldMinibatch(drawn, extras, log_odds, world.draw_noise(members, size, 2, rng=rng))


def train(
    world: TransitionGan,
    settings: WorldSettings,
    rows: RealSteps,
    updates: int,
    rng: torch.Generator,
    **sizes: int,
) -> dict[str, Tensor]:
    engine = Adams.of(world, settings)
    report: dict[str, Tensor] = {}
    for _ in range(updates):
        report = world_update(world, settings, engine, minibatch(world, rows, rng, **sizes))
    return report


def train_recorded(
    world: TransitionGan,
    settings: WorldSettings,
    rows: RealSteps,
    updates: int,
    rng: torch.Generator,
    **sizes: int,
) -> None:
    """As ``train``, for hundreds of updates: a recorded one takes less than half the time."""

    def update(engine: Engine, batch: WorldMinibatch, rate: float | Tensor) -> Report:
        return world_update(world, settings, engine, batch)

    optimizers = Adams.of(world, settings).optimizers.items()
    networks: Any = {network: SimpleNamespace(optimizer=adam) for network, adam in optimizers}
    engine = FlatEngine(update, networks)
    engine.rejoin()
    engine.take_rates()
    first = minibatch(world, rows, rng, **sizes)
    with engine.undone():
        recorded = traced(lambda *given: engine.update(None, like(first, given)), tensors_of(first))
    with torch.inference_mode():
        for _ in range(updates):
            recorded(*tensors_of(minibatch(world, rows, rng, **sizes)))
