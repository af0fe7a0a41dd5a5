"""Who draws the noise of noisy layers, and when: acting, updates, evaluation, resume.

Oracles: a learner of the same seed, whose network is called with the draws of its stream by hand;
and the same run in another engine.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GivenBatches, make_trainer
from crashes import uninterrupted
from dreamers import fitted
from graph_stand_in import StandIn
from lightning.pytorch import Callback
from test_compiled import SMOOTH
from test_learner import ENV, dqn_only, make, transitions
from test_updates import GradientDescent
from torch import Tensor

from lit_crl.core.seeding import random_stream
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.exploration import EpsilonLadder, LinearEpsilon
from lit_crl.dqn.noisy import factorised_noise
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.settings import DqnSettings
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.training.batches import Batch, DqnMinibatch
from lit_crl.training.updates import dqn_update

Make = Callable[..., Any]
Difference = Callable[[Any, Any], str | None]
NOISY = {"hidden": (16, 16), "noise": 0.5}
RAINBOW = {**NOISY, "atoms": 11, "dueling": True}


def obs(n: int) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(1)) - 0.5


def test_each_environment_acts_with_noise_of_its_own_drawn_anew_for_each_step() -> None:
    learner = make(network=NOISY)
    rng, size = random_stream(0, "exploration"), learner.q_network.noise_size
    same = obs(1).expand(500, -1)
    chosen = []
    for _ in range(3):
        actions = learner.act(same)
        dqn.toss(500, 3, 0.0, rng)
        noise = factorised_noise(500, size, rng=rng)
        assert len(noise.unique(dim=0)) == 500
        by_hand = [int(learner.q_network(same[:1], noise[i]).argmax()) for i in range(0, 500, 100)]
        assert actions[::100].tolist() == by_hand
        chosen.append(actions)
    assert len(chosen[0].unique()) > 1, "noise explores, with an ε of 0"
    assert not torch.equal(chosen[0], chosen[1]) and not torch.equal(chosen[1], chosen[2])


def test_an_update_learns_with_one_noise_and_has_another_for_its_target() -> None:
    """Also where the Q-network selects the next action, it has the noise that it learns with."""
    learner, other = make(network=NOISY), make(network=NOISY, seed=1)
    online, target = learner.q_network, other.q_network
    one = transitions(1, batch=12)
    steps = dqn.Transitions(*(field[0] for field in one))
    noise = factorised_noise(2, online.noise_size, rng=torch.Generator().manual_seed(5))
    for double in (True, False):
        engine = GradientDescent(rate=0.0)
        settings = DqnSettings(double=double)
        report = dqn_update(online, target, settings, engine, DqnMinibatch(steps, noise=noise), 0.0)
        mine, theirs = noise.unbind()
        next_q = target(steps.next_obs, theirs)
        best = (online(steps.next_obs, mine) if double else next_q).argmax(1)
        y = steps.reward + steps.discount * dqn.q_of(next_q, best)
        loss = dqn.td_loss(dqn.q_of(online(steps.obs, mine), steps.action), y.detach())
        assert report["dqn/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        gradients = torch.autograd.grad(loss, list(online.parameters()))
        for found, by_hand in zip(engine.gradient[online], gradients, strict=True):
            torch.testing.assert_close(found, by_hand)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


class NoiseSpy(Callback):
    """Keeps the noise of all updates."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, learner: Any, *_: Any) -> None:
        if trainer.global_step:
            return
        phase = learner._train_dqn

        def spied(rates: Any, stack: DqnMinibatch) -> Any:
            assert stack.noise is not None
            self.seen.append(stack.noise)
            return phase(rates, stack)

        learner._train_dqn = spied


def test_k_updates_have_k_noises_for_each_network() -> None:
    learner, spy = make(network=NOISY), NoiseSpy()
    batches = [dqn_only(3, seed=seed) for seed in range(2)]
    trainer = make_trainer(max_epochs=1, limit_val_batches=0, callbacks=[spy])
    trainer.fit(learner, datamodule=GivenBatches(ENV, batches))
    size = learner.q_network.noise_size
    drawn = torch.cat([noise.flatten(0, 1) for noise in spy.seen])
    assert drawn.shape == (2 * 3 * 2, size)
    assert len(drawn.unique(dim=0)) == len(drawn)
    rng = random_stream(0, "noise")
    for noise in spy.seen:
        assert torch.equal(noise, factorised_noise(3, 2, size, rng=rng))


