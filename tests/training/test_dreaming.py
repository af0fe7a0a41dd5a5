"""A learner with a world: the judge sees no dream, and a resumed run is exact."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ShortCar, data_settings, learner_settings, make_trainer
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.envs import Maze
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.runs.checkpoints.experience import collected_state

WORLD = {"loss": "gan_reconstruction", "members": 2, "hidden": (8,), "head_hidden": (8,)}
DREAMS = {
    "every": 64,
    "updates": 2,
    "first_updates": 3,
    "batch_size": 16,
    "rare": 4,
    "dreams": 8,
    "horizon": 5,
}


def prepared(
    world: dict[str, Any] | None = None,
    dreams: dict[str, Any] | None = None,
    env: Callable[..., Any] = ShortCar,
    callbacks: tuple[Callback, ...] = (),
    compile: bool = False,
    smooth: bool = False,
    **data: Any,
) -> tuple[CreativeLearner, ReplayDataModule, Any]:
    tiny = {
        "env_steps": 800, "num_envs": 4, "capacity": 2_000, "warmup": 160, "batch_size": 16,
        "updates_per_batch": 2, "gan_updates": 0, "arm": "target", "validate_every": 400,
        "validation_episodes": 2, "n_steps": 1, "seed": 3,
    } | data  # fmt: skip
    sizes = {"hidden": (16,), "seed": 3}
    # With its usual tiny ε, Adam turns the rounding of a gradient that is 0 into whole steps.
    names = ("generator_optimizer", "discriminator_optimizer") if smooth else ()
    adams = dict.fromkeys(names, partial(torch.optim.Adam, lr=1e-3, eps=1e-3))
    learner = CreativeLearner(
        **learner_settings(**sizes, **({"q_optimizer": adams[names[0]]} if smooth else {})),
        world=WORLD | adams | (world or {}),
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


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_world_and_explorer_learn_and_dream() -> None:
    before, _, _ = prepared()
    before.build(ShortCar(1))
    learner, data = fitted()
    assert data.dreaming is not None and learner.world_gan is not None
    phases = data.dreaming.phases
    assert phases >= 5 and learner.world_updates == 3 + 2 * (phases - 1)
    assert data.dreaming.imagined_steps % (8 * 5) == 0 and data.dreaming.imagined_steps > 0
    assert data.env_steps == data.schedule.budget  # dreams are no env steps
    for name in ("explorer", "explorer_target", "world_gan.generators", "world_gan.heads"):
        one, other = (dict(x.get_submodule(name).named_parameters()) for x in (before, learner))
        assert all(not torch.equal(one[key], other[key]) for key in one if key.endswith("weight"))


def test_the_judge_is_what_it_is_without_a_world() -> None:
    """With the explorer in no environment, real steps and updates are those of a plain run."""
    with_world, _ = fitted(dreams={"explorers": 0.0})
    without, _ = fitted(world={"loss": "none"})
    assert without.world_gan is None and without.explorer is None
    assert same(judge(with_world), judge(without))
    with_explorers, _ = fitted()
    assert not same(judge(with_explorers), judge(without))


def test_dreams_never_reach_the_world() -> None:
    class Spoil(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            dreaming = trainer.datamodule.dreaming
            if dreaming.store is not None:
                dreaming.store.obs.fill_(1e30)
                dreaming.store.reward.fill_(0.5)

    still = {"explorers": 0.0, "share": 0.0}
    clean, _ = fitted(dreams=still)
    spoilt, _ = fitted(dreams=still, callbacks=(Spoil(),))
    assert clean.world_gan is not None and spoilt.world_gan is not None
    assert same([*clean.world_gan.parameters()], [*spoilt.world_gan.parameters()])
    assert same([*clean.world_gan.buffers()], [*spoilt.world_gan.buffers()])


def test_the_explorer_acts_in_its_share_of_the_environments() -> None:
    for share, expected in ((0.0, 0), (0.5, 2), (1.0, 4)):
        _, data, trainer = (parts := prepared(dreams={"explorers": share}))
        trainer.fit(parts[0], datamodule=data)
        assert data._explores is not None and int(data._explores.sum()) == expected


def test_explorer_and_judge_choose_their_own_actions() -> None:
    learner, _ = fitted()
    assert learner.explorer is not None
    obs = torch.randn(64, 2)
    explores = torch.arange(64) % 2 == 0
    actions = learner.act(obs, 0.0, explores)
    own, other = learner.q_network(obs).argmax(1), learner.explorer(obs).argmax(1)
    assert torch.equal(actions, torch.where(explores, other, own))


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.datamodule.batches_done == 23:
                trainer.should_stop = True

    def everything(learner: CreativeLearner, data: ReplayDataModule) -> dict[str, Any]:
        return copy.deepcopy(
            {"weights": dict(learner.state_dict()), "data": collected_state(data, learner)}
        )

    whole = everything(*fitted())
    learner, data, trainer = prepared(callbacks=(RunCheckpoint(tmp_path), Stop()))
    trainer.fit(learner, datamodule=data)
    assert data.batches_done == 23
    learner, data, trainer = prepared(callbacks=(RunCheckpoint(tmp_path),))
    trainer.fit(learner, datamodule=data, ckpt_path=str(tmp_path / "last.ckpt"))
    resumed = everything(learner, data)
    assert whole["weights"].keys() == resumed["weights"].keys()
    for name, value in whole["weights"].items():
        assert torch.equal(value, resumed["weights"][name]), name
    one, other = whole["data"]["dreams"], resumed["data"]["dreams"]
    assert one["counters"] == other["counters"]
    assert same(one["store"], other["store"]) and torch.equal(one["rng"], other["rng"])
    assert torch.equal(whole["data"]["rng"], resumed["data"]["rng"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"arm": "gan", "gan_updates": 2, "env_steps": 4_000}, "data.curriculum.arm 'gan'"),
        ({"gamma": 0.0}, "data.collect.gamma is 0, .*: give a number above 0"),
        ({"env": lambda n, device: Maze(n, device, size=5)}, "are no vectors"),
    ],
)
def test_what_a_world_cannot_do_yet_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fitted(**given)


def test_a_learner_with_a_world_is_loaded_from_its_checkpoint(tmp_path: Path) -> None:
    learner, data, trainer = prepared()
    trainer.fit(learner, datamodule=data)
    trainer.save_checkpoint(tmp_path / "learner.ckpt")
    loaded = CreativeLearner.load_from_checkpoint(tmp_path / "learner.ckpt")
    assert loaded.state_dict().keys() == learner.state_dict().keys()
    weights = learner.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in loaded.state_dict().items())
    assert loaded.world.loss == "gan_reconstruction" and [*loaded.world.hidden] == [8]
    assert loaded.world_updates == learner.world_updates > 0
