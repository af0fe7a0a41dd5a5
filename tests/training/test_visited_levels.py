"""Runs whose levels are visited states: archive, level GAN and level replay start from them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.arms import check_one_process_visits
from lit_crl.curriculum.plr import PrioritizedLevelReplay
from lit_crl.curriculum.sources import SOURCES
from lit_crl.envs import GymnasiumEnv
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
ARMS: dict[str, dict[str, Any]] = {
    "archive": {"arm": "archive"},
    "gan": {"arm": "gan", "proposals": "projected"},
    "gan, as it proposes": {"arm": "gan"},
    "plr": {"arm": PrioritizedLevelReplay(least=4)},
}


def game(num_envs: int, device: torch.device, **settings: Any) -> GymnasiumEnv:
    pytest.importorskip(settings["id"].partition(":")[0], reason="needs an extra")
    limits = {"max_episode_steps": 25, "visited_levels": 200}
    return GymnasiumEnv(num_envs, device, **{**limits, **settings})


@pytest.mark.parametrize("arm", ["archive", "gan", "gan, as it proposes", "plr"])
@pytest.mark.parametrize("name", GAMES)
def test_arms_start_from_visited_states(make_run: Make, name: str, arm: str) -> None:
    run = make_run(env=partial(game, **GAMES[name]), label_epsilon=0.5, **ARMS[arm])
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
    added = "own" if arm == "plr" else arm.split(",")[0]
    assert {"target", "reference", added} <= set(sources)
    from_target = torch.tensor([source == "target" for source in sources])
    assert torch.equal(started.isnan().all(1), from_target)
    assert len(run.data.env.visited) > 8
