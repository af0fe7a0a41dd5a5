"""What of the data cannot work together: refused before the first env step."""

from lit_crl.core.seeding import random_stream
from lit_crl.curriculum import arms
from lit_crl.curriculum.arms import Needs
from lit_crl.envs import LevelEnv
from lit_crl.gan.equations import GANLoss
from lit_crl.training.settings import DataSettings


def check_levels(settings: DataSettings, arm: str, needs: Needs, env: LevelEnv, seed: int) -> None:
    """Refuse an environment that lacks the levels of an arm.

    Args:
        settings: All of the data.
        arm: The arm's name.
        needs: What the arm needs.
        env: The environment.
        seed: The seed of the run: levels are drawn to see whether they can be played.

    Raises:
        ConfigError: If it does.
    """
    arms.check_environment(arm, needs, env)
    arms.check_visited(settings.gan.reals, settings.curriculum.proposals, env)
    rng = random_stream(seed, "check of the arm", device=env.device)
    if needs.gan and settings.gan.updates:
        gan = settings.gan
        arms.check_reals(gan.reals, settings.curriculum.proposals, gan.symmetries, env, rng)
    arms.check_played(arm, needs, settings.curriculum.shares, env, rng)


def check_arm(
    settings: DataSettings, arm: str, needs: Needs, env: LevelEnv, loss: GANLoss, world_size: int
) -> None:
    """Refuse an arm that can never work in a run.

    Args:
        settings: All of the data.
        arm: The arm's name.
        needs: What the arm needs.
        env: The environment.
        loss: What the GAN minimises.
        world_size: Number of processes.

    Raises:
        ConfigError: If it cannot.
    """
    arms.check_processes(arm, needs, world_size)
    arms.check_one_process_visits(env, world_size)
    arms.check_gan(arm, needs, settings.gan.updates, settings.gan.reals, loss)
