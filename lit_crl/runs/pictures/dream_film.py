"""A film of a dream beside what really happened under the same actions from the same start."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream
from lit_crl.envs import LevelEnv
from lit_crl.runs.pictures.canvas import Array, Picture, strip
from lit_crl.runs.pictures.films import PAUSE
from lit_crl.runs.pictures.observed import Look, look_of
from lit_crl.runs.pictures.played import Episode, play_episodes
from lit_crl.runs.pictures.recording import CAPTION
from lit_crl.runs.pictures.style import DARK, GREEN, VERMILLION
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner
from lit_crl.world.interface import World
from lit_crl.world.open_loop import OpenLoop, follow_actions

#: The film's name, without its ending.
NAME = "dream_beside_reality"
#: The most frames of a film, and white pixels between both pictures (even, for H.264).
FRAMES, GAP = 150, 12


@dataclass(frozen=True)
class Beside:
    """A real episode and the dream under its actions.

    Attributes:
        real: What really happened.
        dream: What the world imagines: one episode of as many steps.
        look: How observations are drawn.
    """

    real: Episode
    dream: OpenLoop
    look: Look

    @property
    def steps(self) -> int:
        """Steps T of the real episode."""
        return len(self.real.action)

    @property
    def ended(self) -> int | None:
        """The first step with which the world would have ended the task; None: it never would."""
        ends = self.dream.ended[0].nonzero().flatten()
        return int(ends[0]) + 1 if len(ends) else None

    def reality_at(self, step: int) -> tuple[str, str]:
        """What is said of reality after ``step`` steps, and in which colour."""
        words = progress(self.real.reward, step)
        if step < self.steps:
            return words, DARK
        return f"{words} · {'the task ended' if self.real.terminated else 'cut off'}", DARK

    def dream_at(self, step: int) -> tuple[str, str]:
        """What is said of the dream; red where the world errs about the end, green where not."""
        words, ended = progress(self.dream.reward[0], step), self.ended
        is_end = step == self.steps and self.real.terminated
        if ended is not None and step >= ended:
            is_right = self.real.terminated and ended == self.steps
            colour = GREEN if is_right else VERMILLION
            return f"{words} · over at step {ended}", colour
        return (f"{words} · not over", VERMILLION) if is_end else (words, DARK)

    def frames(self, at_most: int = FRAMES) -> Iterator[Picture]:
        """Frames [H, W, 3] at equal intervals, and the last one, made one by one.

        Beyond the end that the world sees, its dream is pale.
        """
        real, dream = (self.look.seen(obs) for obs in (self.real.obs, self.dream.obs[0]))
        for step in moments(self.steps, at_most):
            happened, dreamt = (self.picture(seen, step) for seen in (real, dream))
            if self.ended is not None and step > self.ended:
                dreamt = faded(dreamt)
            left = captioned("What really happened", *self.reality_at(step), happened)
            right = captioned("A dream of the same actions", *self.dream_at(step), dreamt)
            yield np.concatenate((left, right), axis=1)[:, :-GAP]

    def picture(self, seen: Array, step: int) -> Picture:
        """The picture of one side after ``step`` steps."""
        return self.look.draw(seen[: step + 1], np.empty(0))


def progress(reward: Tensor, step: int) -> str:
    """The number of a step, and the rewards [T] up to it in sum."""
    # A dreamt reward is never quite 0, on either side of it.
    return f"step {step} · reward {round(float(reward[:step].double().sum()), 3) + 0.0:.4g}"


def moments(steps: int, at_most: int) -> list[int]:
    """Steps at equal intervals from 0 on, and the last one, together at most ``at_most``.

    >>> moments(7, 8), moments(9, 5)
    ([0, 1, 2, 3, 4, 5, 6, 7], [0, 3, 6, 9])
    """
    interval = -(-steps // max(at_most - 1, 1)) or 1
    return sorted({*range(0, steps + 1, interval), steps})


def faded(picture: Picture) -> Picture:
    """A paler picture."""
    return (255 - (255 - picture.astype(np.uint16)) // 3).astype(np.uint8)


def captioned(title: str, words: str, colour: str, picture: Picture) -> Picture:
    """A picture with a title, a line of text above it, and the gap to its right."""
    width = picture.shape[1]
    above = [strip(title, width, CAPTION, DARK, 13), strip(words, width, CAPTION, colour)]
    whole = np.concatenate((*above, picture))
    return np.pad(whole, ((0, 0), (0, GAP), (0, 0)), constant_values=255)


def film_beside(found: Iterable[Beside], fps: int, at_most: int = FRAMES) -> Iterator[Picture]:
    """The frames of episodes one after the other, each with a pause at its end.

    ``at_most`` is the number of frames of them all, without the pauses.
    """
    episodes = list(found)
    for each in episodes:
        for picture in each.frames(at_most // len(episodes)):
            yield picture
        for _ in range(round(PAUSE * fps)):
            yield picture


@torch.no_grad()
def beside(
    world: World, env: LevelEnv, episodes: Iterable[Episode], rng: torch.Generator
) -> list[Beside]:
    """Dreams beside real episodes, from the same starts and under the same actions.

    Args:
        world: Imagines.
        env: The task, which says how observations are drawn.
        episodes: What really happened.
        rng: The world's noise.

    Raises:
        ConfigError: If observations are neither vectors nor maps of bits, so that nothing can be
            drawn.
    """
    episodes = list(episodes)
    dreams = [follow_actions(world, each.obs[:1], each.action[None], rng) for each in episodes]
    look = look_of(env, torch.cat([each.obs for each in episodes]))
    return [Beside(real, dream, look) for real, dream in zip(episodes, dreams, strict=True)]


def beside_of_run(learner: CreativeLearner, data: ReplayDataModule, n: int) -> list[Beside]:
    """``n`` evaluation episodes of the greedy policy in the real task, and the world's dreams.

    Random streams and environments are made for it, and nothing of the run changes.

    Raises:
        ConfigError: If there is no world, or observations are neither vectors nor maps of bits.
    """
    if learner.world_gan is None:
        raise ConfigError(
            "this run has no world that could dream: train one with model.world.loss gan"
        )
    world: World = data.dreaming.env.world if data.dreaming is not None else learner.world_gan
    real = play_episodes(learner, data, n)
    return beside(world, data.env, real, random_stream(data.seed, "film of a dream"))
