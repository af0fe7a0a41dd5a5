"""Known answers about dreams, by the learner's own updates and the run's own collecting."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import learner_settings
from dreamers import fitted, prepared
from gymnasium.spaces import Box, Discrete
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from lit_crl import CreativeLearner
from lit_crl.envs import BatchedEnv
from lit_crl.training.batches import Batch, DqnMinibatch
from lit_crl.training.dreams.store import Dreams
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined

GAMMA = 0.9


class Line(BatchedEnv):
    """Three cells, of which each step leads to the next; the last one's step ends. It pays 1.

    The observation has a cell's number as one bit of three and, behind them, a bit that marks what
    is observed when the task has ended.
    """

    single_observation_space = Box(0.0, 1.0, (4,))
    single_action_space = Discrete(2)
    level_space = Box(0.0, 1.0, (1,))
    level_names = ("nothing",)
    level_plane = (0, 0)
    max_episode_steps = 25

    def initial_state(self, levels: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(len(levels), 1)

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        state = state.roll(1, 1)
        return state, torch.ones(len(state)), state[:, 3] == 1

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        return state.clone()

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        return levels.clone()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.rand(n, 1, generator=rng)


class Ring:
    """The same cells without an end: the first follows the last. With ``ends`` it is the line."""

    def __init__(self, ends: bool) -> None:
        self.ends = ends

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        last = obs[:, 2] == 1
        after = obs.roll(1, 1) if self.ends else torch.cat([obs[:, :3].roll(1, 1), obs[:, 3:]], 1)
        pays = torch.ones(len(obs))
        return Imagined(after, pays, last & self.ends, torch.zeros_like(pays))


class Worthless(nn.Module):
    """Both actions are worth nothing."""

    def forward(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 2)


class AtTheStart:
    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        return torch.eye(4)[:1].repeat(n, 1)


@pytest.mark.parametrize(("ends", "horizon", "value"), [(True, 100, 2.71), (False, 3, 10.0)])
def test_the_explorer_learns_values_that_can_be_written_down(
    train_on: Callable[..., Trainer], ends: bool, horizon: int, value: float
) -> None:
    """1 + .9 + .81 where the third step ends; 1 / (1 − .9) where it is cut."""
    env = ImaginedEnv(
        16,
        Ring(ends),
        AtTheStart(),
        observation_space=Line.single_observation_space,
        action_space=Line.single_action_space,
        horizon=horizon,
    )
    dreams = Dreams(env, GAMMA, torch.Generator().manual_seed(0))
    dreams.play(Worthless())
    assert dreams.store is not None
    assert (dreams.store.discount == 0).sum() == (16 * (horizon // 3) if ends else 0)
    learner = CreativeLearner(
        **learner_settings(hidden=(32,), seed=0, target_period=1, target_rate=0.05),
        world={"loss": "gan", "members": 1, "hidden": (4,), "head_hidden": (4,)},
    )
    learner.build(Line(1))

    def batch() -> Batch:
        stack, some = DqnMinibatch(dreams.draw((500, 32))[0]), dreams.draw((1, 32))[0]
        return Batch(some, None, 0.0, explorer=stack, bonus=torch.zeros(500))

    train_on(learner, [batch() for _ in range(4)], Line(1))
    assert learner.explorer is not None
    q = learner.explorer(torch.eye(4)[:1])
    torch.testing.assert_close(q, torch.full((1, 2), value), rtol=0.02, atol=0)


def test_no_dream_starts_where_the_task_has_ended() -> None:
    """The marker bit is in the replay, in a third of its episodes' rows, and never in a start."""
    starts: list[Tensor] = []

    class Spy(Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            source = trainer.datamodule.dreaming.starts
            draw = source.draw

            def watched(n: int, rng: torch.Generator) -> Tensor:
                starts.append(draw(n, rng))
                return starts[-1]

            source.draw = watched

    _, data = fitted(env=Line, callbacks=(Spy(),), dreams={"first_states": 0.1, "dreams": 32})
    drawn = torch.cat(starts)
    assert len(drawn) > 400 and not drawn[:, 3].any()
    assert (drawn[:, :3].sum(0) > 20).all()  # anywhere else
    assert data.replay.obs[:, 3].sum() > 100


def test_dreaming_leaves_replay_and_environments_as_they_are(
    difference: Callable[[Any, Any], str | None],
) -> None:
    learner, data, trainer = prepared()
    compared = 0

    class Watch(Callback):
        def on_train_start(self, trainer: Any, *_: Any) -> None:
            dreaming = data.dreaming
            assert dreaming is not None
            dream = dreaming.dream

            def watched(*given: Any) -> None:
                nonlocal compared
                before = copy.deepcopy([data.replay.state_dict(), data.rollout.state_dict()])
                made = dreaming.imagined_steps
                dream(*given)
                after = [data.replay.state_dict(), data.rollout.state_dict()]
                assert difference(before, after) is None
                compared += dreaming.imagined_steps > made

            setattr(dreaming, "dream", watched)  # noqa: B010

    trainer.callbacks.append(Watch())
    trainer.fit(learner, datamodule=data)
    assert compared >= 5


def test_a_fixed_policy_lives_the_same_life_with_and_without_dreams(
    difference: Callable[[Any, Any], str | None],
) -> None:
    lives = []
    for share in (0.8, 0.0):
        learner, data, trainer = prepared(dreams={"share": share, "explorers": 0.0})
        learner.build(data.make_env(1, torch.device("cpu")))
        learner._dqn_phase = lambda batch: None  # type: ignore[method-assign]
        trainer.fit(learner, datamodule=data)
        assert data.dreaming is not None and (data.dreaming.imagined_steps > 0) == (share > 0)
        lives.append([data.replay.state_dict(), data.rollout.state_dict()])
    assert difference(*lives) is None
