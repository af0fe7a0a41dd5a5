"""A policy from a checkpoint alone acts as in evaluation, in any process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import learner_settings
from gymnasium.spaces import Box, Discrete
from gymnasium.wrappers import FlattenObservation, FrameStackObservation

import lit_crl
from lit_crl import CreativeLearner, Policy
from lit_crl.dqn.networks import spread
from lit_crl.envs import (
    CartPole,
    GymnasiumEnv,
    LevelEnv,
    Maze,
    MountainCar,
)
from lit_crl.envs.episodes import run_episodes
from lit_crl.runs.cli.main import main
from lit_crl.training.renamed import RENAMED

SMALL = {"hidden": (16, 12), "gan_hidden": (8,)}


class Steep(gymnasium.Env[np.ndarray, np.int64]):
    """Stacked images of bytes, and actions that are numbered from 3."""

    observation_space = Box(0, 255, (4, 9, 9), np.uint8)
    action_space = Discrete(2, start=3)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros((4, 9, 9), np.uint8), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        return np.full((4, 9, 9), 255, np.uint8), 0.0, True, False, {}


gymnasium.register("Steep-v0", entry_point=Steep)


def gymnasium_env(id: str, **settings: Any) -> LevelEnv:
    return GymnasiumEnv(1, id=id, **settings)


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "vectors": (lambda: MountainCar(1), {}),
    "dueling, unscaled": (lambda: CartPole(1), {"dueling": True, "scale_obs": False}),
    "no LayerNorm": (lambda: CartPole(1), {"layer_norm": False, "noise_dim": 3}),
    "maps": (lambda: Maze(1, size=5), {}),
    "planning": (lambda: Maze(1, size=5), {"planning_steps": 7}),
    "images": (lambda: gymnasium_env("Steep-v0", image_layout="HW"), {}),
    "flattened": (lambda: gymnasium_env("FrozenLake-v1"), {}),
    "Rainbow": (
        lambda: CartPole(1),
        {"network": {"hidden": (8,), "atoms": 7, "noise": 0.5, "dueling": True}},
    ),
    "IMPALA": (
        lambda: gymnasium_env("Steep-v0", image_layout="HW"),
        {"network": {"hidden": (8,), "torso": "impala"}},
    ),
}


def learner_of(kind: str, gan_updates: int = 1) -> CreativeLearner:
    """A learner with random weights: its networks differ, and its GAN counts as trained."""
    make_env, settings = KINDS[kind]
    torch.manual_seed(3)
    learner = CreativeLearner(**learner_settings(**{**SMALL, **settings})).build(make_env())
    for parameter in learner.target_network.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    spread(torch.tensor([-3.0, 7.0]), learner.target_network)
    learner.gan_updates = gan_updates
    return learner


def observations(learner: CreativeLearner, n: int) -> torch.Tensor:
    space = learner.blueprint.obs_space
    space.seed(0)
    return torch.from_numpy(np.stack([space.sample() for _ in range(n)]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny run of the command line, with a trained GAN and two checkpoints."""
    root = tmp_path_factory.mktemp("root")
    sizes = {
        "env_steps": 1_600, "num_envs": 8, "warmup": 300, "batch_size": 8, "updates_per_batch": 1,
        "gan_every": 2, "gan_updates": 2, "min_outcomes": 1, "label_epsilon": 1.0,
        "validate_every": 800, "validation_episodes": 1, "test_episodes": 5, "generated_levels": 1,
    }  # fmt: skip
    args = [f"--{RENAMED[f'data.{key}']}={value}" for key, value in sizes.items()]
    networks = ["--model.network.hidden=[16]", "--model.gan.hidden=[8]"]
    where = [f"--trainer.default_root_dir={root}", "--trainer.accelerator=cpu"]
    folder = main(["fit", "--experiment=cartpole_levels", *where, *networks, *args]).run_folder
    assert (folder / "checkpoints" / "previous.ckpt").is_file()
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_policy_is_the_learner(kind: str, tmp_path: Path) -> None:
    learner = learner_of(kind)
    Policy.of(learner).save(tmp_path / "policy.ckpt")
    policy = lit_crl.load(tmp_path / "policy.ckpt")
    obs = observations(learner, 6)
    torch.testing.assert_close(
        policy.action_values(obs), learner.action_values(obs), rtol=0, atol=0
    )
    first = learner.blueprint.first_action
    assert torch.equal(policy(obs) - first, learner.action_values(obs).argmax(1))
    if learner.level_gan is not None:
        z = torch.randn(5, learner.level_gan.generator.noise_dim)
        assert policy.level_gan is not None
        assert torch.equal(policy.level_gan.generate(z), learner.generate_levels(z))
        levels = policy.generate_levels(5)
        p = learner.success_probability(levels)
        assert torch.equal(policy.success_probability(levels), p)
    assert policy.blueprint == learner.blueprint


