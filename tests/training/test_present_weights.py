"""The next action is that of the weights that are there, whoever changed them, and in which way."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import prepare_run
from graph_stand_in import StandIn
from lightning.pytorch import Callback
from torch import Tensor, nn

from lit_crl.dqn.exploration import Exploration
from lit_crl.dqn.replay.buffer import ReplayBuffer

ACTION, CHANGED_AFTER = 2, 3


class Greedy(Exploration):
    """Never explores."""

    def __call__(self, num_envs: int, env_steps: int) -> Tensor:
        return torch.zeros(num_envs)


def always(network: nn.Module) -> dict[str, Tensor]:
    """Weights with which a network wants ``ACTION`` whatever it sees."""
    weights = {name: torch.zeros_like(old) for name, old in network.state_dict().items()}
    *_, (last, bias) = [(n, p) for n, p in network.named_parameters() if p.ndim == 1]
    return weights | {last: torch.eye(len(bias))[ACTION]}


def in_place(network: nn.Module) -> None:
    network.load_state_dict(always(network))


def replaced(network: nn.Module) -> None:
    network.load_state_dict(always(network), assign=True)


def other_data(network: nn.Module) -> None:
    new = always(network)
    for name, parameter in network.named_parameters():
        parameter.data = new[name]


class Changes(Callback):
    """Changes both Q-networks behind a batch, and looks what is done before the next one."""

    def __init__(self, change: Callable[[nn.Module], None]) -> None:
        self.change, self.taken = change, torch.zeros(0)

    def on_train_batch_end(self, trainer: Any, learner: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == CHANGED_AFTER:
            self.change(learner.q_network), self.change(learner.target_network)
            self.before = trainer.datamodule.replay.cursor.clone()
            self.q_network = {n: p.clone() for n, p in learner.q_network.state_dict().items()}
            self.validated = learner(torch.randn(5, 2))

    def on_train_batch_start(self, trainer: Any, learner: Any, *_: Any) -> None:
        data = trainer.datamodule
        if data.batches_done == CHANGED_AFTER + 1:
            replay = data.replay
            ages = range(int((replay.cursor - self.before).max()))
            rows = [replay._next(replay._column, self.before + age) for age in ages]
            rows = [row[self.before + age < replay.cursor] for age, row in enumerate(rows)]
            row = torch.cat(rows)
            self.taken = replay.action[row[~replay.boundary[row]]]
            self.saved = {n: p.clone() for n, p in learner.q_network.state_dict().items()}


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn()
    for name in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{name}.capture_on", lambda device: stand_in)
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("eager", in_place),
        ("recorded", in_place),
        ("recorded", replaced),
        ("eager", other_data),
        pytest.param("compiled", in_place, marks=pytest.mark.slow),
        ("compiled", replaced),
        ("compiled", other_data),
        ("graphs", in_place),
        ("graphs", replaced),
        ("graphs", other_data),
        ("steps alone", in_place),
        ("steps alone", other_data),
    ],
)
def test_actions_are_those_of_the_present_weights(
    how: str, change: Callable[[nn.Module], None], traced: None, request: pytest.FixtureRequest
) -> None:
    if how in ("graphs", "steps alone"):
        request.getfixturevalue("graphs")
    elif how == "recorded":
        request.getfixturevalue("recorded")
    torch.compiler.reset()
    changes = Changes(change)
    learner: dict[str, Any] = {"compile": how == "compiled"}
    if how == "steps alone":  # no graph of updates knows this optimizer
        learner["q_optimizer"] = functools.partial(torch.optim.SGD, lr=1e-3)
    prepare_run(
        arm="target", gan_updates=0, env_steps=400, validate=False, validate_every=400,
        exploration=Greedy(), callbacks=[changes], learner=learner,
    ).fit()  # fmt: skip
    assert len(changes.taken) == 8 * 4 and (changes.taken == ACTION).all()
    assert (changes.validated == ACTION).all()
    for name, weights in changes.q_network.items():
        assert torch.equal(changes.saved[name], weights), name
    torch.compiler.reset()


class WidensObservations(Callback):
    """Replaces a buffer of the Q-network by another tensor in the middle of the run."""

    def on_train_batch_end(self, trainer: Any, learner: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == CHANGED_AFTER:
            first = learner.q_network.torso[0]
            first.scale = 3 * first.scale


def test_updates_read_the_buffers_that_are_there(
    recorded: None, request: pytest.FixtureRequest
) -> None:
    settings: dict[str, Any] = {"arm": "target", "gan_updates": 0, "env_steps": 1_200}

    def weights(*callbacks: Callback) -> Tensor:
        run = prepare_run(
            **settings, validate=False, validate_every=1_200, callbacks=callbacks
        ).fit()
        return nn.utils.parameters_to_vector(run.learner.q_network.parameters())

    found, as_before = weights(WidensObservations()), weights()
    request.getfixturevalue("wrapped")  # one operation at a time
    torch.testing.assert_close(found, weights(WidensObservations()), rtol=1e-3, atol=1e-4)
    assert (found - as_before).abs().max() > 1e-2
