"""What does not go with a world: refused before the first env step."""

import torch

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.arms import Needs
from lit_crl.envs import LevelEnv
from lit_crl.envs.batched import has_pure_step
from lit_crl.training.dreams.level_starts import check_levels_show, hides_level
from lit_crl.training.settings import DataSettings


def check_world(
    settings: DataSettings,
    arm: str,
    needs: Needs,
    env: LevelEnv,
    learners: torch.device,
) -> None:
    """Refuse settings of the data that do not go with a world; say if nobody learns from it.

    Args:
        settings: All of them.
        arm: The arm's name.
        needs: What the arm needs.
        env: The real environment.
        learners: Where the learner is.

    Raises:
        ConfigError: If there are any.
    """
    replay, dreams = settings.replay, settings.world
    if not dreams.does_anything:
        distributed.print_once(
            "Nobody learns from the world, because data.world.share, curiosity and judge_share are "
            "not above 0: the run is the one of model.world.loss none."
        )
        return
    _check_supported(settings, env, learners)
    if dreams.judge_share and replay.priority_exponent:
        raise ConfigError(
            f"data.world.judge_share is {dreams.judge_share:g}, but dreams have no priorities, and "
            f"data.replay.priority_exponent is {replay.priority_exponent:g}: set one of them to 0"
        )
    if dreams.level_states:
        _check_level_states(settings, arm, needs, env)
    if dreams.dynamics == "perfect" and needs.levels and has_pure_step(env) and hides_level(env):
        raise ConfigError(
            f"data.world.dynamics is 'perfect', but data.curriculum.arm {arm!r} plays levels whose "
            f"physics the observations of {type(env).__name__} do not show: use the arm target, or "
            "data.world.dynamics learnt"
        )
    if needs.played or needs.gan:
        _check_judges_act(settings, arm)


def _check_supported(settings: DataSettings, env: LevelEnv, learners: torch.device) -> None:
    found, remedy = None, ""
    if settings.replay.frame_stack > 1:
        found, remedy = f"data.replay.frame_stack is {settings.replay.frame_stack}", "set it to 1"
    elif settings.collect.gamma == 0:
        # A step's discount is then 0 at every step, and only an end's may be.
        found, remedy = "data.collect.gamma is 0", "give a number above 0"
    elif env.device.type != learners.type:
        found = f"data.collect.device is {str(env.device)!r} and the learner is on {learners}"
        remedy = "set it to auto"
    if found is not None:
        raise ConfigError(
            f"model.world.loss is on, but {found}, which a world does not support: {remedy}, "
            "or set model.world.loss to none"
        )


def _check_level_states(settings: DataSettings, arm: str, needs: Needs, env: LevelEnv) -> None:
    if not needs.gan or not settings.gan.updates:
        raise ConfigError(
            f"data.world.level_states is {settings.world.level_states:g}, but under "
            f"data.curriculum.arm {arm!r} with data.gan.updates {settings.gan.updates} no "
            "generator is trained: use the arm gan with updates above 0, or set it to 0"
        )
    check_levels_show(env)


def _check_judges_act(settings: DataSettings, arm: str) -> None:
    dreams, num_envs = settings.world, settings.collect.num_envs
    if dreams.has_explorer and round(dreams.explorers * num_envs) == num_envs:
        raise ConfigError(
            f"data.world.explorers is {dreams.explorers:g}, which leaves none of "
            f"{num_envs} environments to the judge, from whose episodes data.curriculum.arm "
            f"{arm!r} learns: give less, or more data.collect.num_envs"
        )
