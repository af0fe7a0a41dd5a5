"""The order of the axes of image observations. The environment declares it: sizes are no hint.

A layout names the axes of one frame: H for rows, W for columns, C for channels, which are colours
or kinds of maps. An observation with one more axis is a stack of frames along its first axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import FrameStackObservation

from lit_crl.core.checks import ConfigError
from lit_crl.envs.bits import with_bits
from lit_crl.envs.gym.minigrid_bounds import with_true_bounds

if TYPE_CHECKING:
    from torch import Tensor

    from lit_crl.envs.interface import LevelEnv

ImageLayout = Literal["HW", "HWC", "CHW"]
#: What a user can declare: the layout of images, or that observations are no images.
DeclaredLayout = Literal["HW", "HWC", "CHW", "vector"]

#: Bytes of two axes are a grey image if they have at least this many rows and columns.
LEAST_GREY_SIDE = 8
#: What a user can do about an image whose layout is unknown.
_REMEDY = (
    "set image_layout (data.env.image_layout in YAML) to HWC for channels last, CHW for channels "
    "first or HW for grey (with one more axis, stacks of frames along the first)"
)


class ImageSpace(Box):
    """A space of images that knows the order of their axes.

    Attributes:
        layout: The axes of one frame.
    """

    def __init__(self, space: Box, layout: ImageLayout) -> None:
        """Make ``space``, whose axes ``layout`` names, a space of images.

        Raises:
            ConfigError: If the layout is unknown or does not fit the shape.
        """
        if layout not in get_args(ImageLayout):
            raise ConfigError(f"image_layout is {layout!r}: {_REMEDY}")
        axes = len(layout)
        if len(space.shape) not in (axes, axes + 1):
            raise ConfigError(
                f"image_layout is {layout}, which takes {axes} axes, or {axes + 1} for a stack of "
                f"frames, but observations have shape {space.shape}: {_REMEDY}"
            )
        super().__init__(space.low, space.high, dtype=space.low.dtype.type)
        self.layout: ImageLayout = layout

    @property
    def frames(self) -> int | None:
        """Number of frames in an observation; None: it is no stack."""
        return self.shape[0] if len(self.shape) > len(self.layout) else None

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self.shape[-len(self.layout) :]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels of all frames together, rows and columns of an observation."""
        sides = dict(zip(self.layout, self.frame_shape, strict=True))
        return sides.get("C", 1) * (self.frames or 1), sides["H"], sides["W"]


def channels_first(images: Tensor, layout: ImageLayout) -> Tensor:
    """Observations ``[B, *shape]`` as ``[B, C, H, W]``; the frames of a stack become channels.

    >>> import torch
    >>> channels_first(torch.zeros(8, 4, 48, 60, 3), "HWC").shape
    torch.Size([8, 12, 48, 60])
    """
    if layout == "HWC":
        images = images.movedim(-1, -3)
    elif layout == "HW":
        images = images.unsqueeze(-3)
    return images.flatten(1, -3)


def with_layout(space: Box, layout: ImageLayout | None) -> Box:
    """Return ``space`` as a space of images; unchanged if ``layout`` is None."""
    return space if layout is None else ImageSpace(space, layout)


def layout_in(space: Box) -> ImageLayout | None:
    """Return the layout of a space of images; None for other spaces."""
    return space.layout if isinstance(space, ImageSpace) else None


def are_maps_of_bits(space: Box) -> bool:
    """Whether observations in a space are images whose pixels are 0 or 1: maps of things.

    >>> are_maps_of_bits(ImageSpace(Box(0, 1, (10, 10, 4), np.uint8), "HWC"))
    True
    """
    is_small = bool((space.low == 0).all() and (space.high == 1).all())
    return isinstance(space, ImageSpace) and space.dtype == np.uint8 and is_small


def looks_like_image(space: Box) -> bool:
    """Whether a space has bytes or truth values in three or more axes, or in two long ones.

    >>> looks_like_image(Box(0, 255, (8, 8), np.uint8)), looks_like_image(Box(0, 1, (8, 8)))
    (True, False)
    """
    shape = space.shape
    is_grey = len(shape) == 2 and min(shape) >= LEAST_GREY_SIDE
    return space.dtype in (np.uint8, np.bool_) and (is_grey or len(shape) > 2)


