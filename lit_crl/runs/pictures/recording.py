"""Levels as pictures, and episodes of a policy as frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import BatchedEnv, GymnasiumEnv, LevelEnv
from lit_crl.envs.episodes import run_episodes
from lit_crl.envs.factory import EnvFactory
from lit_crl.runs.pictures.canvas import (
    Array,
    Picture,
    enlarged,
    strip,
)
from lit_crl.runs.pictures.rendered import as_picture, of_one_size
from lit_crl.runs.pictures.scenes import Draw, scene
from lit_crl.runs.pictures.style import DARK, GREEN, VERMILLION

#: Height of the line of words above a frame, in pixels; even, as films want their frames.
CAPTION = 22
#: Env steps that are shown of an episode that has no time limit.
LONGEST = 1_000


@dataclass(frozen=True)
class Recording:
    """One episode: what was to be seen before and after every env step, and how it ended.

    Attributes:
        seen: States [T + 1, s] of a built-in environment, images [T + 1, H, W, 3] of another.
        level: The level [d] it started at; None where the environment has none.
        success: Whether it was solved; None where the environment does not say.
        reward: The sum of its rewards.
        draw: Makes a picture of a stretch of ``seen``.
        title: Words in every frame, for instance where the level comes from.
    """

    seen: Array
    level: Array | None
    success: bool | None
    reward: float
    draw: Draw
    title: str = ""

    @property
    def steps(self) -> int:
        """How many env steps it took."""
        return len(self.seen) - 1

    def outcome(self) -> str:
        """How it ended, in words."""
        ends = {True: "solved", False: "not solved", None: "ended"}
        plural = "" if self.steps == 1 else "s"
        return f"{ends[self.success]} after {self.steps} step{plural}, return {self.reward:.4g}"

    def frames(self) -> Iterator[Picture]:
        """The T + 1 frames [H, W, 3], made one by one, with a line of words above."""
        level = np.empty(0) if self.level is None else self.level
        colours = {True: GREEN, False: VERMILLION, None: DARK}
        for step in range(len(self.seen)):
            picture = self.draw(self.seen[: step + 1], level)
            is_last = step == self.steps
            words = self.outcome() if is_last else f"step {step}"
            words = f"{self.title} · {words}" if self.title else words
            colour = colours[self.success] if is_last else DARK
            above = strip(words, picture.shape[1], CAPTION, colour)
            yield np.concatenate((above, picture))


def render_levels(env: LevelEnv, levels: Tensor) -> Array:
    """Pictures [n, H, W, 3] of levels [n, d], bytes: how episodes in them start.

    Args:
        env: Any number of environments; a built-in one is left as it is, one of Gymnasium, which
            must come from ``picture_env`` and have n copies, is reset to the levels.
        levels: What to draw.
    """
    if isinstance(env, BatchedEnv):
        draw = scene(env)
        starts, given = _numpy(env.initial_state(levels)), _numpy(levels)
        return np.stack([draw(s[None], level) for s, level in zip(starts, given, strict=True)])
    if hasattr(env, "render_levels"):
        return np.asarray(env.render_levels(levels))
    env.reset(options={"levels": levels})
    return of_one_size(_images(env))


def record_episodes(
    act: Callable[[Tensor], Tensor],
    env: LevelEnv,
    *,
    seed: int = 0,
    levels: Tensor | None = None,
    titles: Sequence[str] | None = None,
) -> list[Recording]:
    """Play one episode of every environment, and keep what is to be seen.

    Args:
        act: Observations [N, ...] to actions [N], for instance a learner: it acts greedily.
        env: N environments of their own, one for each episode; see ``picture_env``.
        seed: Of the environments' reset.
        levels: Where the episodes start, [N, d]; None: target levels.
        titles: Words in the frames of each episode.
    """
    see, draw = sight(env)
    seen: list[list[Array]] = [[] for _ in range(env.num_envs)]
    places: list[Tensor] = []

    def watch(moved: Tensor) -> None:
        if not places:
            places.append(getattr(env, "levels", None))  # type: ignore[arg-type]
        now = see()
        for index in moved.nonzero().flatten().tolist():
            seen[index].append(now[index])

    longest = env.max_episode_steps or LONGEST
    episodes = run_episodes(env, act, seed=seed, levels=levels, watch=watch, cut_off_after=longest)
    known = getattr(env, "has_success", True)
    whole = [np.stack(states) for states in seen] if isinstance(env, BatchedEnv) else _framed(seen)
    return [
        Recording(
            whole[index],
            None if places[0] is None else _numpy(places[0][index]),
            bool(episodes.success[index]) if known else None,
            float(episodes.returns[index]),
            draw,
            titles[index] if titles else "",
        )
        for index in range(env.num_envs)
    ]


def _framed(seen: Sequence[Sequence[Array]]) -> list[Array]:
    """The pictures of several episodes, all of one size, as films want them: [T + 1, H, W, 3]."""
    framed = of_one_size([picture for episode in seen for picture in episode])
    return np.split(framed, np.cumsum([len(episode) for episode in seen])[:-1])


def sight(env: LevelEnv) -> tuple[Callable[[], Sequence[Array] | Array], Draw]:
    """What is to be seen of every env now [N, ...], and how a stretch of it is drawn."""
    if isinstance(env, BatchedEnv):
        return lambda: _numpy(env.state), scene(env)
    return lambda: _images(env), lambda seen, level: enlarged(seen[-1])


def picture_env(make_env: EnvFactory, n: int, device: torch.device) -> LevelEnv:
    """Make ``n`` environments that can be seen: Gymnasium's with ``render_mode="rgb_array"``.

    Raises:
        ConfigError: If the environment has no such pictures.
    """
    env: Any = make_env(n, device)
    if not isinstance(env, GymnasiumEnv):
        return cast(LevelEnv, env)
    spec, modes = env.spec, env.envs.envs[0].metadata.get("render_modes") or []
    env.close()
    if "rgb_array" not in modes:
        raise ConfigError(
            f"{env.name} cannot be drawn: it has no render mode 'rgb_array', but "
            f"{', '.join(map(repr, modes)) or 'none at all'}; choose another environment"
        )
    kwargs = {**(spec.kwargs if spec else {}), "render_mode": "rgb_array"}
    try:
        return cast(LevelEnv, make_env(n, device, env_kwargs=kwargs))  # type: ignore[call-arg]
    except TypeError as error:  # a function that makes environments in a way of its own
        raise ConfigError(
            f"{env.name} cannot be drawn, because data.env takes no env_kwargs, in which "
            f"its render mode would be: {error}"
        ) from error


def _images(env: Any) -> list[Array]:
    """Gymnasium's own pictures [H, W, 3], which may differ in size."""
    if not isinstance(env, GymnasiumEnv):
        raise ConfigError(
            f"{type(env).__name__} cannot be drawn: make it a BatchedEnv or a GymnasiumEnv"
        )
    try:
        return [as_picture(rendered) for rendered in env.envs.render()]
    except DependencyNotInstalled as error:
        raise ConfigError(
            f"{env.name} cannot be drawn, because a package is missing: {error}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{env.gymnasium_id} cannot be drawn: {error}") from error
    except Exception as error:  # whatever a render() of the user's own raises
        raise ConfigError(
            f"{env.gymnasium_id} cannot be drawn: its render() raised {type(error).__name__}: "
            f"{error}"
        ) from error


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()
