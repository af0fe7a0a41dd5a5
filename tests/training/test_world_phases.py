"""How a learner trains a world and an explorer: optimizers, precision, and memory."""

import functools

import pytest
from conftest import learner_settings
from torch.optim import SGD, Adam

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError
from lit_crl.envs import MountainCar

WORLD = {"loss": "gan_reconstruction", "members": 2, "hidden": (8,), "head_hidden": (8,)}


def test_a_world_adds_groups_of_parameters_and_no_optimizer() -> None:
    slow = functools.partial(SGD, lr=0.5)
    learner = CreativeLearner(
        **learner_settings(generator_optimizer=slow), world={**WORLD, "generator_optimizer": slow}
    ).build(MountainCar(1))
    assert learner.level_gan is not None and learner.world_gan is not None
    assert learner.explorer is not None
    world, levels = learner.world_gan, learner.level_gan
    expected = [
        [[learner.q_network], [learner.explorer]],
        [[levels.discriminator], [world.heads, world.discriminators]],
        [[levels.generator], [world.generators]],
    ]
    optimizers = learner.configure_optimizers()
    for optimizer, groups in zip(optimizers, expected, strict=True):
        assert len(optimizer.param_groups) == len(groups)
        for group, networks in zip(optimizer.param_groups, groups, strict=True):
            parameters = [p for network in networks for p in network.parameters()]
            assert list(map(id, group["params"])) == list(map(id, parameters))
    assert [type(optimizer) for optimizer in optimizers] == [Adam, Adam, SGD]


def test_one_optimizer_cannot_be_of_two_classes() -> None:
    world = {**WORLD, "generator_optimizer": functools.partial(SGD, lr=0.5)}
    learner = CreativeLearner(**learner_settings(), world=world).build(MountainCar(1))
    says = r"model\.gan\.generator_optimizer is Adam and model\.world\.generator_optimizer is SGD"
    with pytest.raises(ConfigError, match=says):
        learner.configure_optimizers()
