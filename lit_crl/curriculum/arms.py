"""The arms of a comparison: which sources of levels each has, and in which shares.

The arms ``target`` < ``reference`` < ``archive`` < ``gan`` each add a source to those before: an
arm uses the mix's shares of the sources before its own, and gives the rest to its own. So one mix
serves all: with 25 % each, ``archive`` is 25 % target, 25 % reference and 50 % archive. Every other
arm has the mix's target and reference levels, and a source ``own`` for the rest: one of those in
``OWN``, or a function or class of the user's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sfl import LearnabilityScreen, valid_reference
from lit_crl.curriculum.sources import SOURCES, OwnSource, Source

#: Those of the mix; ``own`` takes what is left.
MIXED = SOURCES[:4]
#: Equal shares: enough of the user's own task, enough breadth, enough frontier.
EQUAL_MIX: Mapping[str, float] = dict.fromkeys(MIXED, 0.25)

Arm = Literal[
    "target", "reference", "archive", "gan", "valid_reference", "plr", "accel", "sfl", "oracle"
]
#: The arms that have a source ``own``: a function, or a class that remembers something.
OWN: Mapping[str, OwnSource] = {
    "valid_reference": valid_reference,
    "plr": PrioritizedLevelReplay,
    "accel": EditedLevelReplay,
    "sfl": LearnabilityScreen,
    "oracle": LearnabilityScreen,
}


@dataclass(frozen=True)
class Needs:
    """What an arm cannot do without.

    Args:
        levels: An environment that can be reset to levels.
        success: Episodes of which it is known whether they succeeded.
        played: Levels that episodes have started at, to draw from or to learn from.
        outcomes: Outcomes of training episodes, which p̂ learns from.
        gan: A GAN that trains: the arm plays what it makes, or uses its p̂.
        time_limit: Episodes that end by themselves.
        one_process: A run of a single process.
    """

    levels: bool = True
    success: bool = False
    played: bool = False
    outcomes: bool = False
    gan: bool = False
    time_limit: bool = False
    one_process: bool = False


#: What each arm needs. All that is done or checked for some arms alone is decided here.
NEEDS: Mapping[str, Needs] = {
    "target": Needs(levels=False),
    "reference": Needs(),
    "archive": Needs(success=True, played=True, outcomes=True, gan=True),
    "gan": Needs(success=True, played=True, outcomes=True, gan=True),
    "valid_reference": Needs(),
    "plr": Needs(played=True),
    "accel": Needs(played=True),
    "sfl": Needs(success=True, time_limit=True, one_process=True),
    "oracle": Needs(success=True, time_limit=True, one_process=True),
}
#: What a user's arm needs, as far as can be told before it asks: the GAN trains in case it asks.
USERS_NEEDS = Needs(gan=True)


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
            f"data.curriculum.arm is {arm!r}: use one of {names}, or a function that draws levels"
        )
    if arm == "oracle":
        return LearnabilityScreen(charged=False)
    source = OWN[arm]
    return source() if isinstance(source, type) else source


def needs_of(arm: Arm | OwnSource) -> Needs:
    """What an arm needs; one that is given by its import path needs what its name does."""
    if isinstance(arm, str):
        return NEEDS[arm]
    for name, source in OWN.items():
        if arm is source or type(arm) is source:
            return NEEDS[name]
    return USERS_NEEDS


def arm_name(arm: Arm | OwnSource) -> str:
    """How an arm is called."""
    return arm if isinstance(arm, str) else getattr(arm, "__name__", type(arm).__name__)


def check_environment(arm: str, needs: Needs, env: Any) -> None:
    """The environment has what an arm needs.

    Raises:
        ConfigError: If it has not.
    """
    if needs.levels and env.level_space is None:
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, but {env.gymnasium_id or 'this environment'} has no "
            "level_space: use data.curriculum.arm target, or give level_space and set_level"
        )
    if needs.time_limit and env.max_episode_steps is None:
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, but the environment has no time limit, so that "
            "trying levels may take for ever: give max_episode_steps"
        )


def check_processes(arm: str, needs: Needs, world_size: int) -> None:
    """An arm can be trained in so many processes.

    Raises:
        ConfigError: If it cannot.
    """
    if needs.one_process and world_size > 1:
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, whose screening would take each of the {world_size} "
            "processes another time: use --trainer.devices 1"
        )


def check_gan(arm: str, needs: Needs, gan_updates: int, reals: str, gan_loss: str) -> None:
    """The GAN trains where an arm needs it, with a loss that uses what it is given.

    Raises:
        ConfigError: If it does not, or if ``data.gan.reals`` gives labels that the loss ignores.
    """
    if needs.outcomes and gan_updates == 0:
        use = "plays the levels that the GAN makes" if arm == "gan" else "weighs levels by its p̂"
        raise ConfigError(
            f"data.gan.updates is 0, but data.curriculum.arm {arm!r} {use}, and a GAN that never "
            "learns makes noise: give data.gan.updates above 0, or use data.curriculum.arm target "
            "or reference"
        )
    if needs.gan and gan_updates and reals == "labelled" and gan_loss != "least_squares":
        raise ConfigError(
            f"data.gan.reals is 'labelled', but model.gan.loss {gan_loss!r} ignores labels: use "
            "model.gan.loss least_squares, or data.gan.reals frontier or visited"
        )


def check_played(
    arm: str, needs: Needs, shares: Mapping[Source, float], env: Any, rng: torch.Generator
) -> None:
    """Episodes start at levels from which an arm can draw others.

    Raises:
        ConfigError: If all start at the task's own resets, which are rows of NaN, not levels.
    """
    if not needs.played or env.tracks_visited or shares.get("reference", 0.0) > 0:
        return
    if not env.target_levels(1, rng).isfinite().all():
        raise ConfigError(
            f"data.curriculum.arm {arm!r} starts from levels that were played, but "
            "data.curriculum.mix has no share of reference levels, and target levels are the "
            "task's own resets, which are no levels: give data.curriculum.mix a reference share, "
            "or data.env target_levels"
        )


def check_visited(reals: str, proposals: str, env: Any) -> None:
    """The environment tells which states it visits, if a setting needs them.

    Raises:
        ConfigError: If it does not.
    """
    needs = {
        "gan.reals is visited": (reals == "visited", "frontier or labelled"),
        "curriculum.proposals is projected": (
            proposals == "projected",
            "frontier, realistic or valid",
        ),
    }
    for setting, (is_set, remedy) in needs.items():
        if is_set and env.level_space is not None and not env.tracks_visited:
            raise ConfigError(
                f"data.{setting}, but {type(env).__name__} cannot turn the states it visits into "
                f"levels: use {remedy}"
            )


def arm_shares(arm: Arm | OwnSource, mix: Mapping[str, float]) -> dict[Source, float]:
    """The share of resets that each source gets under an arm.

    Raises:
        ConfigError: If the mix names an unknown source, has a negative share, does not sum to 1, or
            leaves nothing to the source that makes the arm.
    """
    unknown = set(mix) - set(MIXED)
    if unknown:
        raise ConfigError(
            f"data.curriculum.mix has no source {sorted(unknown)}: use {', '.join(MIXED)}"
        )
    if any(not share >= 0 for share in mix.values()):
        raise ConfigError(f"data.curriculum.mix must have shares ≥ 0, got {dict(mix)}")
    if not math.isclose(sum(mix.values()), 1, abs_tol=1e-6):
        raise ConfigError(
            f"data.curriculum.mix must sum to 1, got {sum(mix.values()):g}: {dict(mix)}"
        )
    added: Source = arm if arm in MIXED else "own"
    before = SOURCES[: SOURCES.index(added)] if added != "own" else SOURCES[:2]
    shares: dict[Source, float] = {source: mix.get(source, 0.0) for source in before}
    shares[added] = 1 - sum(shares.values())
    if shares[added] < 1e-6:
        raise ConfigError(
            f"data.curriculum.mix is {dict(mix)}, which leaves no share to data.curriculum.arm "
            f"{arm_name(arm)!r}: lower the shares of {', '.join(before)}, or choose one of these "
            "as data.curriculum.arm"
        )
    return shares
