"""The most RAM that whole runs take, each in a process of its own."""

from pathlib import Path

import memory
import pytest

#: In MiB: a quarter more than was measured (README.md), for other versions of torch.
BOUNDS = {name: 1.25 * found for name, found in memory.told().items()}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("name", memory.RUNS)
def test_a_run_takes_no_more_ram_than_is_told(name: str) -> None:
    assert 100 < memory.measured(name) < BOUNDS[name]
