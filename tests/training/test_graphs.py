"""Updates and collection as graphs, with a stand-in for the GPU's graphs.

Oracles: the same updates one operation at a time on the same batches, or the same function called
directly, bit for bit.
"""

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import world_batches
from crashes import interrupted, uninterrupted
from dreamers import fitted
from graph_stand_in import NoWaiting, StandIn, Waits
from lightning.pytorch import Callback
from test_compiled import SMOOTH, assert_same_training, weights_and_state
from test_learner import ENV, Listener, both, flat, make
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from lit_crl import ReplayDataModule
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.graphs.phase import _Graph
from lit_crl.training.graphs.steps import GraphedSteps
from lit_crl.training.running_means import LossSums

Train = Callable[..., Any]
adamw = functools.partial(torch.optim.AdamW, lr=1e-3, eps=1e-3, amsgrad=True)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """All that a GPU would have as graphs is in this stand-in."""
    stand_in = StandIn()
    for name in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{name}.capture_on", lambda device: stand_in)
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)
    return stand_in


def eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is a graph from now on."""
    for name in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{name}.capture_on", lambda device: None)


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


@pytest.mark.parametrize("fault", ["number", "place", "effect"])
def test_the_stand_in_refuses_what_a_graph_would_not_do_again(fault: str) -> None:
    """A graph holds a number for ever, and a place; what it changes must be put back."""
    given: dict[str, Any] = {"number": 1.0, "place": torch.ones(3)}
    total = torch.zeros(3)

    def work() -> Tensor:
        if fault == "effect":
            total.add_(1)
        return given["place"] * given["number"]

    with pytest.raises(AssertionError, match="lasting effect" if fault == "effect" else "would do"):
        launch = StandIn()(work, [], [], "tests")
        assert launch().tolist() == [1, 1, 1]
        given[fault] = {"number": 2.0, "place": torch.zeros(3)}[fault]
        launch()


def test_graphs_of_both_phases_change_nothing(
    train_on: Train, graphs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [
        both(updates=2, gan_updates=3, seed=seed)._replace(progress=seed / 3) for seed in range(3)
    ]
    settings = {**SMOOTH, "final_lr": 0.01, "target_period": 3}
    graphed = make(**settings)
    state = weights_and_state(graphed, train_on(graphed, batches, ENV))
    assert graphs.recorded == ["updates", "updates"] and graphs.launches == 2 * 3
    assert graphed.trainer.global_step == graphed.updates + 2 * graphed.gan_updates > 0
    eagerly(monkeypatch)
    eager = make(**settings)
    expected = weights_and_state(eager, train_on(eager, batches, ENV))
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)
    means = graphed.losses.pop_means()
    assert means == pytest.approx(eager.losses.pop_means(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="Adam", marks=pytest.mark.slow),  # compiled in many tests
        pytest.param({"q_optimizer": adamw}, id="AdamW"),
    ],
)
def test_graphs_of_compiled_updates_change_nothing(
    train_on: Train,
    graphs: StandIn,
    traced: None,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    torch.compiler.reset()
    graphs.watch = None
    batches = [both(updates=3, gan_updates=2, seed=seed) for seed in range(3)]
    compiled = make(compile=True, **{**SMOOTH, **settings})
    counters.clear()
    state = weights_and_state(compiled, train_on(compiled, batches, ENV))
    assert counters["stats"]["unique_graphs"] == 2  # whatever is recorded of them, and how often
    eagerly(monkeypatch)
    eager = make(**{**SMOOTH, **settings})
    expected = weights_and_state(eager, train_on(eager, batches, ENV))
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)
    torch.compiler.reset()


def test_weights_and_td_errors_pass_through_graphs(
    make_run: Callable[..., Any], graphs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the importance weights' exponent β rises."""
    settings = {"learner": SMOOTH, "validate": False, "priority_exponent": 0.6, "env_steps": 500}
    graphed = make_run(**settings).fit()
    assert "updates" in graphs.recorded
    eagerly(monkeypatch)
    eager = make_run(**settings).fit()
    close = {"rtol": 0.02, "atol": 1e-3}
    for name, tensor in eager.weights().items():
        torch.testing.assert_close(graphed.weights()[name], tensor, **close, msg=name)
    priorities = [run.data.replay.priorities.values for run in (graphed, eager)]
    torch.testing.assert_close(*priorities, **close)


@pytest.mark.parametrize("arm", ["target", "gan"])
def test_a_whole_run_is_graphs(make_run: Callable[..., Any], graphs: StandIn, arm: str) -> None:
    run = make_run(arm=arm).fit()
    steps = "steps of the environments"
    assert run.trainer.current_epoch >= 3  # each graph is recorded once, and not in each epoch
    kinds = {"updates": 1 + (arm == "gan"), "draws from the replay": 1, steps: 1}
    assert Counter(graphs.recorded) == kinds
    gan_phases = run.learner.gan_updates // 2
    assert graphs.launches == 3 * run.data.batches_done + gan_phases
    assert run.data.env_steps == run.data.schedule.budget == run.data.rollout.env_steps
    assert run.data.rollout.log.ended >= 1_200 // 25 - 8
    assert (gan_phases > 0) == (arm == "gan")


