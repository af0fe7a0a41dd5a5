"""Users' environments behind the adapter: unusual results, errors and missing infos."""

import copy
import functools
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import data_settings
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, RecordEpisodeStatistics
from torch import Tensor

from lit_crl import ReplayDataModule
from lit_crl.core.checks import ConfigError, RunError
from lit_crl.envs import GymnasiumEnv, MountainCar
from lit_crl.envs.factory import env_factory, level_env


class Walk(gymnasium.Env[Any, Any]):
    """Counts its steps and ends after five; tests replace its methods."""

    action_space = spaces.Discrete(2)
    start = 0

    def __init__(self, size: int = 2, dtype: Any = np.float32, limit: int = 5) -> None:
        self.observation_space: Any = spaces.Box(0, 200, (size,), dtype)
        self.limit, self.closed, self.stepped = limit, 0, 0

    def look(self) -> Any:
        return np.full(self.observation_space.shape, self.t, self.observation_space.dtype)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = self.start
        return self.look(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.stepped += 1
        return self.look(), 1.0, self.t == self.limit, False, self.info()

    def info(self) -> Any:
        return {}

    def close(self) -> None:
        self.closed += 1


def walk(**replaced: Any) -> type[Walk]:
    """A class like ``Walk`` with other methods or attributes."""
    return type("Walk", (Walk,), replaced)


def adapter(kind: Any = Walk, num_envs: int = 2, **settings: Any) -> GymnasiumEnv:
    return GymnasiumEnv(num_envs, make=kind, **settings)


def stay(num_envs: int = 2) -> Tensor:
    return torch.zeros(num_envs, dtype=torch.int64)


def raising(error: Exception) -> Any:
    def method(*_: Any, **__: Any) -> Any:
        raise error

    return method


ZEROS = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        ({"reset": lambda self: (ZEROS, {})}, r"reset\(\) raised TypeError.*'seed'.*seed=None"),
        ({"reset": lambda self, **_: ZEROS}, r"reset\(\) returned an array of shape \(2,\).*pair"),
        ({"reset": lambda self, **_: None}, r"reset\(\) returned None"),
        ({"reset": raising(FileNotFoundError("maps/1"))}, "raised FileNotFoundError: maps/1"),
        (
            {"step": lambda self, a: (ZEROS, 1.0, False, {})},
            r"step\(\) returned a tuple of 4.*five",
        ),
        ({"step": lambda self, a: (ZEROS, None, False, False, {})}, "reward that is None"),
        ({"step": lambda self, a: (ZEROS, [1, 2], False, False, {})}, "reward that is a list of 2"),
        ({"step": lambda self, a: (ZEROS, 1.0, "no", False, {})}, "terminated that is the string"),
        ({"step": lambda self, a: (ZEROS, 1.0, False, {}, {})}, "truncated that is a dict"),
        ({"step": lambda self, a: (ZEROS, 1.0, False, False, 3)}, "infos that are 3"),
        ({"step": lambda self, a: (ZEROS, np.nan, False, False, {})}, "reward that holds nan"),
        ({"step": raising(RuntimeError("crashed"))}, r"step\(\) raised RuntimeError: crashed"),
        ({"look": lambda self: np.ones(3)}, r"shape \(3,\), but its .* declares \(2,\)"),
        ({"look": lambda self: np.ones((2, 1))}, r"shape \(2, 1\)"),
        ({"look": lambda self: np.array([1, np.inf])}, "observation that holds inf"),
        ({"look": lambda self: "here"}, "the string 'here' as the observation"),
        ({"look": lambda self: [[1], [2, 3]]}, "a list of 2 as the observation"),
        ({"info": lambda self: {"is_success": "no"}}, r"info\['is_success'\] that is the string"),
        ({"info": lambda self: {"success": np.nan}}, r"info\['success'\] that is nan"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_trains(
    replaced: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"Walk: .*{sentence}"):
        adapter(walk(**replaced))


@pytest.mark.parametrize(
    ("seen", "sentence"),
    [
        (np.array([1.0, 2.0]), "float64, but .* uint8: declare float32"),
        (np.array([1, 300]), "from 1 to 300, but .* from 0 to 255"),
    ],
)
def test_a_space_of_bytes_needs_bytes(seen: np.ndarray, sentence: str) -> None:
    kind = functools.partial(walk(look=lambda self: seen), dtype=np.uint8)
    with pytest.raises(ConfigError, match=sentence):
        adapter(kind)


def test_unusual_but_clear_results_are_accepted() -> None:
    def step(self: Any, action: Any) -> Any:
        return [3, np.float64(4)], np.array([[0.5]]), np.array([False]), 1, None

    env = adapter(walk(step=step, reset=lambda self, **_: ([torch.tensor(1), 2], None)))
    obs, _ = env.reset(seed=0)
    assert obs.tolist() == [[1, 2]] * 2
    obs, reward, terminated, truncated, _ = env.step(stay())
    assert obs.tolist() == [[3, 4]] * 2 and reward.tolist() == [0.5] * 2
    assert terminated.tolist() == [False] * 2 and truncated.tolist() == [True] * 2


def test_a_later_failure_names_the_environment() -> None:
    def step(self: Any, action: Any) -> Any:
        if self.t == 3:
            raise RuntimeError("simulator\ncrashed")
        return Walk.step(self, action)

    env = adapter(walk(step=step))
    env.reset(seed=0)
    for _ in range(3):
        env.step(stay())
    with pytest.raises(RunError, match=r"^Walk: step\(\) raised RuntimeError: simulator crashed$"):
        env.step(stay())


def test_errors_of_wrappers_show_the_observation_space() -> None:
    class Wrong(gymnasium.ObservationWrapper[Any, Any, Any]):
        def observation(self, observation: Any) -> Any:
            return observation[7]

    with pytest.raises(ConfigError, match=r"a wrapper .* raised IndexError.*Box\(0.0, 200.0"):
        adapter(lambda: Wrong(Walk()))


@pytest.mark.parametrize(
    "info",
    [
        lambda self: {"path": np.zeros(self.t)},
        lambda self: {"goal": None if self.t % 2 else 3.0},
        lambda self: {"a": {"b": [self.t] * self.t}} if self.t % 3 else {"a": None},
        lambda self: {"_x": 1, "x": self, "final_info": {}},
    ],
)
def test_other_infos_do_not_matter(info: Any) -> None:
    env = adapter(walk(info=info))
    env.reset(seed=0)
    for _ in range(5):
        _, _, terminated, _, said = env.step(stay())
    assert terminated.all() and not said["success_known"].any() and not env.has_success


#: Infos of the five steps of an episode; whether success is known, and whether it succeeded.
EPISODES: dict[str, tuple[list[Any], bool, bool]] = {
    "nothing": ([{}] * 5, False, False),
    "the last step says yes": ([{}] * 4 + [{"is_success": True}], True, True),
    "the last step says no": ([{"success": True}] * 4 + [{"success": False}], True, False),
    "the step that succeeds says so": ([{}, {}, {"success": 1.0}, {}, {}], True, True),
    "None is nothing": ([{"success": None}] * 5, False, False),
    "None, and at last an array": ([{"success": None}] * 4 + [{"success": np.ones(1)}], True, True),
}


@pytest.mark.parametrize("name", EPISODES)
@pytest.mark.parametrize("threshold", [None, 5.0, 6.0])
def test_success_is_reported_or_decided_by_the_return_or_unknown(
    name: str, threshold: float | None
) -> None:
    infos, known, success = EPISODES[name]
    kind = walk(info=lambda self: infos[self.t - 1])
    env = adapter(kind, success_return=threshold)
    env.reset(seed=0)
    for _ in range(5):
        _, _, terminated, _, info = env.step(stay())
    assert terminated.all()
    if not known and threshold is not None:
        known, success = True, threshold <= 5.0
    assert info["success_known"].tolist() == [known] * 2
    assert info["success"].tolist() == [success] * 2
    assert env.has_success == known


def test_a_report_of_success_ends_with_its_episode() -> None:
    env = adapter(walk(info=lambda self: {"success": True} if self.t == 3 else {}))
    env.reset(seed=0)
    for _ in range(5):
        *_, info = env.step(stay())
    assert info["success"].all()
    env.reset()
    assert not env.step(stay())[-1]["success_known"].any()


def test_episodes_without_a_report_are_warned_of_once() -> None:
    def info(self: Any) -> Any:
        return {"success": True} if self.t == 5 and self.np_random.random() < 0.5 else {}

    env = adapter(walk(info=info), num_envs=16)
    env.reset(seed=0)
    for _ in range(4):
        env.step(stay(16))
    with pytest.warns(UserWarning, match="Walk: some episodes say.*others do not.*say False"):
        env.step(stay(16))
    env.reset()
    for _ in range(5):
        env.step(stay(16))


def test_a_copy_whose_episode_has_ended_waits() -> None:
    limits = iter([2, 4])
    env = adapter(lambda: Walk(limit=next(limits)))
    env.reset(seed=0)
    tried = [one.unwrapped.stepped for one in env.envs.envs]
    for _ in range(3):
        obs, reward, terminated, _, _ = env.step(stay())
    stepped = [one.unwrapped.stepped for one in env.envs.envs]
    assert [a - b for a, b in zip(stepped, tried, strict=True)] == [2, 3]
    assert obs[:, 0].tolist() == [2, 3] and reward.tolist() == [0, 1]
    assert terminated.tolist() == [True, False]
    obs, _ = env.reset(options={"reset_mask": torch.tensor([True, False])})
    assert obs[:, 0].tolist() == [0, 3]
    assert env.step(stay())[1].tolist() == [1, 1]


def test_an_observation_array_may_be_reused_by_the_environment() -> None:
    shared = np.zeros(2, np.float32)

    def look(self: Any) -> Any:
        shared[:] = self.t
        return shared

    limits = iter([2, 4])
    env = adapter(lambda: walk(look=look)(limit=next(limits)))
    first, _ = env.reset(seed=0)
    seen = [env.step(stay())[0][:, 0].tolist() for _ in range(3)]
    assert first[:, 0].tolist() == [0, 0] and seen == [[1, 1], [2, 2], [2, 3]]
    stacked = adapter(lambda: FrameStackObservation(walk(look=look)(), 3))
    stacked.reset(seed=0)
    for _ in range(3):
        obs = stacked.step(stay())[0]
    assert obs[0, :, 0].tolist() == [1, 2, 3]


def put(env: Any, level: np.ndarray) -> Any:
    env.t = int(level[0])
    return env.look()


LEVELS: dict[str, Any] = {"level_space": spaces.Box(0, 4, (1,)), "set_level": put}


def test_wrappers_see_a_level_as_a_plain_reset() -> None:
    """A stack of frames starts with the level's first observation."""

    def wrapped() -> Any:
        return RecordEpisodeStatistics(FrameStackObservation(walk(start=9)(limit=50), 3))

    env = adapter(wrapped, **LEVELS)
    levels = torch.tensor([[2.0], [torch.nan]])
    obs, _ = env.reset(seed=0, options={"levels": levels})
    assert obs[:, :, 0].tolist() == [[2, 2, 2], [9, 9, 9]]
    obs = env.step(stay())[0]
    assert obs[:, :, 0].tolist() == [[2, 2, 3], [9, 9, 10]]
    obs, _ = env.reset(options={"levels": levels.flip(0)})
    assert obs[:, :, 0].tolist() == [[9, 9, 9], [2, 2, 2]]


@pytest.mark.parametrize(
    "returns", [lambda obs: obs.tolist(), lambda obs: (obs, {}), lambda obs: torch.tensor(obs)]
)
def test_set_level_may_return_what_reset_may(returns: Any) -> None:
    env = adapter(**{**LEVELS, "set_level": lambda env, level: returns(put(env, level))})
    obs, _ = env.reset(seed=0, options={"levels": torch.tensor([[1.0], [3.0]])})
    assert obs[:, 0].tolist() == [1, 3] and env.step(stay())[0][:, 0].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("set_level", "sentence"),
    [
        (lambda env, level: None, "returned None, but must return the first observation"),
        (lambda env, level, extra: level, r"raised TypeError.*called as set_level\(env, level\)"),
        (lambda env, level: level, r"returned an observation of shape \(1,\)"),
    ],
)
def test_mistakes_in_set_level_are_sentences(set_level: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"Walk: set_level .*{sentence}"):
        adapter(**{**LEVELS, "set_level": set_level})


def test_mistakes_in_target_levels_are_sentences() -> None:
    for draw, sentence in (
        (lambda n: 1, r"raised TypeError.*called as target_levels\(n, rng\)"),
        (lambda n, rng: np.zeros(n), r"returned an array of shape \(2,\).*shape \(2, 1\)"),
    ):
        with pytest.raises(RunError, match=sentence):
            adapter(**LEVELS, target_levels=draw).reset(seed=0)


def test_an_environment_that_copies_itself_to_look_ahead_keeps_its_place() -> None:
    def step(self: Any, action: Any) -> Any:
        if not hasattr(self, "dream"):
            twin = copy.deepcopy(self)
            twin.dream = True
            twin.step(action)
        return Walk.step(self, action)

    env = adapter(walk(step=step))
    env.reset(seed=0)
    assert env.step(stay())[0][:, 0].tolist() == [1, 1]


def test_every_copy_is_closed_once() -> None:
    made: list[Walk] = []

    def make() -> Walk:
        made.append(Walk())
        return made[-1]

    env = adapter(make, 3)
    env.close()
    env.close()
    assert [one.closed for one in made] == [1, 1, 1]
    made.clear()
    with pytest.raises(ConfigError, match=r"set_level .*returned None"):
        adapter(make, 3, **{**LEVELS, "set_level": lambda env, level: None})
    assert [one.closed for one in made] == [1, 1, 1]
    shy = adapter(walk(close=raising(OSError("busy"))))
    with pytest.raises(RunError, match=r"Walk: close\(\) raised OSError: busy"):
        shy.close()


def test_a_run_closes_its_training_environments(make_run: Any) -> None:
    made: list[Walk] = []

    def make() -> Walk:
        made.append(Walk())
        return made[-1]

    make_run(env=make, arm="target", env_steps=400, validate=False).fit()
    assert [one.closed for one in made] == [1] * 8


def test_a_crash_in_a_run_names_the_environment(make_run: Any) -> None:
    def look(self: Any) -> Any:
        return np.full(2, np.nan if self.stepped == 60 else self.t)

    with pytest.raises(RunError, match=r"^Walk: step\(\) returned an observation that holds nan"):
        make_run(env=walk(look=look), arm="target", validate=False).fit()


def test_copies_must_be_separate_objects_of_one_kind() -> None:
    one = Walk()
    with pytest.raises(ConfigError, match="the same environment was made twice"):
        adapter(lambda: one)
    sizes = iter([2, 3])
    with pytest.raises(ConfigError, match=r"different observation spaces, Box.*\(2,\).*\(3,\)"):
        adapter(lambda: Walk(next(sizes)))


class Kind(Walk):
    """A walk whose observations are samples of its space."""

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.observation_space = space

    def look(self) -> Any:
        return self.observation_space.sample()


UNREADABLE = {
    "a Sequence,": spaces.Sequence(spaces.Box(0, 1, (2,))),
    "part 'say' is a Text.*FilterObservation": spaces.Dict(
        say=spaces.Text(3), a=spaces.Discrete(2)
    ),
    "part '1.0' is a Graph": spaces.Tuple(
        (spaces.Discrete(2), spaces.Tuple((spaces.Graph(spaces.Discrete(2), None),)))
    ),
    "no numbers": spaces.Box(0, 1, (0,)),
}


@pytest.mark.parametrize("sentence", UNREADABLE)
def test_for_unreadable_spaces_a_wrapper_is_named(sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        adapter(lambda: Kind(UNREADABLE[sentence]))


def test_a_single_number_is_an_observation() -> None:
    env = adapter(lambda: Kind(spaces.Box(0.0, 1.0, (), np.float32)))
    obs, _ = env.reset(seed=0)
    assert obs.shape == (2, 1) and env.single_observation_space.shape == (1,)


def test_only_discrete_actions() -> None:
    for space in (spaces.MultiDiscrete([2, 2]), spaces.Box(0, 1, (1,)), None):
        with pytest.raises(ConfigError, match=r"Walk has the action space .* needs Discrete"):
            adapter(walk(action_space=space))


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gymnasium.envs.registration.registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("LunarLander-v2", "no environment 'LunarLander-v2'; use 'LunarLander-v3'"),
        ("cartpole-v1", "use 'CartPole-v1'"),
        ("CartPole-v9", "use 'CartPole-v1'"),
        ("FrozenLak-v1", "use 'FrozenLake-v1'"),
        ("not an id", "no environment 'not an id'; check the id, or `pip install`"),
        ("my_task.py:Task-v0", "names a file: write the module, my_task:Task-v0"),
        ("no_such:Task-v0", "pip install` the one that has the module no_such, or run where"),
        ("broken_task:Task-v0", "importing broken_task raised NameError: name 'gyn'"),
        ("needy_task:Task-v0", "importing needy_task raised ModuleNotFoundError.*'no_such'"),
        ("Nowhere-v0", "'Nowhere-v0' cannot be made: AttributeError.*CartPoleEnvironment"),
        ("Vector-v0", "'Vector-v0' is registered as a vector environment alone"),
    ],
)
def test_mistyped_ids_get_a_remedy(registered: Path, id: str, sentence: str) -> None:
    (registered / "broken_task.py").write_text("gyn.register()\n")
    (registered / "needy_task.py").write_text("import no_such\n")
    entry = "gymnasium.envs.classic_control:CartPoleEnvironment"
    gymnasium.register("Nowhere-v0", entry)
    gymnasium.register("Vector-v0", vector_entry_point=entry)
    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, id=id)


