"""The controls of a world, one setting apart: what nobody learns from changes nothing."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ShortCar
from dreamers import fitted, judge, prepared
from lightning.pytorch import Callback
from torch import Tensor

import lit_crl
from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import CartPole
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.world.curiosity import novelty
from lit_crl.world.real_steps import split, steps_at


def test_with_nothing_to_learn_from_it_a_world_changes_nothing(
    difference: Callable[[Any, Any], str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    off, plain = fitted(world={"loss": "none"})
    for caution in (0.0, -1.0):  # caution costs in dreams alone, and there are none
        on, data = fitted(dreams={"share": 0.0, "curiosity": caution})
        assert difference(judge(off), judge(on)) is None
        assert difference(plain.replay.state_dict(), data.replay.state_dict()) is None
        assert difference(plain.rollout.state_dict(), data.rollout.state_dict()) is None
        assert on.world_updates == 0 and data.dreaming is None
        assert "the run is the one of model.world.loss none" in capsys.readouterr().out


def test_the_summary_is_that_of_a_run_without_a_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {
        "collect": {"env_steps": 300, "num_envs": 4, "warmup": 160},
        "replay": {"batch_size": 8, "updates_per_batch": 1},
        "curriculum": {"arm": "target"},
        "gan": {"updates": 0},
        "evaluation": {"episodes": 1, "test_episodes": 1},
    }
    summaries = []
    for loss in ("none", "gan"):
        (tmp_path / loss).mkdir()
        monkeypatch.chdir(tmp_path / loss)
        lit_crl.train(
            "mountain_car",
            model={"network": {"hidden": [8]}, "world": {"loss": loss}},
            data=data | {"world": {"share": 0.0, "curiosity": 0.0}},
            trainer={"accelerator": "cpu"},
        )
        (file,) = Path().rglob("summary.json")
        summary = json.loads(file.read_text(encoding="utf-8"))
        taken = ("wall_seconds", "seconds_")
        summaries.append({k: v for k, v in summary.items() if not k.startswith(taken)})
    assert summaries[0] == summaries[1]


def test_curiosity_on_replay_makes_no_dream() -> None:
    learner, data = fitted(dreams={"share": 0.0})
    assert data.dreaming is not None and data.dreaming.phases > 3 and learner.world_updates > 3
    assert data.dreaming.imagined_steps == 0 and data.dreaming.store is None
    assert data.rollout.explores.all()  # this car never gets anywhere: nothing is to be judged
    bolder, _ = fitted(dreams={"share": 0.0, "curiosity": 3.0})
    assert learner.explorer is not None and bolder.explorer is not None
    pairs = zip(learner.explorer.parameters(), bolder.explorer.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("curiosity", [0.0, 0.3])
@pytest.mark.parametrize("control", ["replay", "likelihood", "perfect"])
def test_each_control_runs(control: str, curiosity: float) -> None:
    world = {"loss": "likelihood"} if control == "likelihood" else {}
    dreams: dict[str, Any] = {"curiosity": curiosity}
    dreams |= {"replay": {"share": 0.0}, "perfect": {"dynamics": "perfect"}}.get(control, {})
    learner, data = fitted(world={**world, "lambda_gan": 4.0}, dreams=dreams)
    assert data.env_steps == data.schedule.budget
    assert all(parameter.isfinite().all() for parameter in learner.parameters())
    if control != "replay":
        assert data.dreaming is not None and data.dreaming.imagined_steps > 0


def test_perfect_dreams_are_true_and_doubted() -> None:
    """Every dreamed step is one of the environment; the doubts are those of the learnt members."""
    learner, data = fitted(dreams={"dynamics": "perfect", "error_bound": 1e-9})
    assert data.dreaming is not None and learner.world_gan is not None
    store = data.dreaming.store  # perfect dynamics wait for no bound
    assert store is not None
    car = ShortCar(1)
    after, reward, terminated = car.dynamics(store.obs, store.obs, store.action)
    assert torch.equal(store.next_obs, after) and torch.equal(store.reward, reward)
    assert torch.equal(store.discount == 0, terminated)
    step = data.dreaming.env.world.imagine(store.obs, store.action, torch.Generator())
    doubt = learner.world_gan.disagreement(store.obs, store.action)
    assert torch.equal(step.disagreement, doubt) and doubt.std() > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"env": "CartPole-v1"}, "data.world.dynamics is 'perfect', but .*its step"),
        (
            {"env": CartPole, "arm": "reference"},
            "data.world.dynamics is 'perfect', but data.curriculum.arm 'reference' .*physics",
        ),
    ],
)
def test_what_cannot_be_perfect_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fitted(dreams={"dynamics": "perfect"}, **given)


def dreaming_of(**dreams: Any) -> tuple[CreativeLearner, ReplayDataModule, Dreaming]:
    """A run's dreaming, with a dream in its store."""
    learner, data = fitted(dreams={"explorers": 0.0, **dreams})
    assert data.dreaming is not None and data.dreaming.store is not None
    return learner, data, data.dreaming


