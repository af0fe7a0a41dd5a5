"""Levels that a user gives: from files and from Python, checked, and played as target levels."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import ArmPoses, CartPole, GymnasiumEnv, Maze, MountainCar, PointMass
from lit_crl.envs.given_levels import GivenLevels, given_levels
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.training.datamodule import ReplayDataModule

Make = Callable[..., Any]
POSITIONS = [[-0.5, 0.0], [-0.4, 0.01], [-0.6, -0.01]]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def played(given: Any, env: Any = None, heldout: Any = None, seed: int = 0) -> Any:
    return GivenLevels(given, heldout, seed).played_in(MountainCar(2) if env is None else env)


def rows(levels: Tensor) -> set[tuple[float, ...]]:
    return {tuple(level) for level in levels.tolist()}


def small_maze(num_envs: int, device: torch.device) -> Maze:
    return Maze(num_envs, device, size=5, target="perfect")


def write_csv(path: Path, lines: list[list[Any]]) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return str(path)


def test_given_levels_are_drawn_alike_and_nothing_else() -> None:
    env = played(POSITIONS)
    drawn = env.target_levels(6_000, rng())
    assert rows(drawn) == rows(torch.tensor(POSITIONS))
    shares = [(drawn == level).all(1).float().mean().item() for level in torch.tensor(POSITIONS)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    assert torch.equal(given_levels(env), torch.tensor(POSITIONS))
    env.reset()
    assert rows(env.levels) <= rows(drawn)


def test_all_ways_to_give_levels_are_the_same(tmp_path: Path) -> None:
    numbers = np.array(POSITIONS)
    np.savez(tmp_path / "a.npz", levels=numbers)
    position, velocity = MountainCar.level_names
    plain = write_csv(tmp_path / "plain.csv", POSITIONS)
    exchanged = [[velocity, position], *([v, p] for p, v in POSITIONS)]
    named = write_csv(tmp_path / "named.csv", exchanged)
    for given in (numbers, torch.tensor(POSITIONS), str(tmp_path / "a.npz"), plain, named):
        assert torch.equal(given_levels(played(given)), torch.tensor(POSITIONS))


def test_maps_may_have_their_shape(tmp_path: Path) -> None:
    env = Maze(1, size=5, target="perfect")
    levels = env.target_levels(4, rng())
    np.savez(tmp_path / "maps.npz", levels=levels.view(4, 3, 5, 5).bool().numpy())
    assert torch.equal(given_levels(played(str(tmp_path / "maps.npz"), env)), levels)


def test_a_number_draws_levels_once_by_the_seed() -> None:
    one, same, other = (
        given_levels(played(20, PointMass(1, dim=3), seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert one.shape == (20, 3) and not torch.equal(one, other)
    # They are a sample of the task's own target levels.
    many = given_levels(played(4_000, PointMass(1, dim=3)))
    own = PointMass(1, dim=3).target_levels(4_000, rng(5))
    torch.testing.assert_close(many.std(0), own.std(0), rtol=0.05, atol=0.0)


def test_held_out_levels_are_new_ones_of_the_same_task() -> None:
    env = Maze(1, size=3, target="perfect")  # so small that levels are drawn twice
    own = set(env.heldout())
    given = rows(given_levels(played(30, env)))
    fresh = env.heldout()["fresh"]
    assert set(env.heldout()) == own | {"fresh"}
    assert 0 < len(fresh) < 256
    assert not rows(fresh) & given
    assert env.valid(fresh).all()
    # Another seed trains on other levels, but the levels before these are taken out are the same.
    other = Maze(1, size=3, target="perfect")
    also = rows(given_levels(played(30, other, seed=9)))
    assert given != also
    assert rows(fresh) - also == rows(other.heldout()["fresh"]) - given


def test_a_user_may_give_held_out_levels(tmp_path: Path) -> None:
    env = played(POSITIONS, heldout=[[-0.55, 0.0], [-0.45, 0.0]])
    assert env.heldout()["fresh"].tolist() == torch.tensor([[-0.55, 0], [-0.45, 0]]).tolist()
    assert env.heldout().keys() == MountainCar(1).heldout().keys() | {"fresh"}
    with pytest.raises(ConfigError, match=r"data\.given_heldout has 1 of the levels"):
        played(POSITIONS, heldout=[POSITIONS[1], [-0.45, 0.0]])


def test_held_out_levels_need_no_given_ones() -> None:
    """The ceiling trains on new levels all the time, and is measured at the same ones."""
    free, few = played(None, ArmPoses(1), heldout=50), played(4, ArmPoses(1), heldout=50)
    assert torch.equal(free.heldout()["fresh"], few.heldout()["fresh"])
    assert not hasattr(free, "given_levels")
    assert len(rows(free.target_levels(100, rng()))) == 100


def put_at(env: Any, level: Any) -> Any:
    env.unwrapped.state = np.array(level)
    return np.array(level, dtype=np.float32)


def own_task(num_envs: int, device: torch.device) -> GymnasiumEnv:
    space = {"position": [-1.2, 0.5], "velocity": [-0.07, 0.07]}
    return GymnasiumEnv(num_envs, device, id="MountainCar-v0", set_level=put_at, level_space=space)


def test_a_gymnasium_task_without_a_sampler_starts_at_given_levels() -> None:
    env = own_task(2, torch.device("cpu"))
    assert env.target_levels(1, rng()).isnan().all()
    played(POSITIONS, env)
    obs, _ = env.reset(options={"levels": env.target_levels(2, rng())})
    assert rows(obs) <= rows(torch.tensor(POSITIONS))
    assert "fresh" not in env.heldout()  # nobody can draw any
    with pytest.raises(ConfigError, match=r"data\.given is 8, but .* its own resets, .* a file"):
        played(8, own_task(1, torch.device("cpu")))


def test_all_environments_of_a_run_have_the_given_levels() -> None:
    data = ReplayDataModule(CartPole, given=5, collect={"num_envs": 3}, seed=4)
    data.setup("validate")
    others = [data.make_env(2, torch.device("cpu")), data.evaluation_envs.training.copies(2)]
    for env in others:
        assert torch.equal(given_levels(env), given_levels(data.env))
    # Gymnasium's own CartPole has other target levels, so it is not what is evaluated in.
    assert data.evaluation_envs.target is data.evaluation_envs.training


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.csv", r"data\.given none\.csv: there is no such file: give a \.npz or a \.csv"),
        ("levels.txt", r"neither a \.npz nor a \.csv"),
        ("objects.npz", r"objects\.npz cannot be read \(.*pickle.*\): write it by np\.savez"),
        ("broken.npz", r"broken\.npz cannot be read"),
        ("words.npz", "holds <U1, but levels are numbers"),
        ("other.npz", "has maps, but no array 'levels'"),
        ("word.csv", r"word\.csv, line 3: 'fast' is no number"),
        ("long.csv", r"long\.csv, line 2, has 3 numbers, but a level of this environment has 2"),
        ("names.csv", r"has the columns x, v, but a level of this environment has position"),
        ("empty.csv", "has 0 levels: give at least 2"),
        ([[-0.5, 0.0]], "has 1 levels: give at least 2"),
        (1, r"data\.given is 1: give at least 2"),
        ([[-0.5, 0.0, 1.0]] * 2, r"has shape \(2, 3\), .* give shape \(K, 2\)"),
        ([[-0.5, 0.0], [-0.5]], "is no table of numbers"),
        ([[-0.5, 0.0], [-0.5, 0.3]], r"level 2: velocity .* is 0\.3, but must be from -0\.07"),
        ([[-0.5, 0.0], [float("nan"), 0.0]], r"level 2: position is nan"),
    ],
    ids=str,
)  # fmt: skip
def test_what_are_no_levels_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("levels.txt").write_text("1 2")
    np.savez("objects.npz", levels=np.array([{}, None], dtype=object))
    Path("broken.npz").write_bytes(b"PK\x03\x04 and no more")
    np.savez("words.npz", levels=np.array([["a", "b"]] * 2))
    np.savez("other.npz", maps=np.zeros((2, 2)))
    write_csv(Path("word.csv"), [[-0.5, 0.0], [-0.4, 0.0], [-0.3, "fast"]])
    write_csv(Path("long.csv"), [[-0.5, 0.0], [-0.4, 0.0, 1.0]])
    write_csv(Path("names.csv"), [["x", "v"], [-0.5, 0.0], [-0.4, 0.0]])
    write_csv(Path("empty.csv"), [])
    with pytest.raises(ConfigError, match=message) as refusal:
        played(given)
    assert "\n" not in str(refusal.value)


def test_levels_at_which_nothing_can_start_are_named() -> None:
    env = Maze(1, size=5)
    levels = env.target_levels(4, rng())
    levels[1], levels[3] = 0.0, 1.0
    with pytest.raises(ConfigError, match=r"at 2 of its 4 levels \(2, 4\): correct them"):
        played(levels, env)


def test_environments_without_levels_of_their_own_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no level_space: give level_space and set_level"):
        played(POSITIONS, GymnasiumEnv(1, id="CartPole-v1"))


def test_repeated_levels_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    env = played([*POSITIONS, POSITIONS[0]])
    assert "4 levels of data.given, 1 of which repeat another one." in capsys.readouterr().out
    share = (env.target_levels(4_000, rng()) == torch.tensor(POSITIONS[0])).all(1).float().mean()
    assert share == pytest.approx(0.5, abs=0.03)  # they count as often as they are there


def test_a_run_does_not_go_on_with_other_levels(make_run: Make, tmp_path: Path) -> None:
    few = {"arm": "edits", "gan_updates": 0, "mix": {"target": 0.5, "archive": 0.5}}
    make_run(callbacks=[RunCheckpoint(tmp_path)], env_steps=600, given=POSITIONS, **few).fit()
    other = make_run(callbacks=[RunCheckpoint(tmp_path)], given=POSITIONS[:2], **few)
    with pytest.raises(ConfigError, match=r"data\.given was 3 levels with SHA-256 .* and is now 2"):
        other.fit(tmp_path / "last.ckpt")
    assert (other.data.env.target_levels(50, rng())[:, 0] > -0.55).all()
