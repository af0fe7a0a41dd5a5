"""Seeds at once against each seed alone."""

import functools
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from test_compiled import SMOOTH
from test_learner import gan_batch, make
from torch import Tensor

from lit_crl import cli
from lit_crl.callbacks.interruption import RunStopped
from lit_crl.checks import ConfigError, RunError
from lit_crl.compiled import CompiledPhase
from lit_crl.compiled_play import CompiledPlay
from lit_crl.envs import Acrobot, CartPole, GymnasiumEnv, MountainCar, PointMass
from lit_crl.flat_networks import FlatNetworks
from lit_crl.meeting import Meeting, MeetingBroken
from lit_crl.phases import Player, Turns
from lit_crl.seeds import Seat
from lit_crl.stopwatch import Stopwatch


def in_threads(n: int, work: Callable[[int], Any]) -> list[Any]:
    """What ``work`` returns, or raises, in each of ``n`` threads; the first is this one."""
    results: list[Any] = [None] * n

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, n)]
    for thread in threads:
        thread.start()
    run(0)
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return results


def test_one_thread_works_for_all_that_meet() -> None:
    meeting, workers = Meeting(4), set()

    def sums(brought: list[int]) -> list[int]:
        workers.add(threading.current_thread())
        return [sum(brought) + number for number in range(4)]

    def work(number: int) -> list[int]:
        return [meeting(number, number * turn, sums) for turn in range(200)]

    found = in_threads(4, work)
    assert found == [[6 * turn + number for turn in range(200)] for number in range(4)]
    assert workers == {threading.main_thread()}


def test_who_waits_for_one_that_fails_is_sent_away() -> None:
    meeting = Meeting(3)

    def work(number: int) -> None:
        if number == 1:
            meeting.break_up()
            raise ValueError("mine")
        meeting(number, None, lambda brought: brought)

    errors = in_threads(3, work)
    assert [type(error) for error in errors] == [MeetingBroken, ValueError, MeetingBroken]


@pytest.mark.parametrize("kind", [MountainCar, CartPole, Acrobot, functools.partial(PointMass, 3)])
def test_environments_stepped_together_go_where_each_goes_alone(kind: Any) -> None:
    envs, alone = ([kind(n) if kind in (MountainCar, CartPole, Acrobot) else PointMass(n, dim=3)
                    for n in (3, 3)] for _ in range(2))  # fmt: skip
    learners = [make(seed, envs[0]) for seed in (0, 1)]
    others = [make(seed, envs[0]) for seed in (0, 1)]
    flat = FlatNetworks("q", [learner.q_network for learner in learners])
    play = CompiledPlay(learners, envs, flat, Stopwatch())
    play._graph = play._played  # one operation at a time: bit for bit
    play._is_compiled = True
    obs = [env.reset(seed=seed)[0] for seed, env in enumerate(envs)]
    own = [env.reset(seed=seed)[0] for seed, env in enumerate(alone)]
    epsilon = torch.tensor([0.0, 0.3, 1.0])
    for _ in range(30):
        played = play(obs, [epsilon, epsilon])
        for index, (action, step) in enumerate(played):
            expected = others[index].act(own[index], epsilon)
            assert torch.equal(action, expected)
            wanted = alone[index].step(expected)
            for mine, theirs in zip(step[:4], wanted[:4], strict=True):
                torch.testing.assert_close(mine, theirs)
            assert torch.equal(step[4]["success"], wanted[4]["success"])
            assert torch.equal(envs[index].elapsed, alone[index].elapsed)
            obs[index], own[index] = step[0], wanted[0]
    assert not torch.equal(obs[0], obs[1])


def turns_of(seeds: tuple[int, ...]) -> tuple[list[Any], list[Turns]]:
    """Learners whose GAN phases can be run without a Trainer."""
    learners = [make(seed) for seed in seeds]
    turns = []
    for learner in learners:
        gan = learner.level_gan
        assert gan is not None
        optimizers = [
            SMOOTH["q_optimizer"](network.parameters())
            for network in (gan.discriminator, gan.generator)
        ]
        players = [
            Player(gan.discriminator, learner.discriminator_objective,
                   LightningLike(optimizers[0]), "d", float("inf")),
            Player(gan.generator, learner.generator_objective,
                   LightningLike(optimizers[1]), "g", 0.5),
        ]  # fmt: skip
        turns.append(Turns(players, gan.generator_ema, gan.generator))
        learner.trainer = OneProcess()  # type: ignore[assignment]
    return learners, turns