@pytest.mark.parametrize("kind", KINDS)
def test_single_batched_numpy_and_tensors_agree(kind: str) -> None:
    learner = learner_of(kind)
    policy, obs = Policy.of(learner), observations(learner, 4)
    actions = policy(obs)
    assert isinstance(actions, torch.Tensor) and actions.shape == (4,)
    array = obs.numpy()[::-1]  # a view that no tensor can share
    assert isinstance(policy(array), np.ndarray)
    np.testing.assert_array_equal(policy(array), actions.numpy()[::-1])
    single = policy(obs[1])
    assert isinstance(single, torch.Tensor) and single.shape == () and single == actions[1]
    number = policy(obs[1].numpy())
    assert isinstance(number, np.int64) and number == actions[1]
    assert policy.action_values(obs[1].numpy()).shape == (learner.num_actions,)
    np.testing.assert_allclose(
        policy.action_values(obs.numpy())[1], policy.action_values(obs[1].numpy()), rtol=1e-5,
        atol=1e-6,
    )  # fmt: skip


def test_it_is_the_target_network_that_acts() -> None:
    learner = learner_of("vectors")
    obs = observations(learner, 50)
    for parameter in learner.target_network.advantage.parameters():
        parameter.data.neg_()
    policy = Policy.of(learner)
    assert torch.equal(policy(obs), learner(obs))
    assert not torch.equal(policy(obs), learner.act(obs))  # the learner acts by its online network


def test_training_on_leaves_a_policy_as_it_is() -> None:
    learner = learner_of("vectors")
    policy, obs = Policy.of(learner), observations(learner, 9)
    before = policy.action_values(obs)
    for parameter in learner.parameters():
        parameter.data.zero_()
    assert torch.equal(policy.action_values(obs), before)


def test_double_precision_observations_are_those_of_training() -> None:
    learner = learner_of("vectors")
    policy, obs = Policy.of(learner), observations(learner, 9)
    assert torch.equal(policy(obs.double()), policy(obs))
    assert policy(obs.double().tolist()).tolist() == policy(obs).tolist()  # type: ignore[type-var]


def test_actions_have_the_numbers_of_the_task() -> None:
    env = gymnasium.make("Steep-v0")
    policy = Policy.of(learner_of("images"))
    obs, _ = env.reset()
    action = policy(obs)
    env.step(action)
    assert action - 3 == policy.action_values(obs).argmax()


def test_loading_leaves_the_global_random_stream_alone(run: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lit_crl.load(run)
    assert torch.equal(torch.rand(3), expected)


def test_generated_levels_are_drawn_anew_and_repeat_with_the_seed() -> None:
    first, second = (Policy.of(learner_of("vectors")) for _ in range(2))
    levels = first.generate_levels(6)
    assert levels.shape == (6, 2)
    assert not torch.equal(levels, first.generate_levels(6))
    assert torch.equal(levels, second.generate_levels(6))
    low, high = (torch.tensor(bound) for bound in (MountainCar(1).level_space.low,
                                                   MountainCar(1).level_space.high))  # fmt: skip
    assert ((levels >= low) & (levels <= high)).all()


def test_levels_of_a_difficulty_are_nearer_to_it_than_others() -> None:
    policy = Policy.of(learner_of("vectors"))
    p = policy.success_probability(policy.generate_levels(500))
    wanted = float(p.quantile(0.9))
    chosen = policy.success_probability(policy.generate_levels(40, difficulty=wanted))
    assert (chosen - wanted).abs().mean() < 0.5 * (p - wanted).abs().mean()
    levels = policy.generate_levels(3).numpy()
    assert isinstance(policy.success_probability(levels), np.ndarray)


def gymnasium_returns(policy: Policy, env: gymnasium.Env[Any, Any], seeds: range) -> list[float]:
    """A plain loop: one episode from each seed."""
    returns = []
    for seed in seeds:
        obs, _ = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(policy(obs))
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def test_a_run_scores_as_in_evaluation_episode_for_episode(run: Path) -> None:
    policy = lit_crl.load(run)
    env = GymnasiumEnv(20, id="CartPole-v1")
    ours = run_episodes(env, lambda obs: policy.action_values(obs).argmax(1), seed=7).returns
    byhand = gymnasium_returns(policy, gymnasium.make("CartPole-v1"), range(7, 27))
    assert ours.tolist() == byhand
    assert len(set(byhand)) > 1


def test_a_run_is_loaded_with_its_newest_weights(run: Path) -> None:
    policy = lit_crl.load(str(run))
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert policy.q_network.state_dict()["advantage.bias"].tolist() == (
        saved["state_dict"]["target_network.advantage.bias"].tolist()
    )
    older = lit_crl.load(run / "checkpoints" / "previous.ckpt")
    obs = torch.zeros(1, 4)
    assert not torch.equal(policy.action_values(obs), older.action_values(obs))
    assert policy.generate_levels(3).shape == (3, CartPole(1).level_space.shape[0])


def test_a_checkpoint_is_enough_by_itself(run: Path, tmp_path: Path) -> None:
    alone = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "alone.ckpt")
    obs = np.zeros((3, 4), np.float32)
    np.testing.assert_array_equal(
        lit_crl.load(alone).action_values(obs), lit_crl.load(run).action_values(obs)
    )


