"""How ``config.yaml`` names an object that was made in Python.

A class or a function is named by its import path; a ``functools.partial`` of a class, or a
dataclass, by the path of the class and its arguments. Other objects have no name that a file can
hold: lambdas, classes of a script or inside a function, objects of unknown arguments. Those are
described, and the command line refuses a configuration with a description.
"""

import functools
import importlib
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from lit_crl.core.checks import ConfigError

#: What every description contains.
MARK = "made in Python"


def is_plain(value: Any) -> bool:
    """Whether YAML can hold ``value``: a number, a string, None, or a list or dict of them.

    >>> is_plain({"hidden": [64, 64]}), is_plain(len)
    (True, False)
    """
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def import_path(value: Any) -> str | None:
    """The path that imports a class or function; None if another program cannot import it.

    >>> import_path(functools.partial)
    'functools.partial'
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    parts = module.split(".")
    # The shortest path is the public one: torch.optim.Adam instead of torch.optim.adam.Adam.
    for end in range(1, len(parts) + 1):
        place = ".".join(parts[:end])
        try:
            if operator.attrgetter(name)(importlib.import_module(place)) is value:
                return f"{place}.{name}"
        except (ImportError, AttributeError):
            pass
    return None


def written(value: Any) -> Any:
    """The value that ``config.yaml`` holds for ``value``.

    >>> written({"make": functools.partial(dict, n=3)})
    {'make': {'class_path': 'builtins.dict', 'init_args': {'n': 3}}}
    """
    if is_plain(value):
        return [*map(written, value)] if isinstance(value, tuple) else value
    if isinstance(value, Mapping):
        return {str(key): written(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [written(inner) for inner in value]
    if (path := import_path(value)) is not None:
        return path
    made_by, arguments = _making(value)
    path = import_path(made_by)
    if path is None or not is_plain(arguments):
        shown = re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(value).split()))
        return f"{MARK} {shown}".replace(":", "")
    return {"class_path": path, "init_args": written(arguments)}


def refuse_description(key: str, text: str) -> None:
    """Refuse the setting ``key`` if ``text``, its value or a message about it, is a description."""
    if MARK in text:
        raise ConfigError(
            f"the configuration says of {key} only that it was {MARK}, because no file can name "
            "that object: continue from Python, with lit_crl.train(..., ckpt_path='last'), the "
            "name of the run and the same object"
        )


def label(env: Any) -> str:
    """The name of an experiment whose environment is the object ``env``."""
    made_by = env.func if isinstance(env, functools.partial) else env
    name = str(getattr(made_by, "__name__", type(made_by).__name__))
    return name if name.isidentifier() else "from_python"


def _making(value: Any) -> tuple[Any, dict[str, Any]]:
    """The class that makes ``value``, and its arguments; (None, {}) if they are unknown."""
    if isinstance(value, functools.partial) and isinstance(value.func, type) and not value.args:
        return value.func, dict(value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), {field.name: getattr(value, field.name) for field in fields(value)}
    return None, {}
