"""Distributions of returns in updates and runs: known values, moving supports, what is refused.

Oracles: a loop over the rows of a minibatch, the values of a small task, and the same training in
another engine.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dreamers import fitted
from graph_stand_in import StandIn
from gymnasium.spaces import Box
from test_compiled import SMOOTH, weights_and_state
from test_from_log import best_values, corridor, from_log, values
from test_learner import ENV, dqn_only, make
from test_updates import GradientDescent
from torch import Tensor

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.c51 import evenly_spaced
from lit_crl.dqn.networks import CategoricalQNetwork, spread
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.envs import CartPole, PointMass
from lit_crl.training.batches import Batch, DqnMinibatch
from lit_crl.training.clipped_targets import ClippedTargets
from lit_crl.training.updates import TD_ERROR, categorical_update

Train = Callable[..., Any]
SPACE = Box(-1, 1, (3,), np.float32)
SMALL = {"hidden": (16, 16), "atoms": 11}


def categorical(seed: int, support: tuple[float, float] = (-4.0, 4.0)) -> CategoricalQNetwork:
    torch.manual_seed(seed)
    network = CategoricalQNetwork(11, SPACE, 3, (8,), True)
    with torch.no_grad():
        network.advantage.weight.mul_(4)
    spread(torch.tensor(support), network)
    return network


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_the_loss_of_an_update_equals_a_loop_over_its_rows(
    double: bool, weighted: bool, alpha: float
) -> None:
    online, target, rows = categorical(0), categorical(1), 12
    g = torch.Generator().manual_seed(2)
    obs, next_obs = torch.rand(2, rows, 3, generator=g)
    action = torch.randint(3, (rows,), generator=g)
    reward, discount = torch.randn(rows, generator=g), 0.9 * (torch.arange(rows) % 3 > 0)
    steps = dqn.Transitions(obs, action, reward, discount, next_obs)
    importance = torch.rand(rows, generator=g) if weighted else None
    settings = DqnSettings(double=double, conservative_weight=alpha, max_grad_norm=10.0)
    engine, returns = GradientDescent(rate=0.0), torch.tensor([-3.0, 3.5])
    batch = DqnMinibatch(steps, importance, returns)
    report = categorical_update(online, target, settings, engine, batch, 0.25)
    losses, taken, penalty, beyond, atoms = [], [], [], 0.0, online.atoms.tolist()
    for i in range(rows):
        selector = online if double else target
        best = int(selector(next_obs[i : i + 1]).argmax())
        after = target.logits(next_obs[i : i + 1])[0, best].softmax(-1).tolist()
        projected = [0.0] * 11
        for p, z in zip(after, atoms, strict=True):
            moved = reward[i].item() + discount[i].item() * z
            beyond += p * (abs(moved) > 4.001)
            moved = min(max(moved, -3.0), 3.5)
            for j, atom in enumerate(atoms):  # Bellemare et al. 2017, eq. 7: a hat for each atom
                projected[j] += p * max(0.0, 1 - abs(moved - atom) / 0.8)
        log_p = online.logits(obs[i : i + 1])[0].log_softmax(-1)
        told = log_p[action[i]].tolist()
        loss = sum(m * (np.log(m) - q) for m, q in zip(projected, told, strict=True) if m > 0)
        if weighted:
            assert report[TD_ERROR][i].item() == pytest.approx(loss, abs=1e-4)
        losses.append(loss * (1 if importance is None else importance[i].item()))
        q = (log_p.exp() * online.atoms).sum(-1)
        taken.append(q[action[i]].item())
        penalty.append((q.exp().sum().log() - q[action[i]]).item())
    assert report["dqn/loss"].item() == pytest.approx(sum(losses) / rows, rel=1e-3)
    assert report["dqn/q_mean"].item() == pytest.approx(sum(taken) / rows, rel=1e-3)
    assert report["dqn/clipped_targets"].item() == pytest.approx(beyond / rows, rel=1e-3)
    whole = sum(losses) / rows + alpha * sum(penalty) / rows
    assert engine.loss[online].item() == pytest.approx(whole, rel=1e-3)
    assert (TD_ERROR in report) == weighted
    assert ("dqn/conservative_penalty" in report) == (alpha > 0)
    assert engine.calls == [(online, "dqn/gradient_norm", 10.0), (target, online, 0.25)]


@pytest.mark.parametrize(("support", "double"), [(None, True), ([-2.0, 2.0], False)])
def test_from_a_log_the_means_are_the_values_of_the_task(
    tmp_path: Path, support: Any, double: bool
) -> None:
    run = from_log(
        corridor(tmp_path / "log.npz"),
        model={"loss": "none"},
        replay={"log_updates": 1_500, "batch_size": 32},
        learner={"network": SMALL, "dqn": {"double": double, "support": support}},
    ).fit()
    assert (values(run) - best_values()).abs().max() < (0.03 if support is None else 0.06)
    network = run.learner.target_network
    assert isinstance(network, CategoricalQNetwork)
    expected = torch.tensor(support or [0.0, 1.0])  # a goal that pays 1, and nothing else does
    torch.testing.assert_close(network.atoms, evenly_spaced(expected, 11))


def test_from_a_log_the_conservative_penalty_keeps_to_logged_actions(tmp_path: Path) -> None:
    run = from_log(
        corridor(tmp_path / "log.npz", num_actions=3),
        model={"loss": "none"},
        replay={"log_updates": 1_000, "batch_size": 32},
        learner={"network": SMALL, "dqn": {"conservative_weight": 0.5}},
    ).fit()
    found = values(run)
    assert (found[:, 2] < found[:, :2].max(1).values - 0.15).all()
    assert found[-1, 1] > found[-1, 0] + 0.2


def test_from_a_log_a_judge_that_dreams_has_distributions(tmp_path: Path) -> None:
    run = from_log(corridor(tmp_path / "log.npz"), learner={"network": SMALL}).fit()
    assert run.data.dreaming is not None and run.data.dreaming.imagined_steps > 0
    network = run.learner.q_network
    assert isinstance(network, CategoricalQNetwork)
    assert network.atoms[0] < 0 < network.atoms[-1]  # caution costs reward in dreams


def with_returns(batch: Batch, low: float, high: float) -> Batch:
    updates = len(batch.dqn.obs)
    return batch._replace(returns=torch.tensor([low, high]).expand(updates, -1))


def widening() -> list[Batch]:
    """Batches whose possible returns grow from one to the next."""
    return [with_returns(dqn_only(1, seed=i), -2.0 * i - 1, 3.0 * i) for i in range(4)]


SETTINGS = SMOOTH | {"network": {**SMALL, "dueling": True, "noise": 0.5}}


def test_a_support_moves_between_compiled_updates_as_between_eager_ones(
    train_on: Train, traced: None
) -> None:
    torch.compiler.reset()
    eager, compiled = make(**SETTINGS), make(compile=True, **SETTINGS)
    expected = weights_and_state(eager, train_on(eager, widening(), ENV))
    state = weights_and_state(compiled, train_on(compiled, widening(), ENV))
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)
    for learner in (eager, compiled):
        for network in (learner.q_network, learner.target_network):
            assert isinstance(network, CategoricalQNetwork)
            torch.testing.assert_close(network.atoms, evenly_spaced(torch.tensor([-9.0, 9.0]), 11))
    assert compiled.losses.pop_means() == pytest.approx(
        eager.losses.pop_means(), rel=1e-3, abs=1e-5
    )
    torch.compiler.reset()


@pytest.mark.slow
def test_the_compilers_code_for_distributions_and_noise_changes_nothing(train_on: Train) -> None:
    torch.compiler.reset()
    eager, compiled = make(**SETTINGS), make(compile=True, **SETTINGS)
    expected = weights_and_state(eager, train_on(eager, widening(), ENV))
    state = weights_and_state(compiled, train_on(compiled, widening(), ENV))
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)
    torch.compiler.reset()


def test_a_support_moves_between_graphs_without_another_recording(
    train_on: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in also refuses what would wait for a GPU."""
    graphs = StandIn()
    eager = make(**SETTINGS)
    expected = weights_and_state(eager, train_on(eager, widening(), ENV))
    monkeypatch.setattr("lit_crl.training.graphs.choice.capture_on", lambda device: graphs)
    graphed = make(**SETTINGS)
    state = weights_and_state(graphed, train_on(graphed, widening(), ENV))
    assert graphs.recorded == ["updates"] and graphs.launches == 4
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)


