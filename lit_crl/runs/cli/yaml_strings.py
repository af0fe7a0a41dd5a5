"""YAML in which a quoted string stays a string, however often it is read.

jsonargparse reads a string without a declared type as YAML, again at every step of parsing:
``country: "NO"`` would become ``False``. So quoted strings are read as ``Quoted``, which
jsonargparse does not change, and strings that need quotes are written with quotes.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml
from jsonargparse import set_dumper, set_loader
from jsonargparse.typing import register_type

from lit_crl.runs.cli.moved import present

#: The parsers' mode, registered below: interpolations see the command line, too.
MODE = "omegaconf+"
STRING, FLOAT, TIME = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "float", "timestamp"))
#: YAML 1.2's floats: 1e-3 is a number, although it has no dot.
NUMBER = re.compile(
    r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
)
#: An interpolation from the root of its file.
FROM_ROOT = re.compile(r"\$\{([a-zA-Z][a-zA-Z0-9[\]_.]*)\}")


class Quoted(str):
    """A string that is not read as anything else."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads numbers as YAML 1.2 does, dates as strings, and quoted strings as ``Quoted``."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, words) for tag, words in resolvers if tag not in (FLOAT, TIME)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Read all keys as plain strings, also quoted ones."""
        read: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return {str(key) if isinstance(key, Quoted) else key: read[key] for key in read}


class _Dumper(yaml.SafeDumper):
    """Quotes every string that ``_Loader`` would read as something else."""


def _read_string(loader: Any, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    return Quoted(text) if node.style and "${" not in text else text


def _write_string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quotes = '"' if "\n" in text else "'"
    return dumper.represent_scalar(STRING, str(text), None if reads_as_itself(text) else quotes)


_Loader.add_implicit_resolver(FLOAT, NUMBER, list("-+0123456789."))
_Loader.add_constructor(STRING, _read_string)
_Dumper.add_representer(str, _write_string)
_Dumper.add_representer(Quoted, _write_string)


def reads_as_itself(text: str) -> bool:
    """Whether YAML reads a text without quotes as the same text.

    >>> reads_as_itself("gan"), reads_as_itself("NO")
    (True, False)
    """
    try:
        return bool(yaml.load(str(text), _Loader) == text)  # a SafeLoader
    except yaml.YAMLError:
        return False


def load(text: str) -> Any:
    """The value of a YAML text; interpolations from its root become relative ones."""
    value = yaml.load(present(text), _Loader)  # a SafeLoader
    if isinstance(value, dict) and value and not any(value.values()) and ": " not in text:
        return text  # words in braces, or one before a colon
    return _relative(value, ())


def dump(value: Any, flow: bool = False) -> str:
    """A value as YAML text; in ``flow`` style on one line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=flow,
        allow_unicode=True,
        sort_keys=False,
        width=10**6 if flow else 80,
    )
    return text.split("\n")[0] if flow else text


def quoted(value: Any) -> Any:
    """A nested value with ``Quoted`` strings, except those with interpolations."""
    if isinstance(value, str):
        return value if "${" in value else Quoted(value)
    if isinstance(value, Mapping):
        return {key: quoted(item) for key, item in value.items()}
    return [quoted(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """A nested value with ordinary strings."""
    if isinstance(value, Quoted):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple, set) else value


def _relative(value: Any, path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: _relative(item, (*path, str(key))) for key, item in value.items()}
    if isinstance(value, list):
        return [_relative(item, (*path, str(index))) for index, item in enumerate(value)]
    if type(value) is not str:
        return value

    def reference(found: re.Match[str]) -> str:
        target = found[1].replace("]", "").replace("[", ".").split(".")
        shared = 0
        while shared < min(len(path), len(target)) and path[shared] == target[shared]:
            shared += 1
        return "${" + "." * max(1, len(path) - shared) + ".".join(target[shared:]) + "}"

    return FROM_ROOT.sub(reference, value)


register_type(Quoted, serializer=Quoted, type_check=isinstance)
set_loader(MODE, load, (yaml.YAMLError,))
set_dumper(MODE, dump)
