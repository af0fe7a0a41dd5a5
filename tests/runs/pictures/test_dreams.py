"""Figures and films of dreams: what is drawn, against worlds whose dreams are known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import (
    Acrobot,
    BatchedEnv,
    CartPole,
    GymnasiumEnv,
    Maze,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)
from lit_crl.envs.images import ImageSpace, space_of
from lit_crl.runs.cli.main import main
from lit_crl.runs.pictures import dreams, record_episodes, write_gif
from lit_crl.runs.pictures.canvas import Picture
from lit_crl.runs.pictures.dream_film import (
    FRAMES,
    Beside,
    Episode,
    beside,
    film_beside,
    moments,
)
from lit_crl.runs.pictures.maps_of_bits import colours_of
from lit_crl.runs.pictures.observed import look_of, plane_of
from lit_crl.runs.pictures.played import play_episode
from lit_crl.runs.pictures.style import BLUE, GREEN, ORANGE, VERMILLION
from lit_crl.world.batch import RealSteps
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined, World
from lit_crl.world.making import world_of
from lit_crl.world.perfect import PerfectWorld
from lit_crl.world.settings import WorldSettings

Array = NDArray[Any]

BUILT_IN: dict[str, Callable[[int], BatchedEnv]] = {
    "mountain car": MountainCar,
    "cart-pole": CartPole,
    "acrobot": Acrobot,
    "point mass": lambda n: PointMass(n, dim=6),
    "spiral": Spiral,
    "thin manifold": ThinManifold,
}


class Drift:
    """A world in which every step adds the same; it ends the task beyond a bound, and doubts."""

    def __init__(self, by: list[float], beyond: float = np.inf) -> None:
        self.by, self.beyond = torch.tensor(by), beyond

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        found = obs + self.by
        reward = torch.full_like(found[:, 0], 2.0)
        doubt = 9.0 * ((found[:, 0] + 0.1).abs() < 0.05)  # around -0.1
        return Imagined(found, reward, found[:, 0] > self.beyond, doubt)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def episode(env: BatchedEnv, steps: int = 50) -> RealSteps:
    """Random actions from a target level, whatever the end says: dynamics go on beyond it."""
    env.reset(seed=1)
    actions = torch.randint(int(env.single_action_space.n), (steps,), generator=rng())
    seen, rewards, ends = [env.current_observations()], [], []
    for action in actions:
        obs, reward, terminated, _, _ = env.step(action[None])
        seen.append(obs)
        rewards.append(reward)
        ends.append(terminated)
    path = torch.cat(seen)
    ended = torch.cat(ends)
    return RealSteps(path[:-1], actions, torch.cat(rewards), ended, path[1:], ~ended)


def lines(axes: Axes, colour: str) -> list[Array]:
    """The paths [t, 2] of a colour."""
    found = [line for line in axes.get_lines() if line.get_linestyle() == "-"]
    return [
        np.asarray(line.get_xydata())
        for line in found
        if to_hex(line.get_color()) == colour.lower()
    ]


def marks(axes: Axes, marker: str) -> list[list[float]]:
    found = [line for line in axes.get_lines() if line.get_marker() == marker]
    return [np.asarray(line.get_xydata())[0].tolist() for line in found if len(line.get_xydata())]


def pair_of(world: World, real: RealSteps) -> dreams.Pair:
    return dreams.pair(world, torch.cat((real.obs, real.next_obs[-1:])), real.action, rng())


def figure_of(env: BatchedEnv, world: World, real: RealSteps) -> Axes:
    drawn = dreams.dreams(env, [pair_of(world, real)], [], real.obs)
    return drawn.axes[0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_perfect_world_dreams_on_the_real_path(name: str) -> None:
    env = BUILT_IN[name](1)
    real = episode(env)
    axes = figure_of(env, PerfectWorld(env), real)
    (happened,), (dreamt,) = lines(axes, BLUE), lines(axes, ORANGE)
    ends = real.terminated.nonzero().flatten().tolist()
    assert len(happened) >= 51 and len(dreamt) == (ends[0] + 2 if ends else len(happened))
    assert np.allclose(dreamt, happened[: len(dreamt)], atol=1e-5, equal_nan=True)
    # The path is where the environment's own levels are.
    env.reset(seed=1)
    walked = [env.current_levels()]
    for action in real.action:
        env.step(action[None])
        walked.append(env.current_levels())
    points = torch.cat(walked)[:, list(env.level_plane)].numpy()
    assert np.allclose(happened[~np.isnan(happened).any(axis=1)], points, atol=1e-5)
    assert len(points) == 51 and np.ptp(points, axis=0).max() > 0.01


def test_another_world_is_drawn_where_it_dreams() -> None:
    env = MountainCar(1)
    real = episode(env)
    axes = figure_of(env, Drift([0.01, 0.001], beyond=-0.3), real)
    (happened,), (dreamt,) = lines(axes, BLUE), lines(axes, ORANGE)
    start = real.obs[0].numpy()
    straight = start + np.arange(51)[:, None] * [0.01, 0.001]
    ended = int((straight[:, 0] > -0.3).argmax())
    assert 0 < ended < 50 and np.allclose(dreamt, straight[: ended + 1], atol=1e-5)
    assert not np.allclose(dreamt, happened[: ended + 1], atol=0.01)
    assert np.allclose(happened[0], start) and np.allclose(happened[-1], real.next_obs[-1])
    assert np.allclose(marks(axes, "X"), [straight[ended]], atol=1e-5) and not marks(axes, "s")
    endless = figure_of(env, Drift([0.01, 0.001]), real)
    assert np.allclose(marks(endless, "s"), [straight[-1]], atol=1e-5) and not marks(endless, "X")


def test_a_path_is_broken_where_an_angle_turns_over() -> None:
    env = Acrobot(1)
    angles = torch.linspace(0, 9, 60)  # one turn and a half
    states = torch.stack((angles, 0 * angles, 0 * angles, 0 * angles), 1)
    obs = env.observe(states, states)
    path = plane_of(env, obs).path(obs)
    steps = np.abs(np.diff(path, axis=0)).max(axis=1)
    assert np.isnan(path).any(axis=1).sum() == 1
    assert np.nanmax(steps) == pytest.approx(9 / 59, abs=1e-4)


def test_a_dream_ends_where_the_world_says_or_is_cut_at_gate_and_horizon() -> None:
    task = MountainCar(1)
    env = ImaginedEnv(
        3, Drift([0.1, 0.0], beyond=0.35), None,  # type: ignore[arg-type]  # starts are given
        observation_space=task.single_observation_space,
        action_space=task.single_action_space, horizon=6,
    )  # fmt: skip
    env.gate = torch.tensor(1.0)
    starts = torch.tensor([[0.1, 0.0], [-1.0, 0.01], [-0.2, 0.0]])
    free = dreams.free_dreams(env, lambda obs: torch.zeros(3, dtype=torch.long), starts)
    assert [len(each.obs) - 1 for each in free] == [3, 6, 1]
    assert [each.ended for each in free] == [True, False, False]  # beyond the cut, the last would
    for each, start in zip(free, starts, strict=True):
        expected = start + torch.arange(len(each.obs))[:, None] * torch.tensor([0.1, 0.0])
        assert torch.allclose(each.obs, expected)
    real = episode(task)
    right = dreams.dreams(task, [pair_of(Drift([0.0, 0.0]), real)], free, real.obs)
    drawn = lines(right.axes[1], ORANGE)
    assert [len(line) for line in drawn] == [4, 7, 2]
    assert np.allclose(marks(right.axes[1], "X"), [[0.4, 0.0]])
    assert np.allclose(marks(right.axes[1], "s"), [[-0.4, 0.01], [-0.1, 0.0]])
    dots = [line for line in right.axes[1].get_lines() if line.get_marker() == "."]
    assert np.allclose(dots[0].get_xydata(), real.obs.numpy())


def test_elsewhere_the_two_widest_dimensions_are_drawn_and_named() -> None:
    env = GymnasiumEnv(1, torch.device("cpu"), id="CartPole-v1")
    obs = torch.randn(200, 4, generator=rng()) * torch.tensor([1.0, 5.0, 0.1, 3.0])
    plane = plane_of(env, obs)
    assert np.array_equal(plane.points(obs), obs[:, [1, 3]].numpy())
    pair = dreams.Pair(obs[:20], obs[:20] + 1, None)
    left, _ = dreams.dreams(env, [pair], [], obs).axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("obs[1]", "obs[3]")
    low, high = left.get_xlim()
    assert low < obs[:, 1].min() and high > obs[:, 1].max()
    (dreamt,) = lines(left, ORANGE)
    assert np.allclose(dreamt, (obs[:20, [1, 3]] + 1).numpy())
    single = obs[:, :1]
    assert np.array_equal(plane_of(env, single).points(single), single[:, [0, 0]].numpy())


class Grey:
    """An environment that shows grey images."""

    single_observation_space = Box(0, 255, (9, 9), np.uint8)
    image_layout = "HW"


def test_images_that_are_no_maps_of_bits_are_refused_with_a_sentence() -> None:
    env: Any = Grey()
    with pytest.raises(ConfigError, match="have no plane: only vectors are drawn"):
        look_of(env, torch.zeros(1, 9, 9))


def test_maps_of_bits_are_pictures_of_their_cells() -> None:
    env = Maze(1, size=5)
    obs, _ = env.reset(seed=0)
    look = look_of(env, obs)
    picture = look.draw(look.seen(torch.cat((1 - obs, obs))), np.empty(0))  # the last one counts
    colours = colours_of(2)
    rows, columns = obs.shape[2:]
    pixels = picture.shape[0] // rows
    assert picture.shape == (rows * pixels, columns * pixels, 3) and pixels % 2 == 0
    seen = set()
    for row in range(rows):
        for column in range(columns):
            things = [k for k in range(2) if obs[0, k, row, column]]
            expected = colours[1 + things[-1] if things else 0]
            cell = picture[row * pixels : (row + 1) * pixels, column * pixels :][:, :pixels]
            assert (cell == expected).all()
            seen.add(tuple(expected))
    assert len(seen) == 3


def test_a_world_of_maps_has_a_film() -> None:
    env = Maze(1, size=5)
    learner = torch.Generator().manual_seed(0)
    space = space_of(env)
    assert isinstance(space, ImageSpace)
    world = world_of(space, 4, WorldSettings(loss="gan", members=2, head_hidden=(8,)))
    episode = play_episode(lambda obs: torch.ones(1, dtype=torch.int64), env, seed=0, longest=5)
    (found,) = beside(world, env, [episode], learner)
    frames = list(found.frames())
    assert len(frames) >= 2 and all(frame.shape == frames[0].shape for frame in frames)


def test_the_error_is_drawn_over_env_steps_where_it_was_measured() -> None:
    rows = [
        {"env_steps": 100, "world/error_1": 0.5, "world/error_20": 4.0},
        {"env_steps": 200, "dqn/loss": 0.1},
        {"env_steps": "300", "world/error_1": "0.25"},
    ]
    figure = dreams.world_error(rows, "a title")
    assert figure is not None
    (axes,) = figure.axes
    one, twenty, _ = (np.asarray(line.get_xydata()).tolist() for line in axes.get_lines())
    assert one == [[100.0, 0.5], [300.0, 0.25]] and twenty == [[100.0, 4.0]]
    assert (axes.get_title(), axes.get_xlabel()) == ("a title", "env steps")
    assert axes.get_yscale() == "log"
    assert dreams.world_error(rows[1:2], "") is None
    perfect = dreams.world_error([{"env_steps": 1, "world/error_1": 0.0}], "")
    assert perfect is not None and perfect.axes[0].get_yscale() == "linear"


def test_the_share_of_steps_at_a_bound_has_a_panel_of_its_own() -> None:
    rows = [{"env_steps": 100, "world/error_1": 0.5, dreams.BEYOND: 0.125}]
    figure = dreams.world_error(rows, "")
    assert figure is not None
    _, below = figure.axes
    assert np.asarray(below.get_lines()[0].get_xydata()).tolist() == [[100.0, 0.125]]


# Films


def halves(frame: Picture) -> tuple[Picture, Picture]:
    """Both pictures of a frame, without the lines above them."""
    width = (frame.shape[1] - 12) // 2
    return frame[44:, :width], frame[44:, -width:]


def beside_one(env: BatchedEnv, world: World, steps: int = 20) -> Beside:
    real = episode(env, steps)
    obs = torch.cat((real.obs, real.next_obs[-1:]))
    (found,) = beside(world, env, [Episode(obs, real.action, real.reward, False)], rng())
    return found


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_perfect_dream_looks_like_reality(name: str) -> None:
    env = BUILT_IN[name](1)
    found = beside_one(env, PerfectWorld(env))
    assert torch.equal(found.dream.ended[0], episode(env, 20).terminated)
    never = found.dream._replace(ended=torch.zeros_like(found.dream.ended))  # or it would be pale
    frames = list(replace(found, dream=never).frames())
    assert len(frames) == 21 and len({frame.shape for frame in frames}) == 1
    for frame in frames:
        left, right = halves(frame)
        # Rounding may move an edge by a fraction of a pixel.
        assert (np.abs(left.astype(int) - right).max(axis=2) > 60).mean() < 1e-3
    real = episode(env, 20)
    (recording,) = record_episodes(
        lambda obs: real.action[:1], env, seed=1
    )  # the scenes of every other film
    assert np.array_equal(halves(frames[0])[0], recording.picture(0))


def test_another_dream_looks_different() -> None:
    env = MountainCar(1)
    frames = list(beside_one(env, Drift([0.02, 0.0])).frames())
    same = [np.array_equal(*halves(frame)) for frame in frames]
    assert same[0] and not any(same[2:])


def ending(real: bool, bound: float) -> Beside:
    """Ten real steps at 0, beside a dream that passes ``bound`` in tenths."""
    obs, actions = torch.zeros(11, 2), torch.zeros(10, dtype=torch.long)
    played = Episode(obs, actions, torch.full((10,), -1.0), real)
    (found,) = beside(Drift([0.1, 0.0], beyond=bound), MountainCar(1), [played], rng())
    return found


def test_rewards_and_ends_are_told() -> None:
    early = ending(True, 0.35)
    assert early.ended == 4
    assert early.dream_at(3)[0] == "step 3 · reward 6"
    assert early.dream_at(4) == ("step 4 · reward 8 · over at step 4", VERMILLION)
    assert early.dream_at(10) == ("step 10 · reward 20 · over at step 4", VERMILLION)
    assert early.reality_at(3)[0] == "step 3 · reward -3"
    assert early.reality_at(10)[0] == "step 10 · reward -10 · the task ended"
    never = ending(True, 9.0)
    assert never.dream_at(10) == ("step 10 · reward 20 · not over", VERMILLION)
    before, after = (halves(frame)[1].min() for frame in (list(early.frames())[4:6]))
    assert before < 80 < 150 < after  # pale beyond its end
    right = ending(True, 0.95)
    assert right.dream_at(10) == ("step 10 · reward 20 · over at step 10", GREEN)
    cut = ending(False, 9.0)
    assert cut.dream_at(10)[0] == "step 10 · reward 20"
    assert cut.reality_at(10)[0] == "step 10 · reward -10 · cut off"


@pytest.mark.parametrize("steps", [1, 2, 149, 150, 151, 500, 1_000])
def test_long_episodes_have_few_frames_at_equal_intervals(steps: int) -> None:
    found = moments(steps, FRAMES)
    assert found[0] == 0 and found[-1] == steps and len(found) <= FRAMES
    assert len(set(np.diff(found)[:-1].tolist())) <= 1
    assert len(found) > min(steps, FRAMES) / 2


def test_the_film_is_a_gif_of_both_halves_and_small(tmp_path: Path) -> None:
    env = Acrobot(1)
    found = [beside_one(env, PerfectWorld(env), 60), beside_one(env, PerfectWorld(env), 30)]
    path = write_gif(film_beside(found, 20, at_most=40), tmp_path / "film.gif", 20)
    with Image.open(path) as film:
        assert film.n_frames <= 40  # type: ignore[attr-defined]
        assert film.size == (340 + 12 + 340, 340 + 44)
    assert path.stat().st_size < 1e6


def test_an_episode_is_played_as_gymnasium_plays_it() -> None:
    import gymnasium

    env = GymnasiumEnv(1, torch.device("cpu"), id="CartPole-v1")
    played = play_episode(lambda obs: torch.tensor([int(obs[0, 2] > 0)]), env, seed=5)
    alone = gymnasium.make("CartPole-v1")
    obs, _ = alone.reset(seed=5)
    seen, total, ended = [obs], 0.0, False
    while not ended:
        obs, reward, ended, _, _ = alone.step(int(obs[2] > 0))
        seen.append(obs)
        total += float(reward)
    assert np.allclose(played.obs.numpy(), np.stack(seen))
    assert played.reward.sum() == total and played.terminated


def test_dreams_are_filmed_like_every_environment() -> None:
    """The recorder of episodes in an imagined environment of a perfect world: the same film."""
    real = MountainCar(2)
    act: Callable[[Tensor], Tensor] = lambda obs: torch.where(obs[:, 1] >= 0, 2, 0)  # noqa: E731
    expected = record_episodes(act, real, seed=3)
    real.reset(seed=3)

    class Given:
        def draw(self, n: int, rng: torch.Generator) -> Tensor:
            return real.current_observations()

    dreamt = ImaginedEnv(
        2, PerfectWorld(real), Given(), observation_space=real.single_observation_space,
        action_space=real.single_action_space, horizon=200,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"ImaginedEnv cannot be drawn: .* say how"):
        record_episodes(act, dreamt)
    look = look_of(real, real.current_observations())
    found = record_episodes(act, dreamt, look=look)
    for one, other in zip(found, expected, strict=True):
        assert one.steps == other.steps and one.reward == other.reward
        assert one.success is None  # a world does not know
        for step in (0, 5, one.steps):
            assert np.array_equal(one.picture(step), other.picture(step))


# Whole runs

TINY = [
    "--experiment=weak_engine",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--data.env.init_args.max_episode_steps=30",
    "--data.collect.env_steps=600",
    "--data.replay.updates_per_batch=2",
    "--data.replay.batch_size=16",
    "--data.evaluation.every=400",
    "--data.evaluation.episodes=2",
    "--data.evaluation.test_episodes=2",
    "--data.evaluation.share=1",
    "--data.world.updates=2",
    "--data.world.first_updates=2",
    "--data.world.batch_size=16",
    "--data.world.dreams=8",
    "--data.world.horizon=12",
    "--data.world.held_back=0.5",
    "--data.world.error_bound=100",
    "--model.network.hidden=[16]",
    "--model.world.hidden=[16]",
    "--model.world.head_hidden=[16]",
    "--model.world.members=2",
]
RUN = Path("runs/weak_engine")


@pytest.mark.usefixtures("drawn")
def test_a_run_with_a_world_draws_it_and_plays_its_dreams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", *TINY, "--name=a"])
    run = RUN / "a"
    for figure, (width, height) in {"dreams": (10, 4.8)}.items():
        with Image.open(run / "figures" / f"{figure}.png") as picture:
            assert picture.format == "PNG"
            assert picture.size == pytest.approx((130 * width, 130 * height), abs=1)
    gif = run / "films" / "dream_beside_reality.gif"
    with Image.open(gif) as film:
        assert (film.format, film.size) == ("GIF", (972, 274))
        assert 10 < film.n_frames <= 31  # type: ignore[attr-defined]
    assert gif.stat().st_size < 1e6
    before = gif.read_bytes()
    summary = json.loads((run / "summary.json").read_text())
    capsys.readouterr()
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    main(["play", "--ckpt_path", checkpoint, "--dream=true", "--episodes=1"])
    assert capsys.readouterr().out.strip() == f"1 episodes, and the world's dreams of them: {gif}"
    assert gif.read_bytes() == before  # the same episode and the same dream
    assert json.loads((run / "summary.json").read_text()) == summary
    with pytest.raises(ConfigError, match=r"dream is true, .* but levels is given"):
        main(["play", "--ckpt_path", checkpoint, "--dream=true", "--levels=[target]"])


@pytest.mark.usefixtures("drawn")
def test_a_run_without_a_world_draws_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", *TINY, "--name=b", "--model.world.loss=none"])
    run = RUN / "b"
    assert [path.name for path in (run / "figures").iterdir()] == ["learning_curve.png"]
    assert not (run / "films").exists()
    with pytest.raises(ConfigError, match=r"no world that could dream: train one with model.world"):
        main(["play", "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--dream=true"])


def test_a_log_without_held_back_episodes_cannot_be_drawn() -> None:
    env = MountainCar(2, max_episode_steps=5)
    replay = ReplayBuffer(100, 2, env.single_observation_space, n_steps=1)
    obs, _ = env.reset(seed=0)
    for _ in range(2):  # two episodes in each of two environments
        for _ in range(5):
            action = torch.zeros(2, dtype=torch.int64)
            next_obs, reward, _, truncated, _ = env.step(action)
            replay.add(obs, action, reward, torch.full((2,), 0.9))
            obs = next_obs
        replay.add_final(obs, truncated)
        obs, _ = env.reset(options={"reset_mask": truncated})
    with pytest.raises(ConfigError, match=r"no episode .* was held back .* data.world.held_back"):
        dreams.held_back_paths(replay, 0.0)
    paths = dreams.held_back_paths(replay, 1.0)
    assert [(tuple(seen.shape), len(action)) for seen, action in paths] == [((6, 2), 5)] * 3
