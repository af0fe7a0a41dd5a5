"""Training from a log alone: known values, no environment stepped, dreams with caution, resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run, ShortCar, learner_settings, make_trainer
from crashes import KillAt, Killed
from lightning.pytorch import Callback
from torch import Tensor

from lit_crl import CreativeLearner, ReplayDataModule, load
from lit_crl.core.checks import ConfigError
from lit_crl.runs.callbacks import RunCheckpoint

WORLD = {"loss": "gan_reconstruction", "members": 2, "hidden": (8,), "head_hidden": (8,)}
DREAMS = {
    "every": 40, "updates": 2, "first_updates": 3, "batch_size": 16, "rare": 4, "dreams": 8,
    "horizon": 5, "curiosity": -1.0, "share": 0.0, "judge_share": 0.8, "error_bound": 100.0,
    "held_back": 0.3,
}  # fmt: skip
REPLAY = {"log_updates": 160, "updates_per_batch": 8, "batch_size": 10, "n_steps": 1}
GAMMA = 0.5
#: A corridor of places 0, 1, 2: action 0 goes left, 1 goes right and ends beyond place 2.
PLACES = 3


def follow(place: int, action: int) -> tuple[int, float, bool]:
    """Where an action leads, its reward, and whether the task ends."""
    if action == 1 and place == PLACES - 1:
        return place, 1.0, True
    return max(0, place + 2 * action - 1), 0.0, False


def corridor(path: Path, steps: int = 300, num_actions: int = 2, seed: int = 0) -> Path:
    """A random walk in the corridor; of more than two actions the others are never logged."""
    rng = np.random.default_rng(seed)
    rows, place = [], 0
    for _ in range(steps):
        action = int(rng.integers(2))
        arrived, reward, ended = follow(place, action)
        rows.append((np.eye(PLACES)[place], action, reward, ended, False, np.eye(PLACES)[arrived]))
        place = 0 if ended else arrived
    names = ("obs", "action", "reward", "terminated", "truncated", "next_obs")
    arrays = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    np.savez(path, **arrays, num_actions=num_actions, obs_low=np.zeros(PLACES), obs_high=1)
    return path


def best_values() -> Tensor:
    """Q* of the corridor by value iteration, ``[places, 2]``."""
    q = torch.zeros(PLACES, 2)
    for _ in range(50):
        for place in range(PLACES):
            for action in range(2):
                arrived, reward, ended = follow(place, action)
                q[place, action] = reward + GAMMA * (0 if ended else float(q[arrived].max()))
    return q


def from_log(
    log: Path,
    model: dict[str, Any] | None = None,
    replay: dict[str, Any] | None = None,
    learner: dict[str, Any] | None = None,
    callbacks: tuple[Callback, ...] = (),
    validate: bool = False,
    **data: Any,
) -> Run:
    given: dict[str, Any] = {
        "collect": {"gamma": GAMMA}, "curriculum": {"arm": "target"}, "gan": {"updates": 0},
        "world": DREAMS, "evaluation": {"every": 80, "episodes": 2}, "seed": 3,
    }  # fmt: skip
    return Run(
        CreativeLearner(
            **learner_settings(**{"hidden": (16,), "seed": 3, **(learner or {})}),
            world=WORLD | (model or {}),
        ),
        ReplayDataModule(
            **{**given, "replay": REPLAY | (replay or {}), "transitions": str(log), **data}
        ),
        make_trainer(callbacks=list(callbacks), limit_val_batches=1.0 if validate else 0),
    )


def values(run: Run) -> Tensor:
    with torch.no_grad():
        return run.learner.action_values(torch.eye(PLACES))


def test_without_a_world_the_values_are_those_of_the_task(tmp_path: Path) -> None:
    run = from_log(
        corridor(tmp_path / "log.npz"),
        model={"loss": "none"},
        replay={"log_updates": 1_500, "batch_size": 32},
        learner={"final_lr": 0.1},
    ).fit()
    assert (values(run) - best_values()).abs().max() < 0.03  # Q* lies between 0.125 and 1
    assert run.data.dreaming is None and run.data.env_steps == 300 and run.learner.updates == 1_496


def test_the_conservative_penalty_keeps_to_logged_actions(tmp_path: Path) -> None:
    """Nobody knows what the third action does: it is valued below the logged ones."""
    log = corridor(tmp_path / "log.npz", num_actions=3)
    some = {"model": {"loss": "none"}, "replay": {"log_updates": 1_000, "batch_size": 32}}
    run = from_log(log, **some, learner={"dqn": {"conservative_weight": 0.5}}).fit()
    found = values(run)
    assert (found[:, 2] < found[:, :2].max(1).values - 0.3).all()
    assert found[-1, 1] > found[-1, 0] + 0.3  # Q* is 1 and 0.25 there


@pytest.mark.parametrize("is_end", [False, True])
def test_a_time_limit_is_no_end(
    is_end: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reward 1 a step, cut at the fifth: every value is 1 / (1 − γ). As an end: 1 at the last."""
    step = np.tile(np.arange(5), 40)
    last, log = step == 4, tmp_path / "log.npz"
    np.savez(
        log,
        obs=np.eye(6)[step],
        next_obs=np.eye(6)[step + 1],
        action=np.arange(200) % 2,
        reward=np.ones(200),
        terminated=last & is_end,
        truncated=last & (not is_end),
        num_actions=2,
        obs_low=0,
        obs_high=1,
    )
    run = from_log(
        log,
        model={"loss": "none"},
        replay={"log_updates": 1_600, "batch_size": 32, "updates_per_batch": 16},
        learner={"final_lr": 0.1},
    ).fit()
    places = torch.eye(6)[:5]
    found = run.learner.action_values(places)
    expected = [sum(GAMMA**k for k in range(5 - s)) for s in range(5)] if is_end else [2.0] * 5
    assert (found - torch.tensor(expected)[:, None]).abs().max() < 0.1
    assert ("looks like a time limit" in capsys.readouterr().out) == is_end