class LightningLike:
    """What a phase asks of Lightning's wrapper."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


class OneProcess:
    world_size = 1
    precision_plugin = None
    strategy = None


def weights(learner: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


def test_a_seed_without_outcomes_sits_the_gan_phase_out(traced: None) -> None:
    given = [gan_batch(4, seed=seed) for seed in range(3)]
    noise = [torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    fields = [(noise[s], *given[s]) for s in range(3)]
    rates = [0.1] * 4
    expected = []
    for seed in range(3):
        (learner,), (turns,) = turns_of((seed,))
        report = CompiledPhase(learner, turns)(rates, fields[seed])
        expected.append((weights(learner), report))
    learners, turns = turns_of((0, 1, 2))
    untouched = weights(learners[1])
    whole = CompiledPhase(learners[0], *turns)
    seats: list[Seat] = []
    for number in range(3):
        Seat(number, Meeting(3), seats)
    seats[0].stopper = type("", (), {"received": None})()
    assert seats[0]._update_all(whole, [((), ())] * 3) == [{}] * 3
    reports = seats[0]._update_all(whole, [(rates, fields[0]), ((), ()), (rates, fields[2])])
    for number in (0, 2):
        after, report = expected[number]
        for name, tensor in weights(learners[number]).items():
            torch.testing.assert_close(tensor, after[name], rtol=2e-4, atol=2e-5, msg=name)
        for name, numbers in report.items():
            torch.testing.assert_close(reports[number][name], numbers, rtol=1e-3, atol=1e-5)
    for name, tensor in weights(learners[1]).items():
        assert torch.equal(tensor, untouched[name]), name
    # Its first step is as if the others had taken none.
    seats[0]._update_all(whole, [((), ()), (rates, fields[1]), ((), ())])
    for name, tensor in weights(learners[1]).items():
        torch.testing.assert_close(tensor, expected[1][0][name], rtol=2e-4, atol=2e-5, msg=name)


SMALL = [
    "--data.env_steps=700", "--data.num_envs=8", "--data.warmup=160", "--data.capacity=2000",
    "--data.batch_size=32", "--data.updates_per_batch=2", "--data.gan_every=4",
    "--data.gan_updates=2", "--data.gan_batch_size=32", "--data.min_outcomes=8",
    "--data.label_epsilon=1", "--data.validate_every=320", "--data.validation_episodes=4",
    "--data.test_episodes=6", "--data.generated_levels=4", "--data.env=test_seeds.ShortCar",
    "--model.hidden=[16,16]", "--model.gan_hidden=[16,16]",
    *(
        f"--model.{name}={{class_path: torch.optim.Adam, init_args: {{lr: 1e-3, eps: 1e-3}}}}"
        for name in SMOOTH
    ),
]  # fmt: skip


class ShortCar(MountainCar):
    max_episode_steps = 25
    gymnasium_id = None


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def saved(run: str) -> dict[str, Any]:
    path = Path("runs/mountain_car") / run / "checkpoints" / "last.ckpt"
    return dict(torch.load(path, weights_only=True))


def test_three_seeds_at_once_equal_each_seed_alone(
    traced: None,
    capsys: pytest.CaptureFixture[str],
    difference: Callable[[Any, Any], str | None],
) -> None:
    # Short: rounding turns an action sooner or later, and then the runs part.
    run = cli.main(["fit", *SMALL, "--data.env_steps=416", "--seed_everything=5", "--seeds=3"])
    shown = capsys.readouterr().out
    assert "3 seeds at once" in shown and "runs/mountain_car/seed7" in shown
    for seed in (5, 6, 7):
        torch.compiler.reset()
        config = f"runs/mountain_car/seed{seed}/config.yaml"
        cli.main(["fit", "--config", config, "--name", f"alone{seed}"])
        alone, together = saved(f"alone{seed}"), saved(f"seed{seed}")
        assert difference(together["learner"], alone["learner"]) is None
        assert alone["learner"]["gan_updates"] > 0
        for name, tensor in alone["state_dict"].items():
            torch.testing.assert_close(
                together["state_dict"][name], tensor, rtol=1e-4, atol=1e-6, msg=name
            )
        summaries = [
            json.loads(Path(f"runs/mountain_car/{name}{seed}/summary.json").read_text())
            for name in ("seed", "alone")
        ]
        assert summaries[0]["seeds_at_once"] == 3 and summaries[1]["seeds_at_once"] == 1
        assert summaries[0]["seed"] == summaries[1]["seed"] == seed
    assert run.model.seat is None and not any(isinstance(c, Seat) for c in run.trainer.callbacks)
    assert not torch.equal(*(saved(f"seed{s}")["state_dict"]["q_network.advantage.bias"]
                             for s in (5, 6)))  # fmt: skip


class StopAt(Callback):
    """Sends this process a signal after a number of batches of one seed."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and trainer.datamodule.batches_done == self.batches:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_stops_all_seeds_and_all_go_on(traced: None) -> None:
    whole = ["fit", *SMALL, "--seeds=2", "--name=whole"]
    cli.main(whole)
    stopped = ["fit", *SMALL, "--seeds=2", "--name=stopped"]
    with pytest.raises(RunStopped, match="the same command and --ckpt_path last"):
        cli.main([*stopped, "--trainer.callbacks+=test_seeds.StopAt",
                  "--trainer.callbacks.batches=7"])  # fmt: skip
    done = [saved(f"stopped-seed{seed}")["lit_crl"]["env_steps"] for seed in (0, 1)]
    assert done[0] == done[1] < 700
    torch.compiler.reset()
    cli.main([*stopped, "--ckpt_path=last"])
    for seed in (0, 1):
        one, other = saved(f"whole-seed{seed}"), saved(f"stopped-seed{seed}")
        for name, tensor in one["state_dict"].items():
            assert torch.equal(other["state_dict"][name], tensor), name


