"""A policy in other libraries: Stable-Baselines3's evaluation, ONNX and torch.export files."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import learner_settings
from gymnasium.spaces import Box, Discrete

import lit_crl
from lit_crl import CreativeLearner, Policy
from lit_crl.core.checks import ConfigError
from lit_crl.envs import (
    CartPole,
    GymnasiumEnv,
    Maze,
    MountainCar,
)
from lit_crl.runs.cli.main import main


def policy_of(env: Any, **settings: Any) -> tuple[Policy, np.ndarray]:
    """A policy with random weights, and five observations."""
    torch.manual_seed(1)
    learner = CreativeLearner(
        **learner_settings(hidden=(12, 8), gan_hidden=(8,), **settings)
    ).build(env)
    space = env.single_observation_space
    space.seed(0)
    return Policy.of(learner), np.stack([space.sample() for _ in range(5)])


def by_hand(policy: Policy, env: gymnasium.Env[Any, Any], seed: int, episodes: int) -> list[float]:
    """Returns of a plain Gymnasium loop; the first reset is seeded, as Stable-Baselines3 does."""
    returns = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def test_stable_baselines3_plays_the_episodes_of_a_plain_loop() -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    policy, _ = policy_of(CartPole(1))
    env = vec_env.DummyVecEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    env.seed(11)  # env i: 11 + i
    returns, lengths = evaluation.evaluate_policy(
        policy, env, n_eval_episodes=20, return_episode_rewards=True, warn=False
    )
    first, second = (by_hand(policy, gymnasium.make("CartPole-v1"), 11 + i, 10) for i in (0, 1))
    assert sorted(returns) == sorted(first + second)
    assert lengths == returns and len(set(returns)) > 3


class Loaded:
    """An exported file as Stable-Baselines3 asks a policy: it runs without this package."""

    def __init__(self, path: Path) -> None:
        self.module = torch.export.load(path).module()

    def predict(self, observation: np.ndarray, **_: Any) -> tuple[np.ndarray, None]:
        actions, _ = self.module(torch.from_numpy(observation.astype(np.uint8)))
        return actions.numpy(), None


@pytest.mark.parametrize("torso", ["plain", "minatar", "impala"])
def test_stable_baselines3_scores_an_exported_convolutional_policy_as_the_policy_itself(
    tmp_path: Path, torso: str
) -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    pytest.importorskip("minatar", reason="its extra is minatar")
    game = "minatar:MinAtar/Asterix-v1"
    policy, _ = policy_of(GymnasiumEnv(1, id=game), network={"hidden": (12,), "torso": torso})
    policy.export(tmp_path / "policy.pt2")
    env = vec_env.DummyVecEnv([lambda: gymnasium.make(game)] * 2)
    scores = []
    for player in (policy, Loaded(tmp_path / "policy.pt2")):
        env.seed(11)  # env i: 11 + i
        scores.append(
            evaluation.evaluate_policy(
                player, env, n_eval_episodes=6, return_episode_rewards=True, warn=False
            )
        )
    assert scores[0] == scores[1]
    first, second = (by_hand(policy, gymnasium.make(game), 11 + i, 3) for i in (0, 1))
    returns = scores[0][0]
    assert sorted(returns) == sorted(first + second) and len(set(returns)) > 1


@pytest.mark.slow
def test_stable_baselines3_scores_mountain_car_as_our_evaluation_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    monkeypatch.chdir(tmp_path)
    budget = ["--data.collect.env_steps=60000", "--trainer.accelerator=cpu"]
    run = main(["fit", "--experiment=mountain_car_levels", *budget])
    ours = json.loads((run.run_folder / "summary.json").read_text())
    policy = lit_crl.load(run.run_folder)
    env = gymnasium.make("MountainCar-v0")
    env.reset(seed=123)
    returns, _ = evaluation.evaluate_policy(
        policy, env, n_eval_episodes=100, return_episode_rewards=True, warn=False
    )
    assert np.mean(returns) > -130  # it has learned
    spread = math.hypot(ours["target_return_std"], float(np.std(returns)))
    difference = abs(np.mean(returns) - ours["target_return_mean"])
    assert difference < 3.5 * spread / math.sqrt(100)  # standard errors of two means of 100


class Truths(gymnasium.Env[np.ndarray, np.int64]):
    """Images of truth values, with more channels than rows."""

    observation_space = Box(0, 1, (7, 6, 8), np.bool_)
    action_space = Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, True, {}


gymnasium.register("Truths-v0", entry_point=Truths, max_episode_steps=9)


def test_a_policy_takes_truth_values_as_its_environment_gives_them() -> None:
    policy, obs = policy_of(GymnasiumEnv(1, id="Truths-v0"))
    assert obs.dtype == np.uint8
    np.testing.assert_array_equal(policy.action_values(obs.astype(bool)), policy.action_values(obs))
    plain, _ = gymnasium.make("Truths-v0").reset(seed=0)
    assert policy(plain) in (0, 1)


NETWORKS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "vectors": (lambda: MountainCar(1), {}),
    "dueling": (lambda: CartPole(1), {"dueling": True}),
    "flattened": (lambda: GymnasiumEnv(1, id="FrozenLake-v1"), {}),
    "images": (lambda: Maze(1, size=5), {}),
    "channels last": (lambda: GymnasiumEnv(1, id="Truths-v0"), {}),
    "planning": (lambda: Maze(1, size=5), {"planning_steps": 5}),
    "Rainbow": (
        lambda: CartPole(1),
        {"network": {"hidden": (12,), "atoms": 7, "noise": 0.5, "dueling": True}},
    ),
    "IMPALA": (lambda: Maze(1, size=5), {"network": {"hidden": (8,), "torso": "impala"}}),
}
#: Exporting takes seconds: the other networks are as slow, and less likely to break alone.
SOME = [
    name if name in ("vectors",) else pytest.param(name, marks=pytest.mark.slow)
    for name in NETWORKS
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pt2_file_acts_as_the_policy(name: str, tmp_path: Path) -> None:
    make_env, settings = NETWORKS[name]
    policy, obs = policy_of(make_env(), **settings)
    policy.export(tmp_path / "policy.pt2")
    module = torch.export.load(tmp_path / "policy.pt2").module()
    for batch in (obs, obs[:1]):
        actions, values = module(torch.from_numpy(batch))
        np.testing.assert_allclose(values, policy.action_values(batch), rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(actions, policy(batch))


@pytest.mark.parametrize("name", SOME)
def test_an_onnx_file_acts_as_the_policy(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    make_env, settings = NETWORKS[name]
    policy, obs = policy_of(make_env(), **settings)
    policy.export(str(tmp_path / "policy.onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"]  # one file, with weights
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    for batch in (obs, obs[:1]):
        actions, values = session.run(["action", "action_value"], {"obs": batch})
        np.testing.assert_allclose(values, policy.action_values(batch), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(actions, policy(batch))


def test_exports_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, _ = policy_of(CartPole(1))
    with pytest.raises(ConfigError, match=r"ends in .onnx or .pt2"):
        policy.export(tmp_path / "policy.tflite")
    for write in (policy.export, policy.save):
        with pytest.raises(ConfigError, match=r"make the folder .*nowhere first"):
            write(tmp_path / "nowhere" / "policy.pt2")
    has = {"onnx": True, "onnxscript": False}  # independent of what is installed here
    monkeypatch.setattr("lit_crl.runs.export.find_spec", lambda name: has[name] or None)
    with pytest.raises(ConfigError, match=r"needs onnxscript: pip install 'lit_crl\[export\]'"):
        policy.export(tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())
