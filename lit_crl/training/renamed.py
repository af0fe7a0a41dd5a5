"""The names that settings had before they were grouped, for messages that say the new ones."""

from collections.abc import Iterable

from lit_crl.core.checks import ConfigError

#: Old keys, and the groups' keys that took their place.
RENAMED = {
    "model.hidden": "model.network.hidden",
    "model.dueling": "model.network.dueling",
    "model.layer_norm": "model.network.layer_norm",
    "model.scale_obs": "model.network.scale_obs",
    "model.planning_steps": "model.network.planning_steps",
    "model.double_dqn": "model.dqn.double",
    "model.td_loss": "model.dqn.td_loss",
    "model.target_rate": "model.dqn.target_rate",
    "model.target_period": "model.dqn.target_period",
    "model.max_grad_norm": "model.dqn.max_grad_norm",
    "model.final_lr": "model.dqn.final_lr",
    "model.q_optimizer": "model.dqn.optimizer",
    "model.gan_loss": "model.gan.loss",
    "model.lambda_gan": "model.gan.lambda_gan",
    "model.r1": "model.gan.r1",
    "model.r2": "model.gan.r2",
    "model.gan_hidden": "model.gan.hidden",
    "model.noise_dim": "model.gan.noise_dim",
    "model.ema_rate": "model.gan.ema_rate",
    "model.level_noise": "model.gan.level_noise",
    "model.generator_optimizer": "model.gan.generator_optimizer",
    "model.discriminator_optimizer": "model.gan.discriminator_optimizer",
    "data.env_steps": "data.collect.env_steps",
    "data.num_envs": "data.collect.num_envs",
    "data.warmup": "data.collect.warmup",
    "data.steps_per_batch": "data.collect.steps_per_batch",
    "data.exploration": "data.collect.exploration",
    "data.gamma": "data.collect.gamma",
    "data.device": "data.collect.device",
    "data.capacity": "data.replay.capacity",
    "data.n_steps": "data.replay.n_steps",
    "data.batch_size": "data.replay.batch_size",
    "data.updates_per_batch": "data.replay.updates_per_batch",
    "data.frame_stack": "data.replay.frame_stack",
    "data.hindsight": "data.replay.hindsight",
    "data.priority_exponent": "data.replay.priority_exponent",
    "data.importance_exponent": "data.replay.importance_exponent",
    "data.arm": "data.curriculum.arm",
    "data.mix": "data.curriculum.mix",
    "data.proposals": "data.curriculum.proposals",
    "data.min_outcomes": "data.curriculum.min_outcomes",
    "data.novelty_exponent": "data.curriculum.novelty_exponent",
    "data.tried": "data.curriculum.tried",
    "data.visited": "data.curriculum.visited",
    "data.label_epsilon": "data.curriculum.label_epsilon",
    "data.gan_every": "data.gan.every",
    "data.gan_updates": "data.gan.updates",
    "data.gan_batch_size": "data.gan.batch_size",
    "data.reals": "data.gan.reals",
    "data.reference_reals": "data.gan.reference_reals",
    "data.validate_every": "data.evaluation.every",
    "data.validation_episodes": "data.evaluation.episodes",
    "data.test_episodes": "data.evaluation.test_episodes",
    "data.generated_levels": "data.evaluation.generated_levels",
    "data.evaluation_share": "data.evaluation.share",
    "data.difficulty": "data.evaluation.difficulty",
}
#: The groups of settings.
GROUPS = frozenset(key.rpartition(".")[0] for key in RENAMED.values())


def refuse_flat(keys: Iterable[str], where: str = "") -> None:
    """No key is one of those that settings had before they were grouped.

    Args:
        keys: Dotted keys, perhaps with more behind the setting's name.
        where: What precedes the sentence, a file's name, say.

    Raises:
        ConfigError: If one is; says its new name.
    """
    for key in keys:
        old = ".".join(key.split(".")[:2])
        if old in RENAMED:
            raise ConfigError(f"{where}{old} is now called {RENAMED[old]}: use that name")