@pytest.mark.parametrize("is_end", [False, True])
def test_the_world_learns_ends_from_terminated_alone(is_end: bool, tmp_path: Path) -> None:
    step = np.tile(np.arange(5), 40)
    last, log = step == 4, tmp_path / "log.npz"
    other = np.arange(200) == 150  # one end, at a first step
    np.savez(
        log,
        obs=np.eye(6)[step],
        next_obs=np.eye(6)[step + 1],
        action=np.arange(200) % 2,
        reward=np.ones(200),
        terminated=(last & is_end) | other,
        truncated=last & ~other,
        num_actions=2,
        obs_low=0,
        obs_high=1,
    )
    world = DREAMS | {"first_updates": 400, "every": 10_000}
    run = from_log(log, replay={"log_updates": 16}, world=world).fit()
    assert run.learner.world_gan is not None
    seen, following = torch.eye(6)[:5], torch.eye(6)[1:]
    chance = [
        run.learner.world_gan.judge(seen, torch.full((5,), action), following)[1]
        for action in range(2)
    ]
    found = torch.stack(chance).amax(0)
    assert found[1:4].max() < 0.05
    assert found[4] > 0.8 if is_end else found[4] < 0.05


def test_world_phases_are_counted_in_updates(tmp_path: Path) -> None:
    run = from_log(corridor(tmp_path / "log.npz")).fit()
    dreaming = run.data.dreaming
    assert dreaming is not None and run.learner.updates == run.data.spent == 160
    assert dreaming.phases == 4  # at updates 8, 48, 88 and 128
    assert run.learner.world_updates == 3 + 3 * 2
    assert dreaming.imagined_steps == 4 * 8 * 5
    assert run.data.env_steps == 300


def test_no_environment_is_stepped_for_training(tmp_path: Path) -> None:
    class Untouchable(ShortCar):
        def step(self, actions: Any) -> Any:
            raise AssertionError("stepped")

        reset = step

    log = tmp_path / "log.npz"
    flags, obs = np.zeros(40, bool), np.zeros((40, 2), np.float32)
    np.savez(log, obs=obs, next_obs=obs, action=flags.astype(int), reward=flags.astype(int),
             terminated=flags, truncated=~flags)  # fmt: skip
    run = from_log(log, env=Untouchable).fit()
    assert run.learner.num_actions == 3 and run.data.env_steps == 40


def test_without_an_environment_nothing_is_measured_and_the_policy_is_kept(tmp_path: Path) -> None:
    log = corridor(tmp_path / "log.npz")
    callbacks = (RunCheckpoint(tmp_path / "checkpoints"),)
    run = from_log(log, callbacks=callbacks, validate=True).fit()
    measured = run.trainer.callback_metrics
    assert not [name for name in measured if "return" in name] and "world/real_ends" in measured
    (tested,) = run.trainer.test(run.learner, datamodule=run.data, verbose=False)
    assert tested and all(name.startswith("world/") and "return" not in name for name in tested)
    policy = load(tmp_path)
    assert policy(torch.eye(PLACES)).tolist() == run.learner(torch.eye(PLACES)).tolist()
    loaded = CreativeLearner.load_from_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert torch.equal(loaded.action_values(torch.eye(PLACES)), values(run))