def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder: Path) -> None:
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.warns(UserWarning, match=r"last.ckpt is not a readable checkpoint"):
        policy = lit_crl.load(folder)
    older = lit_crl.load(folder / "checkpoints" / "previous.ckpt")
    obs = np.zeros(4, np.float32)
    np.testing.assert_array_equal(policy.action_values(obs), older.action_values(obs))


def test_what_lightning_itself_saves_is_loaded(make_run: Any, tmp_path: Path) -> None:
    run = make_run().fit()
    run.trainer.save_checkpoint(tmp_path / "plain.ckpt")
    policy = lit_crl.load(tmp_path / "plain.ckpt")
    obs = torch.zeros(2, 2)
    assert torch.equal(policy.action_values(obs), run.learner.action_values(obs))


def test_loading_does_without_lightning_and_the_configuration(folder: Path) -> None:
    """No name in a run's files, which may be a stranger's, is imported."""
    (folder / "config.yaml").write_text("data: {env: {class_path: antigravity.nope}}")
    code = (
        "import sys, lit_crl; policy = lit_crl.load(sys.argv[1]); policy.generate_levels(2); "
        "print(*sorted(name.split('.')[0] for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert not {"antigravity", "jsonargparse", "lightning", "matplotlib", "yaml"} & modules


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "attacked"),))

    learner = learner_of("vectors")
    about = {"gan_updates": 0, "blueprint": learner.blueprint.state_dict() | {"x": Attack()}}
    torch.save({"learner": about, "state_dict": learner.state_dict()}, tmp_path / "attack.ckpt")
    with pytest.raises(lit_crl.runs.policy.ConfigError, match=r"attack.ckpt is not a readable"):
        lit_crl.load(tmp_path / "attack.ckpt")
    assert not (tmp_path / "attacked").exists()


