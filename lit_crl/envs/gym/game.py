"""What game an environment plays: what one step is, where games end by themselves, and a sentence.

An id sets more than its name says: frames that are skipped, sticky actions, a number of actions, a
time limit inside the game. Published numbers belong to one choice of these.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gymnasium.spaces import Dict, Discrete
from gymnasium.wrappers import TimeLimit

from lit_crl.envs.gym.guard import Env, layers

#: The emulator's package; its environments have an ``ale``.
ALE = "ale_py"


@dataclass(frozen=True)
class Game:
    """What one step and one episode of an environment are.

    Attributes:
        frames_per_step: Frames of the game in one env step; None: their number differs from step
            to step.
        max_episode_steps: Env steps after which an episode is cut off; None: never, as far as is
            known.
        words: What else there is to say.
    """

    frames_per_step: int | None
    max_episode_steps: int | None
    words: tuple[str, ...]

    def frames(self, env_steps: int) -> int | None:
        """Frames of the game in some env steps; None: their number is not known.

        >>> Game(4, None, ()).frames(200_000)
        800000
        """
        return None if self.frames_per_step is None else env_steps * self.frames_per_step


def game_of(env: Env) -> Game:
    """What a single environment plays, wrappers included.

    >>> import gymnasium
    >>> game_of(gymnasium.make("CartPole-v1"))
    Game(frames_per_step=1, max_episode_steps=500, words=('2 actions',))
    """
    *wrappers, _ = layers(env)
    inner: Any = env.unwrapped
    package = type(inner).__module__.partition(".")[0]
    assert isinstance(env.action_space, Discrete)
    actions, skipped = int(env.action_space.n), steps_below(wrappers)
    limits, frames = [time_limit(env)], skipped
    if is_atari(inner):
        return _of_ale(inner, wrappers, actions, limits)
    words = [f"{actions} actions"]
    if package == "minatar":
        words += _words_of_minatar(inner)
    elif package == "minigrid":
        words += _words_of_minigrid(env, inner)
        # Of BabyAI it is 0 until a mission was drawn, on which it depends.
        limits.append(math.ceil(inner.max_steps / skipped) or None)
    return Game(frames, least(limits), tuple(words))


def game_of_vector_entry(entry: type, kwargs: Mapping[str, Any], actions: int) -> Game:
    """What an id's own vector entry point plays, from the arguments that it was made with."""
    if not entry.__module__.startswith(ALE):
        return Game(1, kwargs.get("max_episode_steps"), (f"{actions} actions",))
    frames = int(kwargs["frameskip"])
    words = (
        f"sticky actions {kwargs['repeat_action_probability']:g}",
        _set_of(actions, bool(kwargs["full_action_space"])),
        f"0 to {kwargs['noop_max']} no-ops at a reset",
        "FIRE pressed at a reset" if kwargs["use_fire_reset"] else "FIRE not pressed at a reset",
        with_version("ale-py"),
    )
    return Game(frames, math.ceil(int(kwargs["max_num_frames_per_episode"]) / frames), words)


def is_atari(inner: Any) -> bool:
    """Whether an environment, without its wrappers, is of the Arcade Learning Environment."""
    return type(inner).__module__.partition(".")[0] == ALE


def emulated(env: Env) -> tuple[str, int, int] | None:
    """Game, mode and difficulty of an Atari game; None: it is none."""
    inner: Any = env.unwrapped
    if not is_atari(inner):
        return None
    return str(inner._game), inner._game_mode or 0, inner._game_difficulty or 0


def in_words(
    name: str, game: Game, clip_rewards: float | None, terminal_on_life_loss: bool, has_lives: bool
) -> str:
    """One line that says what is played.

    Args:
        name: What the environment is called.
        game: What it plays.
        clip_rewards: Bound of the rewards that the replay gets; None: they are as they are.
        terminal_on_life_loss: Whether a lost life ends a transition.
        has_lives: Whether the game has lives.

    >>> in_words("Pong-v5", Game(4, 27_000, ("6 actions",)), 1.0, False, has_lives=False)
    'The game is Pong-v5: 4 frames a step, 6 actions, at most 27,000 steps, rewards clipped to ±1 \
for the replay alone.'
    """
    words = list(game.words)
    if game.frames_per_step is None:
        words.insert(0, "a random number of frames a step")
    elif game.frames_per_step > 1 or has_lives:
        words.insert(0, f"{game.frames_per_step} frame{'s' * (game.frames_per_step > 1)} a step")
    if game.max_episode_steps is not None:
        words.append(f"at most {game.max_episode_steps:,} steps")
    if clip_rewards is not None:
        words.append(f"rewards clipped to ±{clip_rewards:g} for the replay alone")
    elif has_lives:
        words.append("rewards not clipped")
    if terminal_on_life_loss:
        words.append("a lost life ends the transition and not the game")
    elif has_lives:
        words.append("a lost life ends nothing")
    return f"The game is {name}: {', '.join(words)}."


