"""Dreams as graphs of a step, with a stand-in for the GPU's graphs.

Oracles: the same dreams one operation at a time, where both get the same starts; and a naive loop
over steps, from the starts that were drawn ahead. Both bit for bit.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph_stand_in import StandIn
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.nn import functional as F

from lit_crl.core.stopwatch import Stopwatch
from lit_crl.dqn.equations import Transitions
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.envs import Acrobot, BatchedEnv, CartPole, MountainCar, PointMass, Spiral, ThinManifold
from lit_crl.training.dreams.store import DREAM_EPSILON, Dreams
from lit_crl.training.graphs import dreams as graphed
from lit_crl.training.graphs.dreams import GraphedDreams
from lit_crl.world.imagined_env import ImaginedEnv
from lit_crl.world.interface import Imagined, World
from lit_crl.world.perfect import PerfectWorld
from lit_crl.world.settings import WorldSettings
from lit_crl.world.starts import FirstStates, Starts, StartShares
from lit_crl.world.transition_gan import TransitionGan

N, HORIZON, GAMMA, GATE = 24, 9, 0.9, 1.7
SPACE = Box(-100.0, 100.0, (2,))


class Noise(nn.Module):
    """A world whose every number is drawn: one step in ten ends, and some are beyond the gate."""

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        drawn = torch.rand(4, len(obs), generator=rng)
        after = obs + drawn[0, :, None] + action[:, None]
        return Imagined(after, drawn[1], drawn[2] < 0.1, 2 * drawn[3])


class OnePlace:
    """All dreams start at the same place: it does not matter how many starts are drawn."""

    def __init__(self) -> None:
        self.started = 0

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        self.started += n
        return torch.tensor([[0.5, -0.5]]).expand(n, -1)

    def ahead(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.tensor([[0.5, -0.5]]).expand(n, -1), torch.zeros(n, dtype=torch.int64)

    def count(self, source: Tensor, started: Tensor) -> None:
        assert len(source) == len(started) == N * HORIZON
        self.started += int(started.sum())


class Policy(nn.Module):
    """Values of three actions, by one layer."""

    def __init__(self, obs_dim: int = 2, actions: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(obs_dim, actions)

    def forward(self, obs: Tensor) -> Tensor:
        values: Tensor = self.layer(obs)
        return values


def dreams_in(
    world: World,
    starts: Any,
    stand_in: StandIn | None,
    network: nn.Module | None = None,
    env: BatchedEnv | None = None,
) -> Dreams:
    space, actions = SPACE, Discrete(3)
    if env is not None:
        space, actions = env.single_observation_space, env.single_action_space
    imagined = ImaginedEnv(
        N, world, starts, observation_space=space, action_space=actions, horizon=HORIZON
    )
    imagined.gate = torch.tensor(GATE)
    imagined.rng.manual_seed(3)
    rng, given = torch.Generator().manual_seed(4), network or nn.Module()
    if stand_in is None:
        return Dreams(imagined, GAMMA, rng)
    clock = Stopwatch()
    graphs = GraphedDreams(imagined, starts, GAMMA, rng, given, stand_in, clock)
    return Dreams(imagined, GAMMA, rng, graphs)


def found(dreams: Dreams) -> dict[str, Any]:
    assert dreams.store is not None
    streams = [dreams.rng.get_state(), dreams.env.rng.get_state()]
    return {"steps": [*dreams.store, dreams.disagreement], "streams": streams, "n": dreams.steps}


def test_graphed_dreams_are_those_of_single_operations(
    difference: Callable[[Any, Any], str | None],
) -> None:
    """With ends, cuts at the gate and at the horizon, a new gate, and weights that change."""
    torch.manual_seed(0)
    policy, stand_in = Policy(), StandIn()
    starts = OnePlace(), OnePlace()
    plain, graph = (
        dreams_in(Noise(), one, given) for one, given in zip(starts, (None, stand_in), strict=True)
    )
    for number in range(4):
        for dreams in (plain, graph):
            dreams.env.gate = torch.tensor(GATE - 0.2 * number)
            dreams.play(policy)
        assert difference(found(plain), found(graph)) is None
        with torch.no_grad():
            policy.layer.weight.add_(0.5 * torch.randn(3, 2))
    assert stand_in.recorded == ["steps of dreams"] and stand_in.launches == 4 * HORIZON
    # One operation at a time, those that are over at the last step start anew as well.
    assert 0 < starts[0].started - starts[1].started < 4 * N
    assert starts[1].started > 4 * N * HORIZON // 6


def test_replaced_weights_are_dreamt_with(difference: Callable[[Any, Any], str | None]) -> None:
    torch.manual_seed(0)
    policy, stand_in = Policy(), StandIn()
    plain, graph = (dreams_in(Noise(), OnePlace(), given) for given in (None, stand_in))
    for _ in range(2):
        for dreams in (plain, graph):
            dreams.play(policy)
        assert difference(found(plain), found(graph)) is None
        policy.load_state_dict(Policy().state_dict(), assign=True)
    assert len(stand_in.recorded) == 2


def test_saved_dreams_go_on_with_graphs(difference: Callable[[Any, Any], str | None]) -> None:
    torch.manual_seed(0)
    policy, (first, other) = Policy(), (dreams_in(Noise(), OnePlace(), StandIn()) for _ in range(2))
    first.play(policy)
    other.load_state_dict(first.state_dict())
    other.rng.set_state(first.rng.get_state())
    assert difference(found(first), found(other)) is None
    for dreams in (first, other):
        dreams.play(policy)
    assert difference(found(first), found(other)) is None


def filled(env: BatchedEnv) -> tuple[ReplayBuffer, FirstStates]:
    """A replay of random steps, and first states of ``env``."""
    space, rng = env.single_observation_space, torch.Generator().manual_seed(1)
    replay, first = ReplayBuffer(400, N, space), FirstStates(64, space, torch.float32)
    obs, _ = env.reset(seed=0, options={"levels": env.target_levels(N, rng)})
    first.add(obs)
    for _ in range(12):
        action = torch.randint(int(env.single_action_space.n), (N,), generator=rng)
        next_obs, reward, terminated, _, _ = env.step(action)
        replay.add(obs, action, reward, GAMMA * ~terminated)
        obs = next_obs
    return replay, first


def naive(env: ImaginedEnv, policy: nn.Module, starts: Tensor, rng: torch.Generator) -> list[Any]:
    """Steps from ``starts [T, N, d]``: where a dream is over, it goes on from its next start."""
    epsilon = DREAM_EPSILON * torch.rand(N, generator=rng)
    obs, age, over, steps = torch.zeros_like(starts[0]), [0] * N, [True] * N, []
    for start in starts:
        for i in range(N):
            if over[i]:
                obs[i], age[i] = start[i], 0
        explore = torch.rand(N, generator=rng) < epsilon
        random = torch.randint(env.num_actions, (N,), generator=rng)
        best = policy(obs).argmax(1)
        action = torch.stack([random[i] if explore[i] else best[i] for i in range(N)])
        step = env.world.imagine(obs, action, env.rng)
        discount = torch.tensor([0.0 if end else GAMMA for end in step.terminated.tolist()])
        steps.append((obs.clone(), action, step.reward, discount, step.next_obs, step.disagreement))
        for i in range(N):
            age[i] += 1
            doubt = step.disagreement[i].item()
            over[i] = bool(step.terminated[i]) or age[i] == HORIZON or not doubt <= float(env.gate)
        obs = step.next_obs.clone()
    return [torch.cat(field) for field in zip(*steps, strict=True)]


def one_hot(numbers: Tensor, classes: int) -> Tensor:
    """As on a GPU, where torch does not look whether numbers are legal."""
    return (numbers[..., None] == torch.arange(classes)).long()


@pytest.mark.parametrize(
    "make", [Acrobot, CartPole, MountainCar, PointMass, Spiral, ThinManifold, None]
)
def test_dreams_are_those_of_a_naive_loop(
    make: Callable[..., BatchedEnv] | None,
    difference: Callable[[Any, Any], str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a task's own dynamics, and in a world GAN; starts are drawn in parts."""
    monkeypatch.setattr(F, "one_hot", one_hot)
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)
    monkeypatch.setattr(graphed, "STARTS_AT_ONCE", 100)
    torch.manual_seed(0)
    env = (make or MountainCar)(N)
    replay, first = filled(env)
    shape, actions = env.single_observation_space.shape, int(env.single_action_space.n)
    gan = TransitionGan(shape[0], actions, WorldSettings("gan", hidden=(8,), head_hidden=(8,)))
    seen: Transitions = replay.sample((200,), torch.Generator())
    gan.fit_normaliser(seen.obs, seen.reward, seen.next_obs)
    gan.fit_disagreement(seen.obs, seen.action)
    gan.heads.end.biases[-1].data.fill_(-2.0)
    world: World = gan if make is None else PerfectWorld(make(1))
    starts = Starts(first, replay, StartShares())
    policy, stand_in = Policy(shape[0], actions), StandIn()
    dreams = dreams_in(world, starts, stand_in, gan, env)
    before, again = dreams.rng.get_state(), torch.Generator()
    dreams.play(policy)  # this one is recorded
    for _ in range(2):
        before, imagined = dreams.rng.get_state(), dreams.env.rng.get_state()
        dreams.play(policy)
        store = found(dreams)
        again.set_state(before), dreams.env.rng.set_state(imagined)
        parts = [starts.ahead(n, dreams.env.rng)[0] for n in (100, 100, 16)]
        drawn = torch.cat(parts).view(HORIZON, N, -1)
        expected = naive(dreams.env, policy, drawn, again)
        assert difference(store["steps"], expected) is None
        assert torch.equal(dreams.env.rng.get_state(), store["streams"][1])
    assert stand_in.recorded == ["steps of dreams"]


