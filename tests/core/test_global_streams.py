"""Streams that environments share with everything else in their process."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from lit_crl.core.global_streams import global_streams_kept, seed_global_streams


def test_global_streams_are_restored_whatever_happens() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(1))  # noqa: NPY002

    seed_global_streams(1)
    expected = draw(), draw()
    seed_global_streams(1)
    assert draw() == expected[0]
    with pytest.raises(KeyboardInterrupt), global_streams_kept():
        seed_global_streams(2)
        raise KeyboardInterrupt
    assert draw() == expected[1]


#: What a process draws that imports torch after it was seeded, the last seed being the one.
LATE = """
import sys
from lit_crl.core.global_streams import seed_global_streams

for seed in (4, 5):
    seed_global_streams(seed)
assert "torch" not in sys.modules
import torch
print(float(torch.rand(1)))
seed_global_streams(6)
print(float(torch.rand(1)))
"""


def test_torch_is_seeded_when_it_is_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    expected = []
    for seed in (5, 6):
        seed_global_streams(seed)
        expected.append(float(torch.rand(1)))
    assert [float(line) for line in done.stdout.split()] == expected
