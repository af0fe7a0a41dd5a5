"""Which world fits which observations."""

import numpy as np
from gymnasium.spaces import Box

from lit_crl.core.checks import ConfigError
from lit_crl.envs.bits import is_bits
from lit_crl.envs.images import ImageSpace, are_maps_of_bits
from lit_crl.world.map_gan import MapGan
from lit_crl.world.map_networks import FILTERS
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


def world_of(space: Box, num_actions: int, settings: WorldSettings) -> TransitionGan:
    """A new world of vectors, of vectors of bits, or of maps of bits, as observations are.

    Args:
        space: Space of one observation.
        num_actions: How many actions there are.
        settings: Loss, number of members, and sizes.

    Raises:
        ConfigError: If observations are anything else.
    """
    if isinstance(space, ImageSpace) and are_maps_of_bits(space):
        if tuple(settings.hidden) != WorldSettings.hidden:
            raise ConfigError(
                f"model.world.hidden is {list(settings.hidden)}, but what makes and judges maps of "
                f"bits has convolutions of {FILTERS} filters instead: leave it out"
            )
        return MapGan(space, num_actions, settings)
    binary = is_bits(space)
    if len(space.shape) != 1 or (space.dtype == np.uint8 and not binary):
        raise ConfigError(
            f"model.world.loss is {settings.loss!r}, but observations {space} are no vectors and "
            "no maps of bits, which a world needs: set it to none"
        )
    return TransitionGan(space.shape[0], num_actions, settings, binary)