def tampered(path: Path, **changes: Any) -> Path:
    """A saved policy with another blueprint."""
    learner = learner_of("vectors")
    blueprint = learner.blueprint.state_dict()
    blueprint["sizes"] |= changes.pop("sizes", {})
    about = {"gan_updates": 1, "blueprint": blueprint | changes}
    torch.save({"learner": about, "state_dict": dict(learner.state_dict())}, path)
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sizes": {"hidden": (9,)}}, "does not fit"),
        ({"sizes": {"hidden": ()}}, "hidden is empty"),
        ({"sizes": {"hidden": 7}}, "what its networks look like"),
        ({"sizes": {"hidden": (10**15,)}}, "cannot be used"),
        ({"sizes": {"noise_dim": -1}}, "noise_dim is -1"),
        ({"sizes": {"nope": 1}}, "what its networks look like"),
        ({"num_actions": "many"}, "what its networks look like"),
        ({"obs_bounds": None}, "what its networks look like"),
        ({"level_bounds": (torch.zeros(2),)}, "what its networks look like"),
    ],
)
def test_a_tampered_blueprint_is_refused(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tampered(tmp_path / "made.ckpt", **changes)
    with pytest.raises(lit_crl.runs.policy.ConfigError, match=says) as refusal:
        lit_crl.load(path)
    assert "made.ckpt" in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_is_no_run_is_named(folder: Path, tmp_path: Path) -> None:
    refused = lit_crl.runs.policy.ConfigError
    with pytest.raises(refused, match="nope does not exist"):
        lit_crl.load(tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    with pytest.raises(refused, match=r"empty holds no checkpoints/last.ckpt"):
        lit_crl.load(tmp_path / "empty")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(refused, match=r"foreign.ckpt is no checkpoint of a learner"):
        lit_crl.load(tmp_path / "foreign.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(refused, match=r"list.ckpt is no checkpoint of a learner"):
        lit_crl.load(tmp_path / "list.ckpt")
    torch.save({"lit_crl": {"format": 99}}, tmp_path / "newer.ckpt")
    with pytest.raises(refused, match=r"newer.ckpt has checkpoint format 99"):
        lit_crl.load(tmp_path / "newer.ckpt")
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / "checkpoints" / name).write_bytes(b"nothing")
    with (
        pytest.warns(UserWarning, match="using the checkpoint before"),
        pytest.raises(refused, match=r"previous.ckpt is not a readable checkpoint"),
    ):
        lit_crl.load(folder)
    with pytest.raises(refused, match="no networks yet"):
        Policy.of(CreativeLearner())


def test_observations_of_another_shape_are_refused() -> None:
    policy = Policy.of(learner_of("images"))
    for shape in ((), (9, 9), (3, 9, 9), (2, 3, 9, 9), (1, 1, 4, 9, 9)):
        with pytest.raises(lit_crl.runs.policy.ConfigError, match="FrameStackObservation"):
            policy(np.zeros(shape, np.uint8))
    with pytest.raises(lit_crl.runs.policy.ConfigError, match=r"float32: give bytes"):
        policy(torch.zeros(4, 9, 9))
    with pytest.raises(lit_crl.runs.policy.ConfigError, match="dict is no array"):
        policy({"image": 1})  # type: ignore[type-var]


def test_stacks_and_flattened_observations_come_from_gymnasiums_wrappers() -> None:
    policy = Policy.of(learner_of("flattened"))
    env = gymnasium.make("FrozenLake-v1")
    obs, _ = env.reset(seed=0)
    with pytest.raises(lit_crl.runs.policy.ConfigError, match="FlattenObservation"):
        policy(obs)
    wrapped = FlattenObservation(env)
    obs, _ = wrapped.reset(seed=0)
    assert wrapped.action_space.contains(policy(obs))
    stacked = FrameStackObservation(gymnasium.make("CartPole-v1"), 3)
    gymnasium.register("StackedPole-v0", entry_point=lambda: stacked)
    learner = CreativeLearner(**learner_settings(**SMALL)).build(gymnasium_env("StackedPole-v0"))
    obs, _ = stacked.reset(seed=0)
    assert stacked.action_space.contains(Policy.of(learner)(obs))


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        (lambda: learner_of("images"), "the task has no levels"),
        (lambda: learner_of("vectors", gan_updates=0), "no GAN was trained"),
    ],
)
def test_without_a_trained_generator_there_are_no_levels(
    learner: Callable[[], CreativeLearner], says: str
) -> None:
    policy = Policy.of(learner())
    with pytest.raises(lit_crl.runs.policy.ConfigError, match=f"no generator: {says}"):
        policy.generate_levels(3)
    with pytest.raises(lit_crl.runs.policy.ConfigError, match=f"no generator: {says}"):
        policy.success_probability(torch.zeros(3, 2))


def test_numbers_and_levels_that_make_no_sense_are_refused() -> None:
    policy = Policy.of(learner_of("vectors"))
    for refused in (
        lambda: policy.generate_levels(0),
        lambda: policy.generate_levels(3, difficulty=1.5),
        lambda: policy.success_probability(torch.zeros(3, 3)),
        lambda: policy.success_probability(np.zeros(2)),
        lambda: policy.predict(np.zeros(2), deterministic=False),
    ):
        with pytest.raises(lit_crl.runs.policy.ConfigError):
            refused()


def test_a_file_from_before_there_were_noise_and_distributions_loads(tmp_path: Path) -> None:
    learner = learner_of("vectors")
    Policy.of(learner).save(tmp_path / "new.ckpt")
    saved = torch.load(tmp_path / "new.ckpt", weights_only=True)
    for name in ("torso", "atoms", "noise", "memory"):
        del saved["learner"]["blueprint"]["sizes"][name]
    torch.save(saved, tmp_path / "old.ckpt")
    obs = observations(learner, 6)
    policy = lit_crl.load(tmp_path / "old.ckpt")
    assert torch.equal(policy.action_values(obs), learner.action_values(obs))