def test_a_module_before_the_id_is_imported(registered: Path) -> None:
    (registered / "own_task.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Own-v0', CartPoleEnv, max_episode_steps=9)\n"
    )
    assert GymnasiumEnv(1, id="own_task:Own-v0").max_episode_steps == 9
    del sys.modules["own_task"]


def test_the_time_limit_is_given_once() -> None:
    kwargs = {"max_episode_steps": 50}
    assert GymnasiumEnv(1, id="MountainCar-v0", env_kwargs=kwargs).max_episode_steps == 50
    assert adapter(max_episode_steps=3).max_episode_steps == 3
    assert adapter().max_episode_steps is None
    with pytest.raises(ConfigError, match="max_episode_steps is 20, but 50 in env_kwargs"):
        GymnasiumEnv(1, id="MountainCar-v0", max_episode_steps=20, env_kwargs=kwargs)
    with pytest.raises(ConfigError, match="max_episode_steps is 0: give at least 1"):
        GymnasiumEnv(1, id="MountainCar-v0", max_episode_steps=0)
    with pytest.raises(ConfigError, match="give either id or make"):
        GymnasiumEnv(1)
    with pytest.raises(ConfigError, match=r"Walk cannot be made: it raised TypeError.*sise"):
        adapter(env_kwargs={"sise": 3})