class NanCar(ShortCar):
    """Gives seed 1 a reward that is not a number."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.spoilt = getattr(self, "spoilt", False) or threading.current_thread().name == "seed 1"
        return super().reset(seed=seed, options=options)

    def dynamics(self, state: Tensor, levels: Tensor, actions: Tensor) -> Any:
        after, reward, terminated = super().dynamics(state, levels, actions)
        return after, reward, terminated

    def take(self, advanced: tuple[Tensor, ...]) -> Any:
        obs, reward, *rest = super().take(advanced)
        return obs, reward * float("nan") if self.spoilt else reward, *rest


def test_what_goes_wrong_in_one_seed_ends_all(traced: None) -> None:
    threads = threading.active_count()
    with pytest.raises(RunError, match="dqn/loss became nan at its update 1"):
        cli.main(["fit", *SMALL, "--seeds=3", "--data.env=test_seeds.NanCar"])
    assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--seeds=0"], "seeds is 0"),
        (["--seeds=2", "--ckpt_path=x.ckpt"], "seeds is 2, but --ckpt_path x.ckpt is of one"),
        (["--seeds=2", "--trainer.devices=2"], "seeds is 2, but the Trainer spreads each"),
    ],
)
def test_seeds_that_cannot_share_a_process_are_refused(changes: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        cli.main(["fit", "--config=conf/experiment/mountain_car.yaml", *SMALL, *changes])
    assert not list(Path().rglob("*.ckpt"))


def test_gymnasium_environments_step_by_themselves() -> None:
    seats: list[Seat] = []
    seat = Seat(0, Meeting(1), seats)
    learner = make(0, MountainCar(2))
    env, twin = (GymnasiumEnv(2, id="MountainCar-v0") for _ in range(2))
    obs, _ = env.reset(seed=1)
    twin.reset(seed=1)
    play = seat.play_in(env, Stopwatch())
    action, step = play(learner.act, obs, torch.ones(2))
    assert torch.equal(step[0], twin.step(action)[0])
