"""A world and its explorer, compiled: the same as one operation at a time, to rounding."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GivenBatches, make_trainer
from dreamers import LEVELS, fitted, prepared
from lightning.pytorch import Callback
from test_learner import gan_batch
from torch._dynamo.utils import counters
from world_batches import ENV, SMOOTH, batch, make, weights_and_state

from lit_crl.envs.batched import has_pure_step
from lit_crl.training.batches import Batch
from lit_crl.training.compiled import phase
from lit_crl.training.compiled.play import CompiledPlay, Explorer
from lit_crl.training.flat.network import FlatNetwork
from lit_crl.world.networks import Ensemble

Train = Callable[..., Any]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """Graphs of other tests' networks would count as recompilations."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def assert_close(state: dict[str, Any], expected: dict[str, Any]) -> None:
    assert state.keys() >= expected.keys()  # a graph makes the state of all Adams
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)


def assert_same_training(train_on: Train, batches: list[Batch], **world: Any) -> None:
    eager, compiled = make(**world), make(compile=True, **world)
    start = {name: value.clone() for name, value in eager.state_dict().items()}
    expected = weights_and_state(eager, train_on(eager, batches, ENV))
    assert_close(weights_and_state(compiled, train_on(compiled, batches, ENV)), expected)
    for name in ("explorer.torso.1.0.weight", "world_gan.generators.network.weights.0"):
        assert (expected[name] - start[name]).abs().max() > 1e-4, name
    assert compiled.trainer.global_step == eager.trainer.global_step > 0
    means = compiled.losses.pop_means()
    assert means == pytest.approx(eager.losses.pop_means(), rel=1e-3, abs=1e-5)
    assert (
        means["explorer/bonus"] == pytest.approx(0.1) and "world/generators_gradient_norm" in means
    )


# The other loss is that of the world beside a level GAN, below.
@pytest.mark.parametrize(
    "loss", [pytest.param("gan_reconstruction", marks=pytest.mark.slow), "likelihood"]
)
def test_tracing_a_world_changes_nothing(train_on: Train, traced: None, loss: str) -> None:
    noise = 2 if loss == "likelihood" else 4
    assert_same_training(train_on, [batch(seed, noise) for seed in range(3)], loss=loss)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"loss": "gan"}, {"r1": 0.0, "r2": 0.0, "lambda_gan": 0.5}])
def test_tracing_other_worlds_changes_nothing(
    train_on: Train, traced: None, settings: dict[str, Any]
) -> None:
    assert_same_training(train_on, [batch(seed) for seed in range(3)], **settings)


