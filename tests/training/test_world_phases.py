"""How a learner trains a world and an explorer: optimizers, precision, and memory."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import GivenBatches, learner_settings, make_trainer
from lightning.pytorch.plugins import MixedPrecision
from torch.optim import SGD, Adam
from world_batches import ENV, batch, make

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


class Seen:
    """The dtypes that come out of a world's networks and of the explorer."""

    def __init__(self, learner: CreativeLearner) -> None:
        self.world: set[torch.dtype] = set()
        self.explorer: set[torch.dtype] = set()
        assert learner.world_gan is not None and learner.explorer is not None
        for module in learner.world_gan.modules():
            module.register_forward_hook(self.look(self.world))
        learner.explorer.get_submodule("torso").register_forward_hook(self.look(self.explorer))

    @staticmethod
    def look(dtypes: set[torch.dtype]) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            dtypes.update(x.dtype for x in (output if isinstance(output, tuple) else [output]))

        return hook


def trained(precision: dict[str, Any], **world: Any) -> tuple[CreativeLearner, Seen]:
    learner = make(**world)
    seen = Seen(learner)
    trainer = make_trainer(max_epochs=1, limit_val_batches=0, **precision)
    noise_dim = 2 if world.get("loss") == "likelihood" else 4
    trainer.fit(learner, datamodule=GivenBatches(ENV, [batch(seed, noise_dim) for seed in (0, 1)]))
    return learner, seen


@pytest.mark.usefixtures("wrapped")
@pytest.mark.parametrize("loss", ["gan_reconstruction", "likelihood"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_world_is_float32_under_mixed_precision(precision: str, loss: str) -> None:
    """Its weights are those of 32-true, bit for bit, while judge and explorer have others."""
    how: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":  # with a loss scale, on the CPU
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        how = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=scaler)]}
    exact, _ = trained({}, loss=loss)
    mixed, seen = trained(how, loss=loss)
    assert seen.world == {torch.float32}
    assert {torch.bfloat16, torch.float16} & seen.explorer
    assert exact.world_gan is not None and mixed.world_gan is not None
    start = make(loss=loss).state_dict()
    changed = 0
    for name, expected in exact.state_dict().items():
        found = mixed.state_dict()[name]
        if name.startswith("world_gan"):
            assert found.dtype == torch.float32 and torch.equal(found, expected), name
            changed += not torch.equal(found, start[name])
    assert changed > 5
    for network in ("q_network", "explorer"):
        pairs = zip(
            *(one.get_submodule(network).parameters() for one in (exact, mixed)), strict=True
        )
        assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_disagreement_is_float32_within_autocast(precision: str) -> None:
    world = make().world_gan
    assert world is not None
    rng = torch.Generator().manual_seed(0)
    obs, action = torch.rand(64, 2, generator=rng), torch.arange(64) % 3
    world.fit_normaliser(obs, torch.rand(64, generator=rng), obs + 1e-3 * torch.rand(64, 2))
    world.fit_disagreement(obs, action)
    expected = world.disagreement(obs, action)
    with torch.autocast("cpu", torch.bfloat16 if precision == "bf16-mixed" else torch.float16):
        found = world.disagreement(obs, action)
        step = world.imagine(obs, action, rng)
    assert found.dtype == torch.float32 and torch.equal(found, expected) and found.isfinite().all()
    assert step.next_obs.dtype == step.reward.dtype == step.disagreement.dtype == torch.float32
