"""Conversion of rendered images (gray, with alpha, floats, lists) to bytes [H, W, 3]."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lit_crl.core.checks import ConfigError
from lit_crl.runs.pictures.canvas import Array, Picture

#: Brightness of transparent pixels and of the rims of smaller pictures.
BACKGROUND = 255


def as_picture(rendered: Any) -> Picture:
    """Convert the result of ``render()`` to a picture.

    Args:
        rendered: An image [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], the last with alpha; bytes or
            other integers from 0 to 255, floats from 0 to 1 or from 0 to 255, or bools; or a list
            of images, whose last one is used.

    Raises:
        ConfigError: If it is something else.
    """
    if isinstance(rendered, list | tuple) and rendered and getattr(rendered[-1], "ndim", 0) >= 2:
        return as_picture(rendered[-1])
    try:
        image = np.asarray(rendered)
        image = image[..., None] if image.ndim == 2 else image
        is_image = image.ndim == 3 and image.size > 0 and image.shape[-1] in (1, 3, 4)
        pixels = _bytes(image) if is_image and image.dtype.kind in "buif" else None
    except ValueError:  # a list of rows of unequal length
        pixels = None
    if pixels is None:
        raise ConfigError(
            f"render() gave {_described(rendered)}, but a picture has the shape [H, W, 3]"
        )
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:] / 255
        return (pixels[..., :3] * alpha + BACKGROUND * (1 - alpha)).round().astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def of_one_size(pictures: Sequence[Array]) -> Array:
    """Pictures [H, W, 3] of several sizes as [n, H, W, 3]: smaller ones get a rim below, right."""
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    framed = np.full((len(pictures), height, width, 3), BACKGROUND, np.uint8)
    for frame, picture in zip(framed, pictures, strict=True):
        frame[: picture.shape[0], : picture.shape[1]] = picture
    return framed


def _bytes(image: Array) -> Array:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "b" or (image.dtype.kind == "f" and np.nanmax(image) <= 1):
        image = image * 255.0
    return np.nan_to_num(image).clip(0, 255).round().astype(np.uint8)


def _described(rendered: Any) -> str:
    if rendered is None:
        return "nothing"
    shape = getattr(rendered, "shape", None)
    kind = type(rendered).__name__
    return kind if shape is None else f"{kind} of the shape {list(shape)}"