def marked(dreaming: Dreaming, shape: tuple[int, int]) -> Transitions:
    """Real transitions that can be told from dreamed ones: they pay 7."""
    real = dreaming.replay.sample(shape, torch.Generator().manual_seed(0))
    return real._replace(reward=torch.full_like(real.reward, 7.0))


def test_the_judges_batch_keeps_its_size() -> None:
    learner, _, dreaming = dreaming_of(judge_share=0.25)
    found = dreaming.judge_batch((3, 16), partial(marked, dreaming))
    assert found.reward.shape == (3, 16)
    assert ((found.reward == 7).sum(1) == 12).all() and (found.reward[:, :12] == 7).all()
    assert (found.reward[:, 12:] == -1).all()  # as mountain cars pay; no curiosity in it
    plain, _ = fitted(dreams={"explorers": 0.0})
    assert not all(map(torch.equal, judge(plain), judge(learner)))
    for share, dreamed in ((0.0, 0), (1.0, 16)):
        _, _, dreaming = dreaming_of(judge_share=share)
        found = dreaming.judge_batch((3, 16), partial(marked, dreaming))
        assert ((found.reward != 7).sum(1) == dreamed).all()


def test_caution_costs_the_judge_in_dreams_alone() -> None:
    """By hand: reward − weight · min(d, 5) / 5 · scale in dreamed rows; real rows as they are."""
    learner, _, dreaming = dreaming_of(judge_share=0.5, curiosity=-2.0)
    assert learner.world_gan is not None
    dreaming.replay.reward.mul_(3)  # the unit of the task's rewards
    found = dreaming.judge_batch((4, 16), partial(marked, dreaming))
    assert (found.reward[:, :8] == 7).all()
    for k in range(4):
        apart = learner.world_gan.disagreement(found.obs[k, 8:], found.action[k, 8:])
        torch.testing.assert_close(found.reward[k, 8:], -1 - 3 * 2 * apart.clamp(max=5) / 5)
    assert (found.reward[:, 8:] < -1).any() and (found.reward[:, 8:] <= -1).all()


def test_caution_of_the_explorer_is_in_dreams_alone_and_does_not_fall() -> None:
    _, _, dreaming = dreaming_of(share=0.5, curiosity=-2.0)
    rewards = dreaming.replay.see_rewards(1)
    for progress in (0.0, 1.0):
        batch, mean = dreaming.explorer_batch((4, 16), progress, rewards)
        reward = batch.transitions.reward
        assert (reward[:, :8] == -1).all() and (reward[:, 8:] <= -1).all()
        torch.testing.assert_close(mean, (reward + 1).mean(1))
        assert (mean < 0).any()
    _, _, curious = dreaming_of(share=0.5, curiosity=2.0)
    batch, mean = curious.explorer_batch((4, 16), 0.0, rewards)
    assert (batch.transitions.reward[:, :8] > -1).any() and (mean > 0).any()
    assert (curious.explorer_batch((4, 16), 1.0, rewards)[1] == 0).all()


