"""The arms of a comparison: which sources of levels each has, and in which shares.

The arms ``target`` < ``reference`` < ``archive`` < ``gan`` each add a source to those before: an
arm takes the mix's shares of the earlier sources, and the source that it adds gets the rest. So one
mix serves all arms: with 25 % each, ``archive`` is 25 % target, 25 % reference and 50 % archive.
Every other arm has the mix's target and reference levels, and a custom source (``own`` in shares)
for the rest: one of ``CUSTOM_SOURCES``, or the user's function or object.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.edits import TargetEdits
from lit_crl.curriculum.gaussian import PcaGaussian
from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sfl import LearnabilityScreen, valid_reference
from lit_crl.curriculum.sources import SOURCES, CustomSource, Source
from lit_crl.curriculum.symmetries import symmetries, symmetries_of
from lit_crl.curriculum.tiles import tiles
from lit_crl.envs import LevelEnv
from lit_crl.envs.given_levels import has_given_levels

#: The sources of the mix; ``own`` gets the rest.
MIXED = SOURCES[:4]
#: Equal shares: enough of the user's task, enough breadth, enough frontier.
EQUAL_MIX: Mapping[str, float] = dict.fromkeys(MIXED, 0.25)

Arm = Literal[
    "target",
    "reference",
    "archive",
    "gan",
    "valid_reference",
    "plr",
    "accel",
    "sfl",
    "oracle",
    "symmetries",
    "edits",
    "gaussian",
    "tiles",
]
#: The named arms that have a custom source: a function, or a class that has state.
CUSTOM_SOURCES: Mapping[str, CustomSource] = {
    "valid_reference": valid_reference,
    "plr": PrioritizedLevelReplay,
    "accel": EditedLevelReplay,
    "sfl": LearnabilityScreen,
    "oracle": LearnabilityScreen,
    "symmetries": symmetries,
    "edits": TargetEdits,
    "gaussian": PcaGaussian,
    "tiles": tiles,
}


@dataclass(frozen=True)
class Needs:
    """What an arm needs in order to work.

    Args:
        levels: An environment that can be reset to levels.
        given: Target levels that a user has given, to make others from.
        symmetric: Symmetries of the levels, which the environment declares.
        kind: The kind of levels: maps of tiles, vectors of numbers, or either.
        success: Episodes whose success is known.
        played: Levels at which episodes have started, to draw from or to learn from.
        outcomes: Outcomes of training episodes, from which p̂ learns.
        gan: A GAN that trains: the arm plays its levels, or uses its p̂.
        time_limit: Episodes that end after a limited number of steps.
        one_process: A run of a single process.
    """

    levels: bool = True
    given: bool = False
    symmetric: bool = False
    kind: Literal["maps", "vectors", "either"] = "either"
    success: bool = False
    played: bool = False
    outcomes: bool = False
    gan: bool = False
    time_limit: bool = False
    one_process: bool = False


#: What each arm needs. Whatever is done or checked only for some arms is decided here.
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
    "symmetries": Needs(given=True, symmetric=True),
    "edits": Needs(given=True),
    "gaussian": Needs(given=True, kind="vectors"),
    "tiles": Needs(given=True, kind="maps"),
}
#: What a user's arm needs. Nobody knows whether it will ask the GAN, so the GAN trains in any case.
USERS_NEEDS = Needs(gan=True)


def custom_source(arm: Arm | CustomSource) -> CustomSource | None:
    """The custom source of an arm, if it has one.

    Raises:
        ConfigError: If there is no arm of that name.
    """
    if not isinstance(arm, str):
        return arm
    if arm in MIXED:
        return None
    if arm not in CUSTOM_SOURCES:
        names = ", ".join([*MIXED, *CUSTOM_SOURCES])
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}: use one of {names}, or a function that draws levels"
        )
    if arm == "oracle":
        return LearnabilityScreen(charged=False)
    source = CUSTOM_SOURCES[arm]
    return source() if isinstance(source, type) else source


def needs_of(arm: Arm | CustomSource) -> Needs:
    """What an arm needs, also if one of the named arms is given by its import path."""
    if isinstance(arm, str):
        return NEEDS[arm]
    for name, source in CUSTOM_SOURCES.items():
        if arm is source or type(arm) is source:
            return NEEDS[name]
    return USERS_NEEDS


def arm_name(arm: Arm | CustomSource) -> str:
    """The name of an arm; of a user's arm, the name of its function or class."""
    return arm if isinstance(arm, str) else getattr(arm, "__name__", type(arm).__name__)


