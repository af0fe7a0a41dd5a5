"""Independent random streams: one ``torch.Generator`` for each (seed, purpose, rank)."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream_seed(seed: int, purpose: str, rank: int = 0) -> int:
    """A 63-bit seed that differs for every (seed, purpose, rank).

    >>> stream_seed(0, "replay") == stream_seed(0, "replay"), stream_seed(0, "replay", rank=1)
    (True, 3375433734937629367)
    """
    entropy = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), rank])
    return int(entropy.generate_state(1, np.uint64)[0] >> 1)


def random_stream(
    seed: int, purpose: str, rank: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A new random stream: drawing from one never shifts another."""
    return torch.Generator(device).manual_seed(stream_seed(seed, purpose, rank))


def seed_global_streams(seed: int) -> None:
    """Seed the global streams of Python, numpy and torch: environments may draw from them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if _uses_gpus():
        torch.cuda.manual_seed_all(seed)


def _uses_gpus() -> bool:
    """Whether CUDA is in use; otherwise, reading its streams would initialise it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def global_streams_kept() -> Iterator[None]:
    """Restore the global streams of Python, numpy and torch after the block."""
    python, numpy, on_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_gpus = torch.cuda.get_rng_state_all() if _uses_gpus() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(on_cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)


class RandomStreams:
    """The random streams of one seed; each is created when it is first used."""

    def __init__(self, seed: int) -> None:
        """Create no stream yet."""
        self.seed = seed
        #: The number of this process; set it before the first draw.
        self.rank = 0
        self._streams: dict[str, torch.Generator] = {}
        self._saved: dict[str, torch.Tensor] = {}

    def __call__(self, purpose: str, device: torch.device) -> torch.Generator:
        """The stream for a purpose on ``device``; another device restarts it from its seed."""
        if purpose not in self._streams or self._streams[purpose].device != device:
            self._streams[purpose] = random_stream(self.seed, purpose, self.rank, device)
            if purpose in self._saved:
                self._streams[purpose].set_state(self._saved.pop(purpose))
        return self._streams[purpose]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state of every stream, also of restored ones that are not used yet."""
        return self._saved | {name: rng.get_state() for name, rng in self._streams.items()}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore a ``state_dict``; each stream takes its state when its device is known."""
        self._streams.clear()
        self._saved = {name: saved.cpu() for name, saved in state.items()}
