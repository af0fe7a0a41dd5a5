"""Objects that refer to each other as plain data, and back.

An object is saved as the name of its class and its attributes. Only classes of the packages that
the caller names are saved and made again, and none of their functions is called: reading such data
can do no more than set attributes. What several places hold is saved once, so that it is one object
again afterwards.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Marks the dicts that stand for something else.
_KIND = "__kind__"
#: NumPy's random generators by name.
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class UnknownState(Exception):
    """Something whose state cannot be saved as plain data; the message says what."""


class Encoder:
    """Makes plain data of values that share objects."""

    def __init__(self, packages: tuple[str, ...], known: Sequence[Any]) -> None:
        """Save objects of ``packages``, and refer to those that are ``known`` to both sides."""
        self._packages = packages
        self._numbers = {id(each): number for number, each in enumerate(known)}
        #: Keeps everything alive that was numbered: another object would get its ``id``.
        self._alive = list(known)

    def encode(self, value: Any, where: str) -> Any:
        """Plain data for a value; ``where`` names it in messages.

        Raises:
            UnknownState: If there is something in it that is not known.
        """
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic):
            return {_KIND: "number", "value": _as_tensor(value, where)}
        if isinstance(value, tuple):
            return tuple(self.encode(part, where) for part in value)
        if id(value) in self._numbers:
            return {_KIND: "again", "number": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)
        return {**self._encode_new(value, where), "number": number}

    def _encode_new(self, value: Any, where: str) -> dict[str, Any]:
        """What is saved where a value is met for the first time."""
        if isinstance(value, np.ndarray):
            return {_KIND: "array", "value": _as_tensor(value, where)}
        if type(value) in (list, set, deque):
            parts = [self.encode(part, where) for part in value]
            kind = {_KIND: type(value).__name__, "parts": parts}
            return kind | ({"maxlen": value.maxlen} if isinstance(value, deque) else {})
        if type(value) is dict:
            pairs = [[self.encode(part, where) for part in pair] for pair in value.items()]
            return {_KIND: "dict", "parts": pairs}
        if isinstance(value, np.random.RandomState):
            return {_KIND: "RandomState", "state": _state(value.get_state(legacy=False))}
        if isinstance(value, np.random.Generator):
            return {_KIND: "Generator", "state": _state(value.bit_generator.state)}
        return self._encode_object(value, where)

    def _encode_object(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        if not kind.__module__.startswith(self._packages) or not hasattr(value, "__dict__"):
            raise UnknownState(f"{where} is a {kind.__name__}, of whose state nothing is known")
        attributes = {
            name: self.encode(part, f"{where}.{name}") for name, part in vars(value).items()
        }
        name = {"module": kind.__module__, "name": kind.__qualname__}
        return {_KIND: "object", **name, "attributes": attributes}


class Decoder:
    """Makes the values again that an ``Encoder`` saved."""

    def __init__(self, packages: tuple[str, ...], known: Sequence[Any]) -> None:
        """Make objects of ``packages``; ``known`` are those that the encoder knew."""
        self._packages = packages
        self._made: dict[int, Any] = dict(enumerate(known))

    def decode(self, saved: Any) -> Any:
        """The value that plain data stand for.

        Raises:
            ValueError: If the data name a class that nobody allowed.
        """
        if isinstance(saved, tuple):
            return tuple(self.decode(part) for part in saved)
        if not isinstance(saved, dict):
            return saved
        kind = saved[_KIND]
        if kind == "number":
            return _as_numpy(saved["value"])
        if kind == "again":
            return self._made[saved["number"]]
        make = _MAKE.get(kind)
        if make is None:
            raise ValueError(f"saved objects name the kind {kind!r}, which there is not")
        # It is known before its parts are read: they may refer to it.
        made = self._made[saved["number"]] = make(saved, self._packages)
        if "parts" in saved:
            parts = [[*map(self.decode, x)] if kind == "dict" else self.decode(x)
                     for x in saved["parts"]]  # fmt: skip
            made.update(parts) if kind in ("dict", "set") else made.extend(parts)
        for name, part in saved.get("attributes", {}).items():
            setattr(made, name, self.decode(part))
        return made


def _instance(saved: dict[str, Any], packages: tuple[str, ...]) -> Any:
    """An object without attributes of the class that is named, if its package is allowed."""
    module, name = str(saved["module"]), str(saved["name"])
    if not module.startswith(packages):
        raise ValueError(f"saved objects name the class {module}.{name}, which is not allowed")
    kind: Any = importlib.import_module(module)
    for part in name.split("."):
        kind = vars(kind)[part]
    if not isinstance(kind, type) or not kind.__module__.startswith(packages):
        raise ValueError(f"saved objects name {module}.{name}, which is no class of its package")
    return object.__new__(kind)


def _random_state(saved: dict[str, Any], packages: tuple[str, ...]) -> np.random.RandomState:
    made = np.random.RandomState()
    made.set_state(_from_state(saved["state"]))
    return made


def _generator(saved: dict[str, Any], packages: tuple[str, ...]) -> np.random.Generator:
    state = _from_state(saved["state"])
    if (name := state["bit_generator"]) not in _BIT_GENERATORS:
        raise ValueError(f"saved objects name the random generator {name!r}, which there is not")
    bits = getattr(np.random, name)()
    bits.state = state
    return np.random.Generator(bits)


_MAKE: dict[str, Callable[[dict[str, Any], tuple[str, ...]], Any]] = {
    "array": lambda saved, packages: _as_numpy(saved["value"]),
    "list": lambda saved, packages: [],
    "set": lambda saved, packages: set(),
    "dict": lambda saved, packages: {},
    "deque": lambda saved, packages: deque(maxlen=saved["maxlen"]),
    "RandomState": _random_state,
    "Generator": _generator,
    "object": _instance,
}


def _state(state: Any) -> Any:
    """The state of a random generator: nested dicts of numbers, names and arrays."""
    if isinstance(state, dict):
        return {key: _state(part) for key, part in state.items()}
    return torch.tensor(state) if isinstance(state, np.ndarray) else state


def _from_state(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _from_state(part) for key, part in state.items()}
    return state.numpy().copy() if isinstance(state, Tensor) else state


def _as_tensor(array: Any, where: str) -> Tensor:
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise UnknownState(f"{where} holds an array of {array.dtype}")
    return torch.tensor(array)


def _as_numpy(tensor: Tensor) -> Any:
    # The index turns an array without axes into a number, and leaves others as they are.
    return tensor.numpy().copy()[()]
