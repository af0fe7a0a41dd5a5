"""The arms of a comparison: which sources of levels each has, and in which shares.

The arms ``target`` < ``reference`` < ``archive`` < ``gan`` each add a source to those before: an
arm uses the mix's shares of the sources before its own, and gives the rest to its own. So one mix
serves all: with 25 % each, ``archive`` is 25 % target, 25 % reference and 50 % archive. Every other
arm has the mix's target and reference levels, and a source ``own`` for the rest: one of those in
``OWN``, or a function or class of the user's.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from torch import Tensor

from lit_crl.checks import ConfigError
from lit_crl.level_replay import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.screening import LearnabilityScreen, valid_reference

Source = Literal["target", "reference", "archive", "gan", "own"]
SOURCES: tuple[Source, ...] = get_args(Source)
#: Those of the mix; ``own`` takes what is left.
MIXED = SOURCES[:4]
#: Equal shares: enough of the user's own task, enough breadth, enough frontier.
EQUAL_MIX: Mapping[str, float] = dict.fromkeys(MIXED, 0.25)

#: A user's arm ``(n, curriculum, teacher) -> levels [n, d]`` in the environment's units: how many,
#: the curriculum with all that it knows, and who has p̂, generated levels and action values.
OwnSource = Callable[..., Any]
Arm = Literal[
    "target", "reference", "archive", "gan", "valid_reference", "plr", "accel", "sfl", "oracle"
]
OWN: Mapping[str, Callable[[], OwnSource]] = {
    "valid_reference": lambda: valid_reference,
    "plr": PrioritizedLevelReplay,
    "accel": EditedLevelReplay,
    "sfl": LearnabilityScreen,
    "oracle": lambda: LearnabilityScreen(charged=False),
}


class Finished(NamedTuple):
    """Episodes that have just ended, one entry each ``[m]``."""

    levels: Tensor
    success: Tensor
    returns: Tensor
    #: Mean over the episode of V = max_a Q.
    value: Tensor
    #: Mean over the episode of |δ|, the one-step TD error.
    td_error: Tensor


@runtime_checkable
class Recorder(Protocol):
    """A source that learns from all episodes, whatever the source of their levels."""

    def record(self, finished: Finished) -> None:
        """Take notice of episodes."""


@runtime_checkable
class Stateful(Protocol):
    """A source that a resumed run must find as it was."""

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave; its tensors lie where the curriculum's levels do."""


def own_source(arm: Arm | OwnSource) -> OwnSource | None:
    """The own source of an arm, if it has one.

    Raises:
        ConfigError: If it is no arm.
    """
    if not isinstance(arm, str):
        return arm
    if arm in MIXED:
        return None
    if arm not in OWN:
        names = ", ".join([*MIXED, *OWN])
        raise ConfigError(
            f"data.arm is {arm!r}: use one of {names}, or a function that draws levels"
        )
    return OWN[arm]()


def arm_name(arm: Arm | OwnSource) -> str:
    """How an arm is called."""
    return arm if isinstance(arm, str) else getattr(arm, "__name__", type(arm).__name__)


def check_arm(
    arm: str, own: OwnSource | None, reals: str, proposals: str, env: Any, world_size: int
) -> None:
    """An arm fits the environment.

    Raises:
        ConfigError: If it needs what the environment, or several processes, do not have.
    """
    if arm != "target" and env.level_space is None:
        raise ConfigError(
            f"data.arm is {arm!r}, but {env.gymnasium_id or 'this environment'} has no "
            "level_space: use data.arm target, or give level_space and set_level"
        )
    needs = {
        "reals is visited": (reals == "visited", "frontier or labelled"),
        "proposals is projected": (proposals == "projected", "frontier, realistic or valid"),
    }
    for setting, (is_set, remedy) in needs.items():
        if is_set and env.level_space is not None and not env.tracks_visited:
            raise ConfigError(
                f"data.{setting}, but {type(env).__name__} cannot turn the states it visits into "
                f"levels: use {remedy}"
            )
    if isinstance(own, LearnabilityScreen) and env.max_episode_steps is None:
        raise ConfigError(
            f"data.arm is {arm!r}, but the environment has no time limit, so that trying levels "
            "may take for ever: give max_episode_steps"
        )
    if isinstance(own, LearnabilityScreen) and world_size > 1:
        raise ConfigError(
            f"data.arm is {arm!r}, whose screening would take each of the {world_size} processes "
            "another time: use --trainer.devices 1"
        )


def arm_shares(arm: Arm | OwnSource, mix: Mapping[str, float]) -> dict[Source, float]:
    """The share of resets that each source gets under an arm.

    Raises:
        ConfigError: If the mix names an unknown source, has a negative share, or does not sum to 1.
    """
    unknown = set(mix) - set(MIXED)
    if unknown:
        raise ConfigError(f"data.mix has no source {sorted(unknown)}: use {', '.join(MIXED)}")
    if any(not share >= 0 for share in mix.values()):
        raise ConfigError(f"data.mix must have shares ≥ 0, got {dict(mix)}")
    if not math.isclose(sum(mix.values()), 1, abs_tol=1e-6):
        raise ConfigError(f"data.mix must sum to 1, got {sum(mix.values()):g}: {dict(mix)}")
    added: Source = arm if arm in MIXED else "own"
    before = SOURCES[: SOURCES.index(added)] if added != "own" else SOURCES[:2]
    shares: dict[Source, float] = {source: mix.get(source, 0.0) for source in before}
    shares[added] = 1 - sum(shares.values())
    return shares
