"""Independent random streams: one ``torch.Generator`` for each (seed, purpose, rank)."""

import zlib

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
