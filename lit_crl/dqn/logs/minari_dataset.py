"""Logs as Minari datasets. Their environment is never made: that would import a stranger's code."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from lit_crl.dqn.logs.log import Array, Columns, Declared, Fingerprint, refused
from lit_crl.envs.images import looks_like_image

if TYPE_CHECKING:
    from minari import EpisodeData, MinariDataset

#: What a dataset's id begins with, where it is given in the place of a file.
PREFIX = "minari:"


class MinariLog:
    """A Minari dataset: its episodes in their order, its spaces from its metadata.

    An episode of T steps holds T + 1 observations. One that stops without an end or a cut is cut
    there.
    """

    obs_shape: tuple[int, ...]
    obs_dtype: np.dtype[Any]

    def __init__(self, key: str, folder: Path) -> None:
        """Read everything but the observations.

        Args:
            key: What messages call it.
            folder: The dataset's own folder.

        Raises:
            ConfigError: If it is no dataset that a DQN can learn from.
        """
        if find_spec("minari") is None:
            raise refused(key, "it is a Minari dataset", "pip install 'lit_crl[minari]'")
        import minari
        from minari.dataset.minari_storage import MinariStorage

        self.key, self.folder = (
            key,
            folder if (folder / "metadata.json").is_file() else (folder / "data"),
        )
        try:
            raw = MinariStorage.read_raw_metadata(self.folder)
        except (ValueError, OSError) as error:
            raise refused(
                key, f"there is no Minari dataset in {folder}", "give its id, or its folder"
            ) from error
        # Without these Minari would make the environment, to ask it.
        if lacking := [name for name in _SPACES if name not in raw]:
            raise refused(
                key,
                f"its metadata has no {' and no '.join(lacking)}",
                "record it with both spaces, or convert it to a .npz file",
            )
        try:
            self._dataset: MinariDataset = minari.MinariDataset(self.folder)
        except (ValueError, ImportError, OSError, KeyError) as error:
            raise refused(
                key, f"Minari cannot read it ({error})", "see Minari's own message"
            ) from (error)
        self._check_spaces()
        self.columns = self._read_columns()

    def _check_spaces(self) -> None:
        action, obs = self._dataset.action_space, self._dataset.observation_space
        if not isinstance(action, Discrete):
            raise refused(
                self.key,
                f"its actions are a {type(action).__name__}, but a DQN chooses one of several",
                "give a dataset with Discrete actions, or convert it to a .npz file with actions "
                "that you number yourself",
            )
        self._one_hot = int(obs.n) if isinstance(obs, Discrete) else None
        if isinstance(obs, Discrete):
            self._first_obs = int(obs.start)
            self.obs_shape, self.obs_dtype = (int(obs.n),), np.dtype(np.bool_)
            low, high = np.zeros(int(obs.n), np.float32), np.ones(int(obs.n), np.float32)
        elif isinstance(obs, Box) and obs.dtype is not None and not looks_like_image(obs):
            self.obs_shape, self.obs_dtype = obs.shape, obs.dtype
            low, high = obs.low, obs.high
        else:
            raise refused(
                self.key,
                f"its observations are {_in_words(obs)}",
                "give a dataset whose observations are vectors (a Box) or Discrete, or convert it "
                "to a .npz file",
            )
        self._first_action = int(action.start)
        self.declared = Declared(int(action.n), (low, high), self._first_action)

    def _episodes(self) -> "Iterator[EpisodeData]":
        """All episodes in order, without those that have no step."""
        return (episode for episode in self._dataset.iterate_episodes() if len(episode.rewards))

    def _read_columns(self) -> Columns:
        actions, rewards, ends, cuts = [], [], [], []
        for episode in self._episodes():
            steps = len(episode.rewards)
            if not (len(episode.actions) == steps and self._observed(episode) == steps + 1):
                raise refused(
                    self.key,
                    f"episode {episode.id} has {steps} rewards, {len(episode.actions)} actions and "
                    f"{self._observed(episode)} observations",
                    "record it anew; T steps need T + 1 observations",
                )
            cut = np.array(episode.truncations, bool)
            cut[-1] |= not episode.terminations[-1]  # it may have been left unfinished
            actions.append(np.asarray(episode.actions, np.int64) - self._first_action)
            rewards.append(np.asarray(episode.rewards))
            ends.append(np.array(episode.terminations, bool))
            cuts.append(cut)
        if not rewards:
            raise refused(self.key, "it has no steps", "record some first")
        return Columns(*(np.concatenate(parts) for parts in (actions, rewards, ends, cuts)))

    @staticmethod
    def _observed(episode: "EpisodeData") -> int:
        return len(episode.observations)

    def observations(self) -> Iterator[tuple[Array, Array]]:
        """See ``Log``."""
        for episode in self._episodes():
            seen = np.asarray(episode.observations)
            if self._one_hot is not None:
                seen = np.eye(self._one_hot, dtype=np.bool_)[seen - self._first_obs]
            yield seen[:-1], seen[1:]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See ``Log``."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        digest, size = hashlib.sha256(), 0
        for path in files:
            name = path.relative_to(self.folder).as_posix()
            with path.open("rb") as file:
                digest.update(f"{name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
            size += path.stat().st_size
        return Fingerprint(size, digest.hexdigest())


_SPACES = ("observation_space", "action_space")


def _in_words(space: Space[Any]) -> str:
    return f"a {type(space).__name__}" + (
        f" of shape {space.shape}" if isinstance(space, Box) else ""
    )


def folder_of(id: str, key: str) -> Path:
    """The folder of the dataset ``id`` on this machine; nothing is downloaded.

    Raises:
        ConfigError: If there is none.
    """
    if find_spec("minari") is None:
        raise refused(key, "it is a Minari dataset", "pip install 'lit_crl[minari]'")
    from minari.storage import get_dataset_path

    folder = Path(get_dataset_path(id))
    if not folder.is_dir():
        raise refused(key, f"{folder} does not exist", f"run `minari download {id}` first")
    return folder
