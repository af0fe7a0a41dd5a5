"""From the words of a command line to its configuration, and from there to ``config.yaml``.

Python may add objects, settings that no text can say: they override the words.
"""

import functools
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from omegaconf.errors import OmegaConfBaseException

from lit_crl.core.checks import ConfigError
from lit_crl.runs.cli import yaml_strings
from lit_crl.runs.naming import refuse_description, written


def parse(parser: ArgumentParser, args: Sequence[str], objects: Mapping[str, Any]) -> Namespace:
    """The configuration.

    Raises:
        ConfigError: If a file only describes an object that Python must make, or if a module of
            the user's cannot be imported.
    """
    try:
        config = parser.parse_args([*args])
    except ArgumentError as error:
        found = re.search(r'"([\w.]+)"', str(error))  # jsonargparse puts the key in quotes
        refuse_description(found[1] if found else "a setting", str(error))
        raise
    except OmegaConfBaseException:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        raise ConfigError(f"{kind} in {place.filename}, line {place.lineno}: {error}") from error
    if objects:
        given: dict[str, Any] = {}
        for key, value in objects.items():
            *groups, name = key.split(".")
            inner = given
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[name] = value
        over = yaml_strings.quoted({"subcommand": config.subcommand, config.subcommand: given})
        config = parser.parse_object(over, cfg_base=config, defaults=False)
    for key, value in config[config.subcommand].items():
        refuse_description(key, str(value))
    return config


def config_text(parser: ArgumentParser, config: Namespace, objects: Mapping[str, Any]) -> str:
    """A subcommand's configuration as YAML, with ``objects`` as ``written`` describes them."""
    config, dump = config.clone(), functools.partial(parser.dump, skip_link_targets=True)
    if not objects:
        return str(dump(config))
    for key in objects:
        config[key] = None
    saved = yaml.safe_load(dump(config, skip_validation=True))
    for key, value in objects.items():
        *groups, name = key.split(".")
        functools.reduce(dict.__getitem__, groups, saved)[name] = written(value)
    return yaml.safe_dump(saved, sort_keys=False, allow_unicode=True)
