"""Class paths of older versions, in files and on the command line."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from lit_crl.runs.cli.main import main
from lit_crl.runs.cli.moved import MOVED, present

#: What a configuration of an older version could name in each module that has moved.
NAMED = {
    "exploration": ("LinearEpsilon", "EpsilonLadder"),
    "strategy": ("PhaseDDP",),
    "screening": ("LearnabilityScreen",),
    "level_replay": ("PrioritizedLevelReplay", "EditedLevelReplay"),
}


def test_every_old_class_path_leads_to_the_class() -> None:
    assert NAMED.keys() == MOVED.keys()
    for module, names in NAMED.items():
        for name in names:
            place, _, found = present(f"lit_crl.{module}.{name}").rpartition(".")
            assert getattr(import_module(place), found).__name__ == name


def test_what_only_looks_like_an_old_path_stays() -> None:
    for text in ("my_lit_crl.strategy.PhaseDDP", "lit_crl.strategy.later", "lit_crl.envs.Maze"):
        assert present(text) == text


def test_an_older_configuration_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old = {
        "experiment": "mine",
        "data": {
            "env": "lit_crl.envs.MountainCar",
            "curriculum": {
                "arm": {"class_path": "lit_crl.level_replay.PrioritizedLevelReplay"},
            },
            "collect": {
                "exploration": {
                    "class_path": "lit_crl.exploration.LinearEpsilon",
                    "init_args": {"steps": 4_000},
                },
            },
        },
    }
    Path("old.yaml").write_text(yaml.safe_dump(old))
    with pytest.raises(SystemExit):
        main(["fit", "--config=old.yaml", "--print_config"])
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["collect"]["exploration"]["class_path"] == "lit_crl.dqn.LinearEpsilon"
    assert data["collect"]["exploration"]["init_args"]["steps"] == 4_000
    assert data["curriculum"]["arm"]["class_path"] == "lit_crl.curriculum.PrioritizedLevelReplay"
    with pytest.raises(SystemExit):
        main(
            [
                "fit",
                "--data.collect.exploration=lit_crl.exploration.LinearEpsilon",
                "--print_config",
            ]
        )
    data = yaml.safe_load(capsys.readouterr().out)["data"]
    assert data["collect"]["exploration"]["class_path"] == "lit_crl.dqn.LinearEpsilon"