def test_evaluations_use_the_means_and_no_random_stream() -> None:
    learner = make(network=NOISY)
    plain = make(network={"hidden": (16, 16)})
    before = learner.streams.state_dict()
    for mode in (learner.train(), learner.eval()):
        for _ in range(2):
            assert torch.equal(mode.action_values(obs(9)), plain.action_values(obs(9)))
            assert torch.equal(mode(obs(9)), plain(obs(9)))
    assert before.keys() == learner.streams.state_dict().keys()


@pytest.mark.parametrize(
    ("exploration", "expected"),
    [(None, 0.0), (LinearEpsilon(0.3, 0.3, 1), 0.3), (EpsilonLadder(0.0), 0.0)],
)
def test_noise_explores_in_the_place_of_epsilon_unless_that_is_asked_for(
    make_run: Make, exploration: Any, expected: float
) -> None:
    settings = {"arm": "target", "env_steps": 400, "exploration": exploration}
    run = make_run(learner={"network": NOISY}, **settings).fit()
    assert run.data.epsilon.tolist() == pytest.approx([expected] * 8)
    plain = make_run(arm="target", env_steps=400).fit()
    assert plain.data.epsilon.max() == pytest.approx(0.4)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_the_uninterrupted_one(
    make_run: Make, difference: Difference, tmp_path: Path, compile: bool, traced: None
) -> None:
    """Rainbow: distributions, noise, dueling, double, three steps, priorities."""
    torch.compiler.reset()
    settings = {
        "learner": {"network": RAINBOW, "compile": compile}, "priority_exponent": 0.5,
        "arm": "target", "updates_per_batch": 1 if compile else 2,
    }  # fmt: skip
    whole, checkpoint = uninterrupted(make_run, tmp_path, 25, **settings)
    resumed = make_run(callbacks=[RunCheckpoint(checkpoint.parent)], **settings).fit(checkpoint)
    assert difference(whole.everything(), resumed.everything()) is None
    assert {"noise", "exploration"} <= whole.everything()["data"]["streams"].keys()
    torch.compiler.reset()


# Rainbow is noisy, too.
@pytest.mark.parametrize(
    "network",
    [
        pytest.param(NOISY, id="noisy", marks=pytest.mark.slow),
        pytest.param(RAINBOW, id="rainbow"),
    ],
)
def test_compiled_acting_and_updates_equal_eager_ones_with_the_same_draws(
    make_run: Make, traced: None, network: dict[str, Any]
) -> None:
    torch.compiler.reset()
    settings = {"arm": "target", "validate": False, "env_steps": 320, "updates_per_batch": 1}
    eager, compiled = (
        make_run(learner={"network": network, "compile": compile, **SMOOTH}, **settings).fit()
        for compile in (False, True)
    )
    assert compiled.data.rollout.play != compiled.data.rollout._play
    assert torch.equal(eager.data.replay.action, compiled.data.replay.action)
    for name, tensor in eager.learner.state_dict().items():
        torch.testing.assert_close(
            compiled.learner.state_dict()[name], tensor, rtol=2e-3, atol=1e-4, msg=name
        )
    torch.compiler.reset()


def test_a_noisy_run_is_graphs_that_wait_for_nothing(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in also refuses random numbers of streams that a graph does not know."""
    graphs = StandIn()
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)
    for name in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{name}.capture_on", lambda device: graphs)
    run = make_run(learner={"network": RAINBOW}, arm="target", validate=False, env_steps=480).fit()
    assert set(graphs.recorded) == {"updates", "draws from the replay", "steps of the environments"}
    assert run.learner.updates > 0 and run.data.epsilon.max() == 0


def test_judge_and_explorer_are_noisy() -> None:
    learner, data = fitted(env_steps=480, network=NOISY, exploration=None)
    assert learner.explorer is not None and data.dreaming is not None
    assert data.dreaming.imagined_steps > 0 and data.epsilon.max() == 0
    assert learner.explorer.noise_size == learner.q_network.noise_size > 0
    start = learner.blueprint.q_network()
    for network in (learner.q_network, learner.explorer):
        moved = network.advantage.weight_sigma != start.advantage.weight_sigma
        assert moved.any()
    assert {"noise", "explorer's noise"} <= learner.streams.state_dict().keys()


def test_only_noisy_learners_draw_noise(make_run: Make) -> None:
    run = make_run(arm="target", env_steps=400).fit()
    assert "noise" not in run.learner.streams.state_dict()
    batch = Batch(transitions(2), None, 0.0)
    assert DqnMinibatch(batch.dqn).noise is None
