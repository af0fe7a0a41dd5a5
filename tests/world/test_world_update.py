"""An update of the world against members that are trained alone, and what reaches which network."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import make_trainer
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from worlds import Adams, minibatch, steps, train

from lit_crl.core.checks import ConfigError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.training.batches import SingleBatch, WorldMinibatch
from lit_crl.training.compiled.phase import CompiledPhase
from lit_crl.training.eager import EagerPhase
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.flat.phase import TracedPhase
from lit_crl.training.updates import Engine, Report, world_update
from lit_crl.world.batch import RealSteps
from lit_crl.world.settings import WorldLoss, WorldSettings
from lit_crl.world.transition_gan import TransitionGan

LOSSES: tuple[WorldLoss, ...] = ("gan", "gan_reconstruction", "likelihood")


def small(loss: WorldLoss, **changes: Any) -> WorldSettings:
    return WorldSettings(
        loss=loss, **{"members": 3, "hidden": (8, 8), "head_hidden": (8,)} | changes
    )


def fitted(settings: WorldSettings, seed: int = 0) -> tuple[TransitionGan, RealSteps]:
    torch.manual_seed(seed)
    world = TransitionGan(2, 3, settings)
    rows = steps(500, torch.Generator().manual_seed(seed))
    rows = rows._replace(learns_next=~rows.terminated)
    world.fit_normaliser(rows.obs, rows.reward, rows.next_obs)
    return world, rows


def weights(network: nn.Module | None) -> list[Tensor]:
    return [] if network is None else [p.detach().clone() for p in network.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def of_member(batch: WorldMinibatch, member: int) -> WorldMinibatch:
    chosen = slice(member, member + 1)
    rows, rare = (RealSteps(*(f[chosen] for f in part)) for part in (batch.rows, batch.rare))
    return WorldMinibatch(rows, rare, batch.end_log_odds[chosen], batch.z[chosen])


def of_members(name: str, tensor: torch.Tensor) -> bool:
    return tensor.dim() == 3 or name == "end_shift"


@pytest.mark.parametrize("loss", LOSSES)
def test_members_learn_as_if_they_were_alone(loss: WorldLoss) -> None:
    # A large ε: Adam makes whole steps of a gradient's rounding otherwise.
    adam = partial(torch.optim.Adam, lr=1e-2, eps=1e-2)
    settings = small(loss, generator_optimizer=adam, discriminator_optimizer=adam)
    world, rows = fitted(settings)
    rng = torch.Generator().manual_seed(1)
    batches = [minibatch(world, rows, rng, 16, 4) for _ in range(3)]
    alone = []
    for member in range(3):
        single = TransitionGan(2, 3, dataclasses.replace(settings, members=1))
        single.load_state_dict(
            {
                name: tensor[member : member + 1] if of_members(name, tensor) else tensor
                for name, tensor in world.state_dict().items()
            }
        )
        engine = Adams.of(single, settings)
        reports = [
            world_update(single, settings, engine, of_member(batch, member)) for batch in batches
        ]
        alone.append((single, reports[-1]))
    engine = Adams.of(world, settings)
    report = [world_update(world, settings, engine, batch) for batch in batches][-1]
    for member, (single, _) in enumerate(alone):
        for (name, together), by_itself in zip(
            world.named_parameters(), single.parameters(), strict=True
        ):
            torch.testing.assert_close(together[member], by_itself[0], msg=name)
    for name, number in report.items():
        mean = sum(own[name].item() for _, own in alone) / 3
        assert number.item() == pytest.approx(mean, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("loss", LOSSES)
def test_a_next_observation_that_is_not_learnt_reaches_the_heads_alone(loss: WorldLoss) -> None:
    settings = small(loss)
    world, rows = fitted(settings)
    batch = minibatch(world, rows, torch.Generator().manual_seed(1), 16, 0)
    learns = torch.arange(16).expand(3, -1) % 2 == 0
    batch = batch._replace(rows=batch.rows._replace(learns_next=learns))
    other_next = torch.where(learns[..., None], batch.rows.next_obs, batch.rows.next_obs + 0.1)
    changed = batch._replace(rows=batch.rows._replace(next_obs=other_next))
    twin = copy.deepcopy(world)
    world_update(world, settings, Adams.of(world, settings), batch)
    world_update(twin, settings, Adams.of(twin, settings), changed)
    assert equal(weights(world.generators), weights(twin.generators))
    assert equal(weights(world.discriminators), weights(twin.discriminators))
    assert not equal(weights(world.heads), weights(twin.heads))


def test_rare_rows_reach_the_heads_alone_and_the_end_head_their_ends() -> None:
    settings = small("gan_reconstruction")
    world, rows = fitted(settings)
    batch = minibatch(world, rows, torch.Generator().manual_seed(1), 16, 4)
    going_on = batch.rare._replace(terminated=torch.zeros(3, 4, dtype=torch.bool))
    other_places = going_on._replace(obs=going_on.obs - 0.3, reward=going_on.reward + 1)
    twin = copy.deepcopy(world)
    for one, rare in ((world, going_on), (twin, other_places)):
        world_update(one, settings, Adams.of(one, settings), batch._replace(rare=rare))
    assert equal(weights(world.generators), weights(twin.generators))
    assert equal(weights(world.discriminators), weights(twin.discriminators))
    assert equal(weights(world.heads.end), weights(twin.heads.end))
    assert not equal(weights(world.heads.reward), weights(twin.heads.reward))


def test_dreams_that_turn_to_nan_do_not_reach_the_world() -> None:
    """What was imagined shares no memory with the world or with the rows it started from."""
    settings = small("gan_reconstruction")
    world, rows = fitted(settings)
    world.fit_disagreement(rows.obs, rows.action)
    twin, batch = copy.deepcopy(world), minibatch(world, rows, torch.Generator().manual_seed(1))
    before = copy.deepcopy(batch)
    imagined = world.imagine(rows.obs, rows.action, torch.Generator().manual_seed(2))
    for field in imagined:
        field.fill_(torch.nan if field.is_floating_point() else True)
    world_update(world, settings, Adams.of(world, settings), batch)
    world_update(twin, settings, Adams.of(twin, settings), before)
    for name, tensor in twin.state_dict().items():
        assert torch.equal(world.state_dict()[name], tensor), name


# Engines


class Learner(LightningModule):
    """Trains a world in one batch, a stack of minibatches."""

    def __init__(self, world: TransitionGan, settings: WorldSettings, phase: Any) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.world, self.settings, self.phase = world, settings, phase

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return list(Adams.of(self.world, self.settings).optimizers.values())

    def training_step(self, batch: WorldMinibatch, batch_idx: int) -> None:
        def update(engine: Engine, minibatch: WorldMinibatch, rate: float | Tensor) -> Report:
            return world_update(self.world, self.settings, engine, minibatch)

        own = Adams.of(self.world, self.settings).optimizers
        networks = dict(zip(own, self.optimizers(), strict=True))
        self.report = self.phase(self, update, networks)([0.0] * len(batch.z), batch)


def stacked(batches: list[Any]) -> Any:
    if isinstance(batches[0], Tensor):
        return torch.stack(batches)
    return type(batches[0])(*map(stacked, map(list, zip(*batches, strict=True))))


def assert_same_updates(loss: WorldLoss, phase: Callable[..., Any]) -> None:
    # A large ε: Adam makes whole steps of a gradient's rounding otherwise.
    adam = partial(torch.optim.Adam, lr=1e-2, eps=1e-2, fused=True)
    settings = small(loss, generator_optimizer=adam, discriminator_optimizer=adam)
    world, rows = fitted(settings)
    twin, rng = copy.deepcopy(world), torch.Generator().manual_seed(1)
    batches = [minibatch(world, rows, rng, 16, 4) for _ in range(2)]
    learner = Learner(world, settings, phase)
    make_trainer(max_epochs=1, limit_val_batches=0).fit(learner, SingleBatch(stacked(batches)))
    engine = Adams.of(twin, settings)
    reports = [world_update(twin, settings, engine, batch) for batch in batches]
    for name, tensor in twin.state_dict().items():
        torch.testing.assert_close(world.state_dict()[name], tensor, msg=name)
    for name, numbers in reports[1].items():
        torch.testing.assert_close(learner.report[name][1], numbers)
    norms = {name for name in learner.report if name.endswith("norm")}
    assert len(norms) == (2 if loss == "likelihood" else 3)


def traced_phase(learner: LightningModule, update: Any, networks: Any) -> Any:
    return TracedPhase(learner.trainer, FlatEngine(update, networks))


@pytest.mark.parametrize("phase", [EagerPhase, traced_phase])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_eager_engines_make_these_updates(
    loss: WorldLoss, phase: Callable[..., Any], recorded: None
) -> None:
    assert_same_updates(loss, phase)


def test_the_compiled_engine_makes_these_updates(traced: None) -> None:
    torch.compiler.reset()
    assert_same_updates("gan_reconstruction", partial(CompiledPhase, clock=Stopwatch()))
    torch.compiler.reset()


# Settings

ANOTHER: dict[str, Any] = {
    "lambda_gan": 3.0,
    "members": 2,
    "noise_dim": 5,
    "hidden": (9, 8),
    "head_hidden": (9,),
    "r1": 0.7,
    "r2": 0.7,
    "generator_optimizer": torch.optim.SGD,
    "discriminator_optimizer": torch.optim.SGD,
}


def learnt(settings: WorldSettings) -> list[Tensor]:
    world, rows = fitted(settings)
    train(world, settings, rows, 2, torch.Generator().manual_seed(1), size=8, extra=2)
    return weights(world)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ANOTHER)
def test_each_setting_changes_what_is_learnt_or_is_refused(loss: WorldLoss, name: str) -> None:
    assert set(ANOTHER) | {"loss"} == {f.name for f in dataclasses.fields(WorldSettings)}
    try:
        changed = small(loss, **{name: ANOTHER[name]})
    except ConfigError as error:
        assert f"model.world.{name} is {ANOTHER[name]}" in str(error)
        assert (loss, name) in {
            ("gan", "lambda_gan"),
            *(("likelihood", unused) for unused in ("lambda_gan", "noise_dim", "r1", "r2")),
        }
        return
    one, other = learnt(small(loss)), learnt(changed)
    shapes = [[p.shape for p in parameters] for parameters in (one, other)]
    assert shapes[0] != shapes[1] or not equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": "l2"},
            "model.world.loss is 'l2': use one of none, gan, gan_reconstruction, likelihood",
        ),
        ({"members": 0}, "model.world.members is 0: give a number above 0"),
        ({"lambda_gan": 0.0}, "model.world.lambda_gan is 0.0: give a number above 0"),
        ({"r1": -1.0}, "model.world.r1 is -1.0: give 0 or a number above 0"),
        ({"hidden": ()}, "model.world.hidden is empty: give the width of a layer"),
        ({"head_hidden": (0,)}, "model.world.head_hidden.0 is 0: give a number above 0"),
        (
            {"loss": "likelihood", "r1": 0.5},
            "model.world.r1 is 0.5, but the loss likelihood does not use it: leave it out, or "
            "choose another model.world.loss",
        ),
    ],
    ids=str,
)
def test_settings_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        WorldSettings(**changes)
    assert str(error.value) == message
