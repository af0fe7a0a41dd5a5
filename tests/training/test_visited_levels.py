"""Runs whose levels are visited states: archive, level GAN and level replay start from them."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.arms import check_one_process_visits
from lit_crl.curriculum.plr import EditedLevelReplay, PrioritizedLevelReplay
from lit_crl.curriculum.sfl import LearnabilityScreen
from lit_crl.curriculum.sources import SOURCES
from lit_crl.envs import GymnasiumEnv
from lit_crl.runs.callbacks import EnvStepProgress
from lit_crl.runs.pictures.figures import predicted_levels
from lit_crl.runs.play import levels_of

Make = Callable[..., Any]
GRID = {
    "id": "minigrid:MiniGrid-DoorKey-5x5-v0",
    "wrappers": [{"class_path": "minigrid.wrappers.ImgObsWrapper"}],
    "success_return": 0.1,
}
GAMES: dict[str, dict[str, Any]] = {
    "Breakout": {"id": "minatar:MinAtar/Breakout-v1", "success_return": 1.0},
    "DoorKey": GRID,
}
#: Made anew for each run: some arms remember levels.
ARMS: dict[str, Callable[[], dict[str, Any]]] = {
    "archive": lambda: {"arm": "archive"},
    "gan": lambda: {"arm": "gan", "proposals": "projected"},
    "gan, as it proposes": lambda: {"arm": "gan"},
    "plr": lambda: {"arm": PrioritizedLevelReplay(least=4)},
    "accel": lambda: {"arm": EditedLevelReplay(least=4)},
    "sfl": lambda: {"arm": LearnabilityScreen(screenings=1, share=0.5, candidates=8, episodes=2)},
}


SHORT: dict[str, Any] = {
    "label_epsilon": 0.5, "env_steps": 720, "validate": False, "validate_every": 720,
}  # fmt: skip


def game(num_envs: int, device: torch.device, **settings: Any) -> GymnasiumEnv:
    pytest.importorskip(settings["id"].partition(":")[0], reason="needs an extra")
    limits = {"max_episode_steps": 25, "visited_levels": 200}
    return GymnasiumEnv(num_envs, device, **{**limits, **settings})


@pytest.mark.parametrize(
    ("name", "arm"),
    [*((name, arm) for name in GAMES for arm in ("archive", "gan", "plr")),
     *(("Breakout", arm) for arm in ("gan, as it proposes", "accel", "sfl"))],
)  # fmt: skip
def test_arms_start_from_visited_states(make_run: Make, name: str, arm: str) -> None:
    run = make_run(env=partial(game, **GAMES[name]), **SHORT, **ARMS[arm]())
    drawn: list[tuple[Tensor, Tensor]] = []
    played: list[Tensor] = []

    original = GymnasiumEnv.reset

    def reset(env: GymnasiumEnv, **given: Any) -> Any:
        result = original(env, **given)
        options = given.get("options") or {}
        if env is getattr(run.data, "env", None) and "reset_mask" in options:
            rows = options["reset_mask"]
            drawn.append((options["levels"][rows].clone(), env.levels[rows].clone()))
            played.append(run.data.rollout.source[rows].clone())
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GymnasiumEnv, "reset", reset)
        run.fit()
    asked, started = (torch.cat(part) for part in zip(*drawn, strict=True))
    # What is recorded of an episode is recorded for the level at which it has started.
    assert torch.equal(asked.nan_to_num(9), started.nan_to_num(9))
    sources = [SOURCES[source] for source in torch.cat(played).tolist()]
    added = arm.split(",")[0] if arm.startswith(("archive", "gan")) else "own"
    assert {"target", "reference", added} <= set(sources)
    from_target = torch.tensor([source == "target" for source in sources])
    assert torch.equal(started.isnan().all(1), from_target)
    assert len(run.data.env.visited) > 8


def test_generated_levels_are_played_by_evaluation_in_the_run_that_visits(make_run: Make) -> None:
    run = make_run(env=partial(game, **GAMES["Breakout"]), **SHORT, **ARMS["gan"]())
    run.fit()
    tested = run.trainer.test(run.learner, datamodule=run.data, verbose=False)[0]
    assert tested["levels_valid_rate"] == 1 and tested["levels_measured"] > 0


def test_elsewhere_there_are_no_levels_to_play(make_run: Make) -> None:
    """A new process has not visited anything: no number is made up of the one state it has."""
    trained = make_run(env=partial(game, **GAMES["Breakout"]), **SHORT, **ARMS["gan"]())
    trained.fit()
    other = make_run(env=partial(game, **GAMES["Breakout"]), **ARMS["gan"]())
    tested = other.trainer.test(trained.learner, datamodule=other.data, verbose=False)[0]
    assert "target_return_mean" in tested
    assert not any("levels" in name or "reference" in name for name in tested)
    for kind in ("generated", "reference"):
        with pytest.raises(ConfigError, match=rf"levels has '{kind}'.*only training has: use tar"):
            levels_of(kind, 4, trained.learner, other.data)
    with pytest.raises(ConfigError, match=r"states that training has visited"):
        predicted_levels(trained.learner, other.data)


def test_several_processes_are_refused() -> None:
    env = game(1, torch.device("cpu"), **GAMES["Breakout"])
    check_one_process_visits(env, world_size=1)
    with pytest.raises(ConfigError, match=r"each of the 2 processes.*--trainer.devices 1"):
        check_one_process_visits(env, world_size=2)


def test_the_start_says_what_replay_and_visited_states_take(
    make_run: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row of 10 · 10 · 4 bits: 400 bytes, an action, reward, discount and two flags."""
    run = make_run(
        env=partial(game, **GAMES["Breakout"]), arm="target", validate=False, env_steps=240,
        callbacks=[EnvStepProgress()], trainer={"enable_progress_bar": True},
    )  # fmt: skip
    run.fit()
    out = " ".join(capsys.readouterr().out.split())
    assert "The replay takes 0.8 MB of RAM, 411 bytes a row." in out
    said = re.search(r"Levels are visited states: the newest 200 .* take about ([\d.]+) MB\.", out)
    one = len(game(1, torch.device("cpu"), **GAMES["Breakout"]).envs.kept_state(0))
    assert said is not None and float(said[1]) == pytest.approx(200 * one / 1e6, rel=0.06)


def test_a_replay_that_does_not_fit_is_refused_before_it_is_made(make_run: Make) -> None:
    sentence = r"data.replay.capacity is 1,000,000,000,000, which takes .* GB of RAM, but .* are"
    with pytest.raises(ConfigError, match=sentence):
        make_run(capacity=10**12).fit()
