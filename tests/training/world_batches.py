"""Prepared batches for a learner with a world."""

import functools
from typing import Any

import torch
from conftest import learner_settings
from torch import Tensor

from lit_crl import CreativeLearner
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import MountainCar
from lit_crl.training.batches import Batch, DqnMinibatch, WorldMinibatch
from lit_crl.world.batch import RealSteps

ENV = MountainCar(2)
WORLD = {"loss": "gan_reconstruction", "members": 3, "hidden": (16, 12), "head_hidden": (8,)}
#: With its usual tiny ε, Adam turns the rounding of a gradient that is 0 into whole steps.
SMOOTH = functools.partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.99), eps=1e-3, fused=True)


def make(compile: bool = False, **world: Any) -> CreativeLearner:
    """A small learner with a world."""
    optimizers = dict.fromkeys(("generator_optimizer", "discriminator_optimizer"), SMOOTH)
    short = {"hidden": (16, 16), "gan_hidden": (16, 16), "q_optimizer": SMOOTH, **optimizers}
    return CreativeLearner(
        **learner_settings(**short), world={**WORLD, **optimizers, **world}, compile=compile
    ).build(ENV)


def real_steps(*shape: int, rng: torch.Generator) -> RealSteps:
    obs = torch.rand(*shape, 2, generator=rng) * 0.1
    terminated = torch.rand(shape, generator=rng) < 0.1
    action, reward = torch.randint(3, shape, generator=rng), torch.randn(shape, generator=rng)
    next_obs = obs + 0.01 * torch.randn(*shape, 2, generator=rng)
    return RealSteps(obs, action, reward, terminated, next_obs, ~terminated)


def world_stack(updates: int, noise_dim: int = 4, size: int = 32, seed: int = 0) -> WorldMinibatch:
    rng = torch.Generator().manual_seed(seed)
    members: int = WORLD["members"]  # type: ignore[assignment]
    rows, rare = (real_steps(updates, members, n, rng=rng) for n in (size, 4))
    z = torch.randn(updates, members, size, 2, noise_dim, generator=rng)
    return WorldMinibatch(rows, rare, torch.rand(updates, members, generator=rng), z)


def transitions(updates: int, size: int = 8, seed: int = 0) -> Transitions:
    steps = real_steps(updates, size, rng=torch.Generator().manual_seed(seed))
    discount = 0.97 * (~steps.terminated)
    return Transitions(steps.obs, steps.action, steps.reward, discount, steps.next_obs)


def batch(seed: int, noise_dim: int = 4, updates: int = 2) -> Batch:
    """A batch for judge, explorer and world."""
    return Batch(
        transitions(updates, seed=seed),
        None,
        0.0,
        explorer=DqnMinibatch(transitions(updates, seed=seed + 100)),
        bonus=torch.full((updates,), 0.1),
        world=world_stack(2, noise_dim, seed=seed),
    )


def weights_and_state(learner: Any, trainer: Any) -> dict[str, Tensor]:
    """The learner's weights, and what its optimizers keep."""
    state = dict(learner.state_dict())
    for number, optimizer in enumerate(trainer.optimizers):
        for index, entry in optimizer.state_dict()["state"].items():
            state |= {f"optimizer {number}.{index}.{name}": t for name, t in entry.items()}
    return state
