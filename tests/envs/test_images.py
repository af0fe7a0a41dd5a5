"""Layouts of images: environments declare their axes, and networks convolve over the right ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import learner_settings
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FrameStackObservation, TransformObservation
from torch import Tensor, nn

import lit_crl.envs
from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.networks import QNetwork
from lit_crl.envs import (
    BatchedEnv,
    CartPole,
    FacingMaze,
    GymnasiumEnv,
    LevelEnv,
    Maze,
)
from lit_crl.envs.images import (
    ImageSpace,
    channels_first,
    in_words,
    with_layout,
)
from lit_crl.runs.policy import Policy
from lit_crl.training.blueprint import Blueprint


class Shown(gymnasium.Env[Any, Any]):
    """Shows random observations of a space."""

    action_space = Discrete(2)

    def __init__(self, space: Box) -> None:
        self.observation_space = space

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


def shown(space: Box, stack: int = 0) -> gymnasium.Env[Any, Any]:
    env = Shown(space)
    return FrameStackObservation(env, stack) if stack else env


gymnasium.register("LitCrlShown-v0", entry_point=shown, max_episode_steps=9)


def adapter(space: Box, stack: int = 0, said: Any = None) -> GymnasiumEnv:
    kwargs = {"space": space, "stack": stack}
    return GymnasiumEnv(1, id="LitCrlShown-v0", env_kwargs=kwargs, image_layout=said)


def of_bytes(*shape: int, high: int = 255) -> Box:
    return Box(0, high, shape, np.uint8)


def of_truths(*shape: int) -> Box:
    return Box(0, 1, shape, np.bool_)


@dataclass
class Case:
    """A space of frames, and its true axes: F (frames), H, W and C."""

    space: Box
    axes: str
    stack: int = 0
    said: str | None = None


CASES = {
    "MinAtar": Case(of_truths(10, 10, 4), "HWC"),
    "MiniGrid": Case(of_bytes(7, 7, 3), "HWC"),
    "MiniGrid, one-hot": Case(of_bytes(7, 7, 20), "HWC"),
    "more columns than rows": Case(of_bytes(40, 6, 20), "HWC"),
    "colours": Case(of_bytes(48, 60, 3), "HWC"),
    "grey": Case(of_bytes(48, 40), "HW"),
    "grey, a channel": Case(of_bytes(48, 40, 1), "HWC"),
    "Atari": Case(of_bytes(84, 84), "FHW", stack=4),
    "stacked colours": Case(of_bytes(48, 60, 3), "FHWC", stack=4),
    "stacked grey, a channel": Case(of_bytes(12, 9, 1), "FHWC", stack=5),
    "stacked truths": Case(of_truths(10, 10, 4), "FHWC", stack=2),
    "said: channels first": Case(of_bytes(6, 5, 5, high=1), "CHW", said="CHW"),
    "said: frames first": Case(of_bytes(4, 40, 40), "FHW", said="HW"),
    "said: stacked, channels first": Case(of_bytes(3, 9, 11), "FCHW", stack=2, said="CHW"),
    "said: stacked colours": Case(of_bytes(4, 48, 60, 3), "FHWC", said="HWC"),
    "said: floats": Case(Box(-1, 1, (8, 9, 3), np.float32), "HWC", said="HWC"),
    "said: whole numbers": Case(Box(0, 9, (8, 9, 3), np.int64), "HWC", said="HWC"),
    "said: against the convention": Case(of_bytes(9, 8, 7), "CHW", said="CHW"),
    "said: small and grey": Case(of_bytes(6, 7, high=2), "HW", said="HW"),
}


def first_convolution(network: nn.Module) -> nn.Conv2d:
    return next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))


def check_neighbourhoods(network: nn.Module, space: Box, axes: str) -> None:
    """A brighter pixel must change the first convolution's outputs around it, and no others."""
    sizes = dict(zip(axes, space.shape, strict=True))
    layer = first_convolution(network)
    assert layer.in_channels == sizes.get("F", 1) * sizes.get("C", 1)
    outputs: list[Tensor] = []
    layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    kernel, stride = int(layer.kernel_size[0]), int(layer.stride[0])
    rng = np.random.default_rng(0)
    corners = [{"H": 0, "W": 0}, {"H": sizes["H"] - 1, "W": 0}, {"H": 0, "W": sizes["W"] - 1}]
    anywhere = [{axis: int(rng.integers(sizes[axis])) for axis in axes} for _ in range(8)]
    for place in [*corners, *anywhere]:
        dark = torch.from_numpy(space.low[None].copy())
        bright = dark.clone()
        bright[(0, *(place.get(axis, 0) for axis in axes))] += 1
        outputs.clear()
        network(torch.cat([dark, bright]))
        moved = (outputs[0][1] != outputs[0][0]).any(dim=0)
        near = [
            torch.arange(n) * stride - place[axis]
            for axis, n in zip("HW", moved.shape, strict=True)
        ]
        rows, columns = (((-kernel < start) & (start <= 0)) for start in near)
        assert torch.equal(moved, rows[:, None] & columns[None]), place


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_images_of_gymnasium_are_convolved_over_rows_and_columns(case: Case) -> None:
    env = adapter(case.space, case.stack, case.said)
    assert env.image_layout == case.axes.removeprefix("F")
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs.numpy())
    network = QNetwork(env.single_observation_space, 2, (8,))
    assert network(obs).shape == (1, 2)
    check_neighbourhoods(network, env.single_observation_space, case.axes)


