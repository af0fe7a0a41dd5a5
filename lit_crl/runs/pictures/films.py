"""Frames to files: GIF by Pillow, MP4 by the ffmpeg that imageio-ffmpeg brings along."""

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageColor import getrgb

from lit_crl.core.checks import ConfigError
from lit_crl.runs.pictures.canvas import Picture
from lit_crl.runs.pictures.recording import Recording
from lit_crl.runs.pictures.style import COLOURS

Writer = Callable[[Iterable[Picture], Path, int], Path]

#: GIF counts in hundredths of a second, and viewers slow down what is shorter than two.
FASTEST = 50
#: Colours of a GIF beside the style's own, and how many frames they are chosen from.
SHADES, LOOKED_AT = 100, 32
#: Shades closer than this to one of the style's, in each part of 0 to 255, are not needed.
NEAR = 8
#: Seconds for which an episode's last frame stays.
PAUSE = 1.2


def film(recordings: Iterable[Recording], fps: int) -> Iterator[Picture]:
    """The frames of episodes one after the other, each with a pause at its end."""
    for recording in recordings:
        picture = None
        for picture in recording.frames():
            yield picture
        assert picture is not None
        yield from repeat(picture, round(PAUSE * fps))


def write_gif(frames: Iterable[Picture], path: Path, fps: int = 20) -> Path:
    """Write frames [H, W, 3] as a GIF that repeats; equal ones in a row become a longer one.

    Args:
        frames: At least one, all of the same size.
        path: Where to; written as a whole.
        fps: Frames a second; GIF rounds a frame's time to hundredths of a second.

    Raises:
        ConfigError: If ``fps`` is not from 1 to 50.
    """
    check_films("gif", fps)
    images = [Image.fromarray(frame) for frame in frames]
    palette = common_palette(images)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    first.save(
        partial, "GIF", save_all=True, append_images=rest, duration=10 * round(100 / fps), loop=0,
        optimize=True,
    )  # fmt: skip
    os.replace(partial, path)
    return path


def common_palette(images: list[Image.Image]) -> Image.Image:
    """The style's colours, as they are, and others that are frequent in the images."""
    chosen = np.unique(np.linspace(0, len(images) - 1, LOOKED_AT).round().astype(int))
    looked_at = Image.fromarray(np.concatenate([np.asarray(images[i]) for i in chosen]))
    frequent = looked_at.quantize(SHADES, method=Image.Quantize.MEDIANCUT).getpalette() or []
    own, shades = np.array([getrgb(colour) for colour in COLOURS]), np.reshape(frequent, (-1, 3))
    # One that is all but the same as white, say, would be taken for white here and there.
    apart = np.abs(shades[:, None] - own).max(axis=2).min(axis=1) > NEAR
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate((own, shades[apart])).ravel().tolist())
    return palette


def write_mp4(frames: Iterable[Picture], path: Path, fps: int = 20) -> Path:
    """Write frames [H, W, 3] as H.264, which every browser plays.

    Args:
        frames: At least one, all of the same size; an odd one is extended by a pixel.
        path: Where to; written as a whole.
        fps: Frames a second.

    Raises:
        ConfigError: If ``fps`` is not from 1 to 50, or a package is missing.
    """
    check_films("mp4", fps)
    from imageio_ffmpeg import write_frames

    first, frames = peek(frames)
    height, width, _ = first.shape
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_stem(path.stem + ".partial")  # ffmpeg goes by the ending
    size = (width + width % 2, height + height % 2)
    writer = write_frames(str(partial), size, fps=fps, codec="libx264", macro_block_size=2)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(np.pad(frame, odd, mode="edge")))
    writer.close()
    os.replace(partial, path)
    return path


def peek(frames: Iterable[Picture]) -> tuple[Picture, Iterator[Picture]]:
    """The first of some frames, and all of them."""
    iterator = iter(frames)
    first = next(iterator)
    return first, chain([first], iterator)


def writers(format: str) -> dict[str, Writer]:
    """What writes films of a format, or of ``both``, by the ending of their files."""
    found: dict[str, Writer] = {"gif": write_gif, "mp4": write_mp4}
    return found if format == "both" else {format: found[format]}


def check_films(format: str, fps: int) -> None:
    """See that such films can be written: before, not after, an episode is played.

    Raises:
        ConfigError: If not.
    """
    if not 1 <= fps <= FASTEST:
        raise ConfigError(f"fps is {fps}: give a number of frames a second from 1 to {FASTEST}")
    if "mp4" in writers(format) and find_spec("imageio_ffmpeg") is None:
        raise ConfigError(
            "format mp4 needs a package that is missing: pip install 'lit_crl[video]', or use gif"
        )
