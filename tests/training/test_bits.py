"""Worlds of bits: which observations are bits, and that everything around a world takes them."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import learner_settings
from dreamers import fitted
from gymnasium.spaces import Box, Discrete, MultiBinary, Space
from test_from_log import corridor, from_log
from torch import Tensor

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.logs.npz import NpzLog
from lit_crl.dqn.logs.recording import StepRecorder
from lit_crl.dqn.logs.task import LoggedTask
from lit_crl.envs import GymnasiumEnv, Maze
from lit_crl.envs.bits import BitSpace, is_bits
from lit_crl.training.blueprint import Blueprint
from lit_crl.training.dreams.measurements import measure, spread_of_bytes
from lit_crl.world.map_gan import MapGan
from lit_crl.world.map_networks import MapMixtureGenerators
from lit_crl.world.networks import BernoulliGenerators
from lit_crl.world.transition_gan import TransitionGan


class Shows(gymnasium.Env[Any, Any]):
    """Shows random observations of a space; each episode lasts nine steps."""

    action_space = Discrete(2)

    def __init__(self, space: Space[Any]) -> None:
        self.observation_space = space

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = 9
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return self.observation_space.sample(), float(action), self.left == 0, False, {}


def world_in(env: Any, **settings: Any) -> TransitionGan:
    settings = {"loss": "likelihood", "members": 2, "hidden": (8,), "head_hidden": (8,), **settings}
    learner = CreativeLearner(**learner_settings(hidden=(8,)), world=settings)
    world = Blueprint.of(env, learner.sizes).world_gan(learner.world)
    assert world is not None
    return world


@pytest.mark.parametrize(
    ("space", "bits"),
    [
        (Discrete(5), True),
        (MultiBinary(4), True),
        (Box(0, 1, (3,), np.int64), True),
        (Box(0, 1, (3,), np.bool_), True),
        (Box(0, 1, (3,), np.uint8), True),
        (Box(0.0, 1.0, (3,), np.float32), False),
        (Box(0, 2, (3,), np.int64), False),
        (Box(-1, 1, (3,), np.int8), False),
        (Box(np.array([0, 0]), np.array([1, 5]), dtype=np.int16), False),
    ],
)
def test_whole_numbers_from_0_to_1_are_bits_and_others_are_not(
    space: Space[Any], bits: bool
) -> None:
    env = GymnasiumEnv(1, make=lambda: Shows(space))
    assert is_bits(env.single_observation_space) == bits
    world = world_in(env)
    assert world.binary == bits
    assert isinstance(world.generators, BernoulliGenerators) == bits


MAPS = Box(0, 1, (5, 6, 2), np.bool_)


def test_maps_of_bits_have_convolutions_and_other_images_are_refused() -> None:
    world = world_in(GymnasiumEnv(1, make=lambda: Shows(MAPS)), hidden=(128, 128))
    assert isinstance(world, MapGan) and isinstance(world.generators, MapMixtureGenerators)
    pixels = GymnasiumEnv(1, make=lambda: Shows(Box(0, 255, (10, 10, 4), np.uint8)))
    with pytest.raises(ConfigError, match="no vectors and no maps of bits"):
        world_in(pixels)


def test_a_checkpoint_knows_that_observations_are_bits() -> None:
    learner = CreativeLearner(**learner_settings(hidden=(8,)))
    for space in (Discrete(5), Box(0, 1, (3,), np.uint8), Box(0.0, 1.0, (3,))):
        env = GymnasiumEnv(1, make=lambda space=space: Shows(space))
        saved = Blueprint.of(env, learner.sizes)
        again = Blueprint.from_state_dict(saved.state_dict()).obs_space
        assert is_bits(again) == is_bits(saved.obs_space)
        assert again == saved.obs_space


@pytest.mark.parametrize("loss", ["gan", "gan_reconstruction", "likelihood"])
def test_a_run_of_bits_dreams_bits_and_everything_of_it_is_measured(loss: str) -> None:
    learner, data = fitted(
        env=lambda: gymnasium.make("FrozenLake-v1", max_episode_steps=20),
        world={"loss": loss},
        dreams={"held_back": 0.3},
    )
    dreaming = data.dreaming
    assert dreaming is not None and dreaming.world.binary and dreaming.store is not None
    for obs in (dreaming.store.obs, dreaming.store.next_obs):
        assert obs.dtype == torch.float32 and set(obs.unique().tolist()) <= {0.0, 1.0}
    found = measure(dreaming, learner, None, torch.Generator().manual_seed(0))
    assert {"world/error_1", "world/error_5", "world/disagreement_far"} <= set(found)
    assert all(np.isfinite(number) for number in found.values())


@pytest.mark.parametrize("loss", ["gan", "likelihood"])
def test_a_run_of_maps_dreams_maps_and_everything_of_it_is_measured(loss: str) -> None:
    learner, data = fitted(
        env=lambda: Shows(MAPS),
        world={"loss": loss, "hidden": (128, 128)},
        dreams={"held_back": 0.3, "judge_share": 0.25, "gate": 0.9},
    )
    dreaming = data.dreaming
    assert dreaming is not None and isinstance(dreaming.world, MapGan)
    assert dreaming.store is not None and learner.world_updates > 0
    for obs in (dreaming.store.obs, dreaming.store.next_obs, data.replay.obs):
        assert obs.dtype == torch.uint8 and obs.shape[1:] == MAPS.shape and int(obs.max()) == 1
    assert 0 < dreaming.env.gate < torch.inf
    found = measure(dreaming, learner, None, torch.Generator().manual_seed(0))
    assert {"world/error_1", "world/error_5", "world/disagreement_far", "world/z_used"} <= set(
        found
    )
    assert all(np.isfinite(number) for number in found.values())


@pytest.mark.parametrize(
    "loss", ["gan_reconstruction", pytest.param("likelihood", marks=pytest.mark.slow)]
)
def test_recorded_updates_of_maps_are_the_same_bit_for_bit(
    loss: str, request: pytest.FixtureRequest
) -> None:
    given: dict[str, Any] = {
        "env": partial(Maze, size=5, max_episode_steps=20), "env_steps": 320,
        "world": {"loss": loss, "hidden": (128, 128)},
    }  # fmt: skip
    before, _ = fitted(**given)
    request.getfixturevalue("recorded")
    after, _ = fitted(**given)
    assert type(after._train_world).__name__ == "TracedPhase"
    assert before.world_updates == after.world_updates > 0
    for name, weights in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weights), name


# By default a world of vectors is traced in the same way, and one of maps recorded.
@pytest.mark.slow
def test_a_compiled_world_of_maps_is_the_eager_one(traced: None) -> None:
    given: dict[str, Any] = {
        "env": partial(Maze, size=5, max_episode_steps=20), "env_steps": 320,
        "world": {"loss": "gan", "hidden": (128, 128)},
    }  # fmt: skip
    (eager, _), (compiled, _) = (fitted(compile=compile, **given) for compile in (False, True))
    assert compiled.world_updates == eager.world_updates > 0
    assert eager.world_gan is not None and compiled.world_gan is not None
    for name, weights in eager.world_gan.state_dict().items():
        close = {"rtol": 0.02, "atol": 1e-3}
        found = compiled.world_gan.state_dict()[name]
        torch.testing.assert_close(found, weights, **close, msg=name)


def test_the_spread_of_bytes_is_that_of_numbers() -> None:
    values = torch.randint(256, (20_000, 3, 2), dtype=torch.uint8)
    values[:, 0, 0] = 255
    expected = values.double().std(0, correction=0).float()
    torch.testing.assert_close(spread_of_bytes(values), expected, rtol=1e-6, atol=0)


def test_bytes_that_are_bits_stay_bytes_in_dreams() -> None:
    space = Box(0, 1, (4,), np.uint8)
    _, data = fitted(env=lambda: Shows(space))
    dreaming = data.dreaming
    assert dreaming is not None and dreaming.world.binary and dreaming.store is not None
    for obs in (dreaming.store.obs, dreaming.store.next_obs, data.replay.obs):
        assert obs.dtype == torch.uint8 and int(obs.max()) <= 1


def test_the_error_of_bits_is_1_where_nothing_is_said_to_change() -> None:
    """And √½ for the mean of a fair choice between staying and one other place."""
    env = GymnasiumEnv(1, make=lambda: Shows(Discrete(4)))
    world, hot = world_in(env, loss="gan"), torch.eye(4)
    place = torch.arange(4).repeat(50)
    moved = (place + torch.arange(200) // 100) % 4  # the first half of the rows stay
    obs, next_obs, action = hot[place], hot[moved], torch.zeros(200, dtype=torch.int64)

    class Says(torch.nn.Module):
        def __init__(self, after: Tensor) -> None:
            super().__init__()
            self.after = after

        def centre(self, condition: Tensor) -> Tensor:
            return self.after.expand(2, -1, -1)

    world.generators = Says(obs)  # type: ignore[assignment]
    torch.testing.assert_close(world.one_step_error(obs, action, next_obs), torch.tensor(1.0))
    world.generators = Says((obs + hot[(place + 1) % 4]) / 2)  # type: ignore[assignment]
    torch.testing.assert_close(world.one_step_error(obs, action, next_obs), torch.tensor(0.5**0.5))


def as_type(path: Path, dtype: Any) -> Path:
    """The same log, with observations of another type."""
    arrays = dict(np.load(path))
    arrays |= {name: arrays[name].astype(dtype) for name in ("obs", "next_obs")}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("dtype", "bits"), [(np.bool_, True), (np.int16, True), (np.uint8, True), (np.float32, False)]
)
def test_a_log_says_by_its_type_whether_it_has_bits(tmp_path: Path, dtype: Any, bits: bool) -> None:
    log = as_type(corridor(tmp_path / "log.npz"), dtype)
    assert is_bits(LoggedTask(NpzLog(log)).single_observation_space) == bits
    run = from_log(log)
    run.fit()
    world = run.learner.world_gan
    assert world is not None and world.binary == bits


def test_a_recorded_log_of_bits_has_bits(tmp_path: Path) -> None:
    recording = StepRecorder(tmp_path / "steps.bin", 2, BitSpace(3))
    recording.start()
    hot, no = torch.eye(3), torch.zeros(2, dtype=torch.bool)
    for k in range(4):
        recording.add(hot[[k % 3, 0]], no.long(), no.float(), no, no, hot[[(k + 1) % 3, 0]])
    recording.write_log(tmp_path / "log.npz", num_actions=2, first_action=0)
    recording.close()
    log = NpzLog(tmp_path / "log.npz")
    assert log.obs_dtype == np.bool_
    assert isinstance(LoggedTask(log).single_observation_space, BitSpace)
    with np.load(tmp_path / "log.npz") as arrays:
        assert np.array_equal(arrays["obs"][:4], np.eye(3)[[0, 1, 2, 0]])
