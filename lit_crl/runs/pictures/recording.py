"""Levels as pictures, and episodes of a policy as frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.error import DependencyNotInstalled
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import BatchedEnv, GymnasiumEnv, LevelEnv
from lit_crl.envs.episodes import Act, Remembering, run_episodes
from lit_crl.envs.factory import EnvFactory, level_env
from lit_crl.runs.pictures.canvas import Array, Picture, enlarged, strip
from lit_crl.runs.pictures.observed import Look
from lit_crl.runs.pictures.rendered import as_picture, of_one_size
from lit_crl.runs.pictures.scenes import Draw, scene
from lit_crl.runs.pictures.style import DARK, GREEN, VERMILLION

#: Height of the line of text above a frame, in pixels; even, because H.264 needs even sides.
CAPTION = 22
#: Env steps after which a film of an episode without a time limit ends.
LONGEST = 1_000


@dataclass(frozen=True)
class Recording:
    """One episode: states or images before the first and after every env step, and the outcome.

    Attributes:
        seen: States [T + 1, s] of a built-in environment, or images [T + 1, H, W, 3].
        level: The level [d] it started at; None where the environment has none.
        success: Whether it was solved; None where the environment does not say.
        reward: The sum of its rewards.
        draw: Makes a picture of the last state in a stretch of ``seen``.
        title: Text in every frame, for instance where the level comes from.
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

    def picture(self, step: int) -> Picture:
        """The picture [H, W, 3] after ``step`` env steps."""
        level = np.empty(0) if self.level is None else self.level
        return self.draw(self.seen[: step + 1], level)

    def frames(self) -> Iterator[Picture]:
        """The T + 1 frames [H, W, 3], made one by one: pictures with a line of text above."""
        colours = {True: GREEN, False: VERMILLION, None: DARK}
        for step in range(len(self.seen)):
            picture = self.picture(step)
            is_last = step == self.steps
            words = self.outcome() if is_last else f"step {step}"
            words = f"{self.title} · {words}" if self.title else words
            colour = colours[self.success] if is_last else DARK
            above = strip(words, picture.shape[1], CAPTION, colour)
            yield np.concatenate((above, picture))


def render_levels(env: LevelEnv, levels: Tensor) -> Array:
    """Pictures [n, H, W, 3] in bytes of how episodes in levels [n, d] start.

    Args:
        env: A built-in environment of any size, which stays as it is; or one of Gymnasium, made by
            ``picture_env`` with n copies, which is reset to the levels.
        levels: The levels.
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
    act: Act | Remembering,
    env: LevelEnv,
    *,
    seed: int = 0,
    levels: Tensor | None = None,
    titles: Sequence[str] | None = None,
    look: Look | None = None,
) -> list[Recording]:
    """Play one episode in every environment, and record it.

    Args:
        act: Maps observations [N, ...] to actions [N], with a memory of each episode or without;
            ``lit_crl.evaluation.protocol.greedy`` makes one of a learner.
        env: N environments, made for this by ``picture_env``.
        seed: Seed of the environments' reset.
        levels: Where the episodes start, [N, d]; None: target levels.
        titles: Text in the frames of each episode.
        look: How its observations are drawn, for an environment that has no pictures of its own,
            such as dreams; see ``lit_crl.runs.pictures.observed.look_of``.
    """
    seen: list[list[Array]] = [[] for _ in range(env.num_envs)]

    def watch(moved: Tensor) -> None:
        if look is not None:
            now: Sequence[Array] | Array = look.seen(env.current_observations())
        else:
            now = _numpy(env.state) if isinstance(env, BatchedEnv) else _images(env)
        for index in moved.nonzero().flatten().tolist():
            seen[index].append(now[index])

    longest = env.max_episode_steps or LONGEST
    episodes = run_episodes(env, act, seed=seed, levels=levels, watch=watch, cut_off_after=longest)
    if look is not None:
        draw, whole = look.draw, [np.stack(rows) for rows in seen]
    elif isinstance(env, BatchedEnv):
        draw, whole = scene(env), [np.stack(states) for states in seen]
    else:
        draw = _newest
        images = of_one_size([image for episode in seen for image in episode])
        whole = np.split(images, np.cumsum([len(episode) for episode in seen])[:-1])
    is_known = getattr(env, "has_success", True)
    starts: Tensor | None = getattr(env, "levels", None)
    return [
        Recording(
            whole[index],
            None if starts is None else _numpy(starts[index]),
            bool(episodes.success[index]) if is_known else None,
            float(episodes.returns[index]),
            draw,
            titles[index] if titles else "",
        )
        for index in range(env.num_envs)
    ]


def _newest(seen: Array, level: Array) -> Picture:
    return enlarged(seen[-1])


def picture_env(make_env: EnvFactory, n: int, device: torch.device) -> LevelEnv:
    """Make ``n`` environments that can be drawn: Gymnasium's with ``render_mode="rgb_array"``.

    Raises:
        ConfigError: If the environment has no such render mode.
    """
    env = level_env(make_env(n, device))
    if not isinstance(env, GymnasiumEnv):
        return env
    spec, modes = env.spec, env.metadata.get("render_modes") or []
    env.close()
    if "rgb_array" not in modes:
        raise ConfigError(
            f"{env.name} cannot be drawn: it has no render mode 'rgb_array', but "
            f"{', '.join(map(repr, modes)) or 'none at all'}; choose another environment"
        )
    kwargs = {**(spec.kwargs if spec else {}), "render_mode": "rgb_array"}
    make: Callable[..., Any] = make_env
    try:
        return level_env(make(n, device, env_kwargs=kwargs))
    except TypeError as error:  # a user's function
        raise ConfigError(
            f"{env.name} cannot be drawn, because data.env takes no env_kwargs, which would hold "
            f"its render mode: {error}"
        ) from error


def _images(env: LevelEnv) -> list[Array]:
    """The environments' own pictures [H, W, 3], which may differ in size."""
    if not isinstance(env, GymnasiumEnv):
        raise ConfigError(
            f"{type(env).__name__} cannot be drawn: make it a BatchedEnv or a GymnasiumEnv, or say "
            "how its observations look"
        )
    try:
        return [as_picture(rendered) for rendered in env.envs.render()]
    except DependencyNotInstalled as error:
        raise ConfigError(
            f"{env.name} cannot be drawn, because a package is missing: {error}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{env.name} cannot be drawn: {error}") from error
    except Exception as error:  # a user's render() may raise anything
        raise ConfigError(
            f"{env.name} cannot be drawn: its render() raised {type(error).__name__}: {error}"
        ) from error


def _numpy(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()