def test_judge_and_explorer_have_a_support_each() -> None:
    """The pole pays 1 a step, and the explorer gets a bonus besides; γ is 0.99."""
    learner, data = fitted(env=CartPole, env_steps=480, network=SMALL)
    assert data.dreaming is not None and data.dreaming.imagined_steps > 0
    pairs = (
        (learner.q_network, learner.target_network, 100.0),
        (learner.explorer, learner.explorer_target, 100 * (1 + data.settings.world.curiosity)),
    )
    for network, target, high in pairs:
        assert isinstance(network, CategoricalQNetwork)
        assert isinstance(target, CategoricalQNetwork)
        assert torch.equal(network.atoms, target.atoms)
        torch.testing.assert_close(network.atoms, torch.linspace(0, high, 11))
    means = learner.losses.pop_means()
    assert {"explorer/loss", "explorer/clipped_targets", "dqn/clipped_targets"} <= means.keys()


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_probabilities_are_float32(precision: str, make_run: Callable[..., Any]) -> None:
    seen: set[torch.dtype] = set()
    run = make_run(
        learner={"network": {**SMALL, "noise": 0.5}}, arm="target", env_steps=400,
        priority_exponent=0.5, trainer={"precision": precision},
    )  # fmt: skip
    hook = CategoricalQNetwork._computed

    def look(self: Any, *given: Any) -> Tensor:
        logits = hook(self, *given)
        seen.add(logits.dtype)
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CategoricalQNetwork, "_computed", look)
        run.fit()
    assert seen == {torch.float32}
    assert run.learner.updates > 0 and run.data.replay.priorities.largest > 0


