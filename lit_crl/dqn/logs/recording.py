"""Records a run's real steps as they come, and writes them as a ``.npz`` log.

Steps go to a file of records of one size, to which nothing but the end is ever changed. So RAM
does not grow, a resumed run cuts the file back to where its checkpoint was, and no row is there
twice.
"""

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.tensor_files import replacing, writing
from lit_crl.dqn.logs.log import Array
from lit_crl.dqn.logs.npz import ARRAYS
from lit_crl.envs.bits import BitSpace
from lit_crl.envs.images import layout_in


class StepRecorder:
    """Appends steps of N environments to a file, a record for each step of all of them."""

    def __init__(self, path: Path, num_envs: int, space: Box) -> None:
        """Record into ``path`` from ``start`` on.

        Args:
            path: The file of records.
            num_envs: Environments N that step together.
            space: Space of one observation.
        """
        self.path, self.space = path, space
        # Bits are written as such, so that whoever reads the log knows.
        kept = np.uint8 if space.dtype == np.uint8 else np.float32
        dtype = np.bool_ if isinstance(space, BitSpace) else kept
        obs: tuple[Any, ...] = (dtype, (num_envs, *space.shape))
        numbers: dict[str, Any] = {
            "obs": obs, "action": (np.int64, (num_envs,)), "reward": (np.float32, (num_envs,)),
            "terminated": (np.bool_, (num_envs,)), "truncated": (np.bool_, (num_envs,)),
            "next_obs": obs,
        }  # fmt: skip
        self.record = np.dtype([(name, *numbers[name]) for name in ARRAYS])
        #: Records written so far.
        self.records = 0
        self._file: BinaryIO | None = None

    def start(self, records: int = 0, source: Path | None = None) -> None:
        """Begin after the first ``records``, and forget all that come after them.

        Args:
            records: How many to keep.
            source: Another file of records, from which they are copied.

        Raises:
            ConfigError: If there are fewer.
        """
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if records and source is not None and source != self.path and source.is_file():
            shutil.copyfile(source, self.path)
        kept = records * self.record.itemsize
        found = self.path.stat().st_size if self.path.is_file() else 0
        if found < kept:
            raise ConfigError(
                f"data.keep_transitions is true, but {self.path} has {found:,} of the {kept:,} "
                "bytes that the run had recorded: copy it back, or set data.keep_transitions to "
                "false"
            )
        with writing(self.path):
            self._file = self.path.open("r+b" if kept else "wb")
            self._file.truncate(kept)
            self._file.seek(kept)
        self.records = records

    def add(self, *step: Tensor) -> None:
        """Append a step: tensors ``[N, ...]`` in the order of ``ARRAYS``."""
        assert self._file is not None, "start first"
        record = np.empty((), self.record)
        for name, values in zip(ARRAYS, step, strict=True):
            record[name] = values.cpu().numpy()
        with writing(self.path):
            self._file.write(record.tobytes())
        self.records += 1

    def cut(self) -> None:
        """Mark the newest steps as cut off: the episodes do not go on after them."""
        if not self.records:
            return
        self.flush()
        last = np.memmap(self.path, self.record, "r+", shape=(self.records,))
        last["truncated"][-1] |= ~last["terminated"][-1]
        last.flush()

    def flush(self) -> None:
        """Let what was added reach the disk."""
        if self._file is not None:
            with writing(self.path):
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Add no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def write_log(self, path: Path, num_actions: int, first_action: int) -> None:
        """Write everything recorded so far as a log, whole or not at all.

        The steps of each environment follow each other; the last one of each is marked as cut off,
        unless its episode has ended.

        Args:
            path: The ``.npz`` file.
            num_actions: How many actions there are.
            first_action: The task's own number of action 0.

        Raises:
            RunError: If it cannot be written.
        """
        self.flush()
        steps = np.memmap(self.path, self.record, "r", shape=(self.records,))
        about: dict[str, Array] = {
            "num_actions": np.array(num_actions),
            "first_action": np.array(first_action),
            "obs_low": self.space.low,
            "obs_high": self.space.high,
        }
        if (layout := layout_in(self.space)) is not None:
            about["image_layout"] = np.array(layout)
        with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in about.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            for name in ARRAYS:
                self._write_array(archive, name, steps)

    def _write_array(self, archive: zipfile.ZipFile, name: str, steps: Array) -> None:
        field = steps[name]
        header = np.lib.format.header_data_from_array_1_0(np.empty((0,), field.dtype))
        header["shape"] = (field.shape[0] * field.shape[1], *field.shape[2:])
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)
            for env in range(field.shape[1]):
                of_env = np.array(field[:, env])
                if name == "truncated":
                    of_env[-1] |= ~steps["terminated"][-1, env]
                member.write(of_env.tobytes())