# By default the same pair of networks is traced as a part of the run below, without mutations left.
@pytest.mark.slow
def test_tracing_a_world_beside_a_level_gan_changes_nothing(
    train_on: Train, traced_as_built: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each network finds its own group of the optimizers that it shares."""
    monkeypatch.setattr(phase, "UNROLL", dict.fromkeys(phase.UNROLL, 1))  # half the time
    batches = [batch(seed)._replace(gan=gan_batch(1, seed=seed)) for seed in range(2)]
    assert_same_training(train_on, batches)


@pytest.mark.slow
def test_compiling_a_world_changes_nothing(train_on: Train) -> None:
    assert_same_training(train_on, [batch(seed) for seed in range(3)])


def test_checkpoints_are_the_same_with_and_without_compilation(
    tmp_path: Path, train_on: Train, traced: None
) -> None:
    """A run with a world and a level GAN is eager, compiled and eager again."""
    batches = [batch(seed)._replace(gan=gan_batch(1, seed=seed)) for seed in range(6)]
    whole = make()
    expected = weights_and_state(whole, train_on(whole, batches, ENV))
    path = tmp_path / "part.ckpt"
    learner = make()
    train_on(learner, batches[:2], ENV).save_checkpoint(path)
    for part, compile in ((1, True), (2, False)):
        streams, learner = learner.streams, make(compile=compile)
        learner.streams = streams  # RunCheckpoint keeps them in a file of their own
        trainer = make_trainer(max_epochs=part + 1, limit_val_batches=0)
        given = GivenBatches(ENV, batches[2 * part : 2 * part + 2])
        trainer.fit(learner, datamodule=given, ckpt_path=str(path))
        trainer.save_checkpoint(path)
    assert learner.updates == whole.updates and learner.world_updates == whole.world_updates
    assert learner.gan_updates == whole.gan_updates > 0
    assert learner.state_dict().keys() == whole.state_dict().keys()
    assert_close(weights_and_state(learner, trainer), expected)


def test_the_explorer_acts_in_its_environments_in_the_graph_too(traced: None) -> None:
    learner, data, trainer = prepared(dreams={"explorers": 0.25}, compile=True, env_steps=240)
    trainer.fit(learner, datamodule=data)
    assert data.rollout.play != data.rollout._play and has_pure_step(data.env)
    assert learner.explorer is not None and data._explores is not None
    rng = torch.Generator().manual_seed(0)
    for weights in learner.explorer.parameters():
        torch.nn.init.normal_(weights, generator=rng)  # another policy than the judge's
    explorer = Explorer(learner.flat_networks[learner.explorer], data._explores)
    q_network = learner.flat_networks[learner.q_network]
    play = CompiledPlay(
        learner.toss, learner.acting_noise, data.env, q_network, explorer, data.clock
    )
    differed = 0
    for _ in range(10):
        obs = torch.rand(4, 2, generator=rng) - 0.5
        judged, explored = learner.q_network(obs).argmax(1), learner.explorer(obs).argmax(1)
        action, _ = play(obs, torch.zeros(4))
        assert torch.equal(action, torch.where(data._explores, explored, judged))
        differed += int((judged != explored).sum())
    assert differed > 5


# Every test run shows that its steps and its updates are the eager ones.
@pytest.mark.slow
def test_a_compiled_run_with_a_world_is_the_eager_one(traced: None) -> None:
    settings = {"env_steps": 240, "world": {"generator_optimizer": SMOOTH,
                "discriminator_optimizer": SMOOTH}}  # fmt: skip
    (eager, one), (compiled, other) = (fitted(compile=c, **settings) for c in (False, True))
    assert one.dreaming is not None and other.dreaming is not None
    assert one.dreaming.imagined_steps == other.dreaming.imagined_steps > 0
    assert torch.equal(one.replay.action, other.replay.action)
    for name, weights in eager.state_dict().items():
        close = {"rtol": 0.02, "atol": 1e-3}
        torch.testing.assert_close(compiled.state_dict()[name], weights, **close, msg=name)


def test_nothing_is_compiled_after_the_first_epoch(traced: None) -> None:
    """With level GAN, world, validations, and a learning rate that falls."""
    counted: list[int] = []

    class Count(Callback):
        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            counted.append(counters["stats"]["unique_graphs"])

    counters.clear()
    short = LEVELS | {"env_steps": 1_200, "validate_every": 240}
    learner, data, _ = prepared(compile=True, **short)
    make_trainer(callbacks=[Count()]).fit(learner, datamodule=data)
    assert learner.dqn.final_lr < 1
    assert learner.gan_updates > 0 and learner.world_updates > 0
    assert len(counted) >= 5 and counted[0] > 0
    assert set(counted) == {counted[0]}


def test_a_flat_ensemble_is_the_ensemble_and_narrow_layers_lie_transposed() -> None:
    ensemble = Ensemble(3, [4, 6, 2])
    x = torch.randn(3, 5, 4)
    expected = ensemble(x).detach()
    names = ensemble.state_dict().keys()
    flat = FlatNetwork(ensemble)
    torch.testing.assert_close(flat.forward(x), expected)
    torch.testing.assert_close(ensemble(x).detach(), expected)
    assert ensemble.state_dict().keys() == names
    wide, narrow = (weights.stride() for weights in ensemble.weights)
    assert wide[-2:] == (6, 1) and narrow[-2:] == (1, 6)
    ensemble.transform_outputs(torch.tensor([2.0, 2.0]), torch.zeros(2))
    torch.testing.assert_close(flat.forward(x), 2 * expected)
