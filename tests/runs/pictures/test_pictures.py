"""Pictures and films: measurements of the pixels give back the state that was drawn.

Positions are found by colour, and compared with the state through a straight line fitted to several
pictures, so that nothing is taken from the drawing code but its colours.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import (
    Acrobot,
    BatchedEnv,
    CartPole,
    FacingMaze,
    GustyPass,
    GymnasiumEnv,
    Maze,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)
from lit_crl.envs.episodes import run_episodes
from lit_crl.runs.pictures import (
    film,
    films,
    picture_env,
    record_episodes,
    render_levels,
    write_gif,
    write_mp4,
)
from lit_crl.runs.pictures.canvas import strip
from lit_crl.runs.pictures.scenes import scene
from lit_crl.runs.pictures.style import (
    AGENT,
    COLOURS,
    DARK,
    GOAL,
    LIGHT,
    STYLE,
    WHITE,
    styled,
)

Array = NDArray[Any]

ENVS: dict[str, Callable[[int], BatchedEnv]] = {
    "mountain car": MountainCar,
    "cart-pole": CartPole,
    "acrobot": Acrobot,
    "acrobot with physics": lambda n: Acrobot(n, physics_spread=1.5),
    "maze": Maze,
    "facing maze": FacingMaze,
    "large maze": lambda n: Maze(n, size=13),
    "point mass": PointMass,
    "spiral": Spiral,
    "thin manifold": ThinManifold,
    "gusty pass": GustyPass,
}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def where(picture: Array, colour: str) -> Array:
    """Pixels (across, down) [n, 2] of a colour, without those at smoothed edges."""
    wanted = np.array([round(255 * part) for part in to_rgb(colour)])
    rows, columns = (np.abs(picture.astype(int) - wanted).max(axis=2) <= 6).nonzero()
    return np.stack((columns, rows), axis=1)


def pictures(env: BatchedEnv, states: Any, levels: Tensor | None = None) -> list[Array]:
    """A picture of each state, at the env's target level unless others are given."""
    draw, states = scene(env), np.asarray(states, np.float32)
    given = env.target_levels(1, rng()).expand(len(states), -1) if levels is None else levels
    return [draw(s[None], level.numpy()) for s, level in zip(states, given, strict=True)]


def off_line(x: Any, y: Any) -> tuple[float, float]:
    """The largest distance of points from the straight line through them, and its slope."""
    slope, base = np.polyfit(x, y, 1)
    return float(np.abs(slope * np.asarray(x) + base - y).max()), float(slope)


def direction(pixels: Array, away_from: Array) -> float:
    """Angle of a bar's longer axis from the upward vertical, clockwise, seen from one end."""
    middle = pixels.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((pixels - middle).T))
    across, down = vectors[:, 1] * np.sign(vectors[:, 1] @ (middle - away_from))
    return math.atan2(across, -down)


def turned(angle: float, other: float) -> float:
    """The smaller angle between two directions."""
    return abs(math.remainder(angle - other, 2 * math.pi))


def test_the_phase_plane_shows_position_and_velocity() -> None:
    states = [(x, v) for x in (-1.0, -0.4, 0.2) for v in (-0.05, 0.01, 0.06)]
    found = [where(p[:, 250:], AGENT).mean(axis=0) for p in pictures(MountainCar(1), states)]
    across, down = np.array(found).T
    position, velocity = np.array(states).T
    assert off_line(position, across)[0] < 1
    assert off_line(velocity, down)[0] < 1
    assert off_line(position, across)[1] > 0 > off_line(velocity, down)[1]


def test_the_car_drives_on_the_hill() -> None:
    positions = np.linspace(-1.0, 0.4, 15)
    shown = pictures(MountainCar(1), [(x, 0) for x in positions])
    found = np.array([where(p[:, :250], AGENT).mean(axis=0) for p in shown])
    # The body is some pixels above the ground, at a right angle to it: subtract that. The slope of
    # the ground in pixels follows from the pixels per unit across and up, which come from a fit.
    height = np.sin(3 * positions)
    across, up = off_line(positions, found[:, 0])[1], off_line(height, found[:, 1])[1]
    tilt = np.arctan2(-up * 3 * np.cos(3 * positions), across)
    foot = found + 12 * np.stack((np.sin(tilt), np.cos(tilt)), axis=1)
    assert off_line(positions, foot[:, 0])[0] < 4
    off, slope = off_line(height, foot[:, 1])
    assert off < 4
    assert slope < -40  # pixels are counted from the top


