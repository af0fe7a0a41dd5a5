"""Weights & Biases."""

import os
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger

from lit_crl.checks import ConfigError
from lit_crl.distributed import say


def wandb_logger(experiment: str, folder: Path) -> WandbLogger:
    """Weights & Biases with ``env_steps`` as the axis of everything; offline without an account.

    Raises:
        ConfigError: If ``WANDB_MODE=online`` is set and no key is known.
    """
    import wandb  # slow to import, and few runs need it

    mode = os.environ.get("WANDB_MODE")
    has_key = wandb.login(prompt=False) if mode != "offline" else False
    if mode == "online" and not has_key:
        raise ConfigError(
            "WANDB_MODE is online, but W&B knows no key: run `wandb login`, or unset WANDB_MODE "
            "to log offline"
        )
    offline = mode == "offline" or (mode is None and not has_key)
    if offline:
        say("W&B logs offline (no account is set): `wandb sync` uploads the run later.")
    folder.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        name=folder.name,
        group=experiment,
        project="lit_crl",
        save_dir=folder,
        # Lightning's own way of saying offline comes too late after a login: W&B would ask.
        mode="offline" if offline else None,
    )
    # Lightning passes it on as None, and W&B warns of that.
    logger._wandb_init.pop("anonymous", None)
    logger.experiment.define_metric("env_steps")
    logger.experiment.define_metric("*", step_metric="env_steps")
    return logger
