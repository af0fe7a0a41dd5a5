"""What to type where an extra, a module or a version of an id is missing."""

import builtins
import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from lit_crl.core.checks import ConfigError
from lit_crl.envs import GymnasiumEnv
from lit_crl.envs.gym import making

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes packages missing."""
    original = builtins.__import__

    def hide(*packages: str) -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in packages or name.startswith("gymnasium.envs.box2d"):
                monkeypatch.delitem(sys.modules, name)

        def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return original(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        for package in packages:
            monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]

    return hide


@pytest.mark.parametrize(
    ("id", "package", "extra"),
    [
        ("ale_py:ALE/Pong-v5", "ale_py", "atari"),
        ("minatar:MinAtar/Breakout-v1", "minatar", "minatar"),
        ("minigrid:MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("LunarLander-v3", "Box2D", "box2d"),
    ],
)
def test_a_missing_extra_is_named(id: str, package: str, extra: str, without: Any) -> None:
    without(package)
    sentence = rf'needs a package that is missing; `pip install "lit_crl\[{extra}\]"`'
    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, id=id)


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("ALE/Nowhere-v5", r'ale_py:ALE/Nowhere-v5, and `pip install "lit_crl\[atari\]"`'),
        ("MinAtar/Nowhere-v1", r"minatar:MinAtar/Nowhere-v1, and .*lit_crl\[minatar\]"),
        ("MiniGrid-Nowhere-v0", r"minigrid:MiniGrid-Nowhere-v0, and .*lit_crl\[minigrid\]"),
        ("LunarLander-v2", "use 'LunarLander-v3'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date")
def test_an_id_without_its_module_or_of_another_version_gets_a_remedy(
    id: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for known in [x for x in gymnasium.registry if x.startswith(tuple(making._MODULES))]:
        monkeypatch.delitem(gymnasium.registry, known)
    with pytest.raises(ConfigError, match=sentence):
        GymnasiumEnv(1, id=id)


def test_the_extras_are_those_of_the_project() -> None:
    extras = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]
    assert set(making._EXTRAS.values()) == {"atari", "box2d", "minatar", "minigrid"} <= set(extras)
    for module in making._MODULES.values():
        assert module in making._EXTRAS


def test_a_package_registers_its_ids_by_its_entry_point() -> None:
    pytest.importorskip("minatar", reason="its extra is minatar")
    for id in [id for id in gymnasium.registry if id.startswith("MinAtar/")]:
        del gymnasium.registry[id]
    assert GymnasiumEnv(1, id="minatar:MinAtar/Breakout-v1").single_action_space.n == 3
