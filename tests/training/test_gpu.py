"""Whole runs on a CUDA device: ``pytest -m gpu``."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import dreams
from crashes import interrupted
from lightning.pytorch import Callback, Trainer
from test_learner import make, transitions

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.networks import spread
from lit_crl.dqn.noisy import factorised_noise
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.runs.cli import main as cli
from lit_crl.training.batches import DqnMinibatch
from lit_crl.training.flat.engine import FlatEngine
from lit_crl.training.graphs.capture import cuda_graph
from lit_crl.training.graphs.phase import GraphedPhase
from lit_crl.training.updates import update_of

GPU = torch.device("cuda", 0)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_compiled_updates_solve_the_mountain_car_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = [
        "--config",
        "conf/experiment/mountain_car_levels.yaml",
        "--config",
        "conf/trainer/gpu.yaml",
    ]
    run = cli.main(["fit", *config, "--model.compile", "true"])
    assert float(run.trainer.callback_metrics["target_return_mean"]) >= -120
    assert run.model.gan_updates > 1_000


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_the_mountain_car_is_solved_on_the_gpu(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = [
        "--config",
        "conf/experiment/mountain_car_levels.yaml",
        "--config",
        "conf/trainer/gpu.yaml",
    ]
    run = cli.main(["fit", *config, "--trainer.precision", precision])
    assert float(run.trainer.callback_metrics["target_return_mean"]) >= -120
    data = run.datamodule
    for tensor in (data.replay.obs, data.archive.tried.levels, data.rollout.obs, data.env.state):
        assert tensor.is_cuda  # the networks are back on the CPU: Lightning takes them there


def test_a_run_goes_on_where_its_data_live_on_the_gpu(make_run: Any, tmp_path: Path) -> None:
    """Files are read to the CPU; queue, archive, losses and the arm's own buffer go back."""

    class Stops(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.should_stop = trainer.should_stop or trainer.datamodule.batches_done == 20

    for arm in ("gan", "plr"):
        folder, settings = tmp_path / arm, {"arm": arm, "trainer": {"accelerator": "gpu"}}
        make_run(callbacks=[RunCheckpoint(folder), Stops()], **settings).fit()
        run = make_run(callbacks=[RunCheckpoint(folder)], **settings).fit(folder / "last.ckpt")
        data = run.data
        assert data.env_steps == data.schedule.budget
        for tensor in (data.replay.obs, data.curriculum._levels, data.archive.tried.levels):
            assert tensor.is_cuda


def at_once(work: Callable[[], Any], *_: Any) -> Callable[[], Any]:
    """Records nothing."""
    return work


@pytest.mark.parametrize("network", [{}, {"atoms": 51, "noise": 0.5}], ids=["values", "rainbow"])
def test_a_graph_makes_the_updates_that_single_launches_make(
    monkeypatch: pytest.MonkeyPatch, network: dict[str, Any]
) -> None:
    """While learning rate, Polyak rate and support move; at a rate of 0 the weights stay."""
    monkeypatch.setattr("lit_crl.training.graphs.phase.count_steps", lambda *_: None)
    ends = []
    for capture in (cuda_graph, at_once):
        learner = make(network={"hidden": (16, 16), **network}).to(GPU)
        q_networks = (learner.q_network, learner.target_network)
        rng, size = torch.Generator(GPU).manual_seed(7), learner.q_network.noise_size
        optimizer = torch.optim.Adam(learner.q_network.parameters(), lr=1e-3)
        networks: Any = {
            learner.q_network: SimpleNamespace(optimizer=optimizer),
            learner.target_network: None,
        }
        update = update_of(*q_networks, learner.dqn)
        engine: FlatEngine[DqnMinibatch] = FlatEngine(update, networks)
        trainer: Any = None
        phase = GraphedPhase(trainer, engine, engine.updates, capture, Stopwatch())
        for seed in range(20):
            stack = transitions(4, seed=seed)
            on_gpu = DqnMinibatch(type(stack)(*(field.to(GPU) for field in stack)))
            if size:
                on_gpu = on_gpu._replace(noise=factorised_noise(4, 2, size, rng=rng))
            spread(torch.tensor([-10.0, 10.0 + seed], device=GPU), *q_networks)
            optimizer.param_groups[0]["lr"] = 1e-3 / (1 + seed)
            phase([0.01 * seed, 0.0, 0.5, 0.0], on_gpu)
        ends.append([flat.vector.clone() for flat in engine.flat.values()])
        optimizer.param_groups[0]["lr"] = 0.0
        phase([0.0] * 4, on_gpu)
        assert all(map(torch.equal, ends[-1], (flat.vector for flat in engine.flat.values())))
    for graphed, single in zip(*ends, strict=True):
        # Probabilities are added up in any order on a GPU.
        close = {"rtol": 1e-2, "atol": 1e-3} if network else {}
        torch.testing.assert_close(graphed, single, **close)


def test_each_launch_draws_anew_and_a_restored_stream_goes_on() -> None:
    rng, single = (torch.Generator(GPU).manual_seed(3) for _ in range(2))
    launch = cuda_graph(lambda: torch.rand(4, device=GPU, generator=rng), [], [rng], "draws")
    first = launch().clone()
    kept = rng.get_state()
    second = launch().clone()
    rng.set_state(kept)
    assert torch.equal(launch(), second)
    for drawn in (first, second):
        assert torch.equal(drawn, torch.rand(4, device=GPU, generator=single))


@pytest.mark.parametrize("when", [1, 3], ids=["found before", "found while recording"])
def test_what_cannot_be_recorded_is_done_all_the_same_and_keeps_no_memory(
    when: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, total = torch.Generator(GPU).manual_seed(3), torch.zeros(3, device=GPU)
    calls = 0

    def work() -> torch.Tensor:
        nonlocal calls
        calls += 1
        drawn = torch.rand(30_000_000, device=GPU, generator=rng)
        total.add_(drawn[:3])
        if calls >= when:
            total.sum().item()
        return drawn.mean()

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(), rng.get_state()
    launch = cuda_graph(work, [total], [rng], "tests")
    assert "The tests run one operation at a time" in capsys.readouterr().out
    assert not total.any() and torch.equal(rng.get_state(), before[1])
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before[0] + 1_000
    assert launch().item() == pytest.approx(0.5, abs=0.01) and total.all()
    assert torch.randn(3, device=GPU).isfinite().all()  # the global stream draws again, too


def test_ten_recordings_take_the_memory_of_one() -> None:
    def record() -> int:
        launch = cuda_graph(lambda: torch.ones(1_000_000, device=GPU).cumsum(0), [], [], "tests")
        launch()
        del launch
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    one = record()
    for _ in range(9):
        last = record()
    assert last <= one


def test_nothing_in_a_cycle_waits_for_the_gpu(
    make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks at losses and at episodes, collecting and learning go on by themselves."""
    monkeypatch.setattr("lit_crl.training.running_means.LOOK_EVERY", 1_000)

    class NoWaiting(Callback):
        batches = 0

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            NoWaiting.batches = trainer.datamodule.batches_done
            is_within = 20 < NoWaiting.batches < 38  # all graphs were recorded with the first batch
            torch.cuda.set_sync_debug_mode("error" if is_within else "default")

    run = make_run(
        arm="target", gan_every=40, env_steps=8 * 4 * 100, callbacks=[NoWaiting()],
        trainer={"accelerator": "gpu"}, validate=False,
    ).fit()  # fmt: skip
    assert run.learner.updates > 0 and NoWaiting.batches > 38


def test_a_run_of_graphs_goes_on_from_the_middle_of_a_cycle(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {"trainer": {"accelerator": "gpu"}, "env_steps": 2_400}
    whole = make_run(**settings).fit().weights()
    checkpoint = interrupted(make_run, tmp_path, 26, **settings)
    resumed = make_run(callbacks=[RunCheckpoint(tmp_path)], **settings).fit(checkpoint)
    for name, weights in whole.items():
        torch.testing.assert_close(resumed.weights()[name], weights, msg=name)


@pytest.mark.parametrize("first", ["gpu", "cpu"])
def test_a_run_goes_from_one_device_to_the_other(
    make_run: Callable[..., Any], tmp_path: Path, first: str
) -> None:
    second = {"gpu": "cpu", "cpu": "gpu"}[first]
    checkpoint = interrupted(make_run, tmp_path, 26, trainer={"accelerator": first})
    run = make_run(callbacks=[RunCheckpoint(tmp_path)], trainer={"accelerator": second})
    assert run.fit(checkpoint).data.env_steps == run.data.schedule.budget


def test_graphed_dreams_are_those_of_single_launches(
    difference: Callable[[Any, Any], str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    """While the policy changes; starts, random actions and worlds draw from the same streams."""
    ends = []
    for capture in (cuda_graph, at_once):
        torch.manual_seed(0)
        dreaming, policy = dreams.prepared(64, 10, GPU, capture)
        stores = []
        for _ in range(3):
            dreaming.dreams.play(policy)
            assert dreaming.store is not None
            kept = (*dreaming.store, dreaming.dreams.disagreement, dreaming.starts.counts)
            stores.append([field.to("cpu", copy=True) for field in kept])
            for weight in policy.parameters():
                weight.data.add_(torch.randn(weight.shape).to(GPU))
        ends.append(stores)
    assert difference(*ends) is None
    assert not torch.equal(ends[0][0][1], ends[0][1][1])
    assert "one operation at a time" not in capsys.readouterr().out