def test_a_resumed_run_of_graphs_equals_the_uninterrupted_one(
    make_run: Callable[..., Any],
    difference: Callable[[Any, Any], str | None],
    tmp_path: Path,
    graphs: StandIn,
) -> None:
    """In the middle of a cycle: levels drawn ahead and episodes not yet noted are in the file."""
    whole, checkpoint = uninterrupted(make_run, tmp_path, 26)
    resumed = make_run(callbacks=[RunCheckpoint(checkpoint.parent)]).fit(checkpoint)
    assert difference(whole.everything(), resumed.everything()) is None


@pytest.mark.parametrize("first", [True, False], ids=["from graphs", "to graphs"])
def test_a_run_goes_on_with_graphs_and_without(
    make_run: Callable[..., Any],
    tmp_path: Path,
    graphs: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    first: bool,
) -> None:
    """Files know nothing of graphs: names and shapes are those of an eager run."""
    if not first:
        with monkeypatch.context() as patch:
            eagerly(patch)
            checkpoint = interrupted(make_run, tmp_path, 25)
    else:
        checkpoint = interrupted(make_run, tmp_path, 25)
        eagerly(monkeypatch)
    before = graphs.launches
    run = make_run(callbacks=[RunCheckpoint(tmp_path)]).fit(checkpoint)
    assert run.data.env_steps == run.data.schedule.budget
    assert (graphs.launches == before) == first
    eagerly(monkeypatch)
    plain = make_run()
    plain.learner.build(plain.data.make_env(1, torch.device("cpu")))
    assert run.weights().keys() == plain.weights().keys()


class Change(Callback):
    """Changes the Q-network's weights in the middle of a run."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.change, self.batches = change, 0
        self.seen: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, learner: Any, *_: Any) -> None:
        self.batches += 1
        if self.batches == 3:
            self.change(learner)
            self.target = flat(learner.target_network)
            self.updates = learner.updates
            self.seen.append(learner.q_network(OBS).detach().clone())

    def on_train_batch_end(self, trainer: Any, learner: Any, *_: Any) -> None:
        if self.batches >= 3:
            self.seen.append(learner.q_network(OBS).detach().clone())


class Within(Callback):
    """Watches the batches of a cycle, once all that is recorded was recorded."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.watch, self.is_over = NoWaiting(generators=None), False

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        done = trainer.datamodule.batches_done
        if done == self.first:
            self.watch.__enter__()
        elif done == self.last:
            self.watch.__exit__(None, None, None)
            self.is_over = True

    def on_exception(self, trainer: Any, *_: Any) -> None:
        if self.first <= trainer.datamodule.batches_done and not self.is_over:
            self.watch.__exit__(None, None, None)


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are made on the CPU, and go from pinned memory to a GPU, make nothing wait."""
    makes = (ReplayDataModule, "_epsilon_ahead")
    for owner, name in (makes, (GraphedSteps, "_explore"), (_Graph, "_take")):
        given = getattr(owner, name)

        def unwatched(*args: Any, given: Any = given) -> Any:
            with _disable_current_modes():
                return given(*args)

        monkeypatch.setattr(owner, name, unwatched)
    monkeypatch.setattr(LossSums, "check_finite", lambda self: None)  # of many batches on a GPU


@pytest.mark.usefixtures("graphs", "handed_over", "one_hot")
def test_nothing_in_a_cycle_waits(make_run: Callable[..., Any]) -> None:
    run = make_run(
        arm="target", gan_every=24, env_steps=8 * 4 * 34, callbacks=[Within(13, 22)],
        validate=False, validate_every=8 * 4 * 34,
    ).fit()  # fmt: skip
    assert run.learner.updates > 0 and run.data.batches_done > 24


@pytest.mark.usefixtures("graphs", "handed_over", "one_hot")
@pytest.mark.parametrize("curiosity", [0.1, pytest.param(-0.1, marks=pytest.mark.slow)])
def test_nothing_waits_between_two_phases_of_a_world(curiosity: float) -> None:
    each = 4 * 4  # env steps of a batch; 10 batches of them warm the replay up
    learner, data = fitted(
        dreams={"every": 16 * each, "judge_share": 0.5, "curiosity": curiosity},
        callbacks=(Within(25, 37),), gan_every=1_000, env_steps=50 * each, validate_every=50 * each,
    )  # fmt: skip
    assert data.dreaming is not None and data.dreaming.imagined_steps > 0
    assert learner.world_updates == 3 + 2 * 2 and data.batches_done > 37  # before it, after it


OBS = torch.tensor([[-0.5, 0.0], [0.1, 0.05]])


def in_place(learner: Any) -> None:
    for parameter in learner.q_network.parameters():
        torch.nn.init.constant_(parameter, 0.25)


def replaced(learner: Any) -> None:
    weights = {n: torch.full_like(p, 0.25) for n, p in learner.q_network.state_dict().items()}
    learner.q_network.load_state_dict(weights, assign=True)


@pytest.mark.parametrize("change", [in_place, replaced])
def test_weights_that_somebody_changed_are_used_and_stay_with_a_rate_of_0(
    make_run: Callable[..., Any], graphs: StandIn, change: Callable[[Any], None]
) -> None:
    callback = Change(change)
    still = functools.partial(torch.optim.Adam, lr=0.0)
    run = make_run(
        callbacks=[callback], arm="target", env_steps=600, learner={"q_optimizer": still}
    ).fit()
    assert len(callback.seen) > 3
    for seen in callback.seen[1:]:
        assert torch.equal(seen, callback.seen[0])
    updates = run.learner.updates - callback.updates
    expected = 0.25 + (callback.target - 0.25) * (1 - run.learner.dqn.target_rate) ** updates
    target = flat(run.learner.target_network)
    torch.testing.assert_close(target, expected)
    assert updates > 3


def test_an_optimizer_that_no_graph_knows_is_eager_with_a_sentence(
    make_run: Callable[..., Any], graphs: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    sgd = functools.partial(torch.optim.SGD, lr=1e-3)
    make_run(arm="target", env_steps=400, learner={"q_optimizer": sgd}).fit()
    assert "updates" not in graphs.recorded
    assert "Updates run one operation at a time" in capsys.readouterr().out


def test_hooks_are_called_one_operation_at_a_time(
    make_run: Callable[..., Any], graphs: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = Listener()
    run = make_run(callbacks=[listener], arm="target", env_steps=400).fit()
    assert listener.heard == run.learner.updates > 0
    assert "updates" not in graphs.recorded
    assert "on_after_backward" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="double", marks=pytest.mark.slow),  # in all other compiled tests
        pytest.param({"dueling": True, "double_dqn": False}, id="dueling"),
    ],
)
def test_what_a_gpu_fuses_is_the_same_to_rounding(
    train_on: Train, traced: None, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    torch.compiler.reset()
    for module in ("core.mlp", "dqn.equations"):
        monkeypatch.setattr(f"lit_crl.{module}.is_fused", lambda x: torch.compiler.is_compiling())
    batches = [both(updates=2, gan_updates=1, seed=seed) for seed in range(3)]
    assert_same_training(train_on, batches, **settings)
    torch.compiler.reset()


@pytest.fixture
def one_hot(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where torch does not look whether numbers are legal."""

    def compared(numbers: Tensor, classes: int) -> Tensor:
        return (numbers[..., None] == torch.arange(classes)).long()

    monkeypatch.setattr(F, "one_hot", compared)


