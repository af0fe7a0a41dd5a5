import io
import json
import os
import re

import ceiling
import gpu
import gymnasium as gym
import numpy as np
import pytest
import results
import run
import table
import torch
import yaml
from contenders import CONTENDERS, contenders_of, pictures
from graph_stand_in import StandIn
from protocol import SCHEDULE, Run, greedy_return
from rich.console import Console
from tasks import TASKS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.exploration import LinearEpsilon
from lit_crl.dqn.networks import QNetwork
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.settings import DqnSettings
from lit_crl.envs.images import with_layout
from lit_crl.training.batches import DqnMinibatch
from lit_crl.training.updates import dqn_update


def made_up(seconds: float, compiling: float = 0.0, greedy: float | None = 500.0) -> Run:
    return Run(
        env_steps=500_000,
        updates=49_000,
        seconds=seconds,
        compile_seconds=compiling,
        greedy_return=greedy,
        versions={"fast": "1.0"},
    )


def made_up_results() -> dict:
    """Ours in 50 s and 25 s + 25 s of compilation, a peer in 200 s that did not learn."""
    slow = Run(20_000, 1_000, 12.0, 0.0, None, {"slow": "2.0"}, warmup_seconds=2.0)
    cartpole = {
        "ours_eager": [made_up(s) for s in (40.0, 50.0, 60.0)],
        "ours_compiled": [made_up(25.0, 25.0)] * 3,
        "sb3_1": [made_up(200.0, greedy=9.5)] * 3,
        "tianshou_1": [slow] * 3,
    }
    origin = {
        "date": "2001-02-03",
        "git_commit": "0123456789ab",
        "machine": {"cpu": "Abacus", "cores": 2, "python": "3.11.0"},
    }
    measured = [{"large": 80.0, "layer": 60.0}, {"large": 90.0, "layer": 50.0}]
    runs = {"cartpole": cartpole, "pictures_10": {"ours_eager": [made_up(100.0, greedy=20.0)]}}
    return json.loads(json.dumps(origin | results.summarise(runs, measured)))


def test_cartpole_yaml_is_the_schedule_that_the_peers_follow():
    config = yaml.safe_load(table.RESULTS.with_name("cartpole.yaml").read_text())
    data, network, dqn = config["data"], config["model"]["network"], config["model"]["dqn"]
    collect, replay = data["collect"], data["replay"]
    s = SCHEDULE
    assert (collect["env_steps"], collect["warmup"]) == (s.env_steps, s.warmup)
    assert (replay["capacity"], replay["batch_size"], collect["gamma"]) == (
        s.capacity,
        s.batch,
        s.gamma,
    )
    steps = collect["num_envs"] * collect["steps_per_batch"]
    assert steps == s.steps_per_update * replay["updates_per_batch"]
    assert dqn["target_rate"] == 1.0
    assert dqn["target_period"] * s.steps_per_update == s.target_period
    assert tuple(network["hidden"]) == s.layers[1:-1]
    assert float(dqn["optimizer"]["init_args"]["lr"]) == s.learning_rate
    assert (dqn["double"], dqn["td_loss"], replay["n_steps"]) == (False, "mse", 1)
    ours = LinearEpsilon(**collect["exploration"]["init_args"])
    for env_step in (0, 1_000, 250_000, 400_000):
        assert ours(1, env_step).item() == pytest.approx(s.epsilon(env_step))


class Backward:
    """An engine that takes gradients and leaves all networks as they are."""

    def descend(self, network, loss, *_):
        loss()[0].backward()
        return {}

    def follow(self, *_):
        pass


@pytest.mark.parametrize("double", [False, True])
def test_update_flops_are_those_that_torch_counts(double):
    def network() -> nn.Module:
        a, b, c, d = SCHEDULE.layers
        return nn.Sequential(
            nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d)
        )

    size = SCHEDULE.batch
    obs, next_obs = torch.rand(2, size, SCHEDULE.layers[0])
    action, ones = torch.zeros(size, dtype=torch.long), torch.ones(size)
    with FlopCounterMode(display=False) as counter:
        batch = DqnMinibatch(Transitions(obs, action, ones, ones, next_obs))
        settings = DqnSettings(double=double, td_loss="mse")
        dqn_update(network(), network(), settings, Backward(), batch, 0.0)
    assert counter.get_total_flops() == ceiling.update_flops(double)


