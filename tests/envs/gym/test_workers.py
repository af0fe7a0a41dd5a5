"""Copies in processes against copies in this one."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from extras import Player, atari, made, minatar, minigrid, same
from lives import Faulty, ThreeLives

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.gym.workers import Workers


def workers(env: GymnasiumEnv) -> Workers:
    assert isinstance(env.envs, Workers)
    return env.envs


def processes(env: GymnasiumEnv) -> list[int]:
    return [worker._process.pid for worker in workers(env)._workers]


@pytest.mark.parametrize(
    "settings",
    [
        # Plain numbers, which Atari's wrappers hold, too.
        pytest.param({"id": "CartPole-v1"}, marks=pytest.mark.slow),
        # Objects, as MiniGrid's games are; test_minatar_minigrid.py saves them without processes.
        pytest.param(minatar("Asterix-v1"), marks=pytest.mark.slow),
        minigrid(),
        atari(clip_rewards=1.0, terminal_on_life_loss=True),
    ],
    ids=["CartPole", "MinAtar", "MiniGrid", "Atari"],
)
def test_processes_give_the_same_transitions(settings: dict[str, Any], tmp_path: Path) -> None:
    if ":" not in settings["id"]:
        settings = {**settings, "id": f"gymnasium:{settings['id']}"}
    one, other = made(4, settings), made(4, settings, vectorization="async")
    steps = 80 if "ALE" in settings["id"] else 300
    first, also = one.reset(seed=7)[0], other.reset(seed=7)[0]
    assert torch.equal(first, also)
    players = Player(one), Player(other)
    assert same(*(player.play(steps) for player in players))
    # What one saved the other goes on with.
    torch.save(one.state_dict(), tmp_path / "env.pt")
    other.load_state_dict(torch.load(tmp_path / "env.pt", weights_only=True))
    assert same(*(player.play(25) for player in players))
    torch.save(other.state_dict(), tmp_path / "env.pt")
    one.load_state_dict(torch.load(tmp_path / "env.pt", weights_only=True))
    assert same(*(player.play(25) for player in players))
    assert one.game_in_words == other.game_in_words and one.resumable and other.resumable
    other.close()


def test_four_copies_have_four_starts_and_no_more_processes_than_cores() -> None:
    env = GymnasiumEnv(4, id="CartPole-v1", vectorization="async")
    first, _ = env.reset(seed=0)
    assert len({tuple(row) for row in first.tolist()}) == 4
    second, _ = env.reset()  # seeds at the first reset alone: the next game starts elsewhere
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(processes(env)) == min(4, len(os.sched_getaffinity(0)))
    pids = processes(env)
    env.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_loads_torch_only_to_save() -> None:
    def has_torch(pid: int) -> bool:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()

    env = GymnasiumEnv(1, id="CartPole-v1", vectorization="async")
    env.reset(seed=0)
    env.step(torch.zeros(1, dtype=torch.long))
    (pid,) = processes(env)
    assert not has_torch(pid)
    env.state_dict()
    assert has_torch(pid)  # or this test sees nothing
    env.close()


def test_a_process_takes_one_core() -> None:
    class Threads(ThreeLives):
        def infos(self) -> dict[str, Any]:
            return {"success": torch.get_num_threads() == 1}

    env = GymnasiumEnv(1, make=Threads, vectorization="async")
    env.reset(seed=0)
    assert env.step(torch.zeros(1, dtype=torch.long))[-1]["success"].all()
    env.close()


def test_levels_pictures_and_ids_of_a_script_reach_the_processes() -> None:
    def put(env: Any, level: np.ndarray) -> Any:
        env.state = level.astype(np.float64)
        return level

    gymnasium.register("LitCrlOfAScript-v0", "gymnasium.envs.classic_control:MountainCarEnv",
                       max_episode_steps=9)  # fmt: skip
    env = GymnasiumEnv(
        3, id="LitCrlOfAScript-v0", vectorization="async", set_level=put,
        level_space={"position": [-1.2, 0.5], "velocity": [-0.07, 0.07]},
    )  # fmt: skip
    levels = torch.tensor([[-0.9, 0.01], [torch.nan, torch.nan], [0.2, 0.0]])
    obs, _ = env.reset(seed=0, options={"levels": levels})
    assert torch.equal(obs[[0, 2]], levels[[0, 2]]) and -0.6 <= obs[1, 0] <= -0.4
    mask = torch.tensor([False, False, True])
    again, _ = env.reset(options={"levels": levels, "reset_mask": mask})
    assert torch.equal(again[~mask], obs[~mask]) and env.max_episode_steps == 9
    env.close()
    del gymnasium.registry["LitCrlOfAScript-v0"]


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIT_CRL_CLOSED", str(tmp_path / "closed"))
    return tmp_path / "closed"


def test_errors_in_a_process_are_the_same_sentences(closed: Path) -> None:
    with pytest.raises(ConfigError, match=r"Faulty cannot be made: it raised RuntimeError: no lic"):
        GymnasiumEnv(1, make=Faulty, vectorization="async", env_kwargs={"makes": False})
    with pytest.raises(ConfigError, match="'Pendulum-v1' has the action space Box"):
        GymnasiumEnv(1, id="Pendulum-v1", vectorization="async")
    env = GymnasiumEnv(1, make=Faulty, vectorization="async")
    env.reset(seed=0)
    go = torch.zeros(1, dtype=torch.long)
    env.step(go)
    env.step(go)
    with pytest.raises(RunError, match=r"Faulty: step\(\) raised ValueError: out of fuel"):
        env.step(go)
    env.reset()  # it still answers
    env.close()
    assert closed.read_text() == "closed"


def test_a_process_that_dies_is_an_error(closed: Path) -> None:
    env = GymnasiumEnv(1, make=Faulty, vectorization="async", env_kwargs={"dies": True})
    env.reset(seed=0)
    go = torch.zeros(1, dtype=torch.long)
    env.step(go)
    env.step(go)
    with pytest.raises(RunError, match="async has died with exit status 3: look at what it"):
        env.step(go)
    env.close()


def test_processes_outlive_the_signals_of_a_run_and_not_the_run() -> None:
    env = GymnasiumEnv(1, id="CartPole-v1", vectorization="async")
    env.reset(seed=0)
    for pid in processes(env):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    env.step(torch.zeros(1, dtype=torch.long))
    assert env.state_dict()["episodes"]["envs"]  # a run that is stopped can still be saved
    ends = [worker._process for worker in workers(env)._workers]
    for worker in workers(env)._workers:
        worker._pipe.close()  # as when this process ends without a word
    deadline = time.monotonic() + 20
    while any(process.poll() is None for process in ends) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [process.poll() for process in ends] == [0] * len(ends)


def test_what_cannot_be_sent_is_refused() -> None:
    import threading

    with pytest.raises(ConfigError, match=r"is async, but .* cannot be sent to a process"):
        GymnasiumEnv(1, make=ThreeLives, vectorization="async", env_kwargs={"a": threading.Lock()})
    with pytest.raises(ConfigError, match="vectorization is 'fork': give one of sync, async, vec"):
        GymnasiumEnv(1, id="CartPole-v1", vectorization="fork")  # type: ignore[arg-type]
