"""Pictures of maps of bits, such as MinAtar's: each map has a colour."""

import matplotlib
import numpy as np
import torch
from matplotlib.colors import to_rgb

from lit_crl.envs.images import ImageSpace, channels_first
from lit_crl.runs.pictures.canvas import Array, Picture
from lit_crl.runs.pictures.style import DARK, P_HAT


def colours_of(channels: int) -> Array:
    """Bytes ``[1 + C, 3]``: the ground's colour, and that of each map."""
    ground = np.array(to_rgb(DARK))
    things = matplotlib.colormaps[P_HAT](np.linspace(0.3, 1.0, channels))[:, :3]
    found: Array = np.rint(255 * np.vstack((ground, things))).astype(np.uint8)
    return found


def picture_of(obs: Array, space: ImageSpace, side: int) -> Picture:
    """A picture ``[H, W, 3]`` of one observation, whose longer side is at most ``side`` pixels.

    Where several things are in one cell, the one of the last map is seen.

    Args:
        obs: Bits ``[*shape]``, 0 or 1.
        space: Which says how the axes lie; the frames of a stack are maps one after the other.
        side: At least the number of rows and of columns.
    """
    bits = channels_first(torch.as_tensor(obs)[None], space.layout)[0].numpy() > 0.5
    number = np.arange(1, 1 + len(bits)).reshape(-1, 1, 1)
    cells = colours_of(len(bits))[(bits * number).max(axis=0)]
    # Even, because H.264 needs even sides.
    pixels = max(side // max(cells.shape[:2]) // 2 * 2, 2)
    picture: Picture = cells.repeat(pixels, axis=0).repeat(pixels, axis=1)
    return picture
