"""The planning Q-network: its ways against Dijkstra's, its gradient, and what it takes."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import learner_settings
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from lit_crl import CreativeLearner
from lit_crl.core.checks import ConfigError
from lit_crl.dqn.planning import FAR, PlanningQNetwork, shortest_paths
from lit_crl.envs import Maze
from lit_crl.envs.images import ImageSpace, with_layout

MAPS = ImageSpace(Box(0, 1, (2, 5, 7), np.uint8), "CHW")


def bordered(inner: Tensor) -> Tensor:
    return torch.nn.functional.pad(inner, (1, 1, 1, 1), value=FAR)


def dijkstra_distances(cost: Tensor, end: Tensor) -> np.ndarray:
    """Of every cell of one bordered map, with a node more in which ways end."""
    rows, width = cost.shape
    graph = np.zeros((rows * width + 1, rows * width + 1))
    for row in range(1, rows - 1):
        for column in range(1, width - 1):
            here = row * width + column
            graph[here, -1] = end[row, column]
            for onward in (here + 1, here - 1, here + width, here - width):
                graph[here, onward] = cost[row, column]
    return dijkstra(graph)[:, -1]


def paid(cost: Tensor, end: Tensor, ways: Tensor) -> Tensor:
    walks = ways[1:] != ways[:-1]
    return (cost.flatten()[ways[:-1]] * walks).sum(0) + end.flatten()[ways[-1]]


@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 6),
)
def test_ways_are_those_of_dijkstra(seed: int, n: int, rows: int, columns: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    cost, end = (bordered(torch.rand(n, rows, columns, generator=rng) * k) for k in (1, 4))
    inner = torch.arange((rows + 2) * (columns + 2)).view(rows + 2, -1)[1:-1, 1:-1].flatten()
    ways = shortest_paths(cost, end, inner, sweeps=rows * columns)
    distance = paid(cost, end, ways)
    for index in range(n):
        expected = dijkstra_distances(cost[index], end[index])[inner]
        np.testing.assert_allclose(distance[index], expected, rtol=1e-5)


def test_a_way_moves_to_neighbours_and_stays_where_it_ends() -> None:
    rng = torch.Generator().manual_seed(0)
    cost, end = (bordered(torch.rand(2, 4, 4, generator=rng) + k) for k in (0, 9))
    end[:, 4, 4] = 0.0
    ways = shortest_paths(cost, end, torch.tensor([7]), sweeps=16)
    steps = (ways[1:] - ways[:-1]).abs()
    assert set(steps.unique().tolist()) <= {0, 1, 6}
    assert (ways[-1, :, 0] % 36 == 4 * 6 + 4).all()
    stayed = (steps == 0).int()
    assert (stayed[1:] >= stayed[:-1]).all()


def unrolled(network: PlanningQNetwork, obs: Tensor) -> Tensor:
    """The network's values by sweeps that autograd follows, one cell after the other."""
    seen = obs.float()
    maps = network.maps(torch.cat([torch.relu(network.look(seen)), seen], 1))
    cost, end = (10.0 * maps).chunk(2, 1)
    cost = torch.nn.functional.softplus(cost - 3 + 4 * seen.amax(1, keepdim=True))
    end = torch.nn.functional.softplus(end + 5 - 10 * seen)
    distance = end
    for _ in range(network.sweeps):
        padded = torch.nn.functional.pad(distance, (1, 1, 1, 1), value=FAR)
        around = [padded[..., 1:-1, 2:], padded[..., 1:-1, :-2]]
        around += [padded[..., 2:, 1:-1], padded[..., :-2, 1:-1]]
        distance = torch.stack([end, *(cost + each for each in around)]).amin(0)
    row, column = network.middle
    rows, columns = slice(row - 1, row + 2), slice(column - 1, column + 2)
    value = (network.worth[..., None] * torch.exp(-distance[..., rows, columns])).sum(1)
    leads = network.leads(seen[..., rows, columns].flatten(1)).view(len(obs), -1, 9).softmax(2)
    return (leads * value.flatten(1)[:, None]).sum(2) + network.bias


def test_values_and_gradients_are_those_of_unrolled_sweeps() -> None:
    torch.manual_seed(0)
    network = PlanningQNetwork(MAPS, 3, hidden=8, sweeps=12)
    with torch.no_grad():  # away from ties between equally long ways
        network.maps.weight.normal_(std=0.05)
    obs = (torch.rand(6, 2, 5, 7) < 0.3).to(torch.uint8)
    torch.testing.assert_close(network(obs), unrolled(network, obs))
    weight = torch.randn(6, 3)
    parameters = list(network.parameters())
    ours = torch.autograd.grad((network(obs) * weight).sum(), parameters)
    theirs = torch.autograd.grad((unrolled(network, obs) * weight).sum(), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_untrained_distances_to_the_goal_are_those_of_the_maze() -> None:
    torch.manual_seed(0)
    env = Maze(32, size=5)
    levels = env.reference_levels(32, torch.Generator().manual_seed(1))
    obs, _ = env.reset(options={"levels": levels})
    network = PlanningQNetwork(env.single_observation_space, 4, hidden=8, sweeps=25)
    here = network.distances(obs.float())[:, 1, 4]
    step, end = torch.nn.functional.softplus(torch.tensor([-3.0, -5.0]))
    torch.testing.assert_close(here, env.optimal_steps(levels) * step + end)


@pytest.mark.parametrize(
    ("space", "layout"),
    [
        (Box(0, 255, (2, 5, 5), np.uint8), "CHW"),
        (Box(0, 1, (2, 5, 5), np.float32), "CHW"),
        (Box(0, 1, (2, 4, 5), np.uint8), "CHW"),
        (Box(0, 1, (4,), np.uint8), None),
    ],
    ids=["brightness", "floats", "no middle", "vector"],
)
def test_other_observations_are_refused(space: Box, layout: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.network\.planning_steps is 9"):
        PlanningQNetwork(with_layout(space, layout), 4, 8, 9)


def test_maps_may_have_their_channels_last() -> None:
    first = PlanningQNetwork(MAPS, 3, hidden=8, sweeps=12)
    turned = ImageSpace(Box(0, 1, (5, 7, 2), np.uint8), "HWC")
    last = PlanningQNetwork(turned, 3, hidden=8, sweeps=12)
    last.load_state_dict(first.state_dict())
    obs = (torch.rand(6, 2, 5, 7) < 0.3).to(torch.uint8)
    assert torch.equal(first(obs), last(obs.movedim(1, -1)))


def test_a_learner_takes_it_where_steps_are_planned() -> None:
    env = Maze(3, size=5)
    learner = CreativeLearner(**learner_settings(planning_steps=9, hidden=(8,))).build(env)
    assert isinstance(learner.q_network, PlanningQNetwork)
    assert learner.act(env.reset(seed=0)[0], epsilon=0.5).shape == (3,)


def test_sweeps_are_not_compiled() -> None:
    with pytest.raises(ConfigError, match=r"model\.compile is on, but the sweeps"):
        CreativeLearner(**learner_settings(planning_steps=9, compile=True))
