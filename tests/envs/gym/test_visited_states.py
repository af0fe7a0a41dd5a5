"""Levels that are visited states: kept games, their codes, and episodes that start from them."""

from typing import Any

import numpy as np
import pytest
import torch
from extras import Player, atari, made, minatar, minigrid, same
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.free_ram import in_units
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.gym.visited_states import CODE_SIZE, VisitedStates, fourier_code

BITS = Box(0, 1, (3, 3, 2), bool)
GAMES = {"Breakout": minatar(), "Seaquest": minatar("Seaquest-v1"), "DoorKey": minigrid()}


def played(env: GymnasiumEnv, steps: int) -> Tensor:
    """Levels [m, d] of the states that were visited in ``steps`` steps, in their order."""
    env.reset(seed=5)
    visited: list[Tensor] = []
    Player(env).play(steps, lambda: visited.append(env.current_levels()))
    levels = torch.cat(visited)
    return levels[env.valid(levels)]


def test_codes_are_random_fourier_features() -> None:
    """The mean square of differences is 1 − exp(−‖x − y‖²/2w²), here for w = 1."""
    rng = torch.Generator().manual_seed(1)
    frequency = torch.randn(6, 50_000, generator=rng)
    phase = 2 * torch.pi * torch.rand(50_000, generator=rng)
    x, y = torch.rand(2, 6, generator=rng)
    one, other = fourier_code(torch.stack([x, y]), frequency, phase)
    expected = 1 - (-(x - y).square().sum() / 2).exp()
    assert float((one - other).square().mean()) == pytest.approx(float(expected), abs=0.02)


def test_the_newest_states_are_kept_once_for_each_code() -> None:
    """A list of pairs that is searched from its end is the oracle."""
    store, rng = VisitedStates(5, Box(0, 255, (2,), np.uint8)), torch.Generator().manual_seed(0)
    pairs: list[tuple[Tensor, bytes]] = []
    for number in range(60):
        observation = 40 * torch.randint(4, (2,), generator=rng).to(torch.uint8)
        state = bytes([number])
        level = store.keep(observation, state)
        others = [pair for pair in pairs if not torch.equal(pair[0], level)]
        pairs = [*others[-4:], (level, state)]
        assert torch.equal(store.codes, torch.stack([code for code, _ in pairs]))
        assert [store.state_at(code) for code, _ in pairs] == [kept for _, kept in pairs]
    again = VisitedStates(5, Box(0, 255, (2,), np.uint8))
    again.load_state_dict(store.state_dict())
    assert torch.equal(again.codes, store.codes)
    assert all(again.state_at(code) == kept for code, kept in pairs)


def test_a_level_stands_for_the_kept_state_of_the_nearest_code() -> None:
    store, rng = VisitedStates(20, BITS), torch.Generator().manual_seed(0)
    for number in range(20):
        store.keep(torch.randint(2, BITS.shape, generator=rng).bool(), bytes([number]))
    levels = 2 * torch.rand(50, CODE_SIZE, generator=rng) - 1
    levels[7] = torch.nan
    nearest = store.nearest(levels)
    for level, found in zip(levels.tolist(), nearest, strict=True):
        squares = [sum((a - b) ** 2 for a, b in zip(level, c, strict=True))
                   for c in store.codes.tolist()]  # fmt: skip
        if np.isnan(level).any():
            assert found.isnan().all()
        else:
            assert torch.equal(found, store.codes[int(np.argmin(squares))])
    assert torch.equal(store.nearest(store.codes), store.codes)


def test_drawn_levels_are_all_of_them_in_turn() -> None:
    store, rng = VisitedStates(7, BITS), torch.Generator().manual_seed(0)
    for number in range(7):
        store.keep(torch.randint(2, BITS.shape, generator=rng).bool(), bytes([number]))
    drawn = store.draw(17, rng)
    times = [int((drawn == code).all(1).sum()) for code in store.codes]
    assert sorted(times) == [2, 2, 2, 2, 3, 3, 3] and store.draw(0, rng).shape == (0, CODE_SIZE)
    first = torch.stack([store.draw(1, rng)[0] for _ in range(700)])
    assert all(60 < int((first == code).all(1).sum()) < 140 for code in store.codes)