def make_walk() -> Walk:
    return Walk(3)


def batch(n: int, device: Any) -> MountainCar:
    return MountainCar(n, device)


def batch_by_name(num_envs: int = 4, device: Any = "cpu") -> MountainCar:
    return MountainCar(num_envs, device)


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ("CartPole-v1", (4,)),
        (Walk, (2,)),
        (functools.partial(Walk, size=5), (5,)),
        (make_walk, (3,)),
        (lambda size=6: Walk(size), (6,)),
        (lambda: gymnasium.make("CartPole-v1"), (4,)),
        (MountainCar, (2,)),
        (functools.partial(MountainCar, max_episode_steps=9), (2,)),
        (functools.partial(GymnasiumEnv, id="CartPole-v1"), (4,)),
        (batch, (2,)),
        (batch_by_name, (2,)),
        (lambda *args, **more: MountainCar(*args, **more), (2,)),
    ],
)
def test_an_environment_may_be_given_in_many_ways(given: Any, shape: tuple[int, ...]) -> None:
    env = level_env(env_factory(given)(3, torch.device("cpu")))
    assert env.num_envs == 3 and env.single_observation_space.shape == shape


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (5, "is 5: give a Gymnasium id"),
        (lambda a, b, c: None, "is <function"),
        (Walk(), "is a Walk, made already.*give its class"),
        (lambda n, device: Walk(), "made a Walk, which is one environment.*no arguments"),
        (
            lambda num_envs, device: gymnasium.make_vec("CartPole-v1", num_envs),
            "made a CartPoleVectorEnv, which is no lit_crl.envs.LevelEnv.*without arguments",
        ),
        (lambda n, device: "x", "made the string 'x', which is no .*lacks close, current"),
        (lambda: 3, "gave 3, but must give one environment"),
        ("CartPole-v9", "use 'CartPole-v1'"),
    ],
)
def test_other_objects_are_refused_before_anything_trains(given: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^data.env:? .*{sentence}"):
        ReplayDataModule(given, **data_settings(arm="target")).setup("validate")