def test_nobody_explores_and_the_judge_learns_in_dreams(tmp_path: Path) -> None:
    log = corridor(tmp_path / "log.npz")
    run, other = from_log(log).fit(), from_log(log, world=DREAMS | {"judge_share": 0.3}).fit()
    before = from_log(log).learner.build(run.data.env)
    assert run.learner.explorer is not None and before.explorer is not None
    for one, start in zip(
        run.learner.explorer.parameters(), before.explorer.parameters(), strict=True
    ):
        assert torch.equal(one, start)
    assert not torch.equal(values(run), values(other))


def test_a_resumed_run_equals_the_uninterrupted_one(
    tmp_path: Path, difference: Callable[[Any, Any], str | None]
) -> None:
    log = corridor(tmp_path / "log.npz")
    whole = from_log(log).fit().everything()
    for at in (7, 14):  # killed twice; a checkpoint is written every three batches
        saving = RunCheckpoint(tmp_path / "checkpoints", every_env_steps=24)
        run = from_log(log, callbacks=(saving, KillAt(at)))
        with pytest.raises(Killed):
            run.fit(None if at == 7 else tmp_path / "checkpoints/last.ckpt")
    saving = RunCheckpoint(tmp_path / "checkpoints")
    run = from_log(log, callbacks=(saving,)).fit(tmp_path / "checkpoints/last.ckpt")
    assert difference(whole, run.everything()) is None


def test_a_checkpoint_names_the_log_and_does_not_hold_it(tmp_path: Path) -> None:
    sizes = []
    for steps in (8_000, 24_000):
        log = corridor(tmp_path / "log.npz", steps)
        folder = tmp_path / str(steps)
        from_log(log, callbacks=(RunCheckpoint(folder),)).fit()
        sizes.append(sum(path.stat().st_size for path in folder.iterdir()))
    assert abs(sizes[1] - sizes[0]) < 0.05 * sizes[0]
    other = corridor(tmp_path / "log.npz", 24_000, seed=1)
    saving = RunCheckpoint(folder)
    with pytest.raises(ConfigError, match=r"data\.transitions was a log of .* and is now a log"):
        from_log(other, callbacks=(saving,)).fit(folder / "last.ckpt")
    corridor(tmp_path / "moved.npz", 24_000)  # the same content elsewhere
    more = from_log(tmp_path / "moved.npz", replay={"log_updates": 176}, callbacks=(saving,)).fit(
        folder / "last.ckpt"
    )
    assert more.learner.updates == 176


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"curriculum": {"arm": "gan"}}, "data.curriculum.arm is 'gan'"),
        ({"curriculum": {"arm": "gan"}, "env": ShortCar}, "data.curriculum.arm is 'gan'"),
        ({"replay": {"frame_stack": 2}}, "data.replay.frame_stack is 2.*set it to 1"),
        ({"replay": {"hindsight": 0.5}}, "data.replay.hindsight is 0.5.*set it to 0"),
        ({"replay": {"priority_exponent": 0.5}}, "data.replay.priority_exponent is 0.5.*: set"),
        ({"replay": {"log_updates": 7}}, "data.replay.log_updates is 7, but .* take 8"),
        ({"keep_transitions": True}, "data.keep_transitions is true, but nothing is stepped"),
        ({"world": {"share": 0.5}}, "data.world.share is 0.5 and .* 0.1, but nobody explores: set"),
        ({"world": {"share": 0.0}}, "data.world.curiosity 0.1, but nobody explores: set"),
        ({"transitions": None}, "data.env is missing: give an environment, or a log"),
        ({"env": ShortCar}, r"observations have shape \(3,\), but data.env \(2,\)"),
        ({"env": "CartPole-v1"}, r"observations have shape \(3,\), but data.env \(4,\)"),
    ],
)
def test_what_a_log_cannot_do_is_refused(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    given = dict(given)
    parts = {"replay": given.pop("replay", {})}
    with pytest.raises(ConfigError, match=says):
        from_log(corridor(tmp_path / "log.npz"), **parts, **given).fit()