def test_matmul_rate_is_measured():
    assert 0.01 < ceiling.gflops(64, 64, 64) < 10_000


def test_rates_with_and_without_compilation():
    rates = results.rates(made_up(25.0, compiling=25.0), SCHEDULE)
    assert rates == (20_000, 10_000, 1_960)


def test_a_slice_is_scaled_to_the_schedule_without_its_large_share_of_warmup():
    part = Run(20_000, 1_000, 12.0, 0.0, None, {}, warmup_seconds=2.0)
    assert results.rates(part, SCHEDULE).env_steps == pytest.approx(500_000 / (2 + 490))
    assert results.rates(part, SCHEDULE).updates == pytest.approx(49_000 / (2 + 490))
    unknown = Run(20_000, 1_000, 12.0, 0.0, None, {})
    assert results.rates(unknown, SCHEDULE).env_steps == pytest.approx(20_000 / 12)


def test_medians_spread_and_ratios():
    made = made_up_results()
    task = made["tasks"]["cartpole"]
    ours = task["contenders"]["ours_eager"]
    assert ours["env_steps_per_second"] == pytest.approx(
        {"median": 10_000, "min": 500_000 / 60, "max": 12_500}
    )
    assert len(ours["runs"]) == 3 and ours["runs"][0]["seconds"] == 40.0
    ratios = task["ratios"]
    assert ratios["ours_eager"]["sb3_1"] == pytest.approx({"median": 4, "min": 200 / 60, "max": 5})
    assert ratios["ours_eager"]["ours_compiled"]["median"] == pytest.approx(0.5)
    assert ratios["ours_compiled"]["sb3_1"]["median"] == pytest.approx(8)
    with_compile = task["ratios_with_compile"]["ours_compiled"]["sb3_1"]
    assert with_compile == pytest.approx(dict.fromkeys(("median", "min", "max"), 4))
    assert made["versions"] == {"fast": "1.0", "slow": "2.0"}


def test_ratios_are_of_runs_of_the_same_round():
    """A round in which all are slow, because the machine is busy, has the ratios of the others."""
    runs = {
        "ours_eager": [made_up(s) for s in (10.0, 40.0, 10.0)],
        "sb3_1": [made_up(s) for s in (30.0, 120.0, 30.0)],
    }
    found = results.ratios(runs, SCHEDULE, "env_steps")["ours_eager"]["sb3_1"]
    assert found == pytest.approx({"median": 3, "min": 3, "max": 3})


def test_the_ceiling_is_the_best_measurement():
    made = made_up_results()
    bound = 90e9 / ceiling.update_flops()
    assert made["ceiling"]["updates_per_second"]["large"] == pytest.approx(bound)
    assert made["ceiling"]["env_steps_per_second"]["large"] == pytest.approx(10 * bound)


def test_tables_for_the_readme():
    lines = table.markdown(made_up_results()).splitlines()
    cells = [line.strip("|").split("|") for line in lines[:8]]
    assert {len(row) for row in cells} == {len(table.COLUMNS) + 1}
    rows = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells[2:]}
    assert rows["lit_crl, eager"] == [
        "10,000", "8,333 – 12,500", "", "980", "11.8%", "", "2.0× [1.6 – 2.4]", "500 [500]",
    ]  # fmt: skip
    assert rows["lit_crl, compiled"][2] == "10,000"
    assert rows["Stable-Baselines3, 1 env"][5:] == [
        "4.0× [3.3 – 5.0]", "8.0× [8.0 – 8.0]", "10 [10], did not learn",
    ]  # fmt: skip
    assert rows["Tianshou, 1 env (slice)"][7] == "–"
    bound = made_up_results()["ceiling"]["env_steps_per_second"]["large"]
    assert rows["matrix products alone, 90 GFLOP/s"][0] == f"{bound:,.0f}"
    assert rows["matrix products alone, 90 GFLOP/s"][4] == "100.0%"
    (pictures,) = (line for line in lines if line.startswith("| lit_crl, eager | 5,000 "))
    assert pictures.endswith("|  |  |  | 20 [20], did not learn |")  # no ceiling, nobody beside it
    assert "first 20,000 env steps" in lines[-1] and "Abacus" in lines[-1]
    assert "2001-02-03, commit 0123456789ab" in lines[-1]


