"""The world of a loaded run imagines, in a new process, what it did in training: bit for bit."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ShortCar, data_settings, learner_settings, make_trainer
from torch import Tensor

import lit_crl
from lit_crl import CreativeLearner, Policy, ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.world.interface import World

SMALL = {"hidden": (12,), "head_hidden": (8,), "members": 3, "noise_dim": 2}
DREAMS = {"every": 64, "updates": 2, "first_updates": 3, "batch_size": 16, "dreams": 8}


def fitted(**world: Any) -> tuple[CreativeLearner, Any]:
    learner = CreativeLearner(**learner_settings(hidden=(16,)), world=SMALL | world)
    tiny = {
        "env_steps": 480, "num_envs": 4, "capacity": 2_000, "warmup": 160, "batch_size": 16,
        "updates_per_batch": 2, "gan_updates": 0, "arm": "target", "n_steps": 1,
    }  # fmt: skip
    data = ReplayDataModule(ShortCar, **data_settings(**tiny), world={**DREAMS, "horizon": 5})
    trainer = make_trainer(limit_val_batches=0)
    trainer.fit(learner, datamodule=data)
    return learner, trainer


def imagined(world: World) -> list[Tensor]:
    """Ten steps of sixteen dreams."""
    rng = torch.Generator().manual_seed(5)
    obs = torch.tensor([-0.5, 0.0]) + 0.01 * torch.randn(16, 2, generator=rng)
    steps = []
    for _ in range(10):
        steps.append(world.imagine(obs, torch.randint(3, (16,), generator=rng), rng))
        obs = steps[-1].next_obs
    return [torch.stack(field) for field in zip(*steps, strict=True)]


LOADS = f"""
import sys, torch, lit_crl
from torch import Tensor
from lit_crl.world.interface import World
{inspect.getsource(imagined)}
torch.set_num_threads(1)
torch.save([imagined(lit_crl.load(path).world) for path in sys.argv[2:]], sys.argv[1])
"""


def test_worlds_imagine_alike_in_another_process(tmp_path: Path) -> None:
    expected, saved = [], []
    for given in ({"loss": "gan"}, {"loss": "likelihood", "noise_dim": 4}):
        learner, trainer = fitted(**given)
        assert learner.world_gan is not None
        assert not torch.equal(learner.world_gan.obs_std, torch.ones(2))  # units are part of it
        steps = imagined(learner.world_gan)
        assert steps[0].std() > 0 and steps[3].isfinite().all()
        expected += [steps, steps]
        saved += [tmp_path / f"{given['loss']}.ckpt", tmp_path / f"{given['loss']}.pt"]
        trainer.save_checkpoint(saved[-2])
        Policy.of(learner).save(saved[-1])
    subprocess.run([sys.executable, "-c", LOADS, tmp_path / "dreamt", *saved], check=True)
    for found, steps in zip(
        torch.load(tmp_path / "dreamt", weights_only=True), expected, strict=True
    ):
        assert all(torch.equal(one, other) for one, other in zip(found, steps, strict=True))


def test_a_loaded_world_learns_no_more(tmp_path: Path) -> None:
    learner, _ = fitted(loss="gan")
    world = Policy.of(learner).world
    assert world is not None and not world.training
    assert not any(parameter.requires_grad for parameter in world.parameters())
    before = imagined(world)
    assert learner.world_gan is not None
    with torch.no_grad():
        for parameter in learner.world_gan.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(imagined(world), before, strict=True))


def test_a_run_without_a_world_has_none(tmp_path: Path) -> None:
    learner = CreativeLearner(**learner_settings(hidden=(16,))).build(ShortCar(1))
    policy = Policy.of(learner)
    assert policy.world is None
    policy.save(tmp_path / "policy.pt")
    assert lit_crl.load(tmp_path / "policy.pt").world is None


@pytest.mark.parametrize("world", [{"loss": "gan", "hidden": [9]}, {"nonsense": 1}, 7, {"loss": 5}])
def test_tampered_settings_of_a_world_are_refused(world: Any, tmp_path: Path) -> None:
    settings = {"loss": "gan", **SMALL}
    learner = CreativeLearner(**learner_settings(hidden=(16,)), world=settings)
    path = tmp_path / "policy.pt"
    Policy.of(learner.build(ShortCar(1))).save(path)
    saved = torch.load(path, weights_only=True)
    saved["hyper_parameters"]["world"] = world
    torch.save(saved, path)
    with pytest.raises(ConfigError, match=r"policy.pt cannot be used"):
        lit_crl.load(path)