def test_the_pole_stands_at_its_angle_on_the_cart() -> None:
    states = [(x, 0, angle, 0) for x in (-1.5, 0, 2) for angle in (-0.2, -0.05, 0.1)]
    shown = pictures(CartPole(1), states)
    for picture, (_, _, angle, _) in zip(shown, states, strict=True):
        pole = where(picture, AGENT)
        foot = pole[pole[:, 1].argmax()]
        assert turned(direction(pole, foot), angle) < 0.02
    feet = [p[:, 0][p[:, 1] > p[:, 1].max() - 2].mean() for p in (where(s, AGENT) for s in shown)]
    assert off_line([s[0] for s in states], feet)[0] < 3


def test_a_longer_pole_and_a_heavier_cart_look_like_it() -> None:
    env = CartPole(1)
    level = env.target_levels(1, rng()).repeat(2, 1)
    level[1, 7], level[1, 5] = 2 * level[0, 7], 2 * level[0, 5]
    one, other = pictures(env, np.zeros((2, 4)), level)
    tall = [np.ptp(where(picture, AGENT)[:, 1]) for picture in (one, other)]
    assert tall[1] / tall[0] == pytest.approx(2, rel=0.1)
    wide = [np.bincount(where(p[:-18], DARK)[:, 1]).max() for p in (one, other)]  # without words
    assert wide[1] > 1.2 * wide[0] > 20


def test_the_acrobots_links_hang_at_their_angles() -> None:
    for first, second in [(0.0, 0.0), (0.5, 0.4), (-1.0, 2.0), (2.5, -0.6), (math.pi, 0.3)]:
        (picture,) = pictures(Acrobot(1), [(first, second, 0, 0)])
        link = where(picture, AGENT)
        # Straight down is 0, and angles grow anticlockwise.
        hangs = math.pi - (first + second)
        spread = np.cov(link.T)
        assert np.linalg.eigvalsh(spread)[1] > 20 * np.linalg.eigvalsh(spread)[0]
        assert (
            min(turned(direction(link, np.zeros(2)), hangs + turn) for turn in (0, math.pi)) < 0.03
        )
    shown = pictures(Acrobot(1), [(math.pi, 0, 0, 0), (0, 0, 0, 0)])
    heights = [where(picture, AGENT)[:, 1].min() for picture in shown]
    assert heights[0] < heights[1]  # upright, the tip is at the top


