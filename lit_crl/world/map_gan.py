"""The GAN of transitions between maps of bits: what it makes is which bits flip."""

import torch
from torch import Tensor

from lit_crl.core import categorical
from lit_crl.envs.images import ImageSpace, channels_first
from lit_crl.world.batch import RealSteps
from lit_crl.world.equations import flipped
from lit_crl.world.map_networks import map_networks
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


class MapGan(TransitionGan):
    """A ``TransitionGan`` of maps of bits, such as those of MinAtar and MiniGrid.

    Its convolutional networks see maps as rows of d = C · H · W bits, channel by channel, as they
    are. The target says which bits flip, 1 where one does: most of a map stays as it is, and what
    flips in one place flips alike in others.
    """

    order: Tensor
    place: Tensor

    def __init__(self, space: ImageSpace, num_actions: int, settings: WorldSettings) -> None:
        """Make the networks that fit maps.

        Args:
            space: Space of one observation, bytes that are 0 or 1.
            num_actions: How many actions there are.
            settings: Loss, number of members, and sizes.
        """
        networks = map_networks(space.image_shape, num_actions, settings)
        cells = torch.arange(torch.Size(space.shape).numel())
        super().__init__(len(cells), num_actions, settings, binary=True, networks=networks)
        self.obs_shape = space.shape
        order = channels_first(cells.view(1, *space.shape), space.layout).flatten()
        #: Where in an observation each bit of a row is, and where in a row each of an observation.
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("place", order.argsort(), persistent=False)

    def rows(self, obs: Tensor) -> Tensor:
        """Observations ``[..., *shape]`` as rows of bits ``[..., d]``, floats."""
        flat = obs.flatten(obs.ndim - len(self.obs_shape))
        return flat.index_select(-1, self.order).float()

    def maps(self, rows: Tensor) -> Tensor:
        """Rows of bits ``[..., d]`` as observations ``[..., *shape]``."""
        found = rows.index_select(-1, self.place)
        return found.view(*rows.shape[:-1], *self.obs_shape)

    def _fit_observations(self, obs: Tensor, next_obs: Tensor) -> None:
        """Bits have no units and no bounds."""

    def condition(self, obs: Tensor, action: Tensor) -> Tensor:
        """Bits and one-hot actions, ``[..., d + A]``."""
        return torch.cat([self.rows(obs), categorical.one_hot(action, self.num_actions)], -1)

    def target(self, obs: Tensor, next_obs: Tensor) -> Tensor:
        """Which bits flip, ``[..., d]``."""
        return (self.rows(obs) != self.rows(next_obs)).float()

    def learns(self, rows: RealSteps) -> Tensor:
        """All of them: that a ball lies on the ground is what tells the heads of an end.

        A generator that had never seen one would draw another map there, and half of the ends of
        MinAtar's Breakout would be missing in dreams.
        """
        return torch.ones_like(rows.learns_next)

    def next_obs(self, obs: Tensor, target: Tensor) -> Tensor:
        """The observation ``[..., *shape]`` after those bits flipped."""
        return self.maps(flipped(self.rows(obs), (target > 0.5).float()))

    def bounded(self, obs: Tensor) -> Tensor:
        """Bits stay bits: the same observations."""
        return obs
