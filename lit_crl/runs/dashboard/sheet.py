"""What a dashboard shows of a policy and a generator at one moment: levels, and episodes in them.

Everything is drawn from streams made for the moment, and played in environments made for it, so
training goes on as if nobody had looked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.curriculum.sources import Source
from lit_crl.envs import BatchedEnv, GymnasiumEnv

if TYPE_CHECKING:
    from lit_crl.runs.pictures import Recording

#: Levels of each source that p̂ is told of, and how many of them, from hard to easy, are shown:
#: few, where every picture must be asked of the environment itself.
LEVELS, SHOWN, FEW = 256, 8, 1
#: Pictures in a row of a gallery, and the pixels between them.
COLUMNS, GAP = 4, 10
#: Of these sources an episode is shown as a film.
FILMED: tuple[Source, ...] = ("target", "gan")
#: Pictures of a film at most, and how many of them a second.
FRAMES, FPS = 60, 20

Picture = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """A level, and the greedy episode in it.

    Attributes:
        source: Where it comes from.
        picture: How the episode starts, [H, W, 3].
        p_hat: Predicted success; None without a GAN that has learned.
        recording: The episode; None if none can start here.
        path_length: Fewest steps to the goal, where the environment knows them.
    """

    source: Source
    picture: Picture
    p_hat: float | None
    recording: "Recording | None"
    path_length: float | None

    @property
    def outcome(self) -> str:
        """How the episode ended, in words."""
        return "invalid" if self.recording is None else self.recording.outcome()

    @property
    def caption(self) -> str:
        """What is known of it, in words."""
        p = [] if self.p_hat is None else [f"p̂ {self.p_hat:.2f}"]
        way = [] if self.path_length is None else [f"shortest way {self.path_length:.0f}"]
        return ", ".join([*p, self.outcome, *way])


@dataclass
class Sheet:
    """Levels of every source, with the episodes of the present policy.

    Attributes:
        env_steps: When.
        shown: Levels, source by source.
        p_hat: p̂ of many levels [n] of each source.
    """

    env_steps: int
    shown: list[Shown] = field(default_factory=list)
    p_hat: dict[Source, Floats] = field(default_factory=dict)

    def by_source(self) -> dict[Source, list[Shown]]:
        """The levels shown of each source."""
        found: dict[Source, list[Shown]] = {}
        for level in self.shown:
            found.setdefault(level.source, []).append(level)
        return found

    def galleries(self) -> dict[Source, Picture]:
        """One picture of each source's levels, with captions."""
        return {source: gallery(levels) for source, levels in self.by_source().items()}

    def filmed(self) -> Iterator[Shown]:
        """A level of each source whose episodes are filmed: the one in the middle."""
        for source, levels in self.by_source().items():
            played = [level for level in levels if level.recording is not None]
            if source in FILMED and played:
                yield played[len(played) // 2]


def draw_sheet(learner: Any, data: Any) -> Sheet:
    """Levels and episodes of the present moment.

    Raises:
        ConfigError: If the environment has no pictures.
    """
    if not isinstance(data.env, BatchedEnv | GymnasiumEnv):
        raise ConfigError(f"there are no pictures of {type(data.env).__name__}")
    sources = levels_of(learner, data)
    if not sources:  # the environment has no levels: the task's own resets
        episodes = record(None, FEW, learner, data)
        return Sheet(data.env_steps, [shown("target", episode) for episode in episodes])
    is_cheap = isinstance(data.env, BatchedEnv)  # others draw every env at every step
    chosen = {
        source: hard_to_easy(levels, learner, SHOWN if is_cheap else FEW)
        for source, levels in sources.items()
        if is_cheap or source in FILMED
    }
    names = [source for source, levels in chosen.items() for _ in levels]
    played = play(torch.cat(list(chosen.values())), names, learner, data)
    if not learner.gan_updates:
        return Sheet(data.env_steps, played)
    p_hat = {source: p_hats(levels, learner) for source, levels in sources.items()}
    return Sheet(data.env_steps, played, {source: p for source, p in p_hat.items() if len(p)})


def levels_of(learner: Any, data: Any) -> dict[Source, Tensor]:
    """Levels [n, d] of every source there is; rows of NaN stand for the task's own resets."""
    env = data.env
    if env.level_space is None:
        return {}

    def stream(source: Source) -> torch.Generator:
        # The same stream every time: what moves are the policy and the generator.
        return random_stream(data.seed, f"dashboard: {source}", device=env.device)

    found: dict[Source, Tensor] = {
        "target": env.target_levels(LEVELS, stream("target")),
        "reference": env.reference_levels(LEVELS, stream("reference")),
    }
    if len(data.archive):
        found["archive"] = data.archive.candidates(LEVELS, stream("archive"))
    if learner.gan_updates > 0:
        found["gan"] = learner.generate_levels(learner.draw_noise(LEVELS, stream("gan")))
    return found


def hard_to_easy(levels: Tensor, learner: Any, n: int) -> Tensor:
    """``n`` of the levels [m, d], evenly spread over their ranking by p̂ once there is one."""
    if not learner.gan_updates:
        return levels[:n]
    order = learner.success_probability(levels).argsort()
    places = torch.linspace(0, len(levels) - 1, n + 2, device=order.device)[1:-1]
    return levels[order[places.round().long()]]


def p_hats(levels: Tensor, learner: Any) -> Floats:
    """p̂ of the levels [n, d] that are known."""
    known = levels[~levels.isnan().any(-1)]
    return cast(Floats, learner.success_probability(known).cpu().numpy())


def play(levels: Tensor, sources: Sequence[Source], learner: Any, data: Any) -> list[Shown]:
    """The greedy policy's episode in each of the levels [n, d], all at once."""
    from lit_crl.runs.pictures import render_levels

    known = ~levels.isnan().any(-1)
    valid = data.env.valid(levels) | ~known
    drawn = iter(render_levels(data.env, levels[~valid]) if not valid.all() else ())
    episodes = iter(record(levels[valid], int(valid.sum()), learner, data))
    ways = path_lengths(data.env, levels[valid])
    trusted = learner.gan_updates > 0
    p_hat = learner.success_probability(levels).tolist() if trusted else [None] * len(levels)
    return [
        shown(source, next(episodes), p if is_known else None, next(ways))
        if is_valid
        else Shown(source, next(drawn), p, None, None)
        for source, is_valid, is_known, p in zip(
            sources, valid.tolist(), known.tolist(), p_hat, strict=True
        )
    ]


def shown(
    source: Source, episode: "Recording", p_hat: float | None = None, way: float | None = None
) -> Shown:
    """An episode, with the picture of its start."""
    return Shown(source, picture_at(episode, 0), p_hat, episode, way)


def record(levels: Tensor | None, n: int, learner: Any, data: Any) -> list["Recording"]:
    """``n`` greedy episodes, in environments and from a stream of their own."""
    from lit_crl.runs.pictures import picture_env, record_episodes

    if n == 0:
        return []
    env: Any = picture_env(data.make_env, n, data.env.device)
    seed = stream_seed(data.seed, "dashboard: episodes") % 2**31
    recordings = record_episodes(learner, env, seed=seed, levels=levels)
    env.close()
    return recordings


def picture_at(episode: "Recording", step: int) -> Picture:
    """The picture [H, W, 3] of an episode after so many steps."""
    level = np.empty(0) if episode.level is None else episode.level
    return episode.draw(episode.seen[: step + 1], level)


def film_of(episode: "Recording") -> list[Picture]:
    """At most ``FRAMES`` pictures of an episode, evenly spread, and a pause at its end."""
    steps = np.unique(np.linspace(0, episode.steps, FRAMES).round().astype(int))
    frames = [picture_at(episode, step) for step in steps]
    return frames + frames[-1:] * FPS


def path_lengths(env: Any, levels: Tensor) -> Iterator[float | None]:
    """Fewest steps to the goal in each level [n, d], where the environment knows them."""
    if len(levels) and hasattr(env, "optimal_steps"):
        return iter(env.optimal_steps(levels).tolist())
    return iter([None] * len(levels))


def gallery(levels: Sequence[Shown]) -> Picture:
    """Pictures with captions, ``COLUMNS`` in a row, as one picture."""
    from lit_crl.runs.pictures.canvas import with_note

    frame = ((0, GAP), (0, GAP), (0, 0))
    noted = [
        np.pad(with_note(level.picture, level.caption), frame, constant_values=255)
        for level in levels
    ]
    blank = np.full_like(noted[0], 255)
    noted += [blank] * (-len(noted) % COLUMNS)
    rows = [noted[i : i + COLUMNS] for i in range(0, len(noted), COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