@pytest.mark.parametrize("size", [5, 7, 13])
def test_a_maze_shows_the_tiles_of_its_level(size: int) -> None:
    env = Maze(1, size=size)
    for level in env.reference_levels(3, rng()):
        tiles = env.render_levels(level[None])[0]
        (picture,) = pictures(env, env.initial_state(level[None]), level[None])
        side = picture.shape[0] // size
        assert picture.shape == (size * side, size * side, 3)
        corner = picture[side // 6 :: side, side // 6 :: side]  # the agent is in the middles
        assert np.array_equal(corner, tiles)
        row, column = divmod(int(level.view(3, -1)[1].argmax()), size)
        assert (
            picture[row * side + side // 2, column * side + side // 2] == tiles[row, column]
        ).all()


def test_the_agent_is_where_the_state_says_in_a_maze() -> None:
    env = Maze(1, size=7)
    level = torch.zeros(3, 7, 7)
    level[1, 6, 6], level[2, 6, 0] = 1, 1
    states = [(row, column) for row in range(0, 6, 2) for column in range(7)]
    shown = pictures(env, states, level.flatten().expand(len(states), -1))
    side = shown[0].shape[0] // 7
    for picture, (row, column) in zip(shown, states, strict=True):
        agent = where(picture[: 6 * side], AGENT).mean(axis=0)
        assert agent == pytest.approx([(column + 0.5) * side, (row + 0.5) * side], abs=1.5)


def test_an_agent_that_faces_a_way_points_there() -> None:
    env = FacingMaze(1, size=7)
    level = torch.zeros(6, 7, 7)
    level[1, 6, 6], level[5, 6, 0] = 1, 1
    states = [(2, 3, heading) for heading in range(4)]
    shown = pictures(env, states, level.flatten().expand(4, -1))
    side = shown[0].shape[0] // 7
    right, down, left, up = (where(p[: 6 * side], AGENT).mean(axis=0) for p in shown)
    for way, axis in ((right - left, 0), (down - up, 1)):
        assert way[axis] > 1 and abs(way[1 - axis]) < 0.1


@pytest.mark.parametrize("make", [PointMass, Spiral, ThinManifold])
def test_points_lie_in_the_plane_at_their_coordinates(make: Callable[[int], BatchedEnv]) -> None:
    env = make(1)
    dim = env.initial_state(env.levels).shape[1]
    states = np.zeros((9, dim))
    states[:, :2] = [(x, y) for x in (-0.6, 0.1, 0.5) for y in (-0.5, 0.0, 0.7)]
    far = torch.full((9, dim), 0.75)  # a goal beside all of them
    found = np.array([where(p, AGENT).mean(axis=0) for p in pictures(env, states, far)])
    for axis, sign in ((0, 1), (1, -1)):
        off, slope = off_line(states[:, axis], found[:, axis])
        assert off < 1
        assert sign * slope > 0


def test_the_ring_is_as_wide_as_the_goal() -> None:
    env = Spiral(1)
    goals = torch.tensor([[0.3, 0.1], [-0.3, 0.1], [-0.3, 0.5]])
    rings = [where(p[40:], GOAL) for p in pictures(env, np.zeros((3, 2)), goals)]
    middles = np.array([(ring.max(axis=0) + ring.min(axis=0)) / 2 for ring in rings])
    a_unit = (middles[0, 0] - middles[1, 0]) / 0.6
    assert (middles[1, 1] - middles[2, 1]) / 0.4 == pytest.approx(a_unit, rel=0.05)
    assert np.ptp(rings[0][:, 0]) / a_unit == pytest.approx(2 * 0.12, rel=0.1)


@pytest.mark.parametrize("name", ENVS)
def test_every_environment_draws_levels_and_moves(name: str) -> None:
    env = ENVS[name](2)
    before = env.state_dict()
    levels = env.target_levels(3, rng())
    images = render_levels(env, levels)
    count, height, width, channels = images.shape
    assert (count, channels, images.dtype) == (3, 3, np.uint8)
    assert 200 < height < 400 and 300 < width < 500
    assert not np.array_equal(images[0], images[1])
    assert np.array_equal(images, render_levels(env, levels))
    after = env.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)  # looking changes nothing
    state, path = env.initial_state(levels[:1]), []
    actions = torch.arange(12) % int(env.single_action_space.n)
    for action in actions:
        path.append(state)
        state, _, _ = env.dynamics(state, levels[:1], action[None])
    draw, seen = scene(env), torch.cat(path).numpy()
    frames = [draw(seen[: step + 1], levels[0].numpy()) for step in range(len(seen))]
    moved = (np.diff(seen, axis=0) != 0).any(axis=1)
    for one, other, moves in zip(frames, frames[1:], moved, strict=False):
        assert moves or np.array_equal(one, other)
    # Some moves are less than a pixel, or in a dimension that is only counted.
    assert len({frame.tobytes() for frame in frames}) > moved.sum() / 2


def push_right(obs: Tensor) -> Tensor:
    return torch.where(obs[:, 1] >= 0, 2, 0)  # solves the mountain car


def test_a_recording_is_the_episode_that_was_played(short_car: type[MountainCar]) -> None:
    levels = torch.tensor([[0.4, 0.04], [-0.5, 0.0], [0.45, 0.06]])
    recordings = record_episodes(push_right, short_car(3), levels=levels, titles=["a", "b", "c"])
    played = run_episodes(short_car(3), push_right, seed=0, levels=levels)
    for index, recording in enumerate(recordings):
        assert recording.steps == played.lengths[index]
        assert recording.success == bool(played.success[index])
        assert recording.reward == played.returns[index]
        assert np.array_equal(recording.level, levels[index].numpy())
        alone, state = short_car(1), levels[index][None]
        for seen in recording.seen:
            assert np.array_equal(seen, state[0].numpy())
            state, _, _ = alone.dynamics(state, state, push_right(state))
        frames = list(recording.frames())
        assert len(frames) == recording.steps + 1
        assert all(frame.shape == frames[0].shape for frame in frames)
    assert [r.success for r in recordings] == [True, False, True]
    assert recordings[1].outcome() == "not solved after 25 steps, return -25"


def test_words_fit_into_their_line_and_are_seen() -> None:
    for words in ("step 3", "generated level 12, p̂ 0.28 · not solved after 200 steps, return -200"):
        inked = (strip(words, 240, 22) < 128).any(axis=(0, 2)).nonzero()[0]
        assert inked.min() >= 7 and inked.max() <= 240 - 7
        assert len(inked) > 20


def test_one_step_is_no_steps() -> None:
    (recording,) = record_episodes(push_right, MountainCar(1), levels=torch.tensor([[0.49, 0.05]]))
    assert recording.outcome() == "solved after 1 step, return -1"


def test_an_environment_of_ones_own_is_drawn_as_it_draws_itself() -> None:
    class Own(ThinManifold):
        def render_levels(self, levels: Tensor) -> Array:
            return np.stack([np.full((3, 4, 3), round(100 * float(u)) + 100) for u, *_ in levels])

    env = Own(1)
    levels = env.on_surface(torch.tensor([[-0.5, 0.0], [0.75, 0.0]]))
    images = render_levels(env, levels)
    assert images.shape == (2, 180, 240, 3)
    assert [image.min() for image in images] == [image.max() for image in images] == [50, 175]


class Lamp(gymnasium.Env[Array, int]):
    """A lamp that gets brighter each step, for four steps."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as Gymnasium has it
    observation_space = Box(0, 1, (1,))
    action_space: Any = Discrete(2)

    def __init__(self, render_mode: str | None = None, start: int = 0) -> None:
        self.render_mode, self.start = render_mode, start

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        self.bright = self.start
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.bright += 40
        return np.zeros(1, np.float32), 1.0, self.bright == self.start + 160, False, {}

    def render(self) -> Any:
        return np.full((60, 250, 3), self.bright, np.uint8)


class Dark(Lamp):
    """A lamp that cannot be seen."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012


@pytest.fixture
def lamp() -> Any:
    for name, kind in (("Lamp-v0", Lamp), ("Dark-v0", Dark)):
        gymnasium.register(name, entry_point=kind)  # type: ignore[arg-type]
    yield
    for name in ("Lamp-v0", "Dark-v0"):
        del gymnasium.registry[name]


def make(id: str) -> Any:
    def factory(n: int, device: torch.device, **more: Any) -> GymnasiumEnv:
        return GymnasiumEnv(n, device, **{"id": id, "env_kwargs": {"start": 7}, **more})

    return factory


@pytest.mark.usefixtures("lamp")
def test_gymnasiums_environments_draw_themselves() -> None:
    env = picture_env(make("Lamp-v0"), 2, torch.device("cpu"))
    recordings = record_episodes(lambda obs: torch.zeros(len(obs), dtype=torch.long), env)
    for recording in recordings:
        assert recording.success is None and recording.reward == 4
        frames = list(recording.frames())
        assert [int(frame[-1, -1, 0]) for frame in frames] == [7, 47, 87, 127, 167]
        assert frames[0].shape[1:] == (250, 3)


@pytest.mark.usefixtures("lamp")
def test_an_environment_that_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ConfigError, match=r"Dark-v0 .*'rgb_array', but 'human'"):
        picture_env(make("Dark-v0"), 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def frames() -> list[Array]:
    """Twelve frames of odd size, each unlike the one before."""
    ground = np.full((61, 83, 3), 255, np.uint8)
    found = []
    for step in range(12):
        frame = ground.copy()
        frame[20:40, 5 * step : 5 * step + 10] = [round(255 * part) for part in to_rgb(AGENT)]
        found.append(frame)
    return found


def test_a_gif_reads_back_as_it_was_written(frames: list[Array], tmp_path: Path) -> None:
    path = write_gif(frames, tmp_path / "new" / "film.gif", fps=25)
    with Image.open(path) as read:
        assert (read.n_frames, read.size, read.info["loop"]) == (12, (83, 61), 0)  # type: ignore[attr-defined]
        for index, frame in enumerate(frames):
            read.seek(index)
            assert read.info["duration"] == 40  # milliseconds
            assert np.abs(np.asarray(read.convert("RGB")).astype(int) - frame).max() <= 1
    assert [file.name for file in path.parent.iterdir()] == ["film.gif"]


# imageio-ffmpeg's reader, which only this test uses, leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_mp4_reads_back_as_it_was_written(frames: list[Array], tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = write_mp4(iter(frames), tmp_path / "new" / "film.mp4", fps=25)
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    assert about["size"] == (84, 62)  # odd sides are extended: H.264 has even ones
    assert about["fps"] == 25 and about["duration"] == pytest.approx(12 / 25, abs=0.01)
    read = [np.frombuffer(part, np.uint8).reshape(62, 84, 3) for part in reader]
    assert len(read) == 12
    for one, other in zip(read, frames, strict=True):
        assert np.abs(one[:61, :83].astype(int) - other).mean() < 6  # it is compressed with loss
    assert [file.name for file in path.parent.iterdir()] == ["film.mp4"]


def test_a_film_pauses_at_the_end_of_each_episode(tmp_path: Path) -> None:
    levels = torch.tensor([[0.45, 0.06], [0.4, 0.06]])
    recordings = record_episodes(push_right, MountainCar(2), levels=levels)
    steps = [recording.steps for recording in recordings]
    path = write_gif(film(recordings, 20), tmp_path / "film.gif", fps=20)
    durations = []
    with Image.open(path) as read:
        for index in range(read.n_frames):  # type: ignore[attr-defined]
            read.seek(index)
            durations.append(read.info["duration"])
    # One frame before each episode's first step and one after every step; the last one is longer.
    expected = [part for n in steps for part in (*[50] * n, 50 + 1200)]
    assert durations == expected


@pytest.mark.parametrize("fps", [0, 51, -3])
def test_impossible_speeds_are_refused(fps: int, frames: list[Array], tmp_path: Path) -> None:
    for write in (write_gif, write_mp4):
        with pytest.raises(ConfigError, match=f"fps is {fps}"):
            write(frames, tmp_path / "film", fps)
    assert not list(tmp_path.iterdir())


def test_mp4_without_its_package_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'lit_crl\[video\]', or use gif"):
        write_mp4([], tmp_path / "film.mp4")


#: Machado, Oliveira & Fernandes (2009): linear RGB as seen without one kind of cones.
CONES = {
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
             [-0.003882, -0.048116, 1.051998]],
    "medium": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
              [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def lab(colour: str, seen: Any) -> Array:
    """CIELAB of a colour as seen by a person whose vision maps linear RGB by ``seen``."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(to_xyz @ np.clip(seen @ linear, 0, 1) / [0.9505, 1.0, 1.089])
    return np.array([116 * y, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("missing", CONES)
def test_agent_goal_walls_and_ground_differ_for_the_colour_blind(missing: str) -> None:
    seen = np.array(CONES[missing])
    found = [lab(colour, seen) for colour in (AGENT, GOAL, DARK, LIGHT)]
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            assert np.linalg.norm(one - other) > 20  # 2.3 is just noticeable


def test_the_style_leaves_the_users_settings_alone() -> None:
    before = dict(matplotlib.rcParams)
    inside = styled(lambda: dict(matplotlib.rcParams))()
    assert all(inside[key] == value or inside[key] == [value] for key, value in STYLE.items())
    assert dict(matplotlib.rcParams) == before
    assert len(set(COLOURS)) == len(COLOURS) and WHITE in COLOURS