#: Axes of the built-in environments that have images.
IMAGES: dict[str, str] = {"Maze": "CHW", "FacingMaze": "CHW"}
BUILT_IN = [
    name
    for name in lit_crl.envs.__all__
    if isinstance(kind := getattr(lit_crl.envs, name), type)
    and issubclass(kind, BatchedEnv)
    and kind is not BatchedEnv
]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_images_are_convolved_over_rows_and_columns(name: str) -> None:
    env: LevelEnv = getattr(lit_crl.envs, name)(2)
    network = Blueprint.of(env, CreativeLearner(**learner_settings(hidden=(8,))).sizes).q_network()
    space = env.single_observation_space
    if name in IMAGES:
        check_neighbourhoods(network, space, IMAGES[name])
    else:
        assert len(space.shape) == 1 and env.image_layout is None
        assert not [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def test_the_axes_of_mazes_are_those_of_the_view() -> None:
    """A wall moves along rows and columns as the agent steps; a heading fills a map."""
    env = FacingMaze(1, size=5)
    layouts = torch.zeros(1, 3, 5, 5)
    layouts[0, 1, 2, 2] = layouts[0, 2, 0, 2] = 1
    # Facing up, the goal two cells ahead lies in the middle column, two rows above the last.
    obs, _ = env.reset(options={"levels": env.facing(layouts, torch.tensor([3]))})
    assert obs[0, 1].nonzero().tolist() == [[2, 2]]
    assert obs[0, 2 + 3].all() and not obs[0, 2 : 2 + 3].any()
    maze = Maze(1, size=5)
    obs, _ = maze.reset(options={"levels": layouts.flatten(1)})
    assert obs[0, 1].nonzero().tolist() == [[4 - 2, 4]]


VECTORS = {
    "floats": (Box(-1, 1, (10, 10, 4), np.float32), 0),
    "whole numbers": (Box(0, 9, (10, 10, 4), np.int64), 0),
    "a small board": (of_bytes(6, 7, high=2), 0),
    "memory": (of_bytes(128), 0),
    "stacked memory": (of_bytes(128), 9),
    "stacked boards": (of_bytes(6, 7, high=2), 9),
    "stacked floats": (Box(-1, 1, (84, 84), np.float32), 4),
}


@pytest.mark.parametrize(("space", "stack"), VECTORS.values(), ids=VECTORS)
def test_other_observations_are_vectors(space: Box, stack: int) -> None:
    env = adapter(space, stack)
    assert env.image_layout is None
    network = Blueprint.of(env, CreativeLearner(**learner_settings(hidden=(8,))).sizes).q_network()
    assert not [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def test_images_are_a_vector_where_the_user_says_so() -> None:
    env = adapter(of_bytes(3, 3, 2), said="vector")
    learner = CreativeLearner(**learner_settings(hidden=(8,))).build(env)
    assert env.image_layout is None
    assert learner.act(env.reset(seed=0)[0], epsilon=0.0).shape == (1,)


@pytest.mark.parametrize(
    ("space", "stack"),
    [(of_bytes(4, 84, 84), 0), (of_bytes(4, 48, 60, 3), 0), (of_truths(2, 9, 9), 3)],
    ids=["first axis short", "four axes", "stacked, first axis short"],
)
def test_ambiguous_images_are_refused(space: Box, stack: int) -> None:
    with pytest.raises(ConfigError, match=r"nothing says how .*data\.env\.image_layout in YAML"):
        adapter(space, stack)


def test_a_stack_is_recognized_only_while_it_keeps_its_shape() -> None:
    def turned(seen: Any) -> Any:
        return seen.transpose(1, 2, 0)

    def wrapped(kept: bool) -> gymnasium.Env[Any, Any]:
        env = FrameStackObservation(Shown(of_bytes(12, 16)), 3)
        space = env.observation_space if kept else of_bytes(12, 16, 3)
        return TransformObservation(env, (lambda seen: seen) if kept else turned, space)

    gymnasium.register("LitCrlTurned-v0", entry_point=wrapped, max_episode_steps=9)
    kept, other = (
        GymnasiumEnv(1, id="LitCrlTurned-v0", env_kwargs={"kept": kept}) for kept in (True, False)
    )
    assert (kept.image_layout, other.image_layout) == ("HW", "HWC")


@pytest.mark.parametrize(
    ("shape", "said"),
    [((9,), "HW"), ((9, 9), "HWC"), ((9, 9), "CHW"), ((2, 9, 9, 3), "HW"), ((9, 9, 3), "WHC")],
)
def test_a_layout_that_does_not_fit_is_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"image_layout is '?{said}"):
        adapter(of_bytes(*shape), said=said)


@pytest.mark.parametrize("layout", ["CHW", "HW", None])
def test_a_batched_environment_needs_a_layout(layout: Any) -> None:
    class Own(CartPole):
        single_observation_space = of_bytes(2, 9, 9)

    with pytest.raises(ConfigError, match=r"Own does not say how .* an attribute image_layout"):
        Own(1)
    Own.image_layout = layout
    network = Blueprint.of(
        Own(1), CreativeLearner(**learner_settings(hidden=(8,))).sizes
    ).q_network()
    if layout is None:
        assert not [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    else:
        axes = {"CHW": "CHW", "HW": "FHW"}[layout]
        check_neighbourhoods(network, Own.single_observation_space, axes)


def test_other_environments_need_a_layout_too() -> None:
    class Bare:
        """Has all that a learner is built from, but no layout of images."""

        single_observation_space = of_bytes(9, 9)
        single_action_space = Discrete(2)
        level_space = None
        device = torch.device("cpu")

    bare: Any = Bare()
    with pytest.raises(ConfigError, match=r"Bare does not say how the axes .* \(9, 9\) lie"):
        CreativeLearner().build(bare)
    bare.image_layout = "HW"
    assert (
        CreativeLearner(**learner_settings(hidden=(8,))).build(bare).blueprint.obs_space.layout
        == "HW"
    )


BOUNDS = {
    "truths": (of_truths(8, 9, 2), "HWC"),
    "ones": (of_bytes(8, 9, 2, high=1), "HWC"),
    "bytes": (of_bytes(8, 9, 2), "HWC"),
    "a stack": (of_bytes(3, 8, 9, high=7), "HW"),
    "below 0": (Box(-4, 4, (2, 8, 9), np.float32), "CHW"),
    "16 bits": (Box(0, 65535, (8, 9), np.int32), "HW"),
    "each channel its own": (
        Box(0, np.broadcast_to(np.array([10, 5, 3], np.uint8), (7, 7, 3)), dtype=np.uint8),
        "HWC",
    ),
}


@pytest.mark.parametrize(("space", "layout"), BOUNDS.values(), ids=BOUNDS)
def test_images_are_scaled_by_their_own_bounds(space: Box, layout: Any) -> None:
    seen = adapter(space, said=layout).single_observation_space
    network = QNetwork(seen, 2, (8,))
    scaled: list[Tensor] = []
    first_convolution(network).register_forward_pre_hook(lambda _, inputs: scaled.append(inputs[0]))
    low, high = (torch.from_numpy(np.array(bound))[None] for bound in (seen.low, seen.high))
    network(torch.cat([low, high]))
    assert not scaled[0][0].any() and torch.equal(scaled[0][1], torch.ones_like(scaled[0][1]))


def test_images_without_bounds_are_not_scaled() -> None:
    space = Box(-np.inf, np.inf, (8, 9), np.float32)
    network = QNetwork(ImageSpace(space, "HW"), 2, (8,))
    scaled: list[Tensor] = []
    first_convolution(network).register_forward_pre_hook(lambda _, inputs: scaled.append(inputs[0]))
    obs = torch.randn(3, 8, 9)
    network(obs)
    assert torch.equal(scaled[0][:, 0], obs)


def test_truths_and_small_whole_numbers_are_kept_as_bytes() -> None:
    for space, kind in (
        (of_truths(9, 9, 2), np.uint8),
        (Box(0, 255, (9, 9, 2), np.int64), np.uint8),
        (Box(0, 256, (9, 9, 2), np.int64), np.float32),
        (Box(-1, 1, (9, 9, 2), np.int8), np.float32),
    ):
        env = adapter(space, said="HWC")
        obs, _ = env.reset(seed=3)
        assert env.single_observation_space.dtype == kind
        assert (env.single_observation_space.low == space.low).all()
        assert (env.single_observation_space.high == space.high).all()
        space.seed(3)
        assert (obs[0].numpy() == space.sample()).all()


@pytest.mark.parametrize(
    ("shape", "layout", "order"),
    [
        ((2, 3, 4), "CHW", "fchw->fchw"),
        ((2, 3, 4), "HWC", "fhwc->fchw"),
    ],
)
def test_channels_come_first(shape: Sequence[int], layout: Any, order: str) -> None:
    stacks = torch.arange(2 * 5 * 24).view(2, 5, *shape)
    frames = torch.stack([torch.einsum(order, stack) for stack in stacks])
    assert torch.equal(channels_first(stacks[:, 0], layout), frames[:, 0])
    assert torch.equal(channels_first(stacks, layout), torch.cat(frames.unbind(1), dim=1))


@pytest.mark.parametrize(
    ("space", "layout", "words"),
    [
        (of_bytes(10, 11, 4), "HWC", "Observations are images 10×11×4, channels last."),
        (of_bytes(6, 5, 5), "CHW", "Observations are images 6×5×5, channels first."),
        (of_bytes(9, 8), "HW", "Observations are images 9×8, grey."),
        (of_bytes(4, 9, 8), "HW", "Observations are stacks of 4 images 9×8, grey."),
        (of_bytes(4, 84, 84), None, "Observations 4×84×84 are taken as 28,224 numbers."),
        (of_bytes(128), None, ""),
    ],
)
def test_a_sentence_says_how_observations_are_read(space: Box, layout: Any, words: str) -> None:
    assert in_words(with_layout(space, layout)) == words


@pytest.mark.parametrize("case", ["MiniGrid, one-hot", "stacked colours", "said: channels first"])
def test_a_saved_policy_knows_its_layout(case: str, tmp_path: Any) -> None:
    env = adapter(CASES[case].space, CASES[case].stack, CASES[case].said)
    learner = CreativeLearner(**learner_settings(hidden=(8,))).build(env)
    policy = Policy.of(learner)
    policy.save(tmp_path / "policy.pt")
    loaded = lit_crl.load(tmp_path / "policy.pt")
    assert loaded.blueprint.obs_space.layout == env.image_layout
    obs, _ = env.reset(seed=0)
    assert torch.equal(loaded.action_values(obs), policy.action_values(obs))
    check_neighbourhoods(loaded.q_network, loaded.blueprint.obs_space, CASES[case].axes)


def test_a_run_cannot_continue_with_another_layout() -> None:
    last, first = (
        CreativeLearner(**learner_settings(hidden=(8,))).build(
            adapter(of_bytes(9, 9, 9), said=said)
        )
        for said in ("HWC", "CHW")
    )
    saved: dict[str, Any] = {"state_dict": last.state_dict()}
    last.on_save_checkpoint(saved)
    last.on_load_checkpoint(saved)
    with pytest.raises(ConfigError, match=r"image_layout is CHW, but .* saved with HWC"):
        first.on_load_checkpoint(saved)


def test_checkpoints_without_a_layout_are_read_only_for_vectors() -> None:
    sizes = CreativeLearner(**learner_settings(hidden=(8,))).sizes
    images, vectors = (
        Blueprint.of(env, sizes).state_dict() for env in (Maze(1, size=5), CartPole(1))
    )
    del images["image_layout"], vectors["image_layout"]
    assert not isinstance(Blueprint.from_state_dict(vectors).obs_space, ImageSpace)
    with pytest.raises(ConfigError, match="how the axes of its images lie: train it anew"):
        Blueprint.from_state_dict(images)
    with pytest.raises(ConfigError, match="image_layout is 'WHC'"):
        Blueprint.from_state_dict(images | {"image_layout": "WHC"})


def test_minigrid() -> None:
    minigrid = pytest.importorskip("minigrid.wrappers")
    grid = "MiniGrid-Empty-5x5-v0"
    made = {
        "LitCrlGrid-v0": lambda: minigrid.ImgObsWrapper(gymnasium.make(grid)),
        "LitCrlOneHot-v0": lambda: minigrid.ImgObsWrapper(
            minigrid.OneHotPartialObsWrapper(gymnasium.make(grid))
        ),
    }
    for (id, make), channels in zip(made.items(), (3, 20), strict=True):
        gymnasium.register(id, entry_point=make, disable_env_checker=True)
        check_environment(id, channels)


def test_minatar() -> None:
    pytest.importorskip("minatar")
    check_environment("minatar:MinAtar/Breakout-v1", 4)


def check_environment(id: str, channels: int) -> None:
    env = GymnasiumEnv(1, id=id, max_episode_steps=50)
    learner = CreativeLearner(**learner_settings(hidden=(8,))).build(env)
    assert env.image_layout == "HWC" and env.reset(seed=0)[0].dtype == torch.uint8
    assert first_convolution(learner.q_network).in_channels == channels
    check_neighbourhoods(learner.q_network, env.single_observation_space, "HWC")