def test_a_support_that_clips_much_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    watch = ClippedTargets()
    for shares in ([0.02, 0.04], [0.3, 0.5], [0.9]):
        watch.add(torch.tensor(shares))
        watch.look([-1.0, 1.0])
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "from -1 to 1 clips 40% of the targets: give a wider model.dqn.support" in said


def test_a_run_names_a_support_that_is_too_narrow(
    make_run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The car pays −1 a step, so that returns go down to −100."""
    narrow = {"network": SMALL, "dqn": {"support": [-0.5, 0.5]}}
    run = make_run(learner=narrow, arm="target", env_steps=800).fit()
    assert capsys.readouterr().out.count("model.dqn.support") == 1
    assert run.learner.losses.pop_means()["dqn/clipped_targets"] > 0.5
    assert run.learner.q_network.atoms.tolist() == pytest.approx(np.linspace(-0.5, 0.5, 11))
    make_run(learner={"network": SMALL}, arm="target", env_steps=800).fit()
    assert "model.dqn.support" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("network", "settings", "says"),
    [
        ({"atoms": 1}, {}, r"model\.network\.atoms is 1, and a distribution has two or more"),
        ({"atoms": -3}, {}, r"model\.network\.atoms is -3"),
        ({"noise": -0.5}, {}, r"model\.network\.noise is -0\.5"),
        ({"torso": "resnet"}, {},
         r"model\.network\.torso is 'resnet': use one of plain, minatar, impala"),
        ({"planning_steps": 3, "atoms": 5, "noise": 0.5}, {},
         r"planning_steps is 3, but a network that plans has no atoms and no noise"),
        ({"atoms": 5}, {"td_loss": "mse"}, r"model\.dqn\.td_loss is 'mse', but distributions"),
        ({}, {"support": [-1, 1]}, r"model\.dqn\.support is \[-1, 1\], but there are no distrib"),
        ({"atoms": 5}, {"support": [1, -1]}, r"model\.dqn\.support is \[1, -1\]: give the lowest"),
        ({"atoms": 5}, {"support": [0, float("inf")]}, r"model\.dqn\.support is \[0, inf\]"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(
    network: dict[str, Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        CreativeLearner(network=NetworkSettings(**network), dqn=DqnSettings(**settings))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"env": PointMass, "hindsight": 0.5}, r"data\.replay\.hindsight is 0\.5, whose goals pay"),
        ({"gamma": 1.0}, r"data\.collect\.gamma is 1, with which rewards may add up without bound"),
    ],
)
def test_a_support_that_nothing_says_is_asked_for(
    make_run: Callable[..., Any], given: dict[str, Any], says: str
) -> None:
    short = {"arm": "target", "env_steps": 400, **given}
    with pytest.raises(ConfigError, match=rf"model\.network\.atoms is 11, and {says}"):
        make_run(learner={"network": SMALL}, **short).fit()
    some = {"network": SMALL, "dqn": {"support": [-50, 50]}}
    assert make_run(learner=some, **short).fit().learner.updates > 0


def test_batches_that_name_no_returns_are_refused(train_on: Train) -> None:
    with pytest.raises(ConfigError, match="batches name no possible returns"):
        train_on(make(network=SMALL), [dqn_only()], ENV)
