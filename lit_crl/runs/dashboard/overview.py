"""The levels and episodes that a dashboard shows at one moment of training.

Random streams and environments are made for the moment, so that training goes on unchanged.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.curriculum.sources import Source
from lit_crl.envs import BatchedEnv, GymnasiumEnv
from lit_crl.evaluation.protocol import greedy
from lit_crl.runs.pictures import Recording, picture_env, record_episodes, render_levels
from lit_crl.runs.pictures.canvas import Picture, spread, tiled, with_note
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner

#: Levels of each source with a shown p̂, and how many of them are drawn, from hard to easy: FEW in
#: Gymnasium environments, which render every copy at every step.
LEVELS, DRAWN, FEW = 256, 8, 1
#: Sources of which an episode is filmed.
FILMED: tuple[Source, ...] = ("target", "gan")
#: The most frames of a film, and frames a second.
FRAMES, FPS = 60, 20


@dataclass(frozen=True)
class LevelView:
    """A level, and the greedy episode in it.

    Attributes:
        picture: The start of the episode, [H, W, 3].
        p_hat: Predicted success; None without a trained GAN.
        recording: The episode; None where none can start.
        path_length: Fewest steps to the goal, where the environment knows them.
    """

    picture: Picture
    p_hat: float | None = None
    recording: Recording | None = None
    path_length: float | None = None

    @property
    def caption(self) -> str:
        """p̂, outcome and shortest path, as far as they are known."""
        p = [] if self.p_hat is None else [f"p̂ {self.p_hat:.2f}"]
        outcome = "invalid" if self.recording is None else self.recording.outcome()
        path = [] if self.path_length is None else [f"shortest path {self.path_length:.0f}"]
        return ", ".join([*p, outcome, *path])


@dataclass(frozen=True)
class Overview:
    """Levels of every source, with the present policy's episodes in them.

    Attributes:
        views: The levels that are drawn, by source.
        p_hat: p̂ of many levels [n], by source; empty without a trained GAN.
    """

    views: dict[Source, list[LevelView]]
    p_hat: dict[Source, NDArray[np.float32]]


def overview(learner: CreativeLearner, data: ReplayDataModule) -> Overview:
    """Levels and episodes of the present moment.

    Raises:
        ConfigError: If the environment has no pictures.
    """
    if not isinstance(data.env, BatchedEnv | GymnasiumEnv):
        raise ConfigError(f"there are no pictures of {type(data.env).__name__}")
    sources = levels_of(learner, data)
    if not sources:
        episodes = record(None, FEW, learner, data)
        views = [LevelView(episode.picture(0), recording=episode) for episode in episodes]
        return Overview({"target": views}, {})
    is_cheap = isinstance(data.env, BatchedEnv)
    chosen = {
        source: hard_to_easy(levels, learner, DRAWN if is_cheap else FEW)
        for source, levels in sources.items()
        if is_cheap or source in FILMED
    }
    played = iter(play(torch.cat(list(chosen.values())), learner, data))
    drawn = {source: [next(played) for _ in levels] for source, levels in chosen.items()}
    p_hat: dict[Source, NDArray[np.float32]] = {}
    if learner.gan_updates:
        for source, levels in sources.items():
            if len(known := levels[~levels.isnan().any(-1)]):
                p_hat[source] = learner.success_probability(known).cpu().numpy()
    return Overview(drawn, p_hat)


def levels_of(learner: CreativeLearner, data: ReplayDataModule) -> dict[Source, Tensor]:
    """Levels [n, d] of every source there is; rows of NaN stand for the task's own resets."""
    env = data.env
    if env.level_space is None:
        return {}

    def stream(source: Source) -> torch.Generator:
        # The same stream every time, so that only policy and generator change the pictures.
        return random_stream(data.seed, f"dashboard: {source}", device=env.device)

    found: dict[Source, Tensor] = {
        "target": env.target_levels(LEVELS, stream("target")),
        "reference": env.reference_levels(LEVELS, stream("reference")),
    }
    if data.archive is not None and len(data.archive):
        found["archive"] = data.archive.candidates(LEVELS, stream("archive"))
    if learner.gan_updates > 0:
        found["gan"] = learner.generate_levels(learner.draw_noise(LEVELS, stream("gan")))
    return found


def hard_to_easy(levels: Tensor, learner: CreativeLearner, n: int) -> Tensor:
    """``n`` of the levels [m, d], evenly spread over their ranking by p̂ once there is one."""
    if not learner.gan_updates:
        return levels[:n]
    order = learner.success_probability(levels).argsort()
    places = torch.linspace(0, len(levels) - 1, n + 2, device=order.device)[1:-1]
    return levels[order[places.round().long()]]


def play(levels: Tensor, learner: CreativeLearner, data: ReplayDataModule) -> list[LevelView]:
    """Play the greedy policy in each of the levels [n, d], all at once."""
    known = ~levels.isnan().any(-1)
    valid = data.env.valid(levels) | ~known
    invalid_pictures = iter(render_levels(data.env, levels[~valid]) if not valid.all() else ())
    episodes = iter(record(levels[valid], int(valid.sum()), learner, data))
    path_lengths = iter([None] * len(levels))
    if valid.any() and hasattr(data.env, "optimal_steps"):
        path_lengths = iter(data.env.optimal_steps(levels[valid]).tolist())
    p_hat: list[float | None] = [None] * len(levels)
    if learner.gan_updates:
        p_hat = learner.success_probability(levels).tolist()
    views = []
    for is_valid, is_known, p in zip(valid.tolist(), known.tolist(), p_hat, strict=True):
        if is_valid:
            episode = next(episodes)
            shown = p if is_known else None
            views.append(LevelView(episode.picture(0), shown, episode, next(path_lengths)))
        else:
            views.append(LevelView(next(invalid_pictures), p))
    return views


def record(
    levels: Tensor | None, n: int, learner: CreativeLearner, data: ReplayDataModule
) -> list[Recording]:
    """Record ``n`` greedy episodes, with separate environments and a separate random stream."""
    if n == 0:
        return []
    env = picture_env(data.make_env, n, data.env.device)
    seed = stream_seed(data.seed, "dashboard: episodes") % 2**31
    act = greedy(learner, data.env.device)
    recordings = record_episodes(act, env, seed=seed, levels=levels)
    env.close()
    return recordings


def film_of(episode: Recording) -> list[Picture]:
    """At most ``FRAMES`` pictures of an episode, evenly spread, and a pause at its end."""
    frames = [episode.picture(int(step)) for step in spread(len(episode.seen), FRAMES)]
    return frames + frames[-1:] * FPS


def gallery(views: list[LevelView]) -> Picture:
    """Pictures with captions, four in a row, as one picture."""
    return tiled([with_note(view.picture, view.caption) for view in views], columns=4, gap=10)
