"""Checkpoint files under every fault of a disk, and from strangers."""

import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lit_crl.core.checks import ConfigError, RunError
from lit_crl.core.tensor_files import (
    FORMAT,
    compact,
    companions,
    newest_whole,
    read_checkpoint,
    replace_text,
    write_atomically,
)
from lit_crl.runs.callbacks import RunCheckpoint

Make = Callable[..., Any]


def test_a_failing_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    write_atomically({"lit_crl": {"format": FORMAT}, "x": torch.ones(3)}, path)
    before = path.read_bytes()

    def half(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RunError, match=r"last\.ckpt \(No space left on device\): free"):
        write_atomically({"x": torch.zeros(3)}, path)
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(3))
    write_atomically({"lit_crl": {"format": FORMAT}, "x": torch.zeros(3)}, path)
    assert torch.equal(read_checkpoint(path)["x"], torch.zeros(3))
    assert list(tmp_path.iterdir()) == [path]  # the half-written file is gone, too
    older = tmp_path / "previous.ckpt"
    write_atomically({"lit_crl": {"format": FORMAT}, "x": torch.ones(1)}, path, older)
    assert torch.equal(read_checkpoint(older)["x"], torch.zeros(3))
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(1))


def test_a_new_name_lasts_through_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content reaches the disk before the name does, and the name before the call ends."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        done.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    for name in ("a.pt", "a.txt"):
        path = tmp_path / name
        write_atomically({}, path) if name == "a.pt" else replace_text("words", path)
        assert done == ["file", f"rename to {name}", "folder"]
        done.clear()


def test_a_part_of_a_tensor_is_written_without_the_rest(tmp_path: Path) -> None:
    whole = torch.arange(500_000.0).view(1000, 500)
    parts = {"rows": whole[3:7], "list": [whole[0], whole[:0]], "column": whole[:4, 1], "n": 1}
    for part in compact(parts)["list"]:
        assert part.untyped_storage().nbytes() == part.nbytes
    assert compact(parts)["rows"].data_ptr() == parts["rows"].data_ptr()  # no copy
    assert compact(whole) is whole
    path = tmp_path / "parts.pt"
    write_atomically({key: parts[key] for key in ("rows", "list", "n")}, path)
    assert path.stat().st_size < 16_000  # of 2 MB
    loaded = torch.load(path, weights_only=True)
    assert torch.equal(loaded["rows"], whole[3:7]) and torch.equal(loaded["list"][0], whole[0])
    assert loaded["list"][1].shape == (0, 500) and loaded["n"] == 1
    write_atomically(parts, path)
    assert torch.equal(torch.load(path, weights_only=True)["column"], whole[:4, 1])


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_only_this_programs_plain_checkpoints_are_read(tmp_path: Path) -> None:
    good = {"lit_crl": {"format": FORMAT}, "x": torch.ones(2)}
    path, trace = tmp_path / "a.ckpt", tmp_path / "trace"
    with pytest.raises(ConfigError, match=r"a\.ckpt does not exist"):
        read_checkpoint(path)
    torch.save(good, path)
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(2))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        read_checkpoint(path)
    torch.save({**good, "extra": Payload(trace)}, path)
    with pytest.raises(ConfigError, match="not a readable checkpoint"):
        read_checkpoint(path)
    assert not trace.exists()
    for foreign in ({"state_dict": {}}, [1, 2]):
        torch.save(foreign, path)
        with pytest.raises(ConfigError, match="not written by lit_crl"):
            read_checkpoint(path)
    torch.save({**good, "lit_crl": {"format": 1}}, path)  # of an earlier version
    assert torch.equal(read_checkpoint(path)["x"], torch.ones(2))
    torch.save({"lit_crl": {"format": 999}}, path)
    with pytest.raises(ConfigError, match="format 999"):
        read_checkpoint(path)


@pytest.fixture(scope="module")
def saved(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run's two checkpoints."""
    folder = tmp_path_factory.mktemp("saved")
    make_run(callbacks=[RunCheckpoint(folder)], env_steps=840).fit()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(saved: dict[str, bytes], tmp_path: Path) -> Path:
    for name, content in saved.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_newest_whole_checkpoint_is_taken(folder: Path) -> None:
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    assert newest_whole(folder) == (last, [])
    (companion,) = companions(last, read_checkpoint(last))
    content = companion.read_bytes()
    companion.write_bytes(content[:-1])
    path, (problem,) = newest_whole(folder)
    assert path == previous and str(companion) in problem
    companion.unlink()
    path, (problem,) = newest_whole(folder)
    assert path == previous and f"{companion} does not exist" in problem
    companion.write_bytes(content)
    last.unlink()  # killed between the two renames
    assert newest_whole(folder) == (previous, [])
    previous.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no checkpoint in .* is whole"):
        newest_whole(folder)
    previous.unlink()
    assert newest_whole(folder) == (None, [])


@pytest.mark.parametrize("which", ["last.ckpt", "collected"])
def test_every_flipped_bit_is_noticed_or_harmless(
    folder: Path, which: str, difference: Callable[[Any, Any], str | None]
) -> None:
    path = next(p for p in sorted(folder.iterdir()) if p.name.startswith(which))
    whole, draw = path.read_bytes(), random.Random(0)
    good, noticed = read_checkpoint(path), 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            assert difference(read_checkpoint(path), good) is None
        except ConfigError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            noticed += 1
    assert noticed > 100


def test_every_cut_end_is_noticed(folder: Path) -> None:
    path, draw = folder / "last.ckpt", random.Random(0)
    whole = path.read_bytes()
    for length in [0, 1, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(40))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError, match="not a readable checkpoint"):
            read_checkpoint(path)
        assert newest_whole(folder)[0] == folder / "previous.ckpt"


def test_a_damaged_last_checkpoint_does_not_push_the_good_one_out(
    make_run: Make, folder: Path
) -> None:
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    good = previous.read_bytes()
    last.write_bytes(b"damaged")
    seen: list[bytes] = []

    class Look(RunCheckpoint):
        def on_train_epoch_end(self, *args: Any) -> None:
            super().on_train_epoch_end(*args)
            seen.append(previous.read_bytes())
            path, problems = newest_whole(folder)
            assert path == last and not problems

    make_run(callbacks=[Look(folder)], env_steps=1_400).fit(previous)
    assert seen[0] == good and seen[1] != good