@pytest.mark.usefixtures("one_hot")
@pytest.mark.parametrize("loss", ["gan_reconstruction", "gan", "likelihood"])
def test_graphs_of_a_world_and_its_explorer_change_nothing(
    train_on: Train, graphs: StandIn, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    batches = [world_batches.batch(seed, 2 if loss == "likelihood" else 4) for seed in range(3)]
    graphed, eager = (world_batches.make(loss=loss) for _ in range(2))
    env, state_of = world_batches.ENV, world_batches.weights_and_state
    state = state_of(graphed, train_on(graphed, batches, env))
    assert graphs.launches == 3 * 3
    eagerly(monkeypatch)
    expected = state_of(eager, train_on(eager, batches, env))
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=2e-4, atol=2e-5, msg=name)


@pytest.mark.usefixtures("one_hot")
def test_a_run_with_a_world_is_graphs_between_its_phases(graphs: StandIn) -> None:
    learner, data = fitted(env_steps=480)
    assert data.dreaming is not None and data.dreaming.imagined_steps > 0
    assert learner.world_updates > 3 and learner.updates > 0
    assert "steps of the environments" in graphs.recorded
    assert graphs.recorded.count("steps of dreams") == 1  # and not in each phase
    assert data.dreaming.starts.counts.sum() >= data.dreaming.imagined_steps // 5
    first = data.dreaming.starts.first
    assert first.written > data.num_envs  # of episodes that began within graphs, too


@pytest.mark.usefixtures("one_hot")
def test_a_phase_of_a_world_waits_a_few_times_whatever_its_sizes(
    graphs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the numbers of rows that its members, its units and its starts are drawn from."""
    graphs.watch = None  # other tests do, and it takes time
    seen: dict[str, list[int]] = {"world_batch": [], "dream": []}
    for name, numbers in seen.items():
        work = getattr(Dreaming, name)

        def counted(*args: Any, work: Any = work, to: list[int] = numbers) -> Any:
            with Waits() as waits:
                result = work(*args)
            to.append(waits.number)
            return result

        monkeypatch.setattr(Dreaming, name, counted)
    found = []
    for sizes in ({}, {"dreams": 40, "horizon": 25, "updates": 6, "batch_size": 32}):
        _, data = fitted(dreams=sizes, env_steps=480)
        assert data.dreaming is not None and data.dreaming.imagined_steps > 0
        # The first batches have no dreams, and most of them are within a cycle.
        found.append({name: [n for n in numbers if n][1:] for name, numbers in seen.items()})
        for numbers in seen.values():
            numbers.clear()
    assert found[0] == found[1] and len(found[0]["dream"]) > 2
    assert max(found[0]["world_batch"]) <= 10 and max(found[0]["dream"]) <= 17
