"""Settings that a resumed run must leave as they were, and the check that it does."""

from collections.abc import Mapping
from typing import Any

from lit_crl.core.checks import ConfigError
from lit_crl.core.tensor_files import plain
from lit_crl.training.settings import DataSettings

#: What was collected depends on these.
LASTING = (
    "collect.num_envs",
    "collect.gamma",
    "replay.capacity",
    "replay.n_steps",
    "replay.frame_stack",
    "replay.priority_exponent",
    "curriculum.tried",
    "curriculum.visited",
)


def lasting(settings: DataSettings, **others: Any) -> dict[str, Any]:
    """What must stay, by key; ``others`` besides, with ``__`` for each dot."""
    kept = {name.replace("__", "."): value for name, value in others.items()}
    for key in LASTING:
        group, field = key.split(".")
        kept[key] = plain(getattr(getattr(settings, group), field))
    return kept


def check_lasting(saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Nothing that must stay has changed since a checkpoint was ``saved``.

    Raises:
        ConfigError: If something has.
    """
    changed = [
        f"{'seed_everything' if name == 'seed' else f'data.{name}'} was {value} and is now "
        f"{mine.get(name)}"
        for name, value in saved.items()
        if value != mine.get(name)
    ]
    if changed:
        raise ConfigError(
            f"the checkpoint does not fit this run's data settings: {', '.join(changed)}; "
            "resume with what it was saved with, or start a new run"
        )
