"""Minari datasets, made on the fly: the same steps as from a .npz file, and nothing is imported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space
from logged_steps import EPISODES, counter, replay_from, saved

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.logs.minari_dataset import MinariLog
from lit_crl.dqn.logs.npz import NpzLog
from lit_crl.dqn.logs.opening import open_log

minari = pytest.importorskip("minari")
#: The datasets' own number of their first action.
FIRST = 5


def dataset(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    data_format: str = "hdf5",
    finished: bool = True,
    **more: Any,
) -> Path:
    """The counter as a dataset whose actions begin at 5; returns its folder."""
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    given, row, buffers = counter(), 0, []
    for number, (length, _) in enumerate(EPISODES):
        part = slice(row, row + length)
        last = given["next_obs"][part][-1:]
        cuts = given["truncated"][part] if finished else np.zeros(length, bool)
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=list(np.append(given["obs"][part], last, 0)),
                actions=[FIRST + int(action) for action in given["action"][part]],
                rewards=list(given["reward"][part]),
                terminations=list(given["terminated"][part]),
                truncations=list(cuts),
            )
        )
        row += length
    minari.create_dataset_from_buffers(
        "counter/test-v0",
        buffers,
        observation_space=Box(0, 9, (2,)),
        action_space=Discrete(3, start=FIRST),
        data_format=data_format,
        **more,
    )
    return tmp_path / "minari/counter/test-v0"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("env", [None, "CartPole-v1"])
def test_a_dataset_is_the_same_as_its_file(
    data_format: str, env: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip({"hdf5": "h5py", "arrow": "pyarrow"}[data_format])
    more = {} if env is None else {"env": env}
    folder = dataset(tmp_path, monkeypatch, data_format=data_format, **more)
    monkeypatch.setattr("gymnasium.make", None)  # nobody makes its environment
    file = replay_from(NpzLog(saved(counter(), tmp_path)))
    for given in (str(folder), f"minari:{folder}", "minari:counter/test-v0"):
        log = open_log(given)
        assert log.declared.first_action == FIRST and log.declared.num_actions == 3
        replay = replay_from(log)
        for name, tensor in file.state_dict().items():
            assert torch.equal(replay.state_dict()[name], tensor), name
    assert log.fingerprint == MinariLog("x", folder).fingerprint


@pytest.mark.filterwarnings("ignore")
def test_unfinished_episodes_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = open_log(str(dataset(tmp_path, monkeypatch, finished=False)))
    assert log.columns.truncated.tolist() == counter()["truncated"].tolist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("space", "says"),
    [(Box(0, 1, (1,)), "actions are a Box"), (MultiDiscrete([2, 2]), "actions are a MultiDiscrete"),
     (Dict(a=Discrete(2)), "actions are a Dict")],
)  # fmt: skip
def test_actions_that_are_no_choice_are_refused(
    space: Space[Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minari.serialization import serialize_space

    folder = dataset(tmp_path, monkeypatch)
    metadata = folder / "data/metadata.json"
    content = json.loads(metadata.read_text()) | {"action_space": serialize_space(space)}
    metadata.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"{says}.*: give a dataset with Discrete actions"):
        open_log(str(folder))


@pytest.mark.filterwarnings("ignore")
def test_a_dataset_without_spaces_would_import_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = dataset(tmp_path, monkeypatch)
    metadata = folder / "data/metadata.json"
    content = json.loads(metadata.read_text())
    del content["action_space"]
    metadata.write_text(json.dumps(content | {"env_spec": "evil:Env"}))
    with pytest.raises(ConfigError, match="metadata has no action_space"):
        open_log(str(folder))


def test_what_is_no_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    with pytest.raises(ConfigError, match="there is no Minari dataset"):
        open_log(str(tmp_path))
    with pytest.raises(ConfigError, match="minari download a/b-v0"):
        open_log("minari:a/b-v0")
