"""A learner with a world: the judge sees no dream, and a resumed run is exact."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ShortCar
from dreamers import LEVELS, fitted, judge, prepared
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.envs import CartPole, Maze
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.runs.checkpoints.experience import collected_state
from lit_crl.training.dreams.checks import check_world

#: Shows maps of bits.
SMALL_MAZE = partial(Maze, size=5, max_episode_steps=20)


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
    """A store of NaN leaves the world's next updates bit-equal; the explorer alone would see it."""

    class Still(Callback):
        def on_train_batch_start(self, trainer: Any, learner: Any, *_: Any) -> None:
            learner._train_explorer = lambda *_: {}

    class Spoil(Callback):
        spoilt = 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if (store := trainer.datamodule.dreaming.store) is not None:
                self.spoilt += 1
                for field in (store.obs, store.reward, store.discount, store.next_obs):
                    field.fill_(torch.nan)

    still, spoil = {"explorers": 0.0}, Spoil()
    clean, _ = fitted(dreams=still, callbacks=(Still(),))
    spoilt, _ = fitted(dreams=still, callbacks=(Still(), spoil))
    assert spoil.spoilt > 5
    assert clean.world_gan is not None and spoilt.world_gan is not None
    assert same([*clean.world_gan.parameters()], [*spoilt.world_gan.parameters()])
    assert same([*clean.world_gan.buffers()], [*spoilt.world_gan.buffers()])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_the_explorer_acts_in_its_share_of_the_environments(share: float, expected: int) -> None:
    """In all of them as long as nothing ended, and the car's reward is the same everywhere."""
    for env, acts in ((CartPole, expected), (ShortCar, 4 if expected else 0)):
        _, data = fitted(dreams={"explorers": share}, env=env)
        assert data.replay.discount[data.replay.startable].eq(0).any() == (env is CartPole)
        assert int(data.rollout.explores.sum()) == acts


def test_explorer_and_judge_choose_their_own_actions() -> None:
    learner, _ = fitted()
    assert learner.explorer is not None
    obs = torch.randn(64, 2)
    explores = torch.arange(64) % 2 == 0
    actions = learner.act(obs, 0.0, explores)
    own, other = learner.q_network(obs).argmax(1), learner.explorer(obs).argmax(1)
    assert torch.equal(actions, torch.where(explores, other, own))


@pytest.mark.parametrize(
    ("given", "has_dreamed"),
    [
        ({}, True),
        ({"dreams": {"level_states": 0.5, "judge_share": 0.25, "curiosity": -1.0}, **LEVELS}, True),
        ({"dreams": {"dynamics": "perfect", "gate": 0.5}}, True),
        pytest.param(
            {"dreams": {"error_bound": 0.55, "updates": 20}}, False, marks=pytest.mark.slow
        ),
        ({"env": SMALL_MAZE, "world": {"loss": "gan", "hidden": (128, 128)}}, True),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path,
    difference: Callable[[Any, Any], str | None],
    given: dict[str, Any],
    has_dreamed: bool,
) -> None:
    """Dreams have begun when it stops, or begin later."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.datamodule.batches_done == 8:
                trainer.should_stop = True

    def everything(learner: CreativeLearner, data: ReplayDataModule) -> dict[str, Any]:
        return copy.deepcopy(
            {"weights": dict(learner.state_dict()), "data": collected_state(data, learner)}
        )

    whole = everything(*fitted(**given))
    learner, data, trainer = prepared(callbacks=(RunCheckpoint(tmp_path), Stop()), **given)
    trainer.fit(learner, datamodule=data)
    assert data.batches_done == 8 and data.dreaming is not None
    assert (data.dreaming.imagined_steps > 0) == has_dreamed
    learner, data, trainer = prepared(callbacks=(RunCheckpoint(tmp_path),), **given)
    trainer.fit(learner, datamodule=data, ckpt_path=str(tmp_path / "last.ckpt"))
    resumed = everything(learner, data)
    assert whole["weights"].keys() == resumed["weights"].keys()
    for name, value in whole["weights"].items():
        assert torch.equal(value, resumed["weights"][name]), name
    assert difference(whole["data"], resumed["data"]) is None
    assert whole["data"]["dreams"]["dreams"]["steps"] > 0


def test_a_world_needs_the_discount_to_tell_ends() -> None:
    with pytest.raises(ConfigError, match=r"data\.collect\.gamma is 0, .*: give a number above 0"):
        fitted(gamma=0.0)


def test_a_world_is_where_its_data_is() -> None:
    _, data, _ = prepared()
    given = (data.settings, "target", data.needs, ShortCar(1))
    check_world(*given, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"device is 'cpu' and the learner is on cuda:0, .* auto"):
        check_world(*given, torch.device("cuda:0"))


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
