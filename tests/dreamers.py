"""Tiny runs with a world, which the tests of dreaming share."""

from collections.abc import Callable
from typing import Any

from conftest import ShortCar, data_settings, learner_settings, make_trainer
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl import CreativeLearner, ReplayDataModule

WORLD = {"loss": "gan_reconstruction", "members": 2, "hidden": (8,), "head_hidden": (8,)}
#: Worlds this small err much: their dreams begin all the same.
DREAMS = {
    "every": 64,
    "updates": 2,
    "first_updates": 3,
    "batch_size": 16,
    "rare": 4,
    "dreams": 8,
    "horizon": 5,
    "error_bound": 100.0,
}

#: A run in which the GAN of levels learns soon.
LEVELS: dict[str, Any] = {
    "arm": "gan", "gan_updates": 2, "gan_every": 4, "gan_batch_size": 16, "min_outcomes": 2,
    "tried": 256, "visited": 512, "label_epsilon": 1.0, "env_steps": 720,
}  # fmt: skip


def prepared(
    world: dict[str, Any] | None = None,
    dreams: dict[str, Any] | None = None,
    env: Callable[..., Any] = ShortCar,
    callbacks: tuple[Callback, ...] = (),
    compile: bool = False,
    network: dict[str, Any] | None = None,
    **data: Any,
) -> tuple[CreativeLearner, ReplayDataModule, Any]:
    tiny = {
        "env_steps": 480, "num_envs": 4, "capacity": 2_000, "warmup": 160, "batch_size": 16,
        "updates_per_batch": 2, "gan_updates": 0, "arm": "target", "validate_every": 240,
        "validation_episodes": 2, "n_steps": 1, "seed": 3,
    } | data  # fmt: skip
    learner = CreativeLearner(
        **learner_settings(gan_hidden=(8,), seed=3),
        network={"hidden": (16,), **(network or {})},
        world=WORLD | (world or {}),
        compile=compile,
    )
    module = ReplayDataModule(env, **data_settings(**tiny), world=DREAMS | (dreams or {}))
    return learner, module, make_trainer(callbacks=list(callbacks), limit_val_batches=0)


def fitted(**given: Any) -> tuple[CreativeLearner, ReplayDataModule]:
    learner, data, trainer = prepared(**given)
    trainer.fit(learner, datamodule=data)
    return learner, data


def judge(learner: CreativeLearner) -> list[Tensor]:
    return [*learner.q_network.parameters(), *learner.target_network.parameters()]
