"""A run keeps its real steps: those of its replay, bit for bit, and no row twice."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import ShortCar, prepare_run
from crashes import KillAt, Killed
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import stream_seed
from lit_crl.dqn.logs.filled import replay_of
from lit_crl.dqn.logs.npz import ARRAYS, NpzLog
from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.envs import GymnasiumEnv
from lit_crl.runs.callbacks import KeepTransitions, RunCheckpoint
from lit_crl.runs.checkpoints.signals import RunStopped
from lit_crl.world.real_steps import steps_at

Make = Callable[..., Any]


def cartpole(num_envs: int, device: torch.device) -> GymnasiumEnv:
    return GymnasiumEnv(num_envs, device, id="CartPole-v1", max_episode_steps=30)


def unsaveable_cartpole(num_envs: int, device: torch.device) -> GymnasiumEnv:
    env = cartpole(num_envs, device)
    env.resumable = False
    return env


def kept(
    folder: Path, env: Make = ShortCar, callbacks: tuple[Callback, ...] = (), **more: Any
) -> Any:
    given = {"arm": "target", "gan_updates": 0, "num_envs": 3, "env_steps": 900, "n_steps": 1}
    keeping = [
        KeepTransitions(folder),
        RunCheckpoint(folder / "checkpoints", every_env_steps=60),
        *callbacks,
    ]
    run = prepare_run(
        env, callbacks=keeping, validate=False, **(given | {"keep_transitions": True} | more)
    )
    return run


def arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return dict(np.load(folder / "transitions.npz", allow_pickle=False))


def steps_of_column(replay: Any, column: int) -> Any:
    """The steps of one environment in the live replay, in order."""
    rows = (replay.startable.view(-1, replay.num_envs)[:, column]).nonzero().squeeze(1)
    return steps_at(replay, rows * replay.num_envs + column)


@pytest.mark.parametrize("env", [ShortCar, pytest.param(cartpole, marks=pytest.mark.slow)])
def test_the_file_is_the_live_replay(env: Make, tmp_path: Path) -> None:
    run = kept(tmp_path, env).fit()
    given, envs = arrays(tmp_path), run.data.num_envs
    steps = run.data.env_steps // envs
    assert all(len(given[name]) == steps * envs for name in ARRAYS)
    for column in range(envs):
        live = steps_of_column(run.data.replay, column)
        count = len(live.reward)
        assert (
            count >= steps - 1
        )  # the newest step has no observation below it yet, unless it ended
        part = slice(column * steps, column * steps + count)
        for name in ("obs", "action", "reward", "terminated", "next_obs"):
            assert torch.equal(torch.from_numpy(given[name][part]), getattr(live, name)), name
    log = NpzLog(tmp_path / "transitions.npz")
    task = LoggedTask(log)
    assert task.single_observation_space == run.data.env.single_observation_space
    assert int(task.single_action_space.n) == run.learner.num_actions
    replay_of(log, task.single_observation_space, run.learner.num_actions, gamma=0.9)  # is sound


def test_gymnasiums_own_environment_gives_the_same_observations(tmp_path: Path) -> None:
    """Each copy, seeded as in training and stepped with the recorded actions, gives the same."""
    run = kept(tmp_path, cartpole).fit()
    given, envs = arrays(tmp_path), run.data.num_envs
    seed = stream_seed(run.data.seed, "training environments", 0) % 2**31
    steps, row = len(given["reward"]) // envs, 0
    assert given["terminated"].sum() > 20
    for copy in range(envs):
        env = gymnasium.make("CartPole-v1", max_episode_steps=30)
        obs, _ = env.reset(seed=seed + copy)
        for step in range(steps):
            assert np.array_equal(given["obs"][row], obs)
            obs, reward, terminated, truncated, _ = env.step(int(given["action"][row]))
            assert np.array_equal(given["next_obs"][row], obs)
            assert (given["reward"][row], given["terminated"][row]) == (reward, terminated)
            is_last = step == steps - 1  # there the recording cut the episode
            assert given["truncated"][row] == (truncated or (is_last and not terminated))
            if terminated or truncated:
                obs, _ = env.reset()
            row += 1


@pytest.mark.parametrize(
    "env", [pytest.param(ShortCar, marks=pytest.mark.slow), cartpole, unsaveable_cartpole]
)
def test_a_resumed_run_has_every_row_once(env: Make, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    kept(whole, env).fit()
    with pytest.raises(Killed):
        kept(killed, env, callbacks=(KillAt(14),)).fit()
    assert not (killed / "transitions.npz").exists()
    for end in (21, None):  # resumed twice, once killed again
        again = (KillAt(end),) if end else ()
        run = kept(killed, env, callbacks=again)
        with pytest.raises(Killed) if end else nullcontext():
            run.fit(killed / "checkpoints/last.ckpt")
    one, other = arrays(whole), arrays(killed)
    assert all(len(one[name]) == len(other[name]) for name in ARRAYS)
    if env is unsaveable_cartpole:  # episodes are started anew; the file says where
        log = NpzLog(killed / "transitions.npz")
        space = LoggedTask(log).single_observation_space
        replay_of(log, space, 2, gamma=0.9)
        return
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def test_an_interrupt_leaves_what_was_recorded(tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.datamodule.batches_done == 9:
                raise RunStopped(2, "here")

    run = kept(tmp_path, callbacks=(Interrupt(),))
    with pytest.raises(RunStopped):
        run.fit()
    assert len(arrays(tmp_path)["reward"]) == run.data.env_steps < 900
    assert not [*tmp_path.glob("*.partial")]


def test_recording_changes_nothing(tmp_path: Path) -> None:
    run = kept(tmp_path).fit()
    plain = kept(tmp_path / "plain", keep_transitions=False).fit()
    weights: dict[str, Tensor] = plain.weights()
    assert all(torch.equal(weights[name], value) for name, value in run.weights().items())
    assert not (tmp_path / "plain/transitions.npz").exists()


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    run = prepare_run(validate=False, keep_transitions=True)
    with pytest.raises(ConfigError, match=r"the Trainer has no .*KeepTransitions"):
        run.fit()
    stop = KillAt(14)
    with pytest.raises(Killed):
        kept(tmp_path, callbacks=(stop,), keep_transitions=False).fit()
    with pytest.raises(ConfigError, match="did not keep its first steps"):
        kept(tmp_path).fit(tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(Killed):
        kept(tmp_path / "b", callbacks=(KillAt(14),)).fit()
    (tmp_path / "b/checkpoints/transitions.bin").unlink()
    with pytest.raises(ConfigError, match=r"has 0 of the .* bytes .*: copy it back"):
        kept(tmp_path / "b").fit(tmp_path / "b/checkpoints/last.ckpt")
