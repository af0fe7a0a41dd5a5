"""What is free, and what is refused because it does not fit."""

from pathlib import Path

import pytest
import torch

from lit_crl.core import free_ram
from lit_crl.core.checks import ConfigError

CPU = torch.device("cpu")


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, limit: str | None) -> int | None:
    """What is free if the machine has 3,000 kB, and a container's limit is as given."""
    (folder / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    3000 kB\n")
    if limit is not None:
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("1500000\n")
        (folder / "memory.stat").write_text("anon 1000000\ninactive_file 400000\n")
    monkeypatch.setattr(free_ram, "MEMINFO", folder / "meminfo")
    monkeypatch.setattr(free_ram, "CGROUP", folder)
    return free_ram.free_bytes(CPU)


@pytest.mark.parametrize(
    ("limit", "free"),
    [(None, 3_072_000), ("max", 3_072_000), ("9000000", 3_072_000), ("2000000", 900_000)],
)
def test_a_container_may_have_less_than_its_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, free: int
) -> None:
    assert told(monkeypatch, tmp_path, limit) == free


def test_linux_itself_is_asked() -> None:
    free = free_ram.free_bytes(CPU)
    assert free is not None and 10**6 < free < 10**14
    assert free_ram.free_bytes(torch.device("meta")) is None


def test_what_does_not_fit_is_refused_with_the_number_that_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told(monkeypatch, tmp_path, None)
    free_ram.check_fits("data.replay.capacity", 3_000, 3_000_000, CPU)
    sentence = (
        r"^data.replay.capacity is 4,000, which takes 4.0 MB of RAM, but 3.1 MB are free: give "
        r"at most 3,072$"
    )
    with pytest.raises(ConfigError, match=sentence):
        free_ram.check_fits("data.replay.capacity", 4_000, 4_000_000, CPU)
