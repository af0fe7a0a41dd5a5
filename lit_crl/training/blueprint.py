"""The architecture of a learner's networks in plain values, so that a checkpoint can hold it.

Networks can be rebuilt from a checkpoint alone: no configuration is read, no environment is made,
and nothing that a stranger wrote is imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from gymnasium.spaces import Box

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.networks import ActionValues, make_q_network
from lit_crl.dqn.settings import NetworkSettings, Torso
from lit_crl.envs import LevelEnv
from lit_crl.envs.bits import BitSpace, is_bits
from lit_crl.envs.images import layout_in, space_of, with_layout
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.settings import GanSettings
from lit_crl.world.making import world_of
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


class Sizes(NamedTuple):
    """The settings of ``CreativeLearner`` that say how its networks look, and levels are drawn."""

    hidden: tuple[int, ...]
    dueling: bool
    layer_norm: bool
    scale_obs: bool
    planning_steps: int
    gan_hidden: tuple[int, ...]
    noise_dim: int
    level_noise: float
    torso: Torso = "plain"
    atoms: int = 0
    noise: float = 0.0
    memory: int = 0

    @classmethod
    def of(cls, network: NetworkSettings, gan: GanSettings) -> Self:
        """What the settings of the learner say."""
        return cls(
            tuple(network.hidden),
            network.dueling,
            network.layer_norm,
            network.scale_obs,
            network.planning_steps,
            tuple(gan.hidden),
            gan.noise_dim,
            gan.level_noise,
            network.torso,
            network.atoms,
            network.noise,
            network.memory,
        )

    @property
    def network(self) -> NetworkSettings:
        """The settings of the Q-network.

        Raises:
            ConfigError: If they make no sense.
        """
        return NetworkSettings(**{f.name: getattr(self, f.name) for f in fields(NetworkSettings)})


@dataclass(frozen=True)
class Blueprint:
    """Sizes and spaces: all that is needed to make the networks.

    Attributes:
        sizes: The learner's settings.
        obs_space: Space of one observation, ``uint8`` or float32; an ``ImageSpace`` for images, a
            ``BitSpace`` for bits.
        num_actions: How many actions there are.
        first_action: The task's own number of the first one.
        level_space: Bounds of levels; None where the task has none.
        level_shape: (maps, rows, columns) of levels that are maps; None for vectors.
    """

    sizes: Sizes
    obs_space: Box
    num_actions: int
    first_action: int
    level_space: Box | None
    level_shape: tuple[int, int, int] | None

    @classmethod
    def of(cls, env: LevelEnv, sizes: Sizes) -> Self:
        """The networks that fit an environment.

        Raises:
            ConfigError: If it does not say how the axes of its images lie.
        """
        return cls(
            sizes,
            space_of(env),
            int(env.single_action_space.n),
            getattr(env, "first_action", 0),
            env.level_space,
            getattr(env, "level_shape", None),
        )

    def q_network(self) -> ActionValues:
        """A new Q-network."""
        return make_q_network(self.obs_space, self.num_actions, self.sizes.network)

    def level_gan(self) -> LevelGan | None:
        """A new GAN; None where there are no levels."""
        if self.level_space is None:
            return None
        sizes = self.sizes
        return LevelGan(self.level_space, self.level_shape, sizes.noise_dim, sizes.gan_hidden)

    def world_gan(self, settings: WorldSettings) -> TransitionGan | None:
        """A new world that fits the observations; None where the settings want none.

        Raises:
            ConfigError: If they want one, but observations are images that are no maps of bits.
        """
        if settings.loss == "none":
            return None
        return world_of(self.obs_space, self.num_actions, settings)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        return {
            "sizes": self.sizes._asdict(),
            "obs_bounds": _bounds(self.obs_space),
            "image_layout": layout_in(self.obs_space),
            "is_bits": is_bits(self.obs_space),
            "num_actions": self.num_actions,
            "first_action": self.first_action,
            "level_bounds": None if self.level_space is None else _bounds(self.level_space),
            "level_shape": self.level_shape,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """What ``state_dict`` gave.

        Raises:
            ConfigError: If ``state`` is anything else.
        """
        try:
            levels = state["level_bounds"]
            blueprint = cls(
                Sizes(**state["sizes"]),
                _obs_space(state),
                int(state["num_actions"]),
                int(state["first_action"]),
                None if levels is None else _space(levels),
                state["level_shape"] and tuple(map(int, state["level_shape"])),
            )
            sizes = blueprint.sizes
            checks.widths(hidden=sizes.hidden, gan_hidden=sizes.gan_hidden)
            checks.non_negative(**{name: getattr(sizes, name) for name in _NUMBERS})
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise ConfigError(f"it does not say what its networks look like ({error})") from error
        return blueprint

    def check_layout(self, saved: Mapping[str, Any]) -> None:
        """See that images have the layout of a checkpoint: its weights may fit several layouts.

        Raises:
            ConfigError: If not.
        """
        there = layout_in(Blueprint.from_state_dict(saved).obs_space)
        here = layout_in(self.obs_space)
        if there != here:
            raise ConfigError(
                f"image_layout is {here or 'vector'}, but the checkpoint was saved with "
                f"{there or 'vector'}: use that"
            )


_NUMBERS = ("planning_steps", "noise_dim", "level_noise")


def _obs_space(state: Mapping[str, Any]) -> Box:
    """The saved space; files that are too old to say how images lie are of use for vectors."""
    space = _space(state["obs_bounds"])
    if state.get("is_bits") and space.dtype != np.uint8:
        return BitSpace(space.shape[0])
    if "image_layout" not in state and len(space.shape) == 3 and space.dtype == np.uint8:
        raise ConfigError(
            "an older version wrote it, without how the axes of its images lie: train it anew"
        )
    return with_layout(space, state.get("image_layout"))


def _bounds(space: Box) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(space.low), torch.tensor(space.high)


def _space(bounds: tuple[torch.Tensor, torch.Tensor]) -> Box:
    low, high = (bound.numpy() for bound in bounds)
    return Box(low, high, dtype=low.dtype.type)
