"""The global random streams of Python, NumPy and torch, which environments may draw from.

A process that only steps environments does without torch, whose import takes longer than that of
everything else together. So nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np


def seed_global_streams(seed: int) -> None:
    """Seed the global streams of Python, NumPy and torch; torch's when something imports it."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None:
        _seed_torch(torch, seed)
        return
    _LATER.seed = seed
    if _LATER not in sys.meta_path:
        sys.meta_path.insert(0, _LATER)


@contextmanager
def global_streams_kept() -> Iterator[None]:
    """Restore the global streams of Python, NumPy and torch after the block."""
    import torch

    python, numpy, on_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_gpus = torch.cuda.get_rng_state_all() if _uses_gpus(torch) else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(on_cpu)
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)


def _seed_torch(torch: ModuleType, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if _uses_gpus(torch):
        torch.cuda.manual_seed_all(seed)


def _uses_gpus(torch: ModuleType) -> bool:
    """Whether CUDA is in use; otherwise, reading its streams would initialise it."""
    return bool(torch.cuda.is_initialized())


class _SeedsLater(MetaPathFinder):
    """Finds torch as Python does, and seeds its streams as soon as it is imported."""

    seed: int

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_seed(module: ModuleType) -> None:
                load(module)
                _seed_torch(module, self.seed)

            setattr(spec.loader, "exec_module", load_and_seed)  # noqa: B010
        return spec


_LATER = _SeedsLater()
