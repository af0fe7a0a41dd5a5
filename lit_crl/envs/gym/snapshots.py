"""Running episodes of Gymnasium environments, saved as plain data and restored.

Gymnasium has no way to save an environment. A snapshot holds the game itself and never its picture,
which hides timers and what is random: the attributes of the environment and of its wrappers (step
counts, stacks of frames, lives), the objects in them, and the random generators. It is made only
where the package is known to keep its whole state there; the emulator of Atari games saves itself.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Space
from torch import Tensor

from lit_crl.envs.gym import atari_states, object_graphs
from lit_crl.envs.gym.game import is_atari
from lit_crl.envs.gym.guard import Env, layers

#: Packages of environments that keep their state in numbers, arrays and tuples.
_PLAIN_PACKAGES = (
    "gymnasium.envs.classic_control.",
    "gymnasium.envs.toy_text.",
    "ale_py.",
)
#: Packages of environments and wrappers whose state is objects of their own.
_OBJECT_PACKAGES = ("minatar.", "minigrid.")
#: Wrappers of Gymnasium that keep no state, or only numbers, arrays, tuples and queues of these.
_WRAPPERS = ("TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "FlattenObservation",
             "TransformObservation", "FilterObservation", "GrayscaleObservation",
             "ResizeObservation", "ReshapeObservation", "RescaleObservation", "DtypeObservation",
             "AtariPreprocessing", "FrameStackObservation", "MaxAndSkipObservation",
             "StickyAction", "TransformAction", "TransformReward")  # fmt: skip
#: What an episode does not change.
_CONSTANTS = (Space, EnvSpec, Enum, FunctionType, MethodType, ModuleType, type, gymnasium.Env)
#: Attributes that belong to no episode: settings, and windows.
_IGNORED = ("spec", "metadata", "_metadata", "_cached_spec", "_saved_kwargs", "render_mode",
            "window", "clock")  # fmt: skip


def why_not_saved(env: Env) -> str | None:
    """Why a ``snapshot`` cannot hold the whole state of an environment, in words; None: it can.

    An Atari game must besides survive ``atari_states.why_not_restored``.
    """
    *wrappers, inner = layers(env)
    for wrapper in wrappers:
        kind = type(wrapper)
        is_known = kind.__module__.startswith("gymnasium.wrappers") and kind.__name__ in _WRAPPERS
        if not (is_known or kind.__module__.startswith(_OBJECT_PACKAGES)):
            return f"nothing is known of the state of its wrapper {kind.__name__}"
    if not type(inner).__module__.startswith((*_PLAIN_PACKAGES, *_OBJECT_PACKAGES)):
        return f"{type(inner).__name__} has no way to save its state"
    if is_atari(inner) and (why := atari_states.why_not_saved(inner)):
        return why
    try:
        snapshot(env)
    except object_graphs.UnknownState as error:
        return str(error)
    return None


def snapshot(env: Env) -> dict[str, Any]:
    """The state of an environment and its wrappers, as tensors and plain values.

    Arrays become tensors, because checkpoints are read by a loader that admits no NumPy objects.
    """
    known: list[Any] = layers(env)
    graph = object_graphs.Encoder(_OBJECT_PACKAGES, known)
    saved = [_of_objects(x, graph) if _has_objects(x) else _of_plain(x) for x in known]
    rng = _map(_to_torch, env.unwrapped.np_random.bit_generator.state)
    state: dict[str, Any] = {"layers": saved, "rng": rng}
    if is_atari(env.unwrapped):
        state["emulator"] = atari_states.saved(env.unwrapped)
    return state


def restore(env: Env, saved: dict[str, Any]) -> None:
    """Put an environment of the same kind back into the state of a ``snapshot``."""
    if is_atari(env.unwrapped):
        atari_states.restore(env.unwrapped, saved["emulator"])
    known: list[Any] = layers(env)
    graph = object_graphs.Decoder(_OBJECT_PACKAGES, known)
    for layer, attributes in zip(known, saved["layers"], strict=True):
        for name, value in attributes.items():
            is_graph = _has_objects(layer)
            setattr(layer, name, graph.decode(value) if is_graph else _map(_to_numpy, value))
    env.unwrapped.np_random.bit_generator.state = _map(_to_numpy, saved["rng"])


def tensors(arrays: dict[str, Any]) -> dict[str, Tensor]:
    """The same arrays and numbers as tensors, which share no memory with them."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def in_bytes(state: dict[str, Any]) -> bytes:
    """A state as a checkpoint holds it, which can be sent: pickle does not know every tensor."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def from_bytes(state: bytes) -> dict[str, Any]:
    """The state that ``in_bytes`` wrote."""
    loaded: dict[str, Any] = torch.load(io.BytesIO(state), weights_only=True)
    return loaded


def _has_objects(layer: Env) -> bool:
    return type(layer).__module__.startswith(_OBJECT_PACKAGES)


def _of_objects(layer: Env, graph: object_graphs.Encoder) -> dict[str, Any]:
    return {
        name: graph.encode(value, f"{type(layer).__name__}.{name}")
        for name, value in vars(layer).items()
        if name not in _IGNORED and not isinstance(value, _CONSTANTS)
    }


def _of_plain(layer: Env) -> dict[str, Any]:
    attributes = vars(layer).items()
    return {name: _map(_to_torch, value) for name, value in attributes if _plain(value)}


def _plain(value: Any) -> bool:
    if isinstance(value, tuple | list | deque):
        return all(map(_plain, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return value is None or isinstance(value, bool | int | float | str | np.number)


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """Change everything in nested tuples, lists, dicts and queues; a queue becomes a dict."""
    if isinstance(value, deque):
        return {"queue": [_map(change, part) for part in value], "maxlen": value.maxlen}
    if isinstance(value, dict):
        parts_by_name = {key: _map(change, part) for key, part in value.items()}
        if parts_by_name.keys() == {"queue", "maxlen"}:
            return deque(parts_by_name["queue"], parts_by_name["maxlen"])
        return parts_by_name
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
