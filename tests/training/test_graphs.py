"""Updates and collection as graphs, with a stand-in for the GPU's graphs.

Oracles: the same updates one operation at a time on the same batches, or the same function called
directly, bit for bit.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_stand_in import NoWaiting, StandIn
from test_compiled import SMOOTH, weights_and_state
from test_learner import ENV, both, make
from torch import Tensor

from lit_crl.dqn.replay.buffer import ReplayBuffer

Train = Callable[..., Any]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Graphs are recorded and launched as on a GPU."""
    stand_in = StandIn()
    monkeypatch.setattr("lit_crl.training.graphs.choice.capture_on", lambda device: stand_in)
    return stand_in


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.equal(x, x),
        lambda x: torch.rand(3),
    ],
)
def test_the_stand_in_refuses_what_a_gpu_would_wait_for(read: Callable[[Tensor], Any]) -> None:
    with NoWaiting(), pytest.raises(AssertionError):
        read(torch.tensor([1.0, -1.0, 2.0]))


def test_graphs_of_both_phases_change_nothing(train_on: Train, graphs: StandIn) -> None:
    batches = [
        both(updates=2, gan_updates=3, seed=seed)._replace(progress=seed / 3) for seed in range(3)
    ]
    settings = {**SMOOTH, "final_lr": 0.01, "target_period": 3}
    graphed = make(**settings)
    state = weights_and_state(graphed, train_on(graphed, batches, ENV))
    assert graphs.recorded == ["updates", "updates"] and graphs.launches == 2 * 3
    assert graphed.trainer.global_step == graphed.updates + 2 * graphed.gan_updates > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_crl.training.graphs.choice.capture_on", lambda device: None)
        eager = make(**settings)
        expected = weights_and_state(eager, train_on(eager, batches, ENV))
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)
    means = graphed.losses.pop_means()
    assert means == pytest.approx(eager.losses.pop_means(), rel=1e-3, abs=1e-5)


def in_graphs(monkeypatch: pytest.MonkeyPatch, stand_in: StandIn | None) -> None:
    """Run all that a GPU would have as graphs in this stand-in, or one operation at a time."""
    for name in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{name}.capture_on", lambda device: stand_in)
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)


@pytest.mark.parametrize("arm", ["target", "gan"])
def test_a_whole_run_is_graphs(
    make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    stand_in = StandIn()
    in_graphs(monkeypatch, stand_in)
    run = make_run(arm=arm).fit()
    assert set(stand_in.recorded) == {
        "updates",
        "draws from the replay",
        "steps of the environments",
    }
    batches = run.data.batches_done
    gan_phases = run.learner.gan_updates // 2
    assert stand_in.launches == 3 * batches + gan_phases
    assert run.data.env_steps == run.data.schedule.budget == run.data.rollout.env_steps
    assert run.data.rollout.log.ended >= 1_200 // 25 - 8