@pytest.mark.parametrize(
    ("name", "vectorization"),
    [
        *((name, "sync") for name in GAMES),
        ("DoorKey", "async"),
        # A process sends the bytes of any game, and makes the same of them as `sync`.
        *(pytest.param(name, "async", marks=pytest.mark.slow) for name in ("Breakout", "Seaquest")),
    ],
)
def test_an_episode_from_a_visited_state_goes_on_as_the_game_did(
    name: str, vectorization: str
) -> None:
    settings = {**GAMES[name], "visited_levels": 100, "vectorization": vectorization}
    env = made(2, settings, max_episode_steps=60)
    env.reset(seed=3)
    Player(env).play(7)
    levels = env.current_levels()
    seen, rng = env.current_observations()[0], torch.Generator().manual_seed(2)
    actions = torch.randint(int(env.single_action_space.n), (80,), generator=rng)

    def goes_on(copy: int) -> list[Any]:
        told = []
        for action in actions:
            obs, reward, terminated, truncated, _ = env.step(action.repeat(2))
            told.append([each[copy].tolist() for each in (obs, reward, terminated, truncated)])
            if terminated[copy] or truncated[copy]:
                break
        return told

    expected = goes_on(0)
    assert len(expected) < 60  # the steps that were taken count for the time limit
    for copy in (1, 0):
        start = torch.full_like(levels, torch.nan)
        start[copy] = levels[0]
        obs, _ = env.reset(options={"levels": start})
        assert torch.equal(obs[copy], seen) and torch.equal(env.levels[copy], levels[0])
        assert goes_on(copy) == expected
    env.close()


def test_the_tasks_own_resets_after_a_restored_game_do_not_repeat_each_other() -> None:
    env = made(4, minigrid(), visited_levels=10)
    level = played(env, 3)[-1:].expand(4, -1)
    own = torch.full_like(level, torch.nan)
    starts = []
    for _ in range(2):
        env.reset(options={"levels": level})
        starts += [*env.reset(options={"levels": own})[0]]
    assert len({start.numpy().tobytes() for start in starts}) > 4


@pytest.mark.parametrize("name", GAMES)
def test_memory_stays_as_it_was_stated(name: str) -> None:
    env = made(4, GAMES[name], visited_levels=30)
    assert env.visited is not None
    stated = 30 * env.visited.num_bytes
    assert env.visited.in_words.endswith(f"about {in_units(stated)}.")
    played(env, 500)
    assert len(env.visited) <= 30 and env.visited.num_bytes <= 1.2 * stated


def test_copies_share_levels_and_continue_with_them() -> None:
    env, other, third = (made(2, minatar(), visited_levels=40) for _ in range(3))
    levels = played(env, 30)
    assert not other.has_levels and env.has_levels
    other.share_levels(env)
    pair = levels[-2:]
    assert torch.equal(other.reset(seed=0, options={"levels": pair})[0],
                       env.reset(seed=1, options={"levels": pair})[0])  # fmt: skip
    third.reset(seed=0)
    third.load_state_dict(env.state_dict())
    assert torch.equal(third.nearest_levels(pair), pair) and torch.equal(third.levels, pair)
    assert same(Player(third).play(20), Player(env).play(20))


def test_a_state_can_be_seen_in_a_copy_that_draws() -> None:
    env = made(1, minigrid(), visited_levels=5)
    drawing = made(1, minigrid(), visited_levels=5, env_kwargs={"render_mode": "rgb_array"})
    levels = played(env, 6)[-1:]
    drawing.share_levels(env)
    drawing.reset(seed=0, options={"levels": levels})
    (before,) = drawing.envs.render()
    drawing.reset(seed=1, options={"levels": levels})
    assert before.ndim == 3 and np.array_equal(before, drawing.envs.render()[0])


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"visited_levels is 0: give how many"):
        GymnasiumEnv(1, id="FrozenLake-v1", visited_levels=0)
    with pytest.raises(ConfigError, match=r"visited_levels is 1,0.*of RAM, but.*at most"):
        GymnasiumEnv(1, id="FrozenLake-v1", visited_levels=10**12)
    with pytest.raises(ConfigError, match=r"but level_space is given, too.*leave one of them out"):
        GymnasiumEnv(1, id="FrozenLake-v1", visited_levels=9, level_space={"x": [0, 1]},
                     set_level=lambda env, level: level)  # fmt: skip
    with pytest.raises(ConfigError, match=r"observes numbers.*give level_space and set_level"):
        GymnasiumEnv(1, id="CartPole-v1", visited_levels=9)
    pytest.importorskip("Box2D", reason="its extra is box2d")
    with pytest.raises(ConfigError, match=r"cannot be restored, because LunarLander has no way"):
        GymnasiumEnv(1, id="LunarLander-v3", visited_levels=9)


def test_bits_of_a_lake_are_levels_too() -> None:
    env = GymnasiumEnv(2, id="FrozenLake-v1", visited_levels=9)
    levels = played(env, 30)
    obs, _ = env.reset(options={"levels": levels[-2:]})
    assert torch.equal(env.levels, levels[-2:]) and (obs.sum(1) == 1).all()


@pytest.mark.slow
def test_an_atari_game_is_a_level_if_it_survives_the_round_trip() -> None:
    env = made(1, atari("Breakout"), visited_levels=5)
    played(env, 8)
    levels, seen = env.current_levels(), env.current_observations()
    expected = Player(env).play(20)
    assert torch.equal(env.reset(options={"levels": levels})[0], seen)
    assert same(Player(env).play(20), expected)
    with pytest.raises(ConfigError, match=r"visited_levels is 5, but states of .*Qbert"):
        made(1, atari("Qbert"), visited_levels=5)
