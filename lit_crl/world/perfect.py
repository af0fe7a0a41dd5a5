"""A world that makes no errors: a built-in task's own dynamics. It is the ceiling of all worlds."""

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import (
    Acrobot,
    BatchedEnv,
    CartPole,
    LevelEnv,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)
from lit_crl.envs.batched import has_pure_step
from lit_crl.world.interface import Imagined
from lit_crl.world.transition_gan import TransitionGan

#: Target levels that are drawn to see whether observations hide something of them.
COMPARED = 64


def a_target_level(env: BatchedEnv) -> Tensor:
    """One of the task's own levels [1, d], always the same one."""
    return env.target_levels(1, torch.Generator(env.device))


def states_of(env: BatchedEnv, obs: Tensor, level: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """States [n, s] and levels [n, d] that look like ``obs`` [n, ...] in a built-in task.

    Of a level, only what the dynamics depend on counts; physics are those of target levels.
    Acrobot's angles are recovered up to float rounding, all else exactly.

    Args:
        env: The task.
        obs: What is seen.
        level: ``a_target_level``, for who asks again and again: to draw it takes time.

    Raises:
        ConfigError: If the task's observations do not determine the state.
    """
    if isinstance(env, PointMass | Spiral):
        state, levels = obs.chunk(2, dim=1)
        return state, levels
    # One level stands for all: of the task's own levels, the dynamics see the physics alone.
    levels = (a_target_level(env) if level is None else level).expand(len(obs), -1)
    if isinstance(env, MountainCar | CartPole | ThinManifold):
        return obs, levels
    if isinstance(env, Acrobot):
        angles = torch.atan2(obs[:, 1:4:2], obs[:, 0:4:2])
        return torch.cat((angles, obs[:, 4:]), dim=1), levels
    raise ConfigError(
        f"the world of {type(env).__name__} cannot be perfect, because its observations do not "
        "determine the state here: use MountainCar, CartPole, Acrobot, PointMass, Spiral or "
        "ThinManifold, or a world that is learnt"
    )


class PerfectWorld:
    """Imagines what a built-in task would really do; its members never disagree.

    Time limits are no part of it: a dream has a horizon of its own.
    """

    def __init__(self, env: LevelEnv) -> None:
        """Imagine the task of ``env``, whose own episodes are left alone.

        Args:
            env: A built-in environment whose observations determine the state. Physics that
                observations do not show (CartPole, Acrobot) are those of its target levels.

        Raises:
            ConfigError: If the observations do not determine the state.
        """
        if not has_pure_step(env):
            raise ConfigError(
                f"the world of {type(env).__name__} cannot be perfect, because its step() is not "
                "that of lit_crl.envs.BatchedEnv: use a world that is learnt"
            )
        levels = env.target_levels(COMPARED, torch.Generator(env.device))
        state = env.initial_state(levels)
        if not torch.allclose(states_of(env, env.observe(state, levels))[0], state, atol=1e-5):
            raise ConfigError(
                f"the world of {type(env).__name__} cannot be perfect, because its observations "
                "are not those of the built-in task: use a world that is learnt"
            )
        if isinstance(env, CartPole | Acrobot) and (levels[:, 4:] != levels[:1, 4:]).any():
            raise ConfigError(
                f"the world of {type(env).__name__} cannot be perfect, because its target levels "
                "have physics that observations do not show: use a world that is learnt"
            )
        self.env, self._level = env, a_target_level(env)

    @torch.no_grad()
    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        """One true step from ``obs [N, ...]`` with ``action [N]``; nothing is drawn."""
        state, levels = states_of(self.env, obs, self._level)
        elapsed = torch.zeros(len(obs), dtype=torch.int64, device=obs.device)
        _, _, after, reward, terminated, _, _ = self.env.advanced(state, levels, elapsed, action)
        return Imagined(after, reward, terminated, torch.zeros_like(reward))


class TrueDynamics:
    """True steps with the doubts of a learnt world: what its dreams would be without errors."""

    def __init__(self, perfect: PerfectWorld, learnt: TransitionGan) -> None:
        """Let ``perfect`` imagine, and ``learnt`` say how far its members are apart."""
        self.perfect, self.learnt = perfect, learnt

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        """See ``World``."""
        step = self.perfect.imagine(obs, action, rng)
        return step._replace(disagreement=self.learnt.disagreement(obs, action))