def test_tables_for_the_terminal():
    console = Console(width=200, file=io.StringIO())
    for one in table.rich_tables(made_up_results()):
        console.print(one)
    assert "lit_crl, compiled" in console.file.getvalue()
    assert "median [worst]" in console.file.getvalue()


def test_a_missing_peer_is_one_sentence(monkeypatch):
    monkeypatch.setattr(run, "find_spec", lambda name: None if name == "jax" else object())
    run.check_installed(["ours_eager"])
    with pytest.raises(SystemExit, match=r"Not installed: jax\. Run pip install -e '\.\[bench\]'"):
        run.check_installed(["ours_eager", "jax"])


@pytest.mark.parametrize(
    "wrong", [["--peers", "nobody"], ["--tasks", "chess"], ["--runs", "0"], ["--env-steps", "500"]]
)
def test_wrong_arguments_are_refused(wrong, capsys):
    with pytest.raises(SystemExit):
        run.parse(wrong)
    assert "error:" in capsys.readouterr().err


def test_every_contender_has_its_module():
    folder = table.RESULTS.parent / "contenders"
    assert all((folder / f"{one.module}.py").is_file() for one in CONTENDERS.values())
    assert run.parse([]).peers == list(CONTENDERS)


def test_every_task_is_learnt_by_ours_and_every_contender_has_a_task():
    assert run.parse([]).tasks == list(TASKS)
    for task in TASKS:
        assert contenders_of(task, CONTENDERS)[:2] == ["ours_eager", "ours_compiled"]
    assert all(set(one.tasks) <= set(TASKS) and one.tasks for one in CONTENDERS.values())


def test_the_default_run_is_as_long_as_its_file_says():
    task = TASKS["mountain_car"]
    collect = yaml.safe_load(task.config.read_text())["data"]["collect"]
    assert (collect["env_steps"], collect["warmup"]) == (
        task.schedule.env_steps,
        task.schedule.warmup,
    )


@pytest.mark.parametrize("side", [10, 84])
def test_the_networks_of_the_pictures_are_ours(side):
    schedule = TASKS[f"pictures_{side}"].schedule
    space = with_layout(pictures.Pictures(side).observation_space, "CHW")
    *hidden, actions = schedule.layers[1:]
    network = QNetwork(space, actions, tuple(hidden), layer_norm=False)
    found = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    convolutions = [one for one in found if isinstance(one, nn.Conv2d)]
    assert schedule.convolutions == tuple(
        (one.out_channels, one.kernel_size[0], one.stride[0]) for one in convolutions
    )
    dense = [one for one in found if isinstance(one, nn.Linear)]
    assert schedule.layers == (*(one.in_features for one in dense), dense[-1].out_features)