class Still(nn.Module):
    """A world in which nothing changes, and every fourth step ends."""

    def imagine(self, obs: Tensor, action: Tensor, rng: torch.Generator) -> Imagined:
        drawn = torch.rand(len(obs), generator=rng)
        return Imagined(obs, drawn, drawn < 0.25, torch.ones_like(drawn))


def test_dreams_start_in_their_shares_and_those_that_began_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First states are marked with 1, visited ones with 2; a quarter of the steps ends a dream."""
    monkeypatch.setattr(ReplayBuffer, "draw_by_trial", ReplayBuffer.draw_by_rank)
    first, replay = FirstStates(4, SPACE, torch.float32), ReplayBuffer(64, 2, SPACE)
    first.add(torch.ones(4, 2))
    for _ in range(20):
        replay.add(torch.full((2, 2), 2.0), torch.zeros(2), torch.zeros(2), torch.ones(2))
    starts, expected = Starts(first, replay, StartShares()), [0, 0, 0]
    dreams = dreams_in(Still(), starts, StandIn())
    for _ in range(20):
        dreams.play(Policy())
        assert dreams.store is not None
        mark, ends = (x.view(HORIZON, N, -1) for x in (dreams.store.obs, dreams.store.discount))
        for dream in range(N):
            for step in range(HORIZON):
                if step == 0 or ends[step - 1, dream] == 0:
                    expected[int(mark[step, dream, 0]) - 1] += 1
    assert starts.counts.tolist() == expected
    n, p = sum(expected), 0.25
    assert abs(expected[0] - n * p) < 4 * (n * p * (1 - p)) ** 0.5 and n > 20 * N
