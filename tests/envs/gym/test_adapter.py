"""The adapter against plain Gymnasium environments."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from matplotlib.figure import Figure

from lit_crl.envs import GymnasiumEnv, LevelEnv, MountainCar


class Counter(gymnasium.Env[Any, Any]):
    """Counts to ``goal`` by actions numbered from 5; observes an image; reports success."""

    observation_space = Box(0, 255, (3, 4, 1), np.uint8)
    action_space = Discrete(2, start=5)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.options, self.count, self.goal = options, 0, 3
        return self.picture(), {}

    def picture(self) -> Any:
        return np.full((3, 4, 1), self.count, np.uint8)

    def step(self, action: Any) -> Any:
        assert action in (5, 6)
        self.count += int(action) - 5
        done = self.count >= self.goal
        return self.picture(), 0.5, done, False, {"is_success": done}


gymnasium.register("LitCrlCounter-v0", Counter, max_episode_steps=10)


def put_car(env: Any, level: np.ndarray) -> np.ndarray:
    env.state = level.astype(np.float64)
    return level


def make_car(num_envs: int, **changes: Any) -> GymnasiumEnv:
    space = MountainCar.level_space
    settings = {"id": "MountainCar-v0", "level_space": space, "set_level": put_car, **changes}
    return GymnasiumEnv(num_envs, **settings)


def available(id: str) -> str:
    if id.startswith("LunarLander"):
        pytest.importorskip("Box2D")
    return id


@pytest.mark.parametrize(
    "id", ["FrozenLake-v1", "CliffWalking-v1", "CartPole-v1", "LunarLander-v3"]
)
def test_same_seeds_same_trajectories(id: str) -> None:
    count, limit = 3, 40
    env = GymnasiumEnv(count, id=available(id), max_episode_steps=limit)
    plain = [gymnasium.make(id, max_episode_steps=limit) for _ in range(count)]
    assert isinstance(env, LevelEnv) and env.max_episode_steps == limit
    discrete = isinstance(plain[0].observation_space, Discrete)

    def expected(observation: Any) -> np.ndarray:
        if discrete:
            return np.eye(plain[0].observation_space.n, dtype=np.float32)[observation]
        return np.asarray(observation, np.float32)

    obs, _ = env.reset(seed=11)
    first = [p.reset(seed=11 + i)[0] for i, p in enumerate(plain)]
    np.testing.assert_array_equal(obs, np.stack([expected(o) for o in first]))
    assert obs.dtype == torch.float32 and env.observation_space.contains(obs.numpy())
    rng = torch.Generator().manual_seed(0)
    for _ in range(120):
        actions = torch.randint(int(env.single_action_space.n), (count,), generator=rng)
        obs, reward, terminated, truncated, info = env.step(actions)
        for i, p in enumerate(plain):
            o, r, te, tr, _ = p.step(int(actions[i]))
            np.testing.assert_array_equal(obs[i], expected(o))
            assert reward[i].item() == pytest.approx(float(r))
            assert (terminated[i].item(), truncated[i].item()) == (te, tr)
        assert reward.dtype == torch.float32 and info["success"].dtype == torch.bool
        mask = terminated | truncated
        before = obs.clone()
        if mask.any():
            fresh, _ = env.reset(options={"reset_mask": mask})
            assert torch.equal(obs, before)  # what was handed out stays as it was
            for i in mask.nonzero().flatten().tolist():
                np.testing.assert_array_equal(fresh[i], expected(plain[i].reset()[0]))
            assert torch.equal(fresh[~mask], before[~mask])


def test_levels_through_set_level() -> None:
    """At given levels, the adapted task equals the built-in torch task."""
    ours, adapted = MountainCar(6), make_car(6)
    levels = ours.reference_levels(6, torch.Generator().manual_seed(0))
    obs, _ = adapted.reset(seed=0, options={"levels": levels})
    assert torch.equal(obs, levels)
    ours.reset(options={"levels": levels})
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        actions = torch.randint(3, (6,), generator=rng)
        torch.testing.assert_close(adapted.step(actions)[0], ours.step(actions)[0])


def test_masked_levels_and_nan_rows() -> None:
    env = make_car(4)
    levels = torch.tensor([[-0.9, 0.01], [torch.nan, torch.nan], [0.2, 0.0], [-1.0, 0.0]])
    obs, _ = env.reset(seed=0, options={"levels": levels})
    assert torch.equal(obs[[0, 2, 3]], levels[[0, 2, 3]])
    assert -0.6 <= obs[1, 0] <= -0.4 and obs[1, 1] == 0
    assert env.levels is not None
    assert env.levels[1].isnan().all() and torch.equal(env.levels[0], levels[0])
    # A second reset before any step must not bring back the other envs' own observations.
    mask = torch.tensor([False, False, True, False])
    again, _ = env.reset(options={"levels": torch.zeros(4, 2), "reset_mask": mask})
    assert torch.equal(again[2], torch.zeros(2))
    assert torch.equal(again[~mask], obs[~mask])
    assert torch.equal(env.levels[3], levels[3])
    nothing, _ = env.reset(options={"reset_mask": torch.zeros(4, dtype=torch.bool)})
    assert torch.equal(nothing, again)


def test_target_levels() -> None:
    rng = torch.Generator().manual_seed(0)
    own = make_car(2)
    assert own.target_levels(3, rng).isnan().all()
    obs, _ = own.reset(seed=0)
    plain = gymnasium.make("MountainCar-v0").reset(seed=1)[0]
    np.testing.assert_array_equal(obs[1], plain)

    def at_rest(n: int, rng: np.random.Generator) -> np.ndarray:
        return np.stack((rng.uniform(-0.6, -0.4, n), np.zeros(n)), -1)

    given = make_car(2, target_levels=at_rest)
    drawn = given.target_levels(100, rng)
    assert drawn.dtype == torch.float32 and drawn.shape == (100, 2) and given.valid(drawn).all()
    obs, _ = given.reset(seed=0)
    assert torch.equal(obs, given.levels) and torch.equal(given.reset(seed=0)[0], obs)
    assert given.valid(given.reference_levels(100, rng)).all()
    assert given.valid(torch.tensor([[torch.nan, 0.0], [0.0, 1.0]])).tolist() == [False, False]
    axes = Figure().subplots()
    given.draw_level_plane(axes)
    assert (axes.get_xlabel(), axes.get_ylabel()) == given.level_names


def test_pictures_action_offset_and_reported_success() -> None:
    env = GymnasiumEnv(2, id="LitCrlCounter-v0")
    assert env.single_action_space == Discrete(2)
    assert env.has_success  # its first step said whether it succeeded
    obs, _ = env.reset(seed=0, options={"hello": 1})
    assert obs.dtype == torch.uint8 and obs.shape == (2, 3, 4, 1)
    assert env.envs.envs[0].unwrapped.options == {"hello": 1}
    for step in range(3):
        obs, reward, terminated, _, info = env.step(torch.tensor([1, 0]))
        assert obs[:, 0, 0, 0].tolist() == [step + 1, 0] and reward.tolist() == [0.5, 0.5]
    assert terminated.tolist() == info["success"].tolist() == [True, False]
    assert info["success_known"].all()


def test_observations_of_set_level_pass_through_the_wrappers() -> None:
    def put(env: Any, level: np.ndarray) -> int:
        env.s = int(level[0])
        return env.s

    env = GymnasiumEnv(2, id="CliffWalking-v1", level_space=Box(0, 46, (1,)), set_level=put)
    obs, _ = env.reset(options={"levels": torch.tensor([[5.0], [24.0]])})
    assert obs.argmax(-1).tolist() == [5, 24] and obs.sum().item() == 2
    assert env.step(torch.tensor([1, 0]))[0].argmax(-1).tolist() == [6, 12]


def test_success_by_return() -> None:
    env = GymnasiumEnv(2, id="CartPole-v1", success_return=8.0)
    assert env.has_success
    env.reset(seed=0)
    for step in range(8):
        info = env.step(torch.full((2,), step % 2))[-1]
        assert info["success"].tolist() == [step == 7] * 2
    env.reset(options={"reset_mask": torch.tensor([True, False])})
    assert env.step(torch.zeros(2, dtype=torch.int64))[-1]["success"].tolist() == [False, True]
    assert not GymnasiumEnv(1, id="CliffWalking-v1").has_success


@pytest.mark.parametrize(
    "id",
    ["CartPole-v1", "MountainCar-v0", "Acrobot-v1", "FrozenLake-v1", "CliffWalking-v1",
     "Blackjack-v1"],
)  # fmt: skip
def test_saved_episodes_of_classic_and_toy_tasks_continue(id: str, tmp_path: Path) -> None:
    def play(env: GymnasiumEnv, steps: int, seed: int) -> list[Any]:
        rng, seen = torch.Generator().manual_seed(seed), []
        done = torch.from_numpy(~env.envs.running)
        for _ in range(steps):
            if done.any():
                env.reset(options={"reset_mask": done})
            action = torch.randint(int(env.single_action_space.n), (4,), generator=rng)
            obs, reward, terminated, truncated, info = env.step(action)
            done = terminated | truncated
            seen.append((obs, reward, terminated, truncated, torch.as_tensor(info["success"])))
        return seen

    env = GymnasiumEnv(4, id=id, max_episode_steps=17)
    assert env.resumable
    env.reset(seed=3)
    play(env, 23, seed=1)
    torch.save(env.state_dict(), tmp_path / "env.pt")
    expected = play(env, 60, seed=8)
    other = GymnasiumEnv(4, id=id, max_episode_steps=17)
    other.reset(seed=99)
    other.load_state_dict(torch.load(tmp_path / "env.pt", weights_only=True))
    for mine, theirs in zip(expected, play(other, 60, seed=8), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_load_state_dict_restarts_episodes_reproducibly() -> None:
    env, one, two = (make_car(3) for _ in range(3))
    for car in (env, one, two):
        car.resumable = False  # like environments that are not Gymnasium's own
    env.reset(seed=4)
    for _ in range(5):
        env.step(torch.ones(3, dtype=torch.int64))
    saved = env.state_dict()
    one.load_state_dict(saved)
    two.load_state_dict(saved)
    assert torch.equal(one.current_observations(), two.current_observations())
    assert not env.tracks_visited


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "Nowhere-v0"}, "no environment 'Nowhere-v0'.*pip install"),
        ({"id": "MountainCar-v9"}, "no environment 'MountainCar-v9'"),
        ({"id": "no_such_package:Thing-v0"}, "needs a package that is missing; `pip install`"),
        ({"id": "Pendulum-v1"}, r"'Pendulum-v1' has the action space Box.*Discrete"),
        ({"id": "CartPole-v1", "num_envs": 0}, "num_envs is 0"),
        ({"id": "CartPole-v1", "level_space": Box(0, 1, (2,))}, "belong together"),
        ({"id": "CartPole-v1", "set_level": put_car}, "belong together"),
        (
            {"id": "CartPole-v1", "set_level": put_car, "level_space": Box(0, np.inf, (2,))},
            r"finite bounds, shape \(d,\)",
        ),
    ],
)
def test_errors_at_construction(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GymnasiumEnv(**{"num_envs": 1, **settings})


def test_errors_later() -> None:
    plain, car = GymnasiumEnv(2, id="CartPole-v1"), make_car(2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        plain.current_observations()
    for draw in (plain.target_levels, plain.reference_levels):
        with pytest.raises(ValueError, match="takes no levels; give level_space and set_level"):
            draw(2, torch.Generator())
    with pytest.raises(ValueError, match="takes no levels"):
        plain.reset(options={"levels": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="all envs at the first reset"):
        plain.reset(options={"reset_mask": torch.tensor([True, False])})
    with pytest.raises(ValueError, match=r"has shape \(3, 2\)"):
        car.reset(options={"levels": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="outside the level space"):
        car.reset(options={"levels": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"bool tensor of shape \(2,\)"):
        car.reset(options={"reset_mask": torch.ones(2)})
    car.close()
    assert plain.levels is None and plain.level_space is None and plain.heldout() == {}


def test_a_level_space_by_name_is_the_box_of_its_bounds() -> None:
    named = make_car(3, level_space={"position": [-1.2, 0.5], "velocity": [-0.07, 0.07]})
    assert named.level_space == Box(
        np.array([-1.2, -0.07], np.float32), np.array([0.5, 0.07], np.float32)
    )
    assert named.level_names == ("position", "velocity")
    with pytest.raises(ValueError, match=r"level_space.velocity is \[1, 0\]"):
        make_car(1, level_space={"velocity": [1, 0]})
