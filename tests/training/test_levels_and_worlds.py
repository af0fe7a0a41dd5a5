"""A GAN of levels and a world in one run: whose episodes count, and where dreams start."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import ShortCar
from dreamers import LEVELS, fitted, prepared
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.archive import Archive
from lit_crl.curriculum.sources import FinishedEpisodes
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import (
    Acrobot,
    CartPole,
    GymnasiumEnv,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)
from lit_crl.training.dreams.level_starts import first_observations, hides_level
from lit_crl.training.experience.rollout import Rollout


class ShortPoint(PointMass):
    def __init__(self, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(num_envs, device, dim=2, max_episode_steps=20)


@pytest.mark.parametrize("arm", ["archive", "gan", "valid_reference", "plr", "accel", "oracle"])
def test_every_arm_learns_beside_a_world(arm: str) -> None:
    learner, data = fitted(**LEVELS | {"arm": arm})
    assert data.dreaming is not None and data.dreaming.imagined_steps > 0
    assert learner.world_updates > 0 and (learner.gan_updates > 0) == (arm in ("archive", "gan"))
    assert data.env_steps <= data.schedule.budget


def test_outcomes_come_from_the_judges_episodes_alone() -> None:
    """Cars at rest below the flag: the explorer's reach it, and the judge's do not."""
    env, told = ShortCar(4), list[FinishedEpisodes]()
    archive = Archive(2, tried=64, visited=64)
    replay = ReplayBuffer(1_000, 4, env.single_observation_space)
    rollout = Rollout(
        env, replay, archive, gamma=0.9, label_epsilon=1.0, seed=0, record=told.append
    )
    rollout.explores = explores = torch.tensor([False, True, False, True])
    levels = torch.tensor([0.45, 0.0])

    def act(obs: Tensor, epsilon: Tensor) -> Tensor:
        return torch.where(explores, 2, 0)

    class Values:
        def action_values(self, obs: Tensor) -> Tensor:
            return torch.zeros(len(obs), 3)

    rollout._action_values = Values().action_values
    rollout.done.fill_(True)
    rollout._ended = torch.arange(4)
    for _ in range(120):
        rollout.step(act, torch.zeros(4), lambda n: (levels.expand(n, 2), torch.ones(n).long()))
    log = rollout.log
    assert log.solved["reference"] >= 10  # so the explorer's cars do arrive
    tried = archive.tried
    assert (
        len(tried) == log.judged > 0 and not archive.draw_outcomes(64, torch.Generator())[1].any()
    )
    assert told and not torch.cat([episodes.success for episodes in told]).any()
    assert set(log.successes) == {0.0} and set(log.returns) == {-25.0}
    assert len(archive.visited) > 0
    seen, _ = archive.visited.draw(500, torch.Generator())
    assert (seen[:, 0] > 0.46).any() and (seen[:, 0] < 0.44).any()  # states of both


def test_arms_wait_for_the_judges_epsilon() -> None:
    """Only the explorer's environments explore little here: no outcome could ever count."""
    ladder = {**LEVELS, "label_epsilon": 1e-3, "num_envs": 2}  # ε = .4 and .4⁸ ≈ .0007
    with pytest.raises(ConfigError, match=r"the smallest ε is still 0\.4 "):
        fitted(**ladder)
    with pytest.raises(ConfigError, match=r"data.world.explorers is 1, .* 'gan' learns: give less"):
        fitted(**LEVELS, dreams={"explorers": 1.0})


