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
from lit_crl.runs.pictures.canvas import Picture, spread
from lit_crl.runs.pictures.recording import Recording
from lit_crl.runs.pictures.style import COLOURS

Writer = Callable[[Iterable[Picture], Path, int], Path]

#: GIF counts in hundredths of a second, and viewers slow down frames shorter than two.
FASTEST = 50
#: Colours of a GIF beside the style's own, the number of frames that they are chosen from, and
#: how far apart the pixels are, in each direction, that are looked at.
SHADES, SAMPLED_FRAMES, PIXEL_STRIDE = 100, 32, 3
#: Shades are dropped that are closer than this to one of the style's colours, in each part of
#: 0 to 255: pixels of the style's colour would be drawn in them here and there.
NEAR = 8
#: Seconds for which an episode's last frame stays.
PAUSE = 1.2


def film(recordings: Iterable[Recording], fps: int) -> Iterator[Picture]:
    """The frames of episodes one after the other, each with a pause at its end."""
    for recording in recordings:
        for picture in recording.frames():
            yield picture
        yield from repeat(picture, round(PAUSE * fps))


def write_gif(frames: Iterable[Picture], path: Path, fps: int = 20) -> Path:
    """Write frames [H, W, 3] as a GIF that repeats; equal frames in a row become one longer frame.

    Args:
        frames: At least one, all of the same size.
        path: The file, which is replaced as a whole.
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
    time = 10 * round(100 / fps)  # milliseconds
    first.save(
        partial, "GIF", save_all=True, append_images=rest, duration=time, loop=0, optimize=True
    )
    os.replace(partial, path)
    return path


def common_palette(images: list[Image.Image]) -> Image.Image:
    """The style's colours, unchanged, and other colours that are frequent in the images."""
    frames = [np.asarray(images[index]) for index in spread(len(images), SAMPLED_FRAMES)]
    sampled = np.concatenate([frame[::PIXEL_STRIDE, ::PIXEL_STRIDE] for frame in frames])
    reduced = Image.fromarray(sampled).quantize(SHADES, Image.Quantize.MEDIANCUT)
    ours = np.array([getrgb(colour) for colour in COLOURS])
    shades = np.reshape(reduced.getpalette() or [], (-1, 3))
    apart = np.abs(shades[:, None] - ours).max(axis=2).min(axis=1) > NEAR
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate((ours, shades[apart])).ravel().tolist())
    return palette


def write_mp4(frames: Iterable[Picture], path: Path, fps: int = 20) -> Path:
    """Write frames [H, W, 3] as H.264, which every browser plays.

    Args:
        frames: At least one, all of the same size; odd sides get a white pixel more.
        path: The file, which is replaced as a whole.
        fps: Frames a second.

    Raises:
        ConfigError: If ``fps`` is not from 1 to 50, or a package is missing.
    """
    check_films("mp4", fps)
    from imageio_ffmpeg import write_frames

    frames = iter(frames)
    first = next(frames)
    height, width, _ = first.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_stem(path.stem + ".partial")  # ffmpeg goes by the ending
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white"]
    writer = write_frames(
        str(partial), (width, height), fps=fps, macro_block_size=1, output_params=even
    )
    writer.send(None)
    for frame in chain([first], frames):
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    os.replace(partial, path)
    return path


def writers(format: str) -> dict[str, Writer]:
    """The functions that write films of a format, or of ``both``, by the ending of their files."""
    found: dict[str, Writer] = {"gif": write_gif, "mp4": write_mp4}
    return found if format == "both" else {format: found[format]}


def check_films(format: str, fps: int) -> None:
    """Check that films can be written before any episode is played.

    Raises:
        ConfigError: If not.
    """
    if not 1 <= fps <= FASTEST:
        raise ConfigError(f"fps is {fps}: give a number of frames a second from 1 to {FASTEST}")
    if "mp4" in writers(format) and find_spec("imageio_ffmpeg") is None:
        raise ConfigError(
            "format mp4 needs a package that is missing: pip install 'lit_crl[video]', or use gif"
        )
