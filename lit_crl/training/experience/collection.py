"""Makes what collects experience, and what it goes to.

That is the environments, the replay, the curriculum with its archive, and the rollout.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from lit_crl.core.checks import ConfigError
from lit_crl.core.free_ram import check_fits
from lit_crl.core.seeding import random_stream, stream_seed
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.arms import Needs
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.settings import CurriculumSettings
from lit_crl.curriculum.sfl import LearnabilityScreen
from lit_crl.curriculum.sources import CustomSource
from lit_crl.dqn.logs.log import LogError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.hindsight import Hindsight
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.envs import LevelEnv
from lit_crl.envs.factory import EnvFactory, level_env
from lit_crl.envs.level_files import GivenError
from lit_crl.training.experience.rollout import Rollout
from lit_crl.training.settings import DataSettings


def new_env(make: EnvFactory, num_envs: int, device: torch.device) -> LevelEnv:
    """The environments of training.

    Raises:
        ConfigError: If they cannot be made; names the setting that is to blame.
    """
    try:
        return level_env(make(num_envs, device))
    except (LogError, GivenError):
        raise
    except (ValueError, TypeError) as error:  # the second: a class with other arguments
        raise ConfigError(f"data.env: {error}") from error


class Collection(NamedTuple):
    """What collects experience, and what it goes to."""

    replay: ReplayBuffer
    #: Puts other goals into transitions as they are drawn; None: into none.
    goals: Hindsight | None
    #: None: the environment has no levels.
    curriculum: Curriculum | None
    rollout: Rollout


def new_collection(
    env: LevelEnv,
    settings: DataSettings,
    needs: Needs,
    own: CustomSource | None,
    make_env: EnvFactory,
    budget: int,
    spent: Callable[[], int],
    memory_size: int,
    seed: int,
    rank: int,
) -> Collection:
    """An empty replay and curriculum, and the rollout that fills them.

    Args:
        env: The environments.
        settings: All of the data.
        needs: What the arm needs.
        own: Another source of levels, by name or of the user's.
        make_env: Makes further environments.
        budget: Env steps of the run.
        spent: Tells how many of them are spent.
        memory_size: Numbers that the policy remembers of an episode; 0: it has no memory.
        seed: The seed of the run.
        rank: Of this process, whose random streams are its own.

    Raises:
        ConfigError: If the replay does not fit, or a setting asks for what the environment lacks.
    """
    replay = new_replay(env, settings.replay, memory_size)
    goals = Hindsight.of(env, settings.replay.hindsight, settings.collect.gamma)
    rng = random_stream(seed, "curriculum", rank, env.device)
    curriculum = new_curriculum(env, settings.curriculum, own, make_env, budget, spent, rng)
    env_seed = stream_seed(seed, "training environments", rank) % 2**31
    rollout = new_rollout(env, replay, curriculum, settings, needs, env_seed)
    return Collection(replay, goals, curriculum, rollout)


def new_replay(env: LevelEnv, settings: ReplaySettings, memory_size: int = 0) -> ReplayBuffer:
    """An empty replay for the steps of a batch of environments, with what a policy remembers.

    Raises:
        ConfigError: If it does not fit into the RAM that is free.
    """
    on = partial(
        ReplayBuffer,
        settings.capacity,
        env.num_envs,
        env.single_observation_space,
        n_steps=settings.n_steps,
        frame_stack=settings.frame_stack,
        num_actions=int(env.single_action_space.n),
        priority_exponent=settings.priority_exponent,
        memory_size=memory_size,
    )
    # On the device "meta" tensors have sizes, but take no RAM.
    needed = on(device="meta").bytes
    check_fits("data.replay.capacity", settings.capacity, needed, env.device)
    return on(device=env.device)


def new_rollout(
    env: LevelEnv,
    replay: ReplayBuffer,
    curriculum: Curriculum | None,
    settings: DataSettings,
    needs: Needs,
    seed: int,
) -> Rollout:
    """Steps the environments from their first reset on.

    Args:
        env: The environments.
        replay: Where transitions go.
        curriculum: Is told of finished episodes; its archive gets levels and outcomes.
        settings: How experience is collected.
        needs: What the arm needs.
        seed: Seed of the environments' own random streams.
    """
    # Where levels are visited states, every arm with levels must be told of them.
    visits = needs.levels and getattr(env, "visited", None) is not None
    return Rollout(
        env,
        replay,
        curriculum.archive if curriculum is not None and (needs.gan or visits) else None,
        gamma=settings.collect.gamma,
        label_epsilon=settings.curriculum.label_epsilon,
        seed=seed,
        record=None if curriculum is None else curriculum.record,
    )


def new_curriculum(
    env: LevelEnv,
    settings: CurriculumSettings,
    own: CustomSource | None,
    make_env: EnvFactory,
    budget: int,
    spent: Callable[[], int],
    rng: torch.Generator,
) -> Curriculum | None:
    """The curriculum of an environment's levels, with an empty archive; None: it has no levels.

    Args:
        env: The environment.
        settings: Where levels come from.
        own: Another source of levels, by name or of the user's.
        make_env: Makes further environments.
        budget: Env steps of the run.
        spent: Tells how many of them are spent.
        rng: Draws levels.
    """
    if env.level_space is None:
        return None
    archive = Archive(
        env.level_space.shape[0],
        tried=settings.tried,
        visited=settings.visited,
        device=env.device,
    )
    curriculum = Curriculum(
        env,
        archive,
        settings.shares,
        novelty_exponent=settings.novelty_exponent,
        min_outcomes=settings.min_outcomes,
        proposals=settings.proposals,
        own=own,
        make_env=make_env,
        budget=budget,
        spent=spent,
        rng=rng,
    )
    if isinstance(own, LearnabilityScreen):
        own.check(curriculum)
    return curriculum
