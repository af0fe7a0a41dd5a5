"""Running episodes of Gymnasium environments whose whole state is plain data, saved and restored.

Gymnasium has no such thing. Its classic-control and toy-text environments keep their state in
attributes that are numbers, arrays and tuples, and their wrappers a step counter; these, and the
random generator, are all there is.
"""

from typing import Any

import gymnasium
import numpy as np
import torch

from lit_crl.envs.gym.guard import layers

#: Packages of environments that keep their state in plain attributes.
_PACKAGES = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
#: Wrappers that keep no state, or keep it so.
_WRAPPERS = ("TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "FlattenObservation",
             "TransformObservation")  # fmt: skip


def can_be_saved(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether ``snapshot`` holds all that an environment is."""
    *wrappers, inner = layers(env)
    known = all(type(wrapper).__name__ in _WRAPPERS for wrapper in wrappers)
    return known and type(inner).__module__.startswith(_PACKAGES)


def snapshot(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    """The plain attributes of an environment and its wrappers, and its random generator."""
    saved = []
    for layer in layers(env):
        attributes = vars(layer).items()
        saved.append({name: _encode(value) for name, value in attributes if _is_plain(value)})
    return {"layers": saved, "rng": _encode(env.unwrapped.np_random.bit_generator.state)}


def restore(env: gymnasium.Env[Any, Any], saved: dict[str, Any]) -> None:
    """Put an environment of the same kind back to a ``snapshot``."""
    for layer, attributes in zip(layers(env), saved["layers"], strict=True):
        for name, value in attributes.items():
            setattr(layer, name, _decode(value))
    env.unwrapped.np_random.bit_generator.state = _decode(saved["rng"])


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | np.number)


def _encode(value: Any) -> Any:
    """A plain value in types that load without running anything, and keep their own."""
    if isinstance(value, dict):
        return {"dict": {key: _encode(part) for key, part in value.items()}}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_encode(part) for part in value]}
    if isinstance(value, np.ndarray | np.number):
        return {"array": torch.tensor(value), "dtype": str(value.dtype)}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"int": hex(value)}  # generators have numbers of 128 bits
    return str(value) if isinstance(value, str) else value  # numpy has strings of its own


def _decode(saved: Any) -> Any:
    if not isinstance(saved, dict):
        return saved
    if "dict" in saved:
        return {key: _decode(part) for key, part in saved["dict"].items()}
    if "tuple" in saved:
        return tuple(map(_decode, saved["tuple"]))
    if "list" in saved:
        return list(map(_decode, saved["list"]))
    if "int" in saved:
        return int(saved["int"], 16)
    array = saved["array"].numpy().astype(saved["dtype"])
    return array if array.ndim else array[()]