def check_environment(arm: str, needs: Needs, env: LevelEnv) -> None:
    """Check that the environment has levels, can be reset and ends as the arm needs it.

    Raises:
        ConfigError: If it takes no levels, or none of the kind that the arm makes; if the user gave
            none to make others from; or if it has no time limit.
    """
    if needs.levels and env.level_space is None:
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, but {env.gymnasium_id or 'this environment'} has no "
            "level_space: use data.curriculum.arm target, or give level_space and set_level"
        )
    if needs.given and not has_given_levels(env):
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, which makes levels from given ones: give data.given, "
            "a file of levels"
        )
    kind = "vectors" if getattr(env, "level_shape", None) is None else "maps"
    if needs.kind not in (kind, "either"):
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, which makes {needs.kind}, but the levels of "
            f"{type(env).__name__} are {kind}: use data.curriculum.arm edits or gan"
        )
    if needs.symmetric:
        symmetries_of(env)
    if needs.time_limit and env.max_episode_steps is None:
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, but the environment has no time limit, so that "
            "trying levels may never end: give max_episode_steps"
        )


def check_processes(arm: str, needs: Needs, world_size: int) -> None:
    """Check that the arm can be trained in ``world_size`` processes.

    Raises:
        ConfigError: If it needs a single one.
    """
    if needs.one_process and world_size > 1:
        raise ConfigError(
            f"data.curriculum.arm is {arm!r}, whose screening takes a different time in each of "
            f"the {world_size} processes: use --trainer.devices 1"
        )


def check_one_process_visits(env: LevelEnv, world_size: int) -> None:
    """Check that no process needs the states that another one has visited.

    Raises:
        ConfigError: If levels are visited states, and there are several processes.
    """
    if world_size > 1 and getattr(env, "visited", None) is not None:
        raise ConfigError(
            "data.env.init_args.visited_levels is given, but each of the "
            f"{world_size} processes would have visited other states: use --trainer.devices 1"
        )


def check_gan(arm: str, needs: Needs, gan_updates: int, reals: str, gan_loss: str) -> None:
    """Check that the GAN trains where an arm needs it, and that its loss uses the labels.

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
    arm: str, needs: Needs, shares: Mapping[Source, float], env: LevelEnv, rng: torch.Generator
) -> None:
    """Check that some episodes start at levels which the arm can play again.

    Raises:
        ConfigError: If all start at the task's own resets, which are rows of NaN, not levels.
    """
    if not needs.played or env.tracks_visited or shares.get("reference", 0.0) > 0:
        return
    if not env.target_levels(1, rng).isfinite().all():
        raise ConfigError(
            f"data.curriculum.arm {arm!r} starts from levels that were played, but "
            "data.curriculum.mix has no share of reference levels, and target levels are the "
            "task's own resets, which are not levels: give data.curriculum.mix a reference share, "
            "or data.env target_levels"
        )


def check_reals(
    reals: str, proposals: str, symmetric: bool, env: LevelEnv, rng: torch.Generator
) -> None:
    """Check that there are the levels from which the GAN shall learn, and what they need.

    Raises:
        ConfigError: If ``target`` levels are the task's own resets, no given maps can say where
            starts and goals are ``redrawn``, or the environment declares no symmetries.
    """
    if reals == "target" and not env.target_levels(1, rng).isfinite().all():
        raise ConfigError(
            "data.gan.reals is target, but target levels are the task's own resets, which are not "
            "levels: give data.given, or data.env target_levels"
        )
    if proposals == "redrawn" and not (
        has_given_levels(env) and getattr(env, "level_shape", None) is not None
    ):
        raise ConfigError(
            "data.curriculum.proposals is redrawn, which places start and goal as in given maps: "
            "give data.given with an environment of maps, or use frontier or valid"
        )
    if symmetric:
        symmetries_of(env)


def check_visited(reals: str, proposals: str, env: LevelEnv) -> None:
    """Check that the environment tells which states it visits, if a setting needs them.

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


def arm_shares(arm: Arm | CustomSource, mix: Mapping[str, float]) -> dict[Source, float]:
    """The share of resets that each source gets under an arm.

    >>> arm_shares("archive", EQUAL_MIX)
    {'target': 0.25, 'reference': 0.25, 'archive': 0.5}

    Raises:
        ConfigError: If the mix names an unknown source, has a negative share, does not sum to 1, or
            leaves nothing to the source that the arm adds.
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