def space_of(env: LevelEnv) -> Box:
    """Return the space of one observation, an ``ImageSpace`` if the env has an ``image_layout``.

    Raises:
        ConfigError: If observations look like images but the env has no such attribute, or its
            layout does not fit them.
    """
    space = env.single_observation_space
    if not hasattr(env, "image_layout") and looks_like_image(space):
        raise ConfigError(
            f"{type(env).__name__} does not say how the axes of its images {space.shape} lie: give "
            "it an attribute image_layout, which is 'HWC', 'CHW', 'HW', or None for vectors"
        )
    return with_layout(space, getattr(env, "image_layout", None))


def gymnasium_space(env: gymnasium.Env[Any, Any], declared: DeclaredLayout | None) -> Box:
    """Return the space of a Gymnasium environment's observations as tensors.

    A layout that the user ``declared`` is taken. Without one, Gymnasium's conventions decide:
    bytes and truth values of three axes have their channels last; those of two axes are grey
    images if they have at least 8 rows and columns; ``FrameStackObservation`` stacks frames; all
    other observations are vectors.

    Bytes stay bytes, other numbers of images become bytes if they fit, and all others become
    float32; vectors of bits are then a ``BitSpace``.

    Raises:
        ConfigError: If the layout does not fit the observations, or if the conventions do not
            decide: there are more than three axes, or the first of three is the shortest, and no
            ``FrameStackObservation`` explains it.
    """
    space = env.observation_space
    assert isinstance(space, Box)
    layout = _conventional_layout(env) if declared is None else declared
    return kept_space(with_true_bounds(env, space), layout)


def vector_entry_space(space: Box, declared: DeclaredLayout | None) -> Box:
    """The same for the observations of one copy in an id's own vector environment.

    Raises:
        ConfigError: As ``gymnasium_space`` does.
    """
    return kept_space(space, _layout_of(space) if declared is None else declared)


def kept_space(space: Box, layout: DeclaredLayout | None) -> Box:
    """Return the space in which observations are kept, as bytes or float32.

    Raises:
        ConfigError: If the layout does not fit the observations.
    """
    if layout == "vector":
        layout = None
    if space.dtype != np.uint8:
        is_whole = space.dtype is not None and space.dtype.kind in "biu"
        fits = is_whole and int(space.low.min()) >= 0 and int(space.high.max()) <= 255
        dtype = np.uint8 if fits and layout is not None else np.float32
        kept: Box = Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype)
        space = with_bits(kept, space.dtype)
    return with_layout(space, layout)


def _conventional_layout(env: gymnasium.Env[Any, Any]) -> ImageLayout | None:
    """The layout by Gymnasium's conventions; see ``gymnasium_space``."""
    space = env.observation_space
    if not isinstance(space, Box) or not looks_like_image(space):
        return None
    layer = env
    # A wrapper that changes the shape may have moved the axes of the stack below it.
    while isinstance(layer, gymnasium.Wrapper) and layer.observation_space.shape == space.shape:
        if isinstance(layer, FrameStackObservation):
            return _conventional_layout(layer.env)
        layer = layer.env
    return _layout_of(space)


def _layout_of(space: Box) -> ImageLayout | None:
    """The layout of observations that nobody stacked, as far as anybody can know."""
    if not looks_like_image(space):
        return None
    if len(space.shape) == 2:
        return "HW"
    if len(space.shape) == 3 and space.shape[0] >= min(space.shape[1:]):
        return "HWC"
    raise ConfigError(
        f"nothing says how the axes of observations {space.shape} lie: {_REMEDY}, or to vector if "
        "they are no images"
    )


def in_words(space: Box) -> str:
    """A sentence on how observations of several axes are read; empty for vectors."""
    if isinstance(space, ImageSpace):
        lie = {"HW": "grey", "HWC": "channels last", "CHW": "channels first"}[space.layout]
        kind = f"stacks of {space.frames} images" if space.frames else "images"
        return f"Observations are {kind} {_times(space.frame_shape)}, {lie}."
    if len(space.shape) < 2:
        return ""
    return f"Observations {_times(space.shape)} are taken as {np.prod(space.shape):,} numbers."


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