def test_pictures_pay_for_the_bright_quarter():
    env = gym.make("contenders.pictures:Pictures10-v0")
    obs, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        quarters = [obs[:, r : r + 5, c : c + 5].mean() for r in (0, 5) for c in (0, 5)]
        obs, reward, terminated, over, _ = env.step(int(np.argmax(quarters)))
        total += reward
        assert not terminated
    assert total == pictures.STEPS >= TASKS["pictures_10"].learned


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "name", "env_steps"),
    [
        ("pictures_10", "ours_eager", 1_400),
        ("pictures_10", "sb3_4", 1_400),
        ("pictures_84", "ours_eager", 1_200),
        ("mountain_car", "ours_eager", 240),
        ("cartpole_polyak", "ours_eager", 11_000),
        ("cartpole_polyak", "sb3_1", 11_000),
        ("cartpole_polyak", "torchrl_1", 11_000),
        ("cartpole_polyak", "jax", 11_000),
        ("pictures_10", "jax", 5_000),
    ],
)
def test_a_short_run_is_measured(task, name, env_steps):
    pytest.importorskip(CONTENDERS[name].package)
    found = run.measure(task, name, env_steps, seed=1)
    assert found.env_steps == env_steps and found.seconds > 0
    learnt_from = env_steps - TASKS[task].schedule.warmup
    expected = (
        16 * learnt_from
        if task == "mountain_car"
        else (learnt_from // TASKS[task].schedule.steps_per_update)
    )
    assert found.updates == pytest.approx(expected, rel=0.1)
    assert found.greedy_return is None and found.versions


def test_a_contender_may_print_and_its_failure_is_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    (tmp_path / "chatty.py").write_text(
        "import os, warnings\nwarnings.warn('old', DeprecationWarning)\n"
        "print('hello')\nprint('{\"threads\":', os.environ['OMP_NUM_THREADS'], '}')"
    )
    (tmp_path / "broken.py").write_text("raise ValueError('no such game')")
    assert run.last_json("chatty") == {"threads": 1}
    with pytest.raises(SystemExit, match="no such game"):
        run.last_json("broken")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux pins processes")
def test_pinned_to_one_core():
    before = os.sched_getaffinity(0)
    try:
        run.pin(None)
        assert os.sched_getaffinity(0) == {max(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_results_say_nothing_of_the_host():
    assert os.uname().nodename not in json.dumps(run.machine())


def test_greedy_return_of_whole_runs_only():
    def left(obs: np.ndarray) -> np.ndarray:
        return np.zeros(len(obs), int)

    value = greedy_return(left, SCHEDULE.env_steps, seed=0)
    assert value is not None and 8 <= value <= 11
    assert greedy_return(left, 50_000, seed=0) is None


def test_the_cartpole_in_jax_is_gymnasiums():
    pytest.importorskip("jax")
    import gymnasium as gym
    from contenders.jax_dqn import cartpole

    env = gym.make("CartPole-v1").unwrapped
    rng = np.random.default_rng(0)
    states = rng.uniform(-0.3, 0.3, (100, 4))
    actions = rng.integers(2, size=100)
    found, fell = cartpole(states.astype(np.float32), actions)
    for i in range(100):
        env.reset()
        env.state = states[i]
        expected, _, terminated, _, _ = env.step(int(actions[i]))
        np.testing.assert_allclose(found[i], expected, atol=1e-5)
        assert bool(fell[i]) == terminated


def test_the_readmes_say_what_was_measured() -> None:
    measured = table.markdown(json.loads(table.RESULTS.read_text()))
    whole = table.RESULTS.with_name("README.md").read_text()
    assert measured in whole
    front = (table.RESULTS.parents[2] / "README.md").read_text()
    rows = {
        row.split("|")[1].strip(): row.split("|")[2].strip()
        for row in measured.partition("\n\n")[0].splitlines()[2:]  # the first task's
        if row.startswith("|")
    }
    labels = ("lit_crl, compiled", "lit_crl, eager", "Stable-Baselines3, 100 envs")
    quoted = [rows[label] for label in (*labels, "JAX, whole loop in one jit")]
    said = re.findall(r"[\d,]{6,}", front.partition("**Speed.**")[2].partition("\n\n")[0])
    assert said == quoted


@pytest.mark.parametrize("how", ["eager", "graphs"])
@pytest.mark.parametrize("task", gpu.TASKS)
def test_a_row_of_the_gpu_is_measured(how: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for graphs, on the CPU."""
    graphs = StandIn()
    graphs.watch = None  # other tests do, and it takes time
    monkeypatch.setattr(gpu, "ACCELERATOR", "cpu")
    monkeypatch.setattr(gpu.Busy, "run", lambda self: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for module in ("graphs.choice", "datamodule"):
        monkeypatch.setattr(f"lit_crl.training.{module}.capture_on", lambda device: graphs)
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)
    monkeypatch.setattr(gpu, "BATCH", 16)
    if "world" in gpu.TASKS[task]:
        small = {"updates": 2, "first_updates": 2, "horizon": 4}
        monkeypatch.setitem(gpu.TASKS[task], "world", gpu.TASKS[task]["world"] | small)
    found = gpu.trained(task, how, num_envs=8, steps=4, updates=2, seconds=0.01)
    assert (graphs.launches > 0) == (how == "graphs")
    ratio = found["env_steps_per_second"] / found["updates_per_second"]
    assert ratio == pytest.approx(8 * 4 / 2, rel=0.05)


@pytest.mark.parametrize("how", ["eager", "graphs"])
def test_the_gpus_row_of_dreams_is_measured(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = StandIn()
    graphs.watch = None
    monkeypatch.setattr(gpu, "DEVICE", torch.device("cpu"))
    monkeypatch.setattr(gpu, "cuda_graph", graphs)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    found = gpu.imagined(how, seconds=0.01, number=16, horizon=3)
    assert found["imagined_steps_per_second"] > 0
    assert (graphs.launches >= 3 * 3) == (how == "graphs")
