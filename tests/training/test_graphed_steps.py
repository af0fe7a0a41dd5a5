"""Steps of the environments as one graph, against ``Rollout.step`` in the same environments.

Both get the same levels in the same order, and act with equal random streams: then everything that
they store, count and tell must be the same, bit for bit.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from graph_stand_in import StandIn
from torch import Tensor

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.curriculum.archive import Archive
from lit_crl.dqn.equations import epsilon_greedy
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import (
    Acrobot,
    BatchedEnv,
    CartPole,
    FacingMaze,
    GustyPass,
    Maze,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
)
from lit_crl.training.experience.levels_ahead import SPARE, LevelsAhead
from lit_crl.training.experience.rollout import VISIT_EVERY, Rollout
from lit_crl.training.graphs.steps import GraphedSteps

NUM_ENVS, STEPS = 6, 4
#: Where an explorer acts in the first launches, and everywhere but there later on.
EXPLORES = torch.tensor([False, True, False, False, True, False])
ENVS = [
    Acrobot,
    CartPole,
    FacingMaze,
    GustyPass,
    Maze,
    MountainCar,
    PointMass,
    Spiral,
    ThinManifold,
]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def limited(make: Callable[..., BatchedEnv], limit: int) -> BatchedEnv:
    env = make(NUM_ENVS)
    env.max_episode_steps = limit
    return env


class Actor:
    """Acts at random with probability ε, else by a fixed function of what is seen."""

    def __init__(self, actions: int) -> None:
        self.rng, self.actions = rng(5), actions

    def __call__(self, obs: Tensor, epsilon: Tensor) -> Tensor:
        sums = obs.flatten(1).double().sum(1, keepdim=True)
        q = torch.cos(sums * torch.arange(1, self.actions + 1) * 40)
        return epsilon_greedy(q, epsilon, self.rng)


def collected(rollout: Rollout, told: list[Tensor]) -> dict[str, Any]:
    rollout.settle()
    archive = rollout.archive
    state = {**rollout.state_dict(), "replay": rollout.replay.state_dict()}
    state |= {"ahead": None, "archive": None if archive is None else archive.state_dict()}
    return state | {"told": torch.cat(told)}


def prepared(
    make: Callable[..., BatchedEnv], limit: int, archive: bool, **replay: Any
) -> tuple[Rollout, list[Tensor]]:
    env = limited(make, limit)
    buffer = ReplayBuffer(200, NUM_ENVS, env.single_observation_space, **replay)
    levels = Archive(env.level_space.shape[0], tried=64, visited=32) if archive else None
    rollout = Rollout(env, buffer, levels, gamma=0.9, label_epsilon=0.1, seed=0)
    rollout.explores.copy_(EXPLORES)
    told = [rollout.first_observations()]
    rollout.tell_starts = told.append
    return rollout, told


def compare(
    make: Callable[..., BatchedEnv],
    difference: Callable[[Any, Any], str | None],
    *,
    limit: int = 7,
    archive: bool = True,
    launches: int = 24,
    before: int = 1,
    **replay: Any,
) -> None:
    epsilon = torch.linspace(0, 0.3, NUM_ENVS)
    (plain, plain_told), (graphed, told) = (
        prepared(make, limit, archive, **replay) for _ in range(2)
    )
    actions = int(plain.env.single_action_space.n)
    table = plain.env.reference_levels(2_000, rng(1))
    source, used = torch.arange(len(table)) % 4, {plain: 0, graphed: 0}

    def draw(whose: Rollout, n: int) -> tuple[Tensor, Tensor]:
        rows = slice(used[whose], used[whose] + n)
        used[whose] += n
        return table[rows], source[rows]

    acts = Actor(actions), Actor(actions)
    for rollout, act in zip((plain, graphed), acts, strict=True):
        for _ in range(before):
            rollout.step(act, epsilon, partial(draw, rollout))
    # The table begins where plain drawing goes on.
    given = StandIn()
    steps = GraphedSteps(
        graphed,
        acts[1],
        lambda: (epsilon + plain.env_steps / 1e6).expand(STEPS, -1),
        lambda n: draw(graphed, 1_500),
        lambda unused: None,
        [acts[1].rng],
        given,
        Stopwatch(),
    )
    steps._ahead = graphed.ahead = LevelsAhead(400, table.shape[1], torch.device("cpu"))
    for launch in range(launches):
        if launch == launches // 2:
            plain.explores.logical_not_(), graphed.explores.logical_not_()
        steps()
        for _ in range(STEPS):
            plain.step(acts[0], epsilon + (graphed.env_steps - 24) / 1e6, partial(draw, plain))
    assert given.launches == launches
    assert difference(collected(plain, plain_told), collected(graphed, told)) is None
    assert plain.log.ended >= launches * STEPS * NUM_ENVS // limit - NUM_ENVS


@pytest.mark.parametrize("make", ENVS)
def test_graphed_steps_do_what_single_steps_do(
    make: Callable[..., BatchedEnv], difference: Callable[[Any, Any], str | None]
) -> None:
    compare(make, difference)


@pytest.mark.parametrize("before", range(VISIT_EVERY))
def test_states_are_visited_at_the_same_steps(
    before: int, difference: Callable[[Any, Any], str | None]
) -> None:
    compare(MountainCar, difference, before=before, launches=5)


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_episodes_of_any_length_are_stored(
    limit: int, n_steps: int, difference: Callable[[Any, Any], str | None]
) -> None:
    compare(PointMass, difference, limit=limit, archive=False, n_steps=n_steps)


def test_levels_are_taken_in_order_and_again_if_they_are_too_few() -> None:
    ahead = LevelsAhead(4, 1, torch.device("cpu"))
    assert ahead.is_empty and not len(ahead.unused()) and ahead.wanted == 4 + SPARE
    ahead.replace(torch.arange(5.0)[:, None], torch.arange(5) + 10)
    wanted = torch.tensor([True, False, True, True])
    levels, source = ahead.take(wanted)
    assert levels[wanted].flatten().tolist() == [0, 1, 2]
    assert source[wanted].tolist() == [10, 11, 12]
    assert ahead.unused().tolist() == [13, 14] and ahead.wanted == 3 + SPARE
    levels, _ = ahead.take(wanted)
    assert levels[wanted].flatten().tolist() == [3, 4, 0]
    assert not len(ahead.unused())
    other = LevelsAhead(4, 1, torch.device("cpu"))
    other.load_state_dict(ahead.state_dict())
    again = [one.take(wanted)[0][wanted].flatten().tolist() for one in (ahead, other)]
    assert again == [[1, 2, 3], [1, 2, 3]]


def test_levels_that_nobody_could_reset_to_are_refused_when_they_are_drawn() -> None:
    rollout, _ = prepared(MountainCar, 7, archive=False)
    steps = GraphedSteps(
        rollout,
        Actor(3),
        lambda: torch.zeros(STEPS, NUM_ENVS),
        lambda n: (torch.full((n, 2), 9.0), torch.zeros(n, dtype=torch.long)),
        lambda unused: None,
        [],
        StandIn(),
        Stopwatch(),
    )
    with pytest.raises(ValueError, match="outside the level space"):
        steps()