@pytest.mark.parametrize("env", [ShortCar, ShortPoint])
def test_dreams_start_at_generated_levels(
    env: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    dreams = {"level_states": 0.5, "first_states": 0.25, "explorers": 0.0}
    learner, data, trainer = prepared(env=env, dreams=dreams, **LEVELS)
    made: list[Tensor] = []
    given: list[Tensor] = []
    trained_at: list[int] = []

    class Spy:
        """What the curriculum proposes, and where dreams then start."""

        def __call__(self, *_: Any) -> None:
            dreaming, curriculum = data.dreaming, data.curriculum
            assert dreaming is not None and curriculum is not None
            propose, draw = curriculum.propose, dreaming.starts._draw_generated

            def watched(teacher: Any, n: int) -> Tensor:
                before = {name: value.clone() for name, value in data.env.state_dict().items()}
                levels = propose(teacher, n)
                assert all(torch.equal(before[k], v) for k, v in data.env.state_dict().items())
                made.append(levels)
                trained_at.append(learner.gan_updates)
                return levels

            def drawn(n: int, rng: torch.Generator) -> Tensor:
                given.append(draw(n, rng))
                return given[-1]

            setattr(curriculum, "propose", watched)  # noqa: B010
            setattr(dreaming.starts, "_draw_generated", drawn)  # noqa: B010

    learner.on_train_batch_start = Once(Spy())  # type: ignore[method-assign]
    trainer.fit(learner, datamodule=data)
    assert data.dreaming is not None
    first, visited, generated = data.dreaming.starts.counts.tolist()
    assert generated == sum(map(len, given)) > 0
    assert first > 0 and visited > 0
    assert [len(levels) > 0 for levels in made] == [updates > 0 for updates in trained_at]
    assert not len(made[0]) and len(made[-1])
    levels = torch.cat(made)
    starts = first_observations(env(1), levels)
    for obs in torch.cat(given)[:200]:
        assert (starts == obs).all(1).any()
    assert data.env.valid(levels).all()
    assert data.env_steps == data.schedule.budget == data.rollout.env_steps
    assert capsys.readouterr().out.count("No dream can start from generated states yet") == 1


class Once:
    def __init__(self, call: Callable[..., None]) -> None:
        self.call, self.is_called = call, False

    def __call__(self, *given: Any) -> None:
        if not self.is_called:
            self.is_called = True
            self.call(*given)


def test_observations_of_levels_are_those_of_a_reset() -> None:
    for make in (MountainCar, partial(PointMass, dim=3), Spiral, ThinManifold):
        env = make(32)
        levels = env.reference_levels(32, torch.Generator().manual_seed(0))
        expected, _ = env.reset(options={"levels": levels})
        assert torch.equal(first_observations(make(1), levels), expected)


@pytest.mark.parametrize(
    ("make", "hides"),
    [
        (MountainCar, False),
        (partial(PointMass, dim=2), False),
        (Spiral, False),
        (ThinManifold, False),
        (CartPole, True),
        (Acrobot, False),
        (partial(Acrobot, physics_spread=2.0), True),
    ],
)
def test_levels_that_observations_do_not_show_are_told_apart(
    make: Callable[[int], Any], hides: bool
) -> None:
    assert hides_level(make(1)) == hides


def adapter(num_envs: int, device: Any) -> GymnasiumEnv:
    def put(env: Any, level: Any) -> Any:
        env.state = level.astype("float64")
        return level

    space = MountainCar.level_space
    return GymnasiumEnv(num_envs, device, id="MountainCar-v0", level_space=space, set_level=put)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"arm": "target", "gan_updates": 0}, "data.world.level_states is 0.5, .*no generator"),
        ({"env": CartPole}, "data.world.level_states is above 0, .*physics.*set it to 0"),
        ({"env": adapter, "mix": {"target": 0.0, "reference": 0.5, "archive": 0.0, "gan": 0.5}},
         "data.world.level_states is above 0, .*without an env step: set it to 0"),
    ],
)  # fmt: skip
def test_what_cannot_start_at_levels_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fitted(dreams={"level_states": 0.5}, **LEVELS | given)


def test_shares_of_starts_do_not_exceed_all_dreams() -> None:
    with pytest.raises(ConfigError, match=r"data.world.first_states 0.75 and .* lower one"):
        fitted(dreams={"level_states": 0.5, "first_states": 0.75})