def time_limit(env: Env) -> int | None:
    """Return the env steps after which a wrapper cuts episodes off; None: no wrapper does.

    A limit below a wrapper that skips frames counts frames, of which a step takes several.

    >>> import gymnasium
    >>> time_limit(gymnasium.make("MountainCar-v0"))
    200
    """
    found = layers(env)
    return least(
        math.ceil(layer._max_episode_steps / steps_below(found[:above]))
        for above, layer in enumerate(found)
        if isinstance(layer, TimeLimit)
    )


def least(limits: Any) -> int | None:
    """The least of some limits, None standing for no limit."""
    return min((limit for limit in limits if limit is not None), default=None)


def steps_below(wrappers: Sequence[Env]) -> int:
    """Steps below some wrappers that one step above them takes."""
    # AtariPreprocessing has the first name, MaxAndSkipObservation the second.
    return math.prod(int(getattr(w, "frame_skip", getattr(w, "_skip", 1))) for w in wrappers)


def with_version(package: str) -> str:
    """A package's name and version, as far as it is installed under that name."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _of_ale(inner: Any, wrappers: Sequence[Env], actions: int, limits: list[int | None]) -> Game:
    skip = inner._frameskip  # two bounds, where the number of frames is drawn for each step
    least_skip = skip if isinstance(skip, int) else skip[0]
    skipped = steps_below(wrappers)
    in_frames = int(inner.ale.getInt("max_num_frames_per_episode"))
    limits.append(math.ceil(in_frames / (least_skip * skipped)) if in_frames else None)
    noops = max((int(getattr(w, "noop_max", 0)) for w in wrappers), default=0)
    # StickyAction has the same name for it as the emulator.
    sticks = [float(getattr(w, "repeat_action_probability", 0.0)) for w in wrappers]
    sticks.append(inner.ale.getFloat("repeat_action_probability"))
    words = (
        " and ".join(f"sticky actions {p:g}" for p in sticks if p) or "no sticky actions",
        _set_of(actions, actions == len(inner.ale.getLegalActionSet())),
        f"1 to {noops} no-ops at a reset" if noops else "no no-ops at a reset",
        with_version("ale-py"),
    )
    return Game(skip * skipped if isinstance(skip, int) else None, least(limits), words)


def _words_of_minatar(inner: Any) -> list[str]:
    ramps = bool(getattr(inner.game.env, "ramping", False))
    # Freeway alone has one, and ends as if the game were over.
    steps = getattr(sys.modules[type(inner.game.env).__module__], "time_limit", None)
    return [
        *([f"an end after {steps:,} steps, which counts as one of the task"] if steps else []),
        f"sticky actions {inner.game.sticky_action_prob:g}",
        "difficulty that ramps" if ramps else "difficulty that does not ramp",
        with_version("MinAtar"),
    ]


def _words_of_minigrid(env: Env, inner: Any) -> list[str]:
    space = inner.observation_space
    mission: Any = space.spaces.get("mission") if isinstance(space, Dict) else None
    # A text that changes the task from game to game is not dropped in silence.
    # BabyAI's missions have a space of their own; others have places for what changes.
    places = type(mission).__name__ != "MissionSpace" or mission.ordered_placeholders
    changes = mission is not None and bool(places)
    is_read = any(type(layer).__name__ == "FlatObsWrapper" for layer in layers(env))
    unread = ["a mission that changes and is not observed (FlatObsWrapper would show it)"]
    return [*(unread if changes and not is_read else []), with_version("minigrid")]


def _set_of(actions: int, is_full: bool) -> str:
    return f"{actions} actions ({'the full set' if is_full else 'the minimal set'})"
