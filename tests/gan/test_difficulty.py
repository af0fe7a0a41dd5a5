"""Levels of a wanted difficulty.

Oracles: brute force over the candidates, and a world whose levels have a known success probability.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import data_settings, learner_settings
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Adam

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import GymnasiumEnv, Maze, MountainCar
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.level_gan import CANDIDATES_PER_LEVEL, nearest
from lit_crl.training.batches import Batch

ENV = MountainCar(2)
LOW, HIGH = torch.as_tensor(ENV.level_space.low), torch.as_tensor(ENV.level_space.high)
WANTED = (0.1, 0.3, 0.5, 0.7, 0.9)


def make(env: Any = ENV, **changes: Any) -> CreativeLearner:
    torch.manual_seed(0)
    settings = {"hidden": (16,), "gan_hidden": (32, 32), "level_noise": 0.3, **changes}
    return CreativeLearner(**learner_settings(**settings)).build(env)


def success(levels: Tensor) -> Tensor:
    """How likely a level of the toy world is solved: from .05 on the left to .95 on the right."""
    unit = 2 * (levels - LOW) / (HIGH - LOW) - 1
    return torch.sigmoid(3 * unit[..., 0])


class Known(nn.Module):
    """A success head that knows the toy world."""

    def forward(self, unit: Tensor) -> Tensor:
        return 3 * unit[:, :1]


def knowing(**changes: Any) -> CreativeLearner:
    learner = make(**changes)
    learner.level_gan.discriminator.success_head = Known()
    return learner


# Which candidates are taken


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40),
    st.floats(0, 1),
    st.integers(0, 40),
)
def test_none_of_those_left_is_nearer_than_one_taken(
    p: list[float], difficulty: float, n: int
) -> None:
    n = min(n, len(p))
    taken = nearest(torch.tensor(p), difficulty, n).tolist()
    assert len(set(taken)) == n
    distance = torch.tensor(p).sub(difficulty).abs().tolist()
    assert [distance[i] for i in taken] == sorted(distance)[:n]


@pytest.mark.parametrize("difficulty", WANTED)
def test_levels_are_the_nearest_of_those_that_training_would_play(difficulty: float) -> None:
    learner, twin = knowing(), knowing()
    candidates = twin.generate_levels(CANDIDATES_PER_LEVEL * 20)
    distance = (success(candidates) - difficulty).abs()
    expected = candidates[sorted(range(len(candidates)), key=distance.tolist().__getitem__)[:20]]
    assert torch.equal(learner.generate_levels(20, difficulty), expected)
    assert torch.equal(learner.generate_levels(5), twin.generate_levels(5))  # the stream goes on


@pytest.mark.parametrize("difficulty", WANTED)
def test_they_hit_a_known_difficulty_and_stay_different(difficulty: float) -> None:
    levels = knowing().generate_levels(64, difficulty)
    assert levels.shape == (64, 2)
    assert (levels >= LOW).all() and (levels <= HIGH).all()
    assert (success(levels) - difficulty).abs().max() < 0.1
    velocity = levels[:, 1]  # which the difficulty says nothing about
    assert velocity.std() > 0.1 * (HIGH - LOW)[1]


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_an_end_of_the_range_gives_the_hardest_or_easiest(difficulty: float) -> None:
    learner, twin = knowing(), knowing()
    usual = success(twin.generate_levels(16 * CANDIDATES_PER_LEVEL)).tolist()
    p = success(learner.generate_levels(16, difficulty)).tolist()
    assert p == pytest.approx(sorted(usual, reverse=difficulty == 1)[:16])


def test_a_resumed_stream_gives_the_same_levels() -> None:
    learner, resumed = knowing(), knowing()
    learner.generate_levels(3, 0.5)
    resumed.streams.load_state_dict(learner.streams.state_dict())
    assert torch.equal(learner.generate_levels(5, 0.3), resumed.generate_levels(5, 0.3))


# Trained, from outcomes alone


@pytest.fixture(scope="module")
def trained(train_on: Callable[..., Any]) -> CreativeLearner:
    """A GAN that has seen uniform levels and one outcome each, of probability ``success``."""
    g = torch.Generator().manual_seed(1)
    start = LOW + torch.rand(200, 64, 2, generator=g) * (HIGH - LOW)
    outcome = torch.bernoulli(success(start), generator=g)
    adam = partial(Adam, lr=3e-3, betas=(0.0, 0.99))
    learner = make(
        lambda_gan=50.0,
        level_noise=0.05,
        ema_rate=0.05,
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )
    one = start[:1, :8]
    nothing = torch.zeros(1, 8)
    transitions = Transitions(one, nothing.long(), nothing, nothing, one)
    batch = GanBatch(start, torch.ones(200, 64), start, outcome)
    train_on(learner, [Batch(transitions, batch, 0.0)], ENV)
    return learner


@pytest.mark.parametrize("difficulty", WANTED)
def test_levels_of_a_trained_gan_are_solved_about_as_often_as_asked(
    trained: CreativeLearner, difficulty: float
) -> None:
    levels = trained.generate_levels(128, difficulty)
    assert (trained.success_probability(levels) - difficulty).abs().mean() < 0.05
    assert success(levels).mean().item() == pytest.approx(difficulty, abs=0.12)
    without = success(trained.generate_levels(128)).mean().item()
    assert without == pytest.approx(0.5, abs=0.2)


# Maps, and what is asked in vain


@pytest.mark.parametrize("difficulty", [0.2, 0.8])
def test_maps_of_a_difficulty_are_maps(difficulty: float) -> None:
    learner = make(Maze(2, size=7), level_noise=0.02)
    maps = learner.generate_levels(12, difficulty)
    assert maps.shape == (12, 3 * 49) and set(maps.unique().tolist()) <= {0, 1}
    assert (maps.view(12, 3, 49)[:, 1:].sum(dim=2) == 1).all()  # one start, one goal
    p = learner.success_probability(maps)
    usual = learner.success_probability(learner.generate_levels(200))
    assert (p - difficulty).abs().mean() < (usual - difficulty).abs().mean()


@pytest.mark.parametrize("n", [0, 1])
def test_few_levels(n: int) -> None:
    assert make().generate_levels(n, 0.5).shape == (n, 2)


@pytest.mark.parametrize("difficulty", [-0.1, 1.01, 50, math.inf, math.nan])
def test_a_difficulty_outside_of_0_to_1_is_refused(difficulty: float) -> None:
    with pytest.raises(ConfigError, match=r"^difficulty is .*: give a number from 0 to 1$"):
        make().generate_levels(4, difficulty)
    with pytest.raises(
        ConfigError, match=r"^data\.evaluation\.difficulty is .*: give a number from 0 to 1$"
    ):
        ReplayDataModule(MountainCar, **data_settings(difficulty=difficulty))


def test_noise_has_its_difficulty_already() -> None:
    learner = make()
    with pytest.raises(ConfigError, match=r"difficulty is 0\.5, but .* give"):
        learner.generate_levels(learner.draw_noise(4), 0.5)


def test_without_levels_there_is_nothing_of_a_difficulty() -> None:
    env = GymnasiumEnv(1, id="CartPole-v1")
    learner = CreativeLearner(**learner_settings(hidden=(4,))).build(env)
    env.close()
    with pytest.raises(ConfigError, match="no level_space"):
        learner.generate_levels(4, 0.5)
