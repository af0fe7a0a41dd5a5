"""What a dashboard shows of a policy and a generator at one moment: levels, and episodes in them.

Everything is drawn from streams made for the moment, and played in environments made for it, so
training goes on as if nobody had looked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_crl.arms import Source
from lit_crl.seeding import random_stream, stream_seed

if TYPE_CHECKING:
    from lit_crl.pictures import Recording

#: Levels of each source that p̂ is told of, and how many of them, from hard to easy, are shown.
LEVELS, SHOWN = 256, 8
#: Pictures in a row of a gallery.
COLUMNS = 4
#: Of these sources an episode is shown as a film.
FILMED: tuple[Source, ...] = ("target", "gan")

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

    def films(self) -> Iterator[tuple[Source, Shown]]:
        """The level of each filmed source whose episode is shown: the one in the middle."""
        for source, levels in self.by_source().items():
            played = [level for level in levels if level.recording is not None]
            if source in FILMED and played:
                yield source, played[len(played) // 2]


def draw_sheet(learner: Any, data: Any) -> Sheet:
    """Levels and episodes of the present moment.

    Raises:
        ConfigError: If the environment has no pictures.
    """
    sheet = Sheet(data.env_steps)
    knows = learner.gan_updates > 0
    for source, levels in levels_of(learner, data).items():
        if levels is None:
            sheet.shown += play(source, None, None, learner, data)
            continue
        p_hat = learner.success_probability(levels) if knows else None
        if p_hat is not None:
            sheet.p_hat[source] = p_hat[data.env.valid(levels)].cpu().numpy()
            order = p_hat.argsort()
            chosen = np.linspace(0, len(order) - 1, SHOWN).round()
            levels, p_hat = (of[order[torch.from_numpy(chosen).long()]] for of in (levels, p_hat))
        sheet.shown += play(source, levels[:SHOWN], p_hat, learner, data)
    return sheet


def levels_of(learner: Any, data: Any) -> dict[Source, Tensor | None]:
    """Levels [n, d] of every source there is; None for target levels that only a reset can draw."""
    env = data.env
    if env.level_space is None:
        return {"target": None}

    def stream(source: Source) -> torch.Generator:
        # The same stream every time: what moves are the policy and the generator.
        return random_stream(data.seed, f"dashboard: {source}", device=env.device)

    target = env.target_levels(LEVELS, stream("target"))
    found: dict[Source, Tensor | None] = {"target": None if target.isnan().any() else target}
    found["reference"] = env.reference_levels(LEVELS, stream("reference"))
    if len(data.archive):
        found["archive"] = data.archive.candidates(LEVELS, stream("archive"))
    if learner.gan_updates > 0:
        noise = learner.draw_noise(LEVELS, stream("gan"))
        found["gan"] = learner.generate_levels(noise)
    return found


def play(
    source: Source, levels: Tensor | None, p_hat: Tensor | None, learner: Any, data: Any
) -> list[Shown]:
    """The greedy policy's episode in each level [n, d]; without levels, in target levels."""
    from lit_crl.pictures import render_levels

    if levels is None:
        episodes = record(source, None, SHOWN, learner, data)
        return [Shown(source, start(episode), None, episode, None) for episode in episodes]
    valid: Tensor = data.env.valid(levels)
    episodes = record(source, levels[valid], int(valid.sum()), learner, data)
    drawn = iter(render_levels(data.env, levels[~valid])) if not valid.all() else iter(())
    known, left = path_lengths(data.env, levels[valid]), iter(episodes)
    shown = []
    for index, is_valid in enumerate(valid.tolist()):
        episode = next(left) if is_valid else None
        picture = next(drawn) if episode is None else start(episode)
        p = None if p_hat is None else float(p_hat[index])
        shown.append(Shown(source, picture, p, episode, next(known) if is_valid else None))
    return shown


def record(
    source: Source, levels: Tensor | None, n: int, learner: Any, data: Any
) -> list["Recording"]:
    """``n`` greedy episodes, in environments of their own."""
    from lit_crl.pictures import picture_env, record_episodes

    if n == 0:
        return []
    env: Any = picture_env(data.make_env, n, data.env.device)
    seed = stream_seed(data.seed, f"dashboard: episodes of {source}") % 2**31
    recordings = record_episodes(learner, env, seed=seed, levels=levels)
    env.close()
    return recordings


def start(recording: "Recording") -> Picture:
    """The picture [H, W, 3] of how an episode starts."""
    level = np.empty(0) if recording.level is None else recording.level
    return recording.draw(recording.seen[:1], level)


def path_lengths(env: Any, levels: Tensor) -> Iterator[float | None]:
    """Fewest steps to the goal in each level [n, d], where the environment knows them."""
    if len(levels) and hasattr(env, "optimal_steps"):
        return iter(env.optimal_steps(levels).tolist())
    return iter([None] * len(levels))


def gallery(levels: Sequence[Shown]) -> Picture:
    """Pictures with captions, ``COLUMNS`` in a row, as one picture."""
    from lit_crl.pictures.canvas import with_note

    noted = [with_note(level.picture, level.caption) for level in levels]
    blank = np.full_like(noted[0], 255)
    noted += [blank] * (-len(noted) % COLUMNS)
    rows = [noted[i : i + COLUMNS] for i in range(0, len(noted), COLUMNS)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])