@pytest.mark.parametrize("dynamics", ["learnt", "perfect"])
def test_the_bonus_is_the_one_of_the_present_world(dynamics: str) -> None:
    """Whatever was kept: the world, asked once more about real and dreamed rows, agrees."""
    learner, data, trainer = prepared(dreams={"dynamics": dynamics, "share": 0.5})
    compared = 0

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, learner: Any, batch: Any, _: int) -> None:
            nonlocal compared
            if batch.world is not None:
                return  # the world has just taken new units, with which it is going to learn
            transitions = batch.explorer.transitions
            doubt = learner.world_gan.disagreement(
                transitions.obs.flatten(0, 1), transitions.action.flatten()
            ).view(transitions.reward.shape)
            extra = 0.1 * (1 - batch.progress) * novelty(doubt)
            # Mountain cars pay −1.
            torch.testing.assert_close(transitions.reward, extra - 1, atol=1e-5, rtol=1e-4)
            compared += trainer.datamodule.dreaming.store is not None and bool(extra[:, 8:].any())

    trainer.callbacks.append(Watch())
    trainer.fit(learner, datamodule=data)
    assert compared > 5


def test_without_an_explorer_the_judge_dreams() -> None:
    learner, data, trainer = prepared(dreams={"share": 0, "curiosity": -1, "judge_share": 0.5})
    asked: list[Tensor] = []
    learner.build(ShortCar(1))
    assert learner.explorer is not None
    learner.explorer.register_forward_hook(lambda *given: asked.append(given[2]))
    before = [parameter.clone() for parameter in learner.explorer.parameters()]
    trainer.fit(learner, datamodule=data)
    assert data.dreaming is not None and data.dreaming.imagined_steps > 0
    assert not asked and not data.rollout.explores.any()
    assert all(map(torch.equal, before, learner.explorer.parameters()))


def test_a_judge_with_dreams_and_priorities_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.world.judge_share is 0.5, .* set one of them"):
        fitted(dreams={"judge_share": 0.5}, priority_exponent=0.6)


def test_dreams_begin_when_the_error_passes_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    _, data = fitted()
    told = [line for line in capsys.readouterr().out.splitlines() if "Dreams begin" in line]
    assert len(told) == 1 and "(bound 100, data.world.error_bound)" in told[0]
    assert data.dreaming is not None and data.dreaming.condition.is_met
    _, data = fitted(dreams={"error_bound": 1e-9})
    assert data.dreaming is not None and data.dreaming.store is None
    assert data.dreaming.phases > 3 and data.dreaming.imagined_steps == 0
    said = capsys.readouterr().out
    assert said.count("The run had no dreams") == 1 and "data.world.error_bound 1e-09" in said
    fitted(dreams={"every": 10_000})
    assert "no held-back step" in capsys.readouterr().out


def test_the_error_is_measured_on_steps_that_no_member_saw() -> None:
    """A naive count over the run: rows of held-back episodes, and rows since the last phase."""
    learner, data, dreaming = dreaming_of(held_back=0.3)
    assert learner.world_gan is not None
    replay, rows = data.replay, []
    parts = split(replay, 2, 0.8, 0.3)
    then = dreaming._learnt - replay.n_steps
    for row in replay.startable.nonzero().flatten().tolist():
        is_new = row // replay.num_envs >= int(then[row % replay.num_envs])  # the ring is not full
        if bool(parts.held_back[row]) or is_new:
            rows.append(row)
    steps = steps_at(replay, torch.tensor(rows))
    keep = ~steps.terminated
    centre = learner.world_gan.generators.centre(
        learner.world_gan.condition(steps.obs[keep], steps.action[keep])
    ).mean(0)
    target = (steps.next_obs - steps.obs)[keep] / learner.world_gan.delta_scale
    expected = (target - centre).square().mean().sqrt().item()
    assert dreaming.unseen().nonzero().flatten().tolist() == rows
    found = dreaming._one_step_error()
    assert found == pytest.approx(expected, rel=1e-5)
    assert 0 < len(rows) < int(replay.startable.sum())
