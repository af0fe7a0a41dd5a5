"""Independent random streams: one ``torch.Generator`` for each (seed, purpose, rank)."""

import zlib

import numpy as np
import torch


def stream_seed(seed: int, purpose: str, rank: int = 0) -> int:
    """A 63-bit seed that differs for every (seed, purpose, rank)."""
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), rank])
    return int(entropy.generate_state(1, np.uint64)[0] >> 1)


def random_stream(
    seed: int, purpose: str, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A random stream of its own, so that drawing from one never shifts another."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, rank))
