"""Running episodes of Gymnasium environments whose whole state is plain data, saved and restored.

Gymnasium has no way to save an environment. Its classic-control and toy-text environments keep
their state in attributes that are numbers, arrays and tuples, and their wrappers keep a step
counter. These attributes and the random generator are the whole state.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_crl.envs.gym.guard import Env, layers

#: Packages of environments that keep their state in plain attributes.
_PACKAGES = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
#: Wrappers that keep no state, or only plain attributes.
_WRAPPERS = ("TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "FlattenObservation",
             "TransformObservation")  # fmt: skip


def can_be_saved(env: Env) -> bool:
    """Whether a ``snapshot`` holds the whole state of an environment."""
    *wrappers, inner = layers(env)
    known = all(type(wrapper).__name__ in _WRAPPERS for wrapper in wrappers)
    return known and type(inner).__module__.startswith(_PACKAGES)


def snapshot(env: Env) -> dict[str, Any]:
    """The plain attributes of an environment and its wrappers, and its random generator.

    Arrays become tensors, because checkpoints are read by a loader that admits no NumPy objects.
    """
    saved = []
    for layer in layers(env):
        attributes = vars(layer).items()
        saved.append({name: _map(_to_torch, value) for name, value in attributes if _plain(value)})
    return {"layers": saved, "rng": _map(_to_torch, env.unwrapped.np_random.bit_generator.state)}


def restore(env: Env, saved: dict[str, Any]) -> None:
    """Put an environment of the same kind back into the state of a ``snapshot``."""
    for layer, attributes in zip(layers(env), saved["layers"], strict=True):
        for name, value in attributes.items():
            setattr(layer, name, _map(_to_numpy, value))
    env.unwrapped.np_random.bit_generator.state = _map(_to_numpy, saved["rng"])


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | np.number)


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """Change everything in nested tuples, lists and dicts."""
    if isinstance(value, dict):
        return {key: _map(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_map(change, part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return change(value)


def _to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.number):
        return torch.tensor(value)
    return str(value) if isinstance(value, str) else value  # NumPy has strings of its own


def _to_numpy(value: Any) -> Any:
    # The index turns an array without axes into a number, and leaves others as they are.
    return value.numpy().copy()[()] if isinstance(value, Tensor) else value
