"""Makes what collects experience, and what it goes to: replay, archive, curriculum, rollout."""

from collections.abc import Callable
from functools import partial

import torch

from lit_crl.core.free_memory import check_fits
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.arms import Needs
from lit_crl.curriculum.curriculum import Curriculum
from lit_crl.curriculum.settings import CurriculumSettings
from lit_crl.curriculum.sfl import LearnabilityScreen
from lit_crl.curriculum.sources import CustomSource
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.settings import ReplaySettings
from lit_crl.envs import LevelEnv
from lit_crl.envs.factory import EnvFactory
from lit_crl.training.experience.rollout import Rollout
from lit_crl.training.settings import DataSettings


def new_replay(env: LevelEnv, settings: ReplaySettings, memory_size: int = 0) -> ReplayBuffer:
    """An empty replay for the steps of a batch of environments, with what a policy remembers.

    Raises:
        ConfigError: If it does not fit into the memory that is free.
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
    # On the device "meta" tensors have sizes, but take no memory.
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
