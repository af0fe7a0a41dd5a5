"""How the axes of image observations lie: the environment says it, nobody guesses it from sizes.

A layout names the axes of one frame: H for rows, W for columns, C for channels, which are colours
or kinds of maps. An observation with one axis more is a stack of frames, along its first axis.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import FrameStackObservation
from torch import Tensor

from lit_crl.core.checks import ConfigError

ImageLayout = Literal["HW", "HWC", "CHW"]
#: What a user can say of a Gymnasium id: how its images lie, or that it has none.
SaidLayout = Literal["HW", "HWC", "CHW", "vector"]

#: From so many rows and columns on, two axes of bytes are a grey image.
LEAST_GREY_SIDE = 8
#: What a user can do about an image whose layout is unknown.
_REMEDY = (
    "set image_layout (data.env.image_layout in YAML) to HWC for channels last, CHW for channels "
    "first, HW for grey, each of these also for a stack of such frames along the first axis"
)


class ImageSpace(Box):
    """A space of images that says how their axes lie.

    Attributes:
        layout: The axes of one frame.
    """

    def __init__(self, space: Box, layout: ImageLayout) -> None:
        """The images of ``space``, whose axes ``layout`` names.

        Raises:
            ConfigError: If there is no such layout, or it does not fit the shape.
        """
        if layout not in get_args(ImageLayout):
            raise ConfigError(f"image_layout is {layout!r}: {_REMEDY}")
        if len(space.shape) - len(layout) not in (0, 1):
            axes = len(layout)
            raise ConfigError(
                f"image_layout is {layout}, which takes {axes} axes, or {axes + 1} for a stack of "
                f"frames, but observations have shape {space.shape}: {_REMEDY}"
            )
        super().__init__(space.low, space.high, dtype=space.low.dtype.type)
        self.layout: ImageLayout = layout

    @property
    def frames(self) -> int | None:
        """How many frames an observation stacks; None: it is no stack."""
        return self.shape[0] if len(self.shape) > len(self.layout) else None

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        return self.shape[-len(self.layout) :]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels (of all frames), rows and columns of an observation."""
        sides = dict(zip(self.layout, self.frame_shape, strict=True))
        return sides.get("C", 1) * (self.frames or 1), sides["H"], sides["W"]


def channels_first(images: Tensor, layout: ImageLayout) -> Tensor:
    """Observations ``[B, *shape]`` as ``[B, C, H, W]``; a stack has the channels of all frames."""
    if layout == "HWC":
        images = images.movedim(-1, -3)
    elif layout == "HW":
        images = images.unsqueeze(-3)
    return images.flatten(1, -3)


def with_layout(space: Box, layout: ImageLayout | None) -> Box:
    """``space``, which is one of images unless ``layout`` is None."""
    return space if layout is None else ImageSpace(space, layout)


def layout_in(space: Box) -> ImageLayout | None:
    """What ``with_layout`` was told."""
    return space.layout if isinstance(space, ImageSpace) else None


def looks_like_image(space: Box) -> bool:
    """Whether a space is of bytes or truth values, and has more than two axes or two long ones.

    Two axes are an image from 8 rows and 8 columns on.
    """
    shape = space.shape
    is_grey = len(shape) == 2 and min(shape) >= LEAST_GREY_SIDE
    return space.dtype in (np.uint8, np.bool_) and (is_grey or len(shape) > 2)


def space_of(env: Any) -> Box:
    """The space of an environment's observations, an ``ImageSpace`` if it has an ``image_layout``.

    Raises:
        ConfigError: If it has no such attribute, but its observations look like images; or if its
            layout does not fit its observations.
    """
    space: Box = env.single_observation_space
    if not hasattr(env, "image_layout") and looks_like_image(space):
        raise ConfigError(
            f"{type(env).__name__} does not say how the axes of its images {space.shape} lie: give "
            "it an attribute image_layout, which is 'HWC', 'CHW', 'HW', or None for vectors"
        )
    return with_layout(space, getattr(env, "image_layout", None))


def gymnasium_space(env: gymnasium.Env[Any, Any], said: SaidLayout | None) -> Box:
    """The space of a Gymnasium environment's observations as tensors, which says how images lie.

    What the user ``said`` holds. Where nothing was said, these are conventions of Gymnasium: bytes
    and truth values of three axes have their channels last; those of two axes are grey images if
    they have at least 8 rows and columns; what ``FrameStackObservation`` stacks are frames; all
    else is a vector.

    Bytes stay bytes, images of other numbers that fit bytes become so, all else becomes float32.

    Raises:
        ConfigError: If the layout does not fit the observations, or nothing was said and the
            conventions leave it open: the first of three axes is the shortest, or there are more
            than three, and no ``FrameStackObservation`` is in sight.
    """
    layout = _conventional_layout(env) if said is None else None if said == "vector" else said
    space = env.observation_space
    assert isinstance(space, Box)
    if space.dtype != np.uint8:
        is_whole = space.dtype is not None and space.dtype.kind in "biu"
        fits = is_whole and int(space.low.min()) >= 0 and int(space.high.max()) <= 255
        dtype = np.uint8 if fits and layout is not None else np.float32
        space = Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype)
    return with_layout(space, layout)


def _conventional_layout(env: gymnasium.Env[Any, Any]) -> ImageLayout | None:
    """What Gymnasium's conventions say; see ``gymnasium_space``."""
    space = env.observation_space
    if not isinstance(space, Box) or not looks_like_image(space):
        return None
    layer = env
    while isinstance(layer, gymnasium.Wrapper) and layer.observation_space.shape == space.shape:
        if isinstance(layer, FrameStackObservation):
            return _conventional_layout(layer.env)
        layer = layer.env
    if len(space.shape) == 2:
        return "HW"
    if len(space.shape) == 3 and space.shape[0] >= min(space.shape[1:]):
        return "HWC"
    raise ConfigError(
        f"nothing says how the axes of observations {space.shape} lie: {_REMEDY}, or to vector if "
        "they are no images"
    )


def in_words(space: Box) -> str:
    """What observations of several axes are taken for; nothing of others."""
    if isinstance(space, ImageSpace):
        lie = {"HW": "grey", "HWC": "channels last", "CHW": "channels first"}[space.layout]
        kind = f"stacks of {space.frames} images" if space.frames else "images"
        return f"Observations are {kind} {_times(space.frame_shape)}, {lie}."
    if len(space.shape) < 2:
        return ""
    return f"Observations {_times(space.shape)} are taken as {np.prod(space.shape):,} numbers."


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
