"""Opens a log by the name that a user gives: a file, a folder or a Minari id."""

from pathlib import Path

from lit_crl.dqn.logs.log import Log
from lit_crl.dqn.logs.minari_dataset import PREFIX, MinariLog, folder_of
from lit_crl.dqn.logs.npz import NpzLog


def open_log(given: str) -> Log:
    """The log that ``data.transitions`` names.

    Args:
        given: A ``.npz`` file; the folder of a Minari dataset; or ``minari:`` and an id or folder.

    Raises:
        ConfigError: If there is none, or it cannot be learnt from; says why, and what to do.
    """
    key, name = f"data.transitions {given}", given.removeprefix(PREFIX)
    if Path(name).is_dir():
        return MinariLog(key, Path(name))
    return MinariLog(key, folder_of(name, key)) if given.startswith(PREFIX) else NpzLog(Path(given))
