"""How much RAM is free, of the machine or of a GPU, and the refusal of what does not fit into it.

An operating system grants more RAM than there is, and ends the program hours later, when it is
used. So what a run will fill is compared with what is free before it starts.
"""

from pathlib import Path

import torch

from lit_crl.core.checks import ConfigError

#: Where Linux tells the RAM of the machine, and that of a container (cgroup v2).
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a program could still get on a device; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    kilobytes = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
    machine = 1024 * int(kilobytes["MemAvailable"].split()[0])
    container = _free_in_container()
    return machine if container is None else min(machine, container)


def _free_in_container() -> int | None:
    """What is left of a container's limit; None: it has none."""
    limit, used, stat = (CGROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if not limit.exists() or (most := limit.read_text().strip()) == "max":
        return None
    # Files that were read count as used, but make room at once.
    files = dict(line.split() for line in stat.read_text().splitlines())["inactive_file"]
    return int(most) - int(used.read_text()) + int(files)


def ram_of(device: torch.device) -> str:
    """What to call the RAM of a device.

    >>> ram_of(torch.device("cpu")), ram_of(torch.device("cuda", 0))
    ('RAM', 'GPU RAM')
    """
    return "GPU RAM" if device.type == "cuda" else "RAM"


def in_units(count: float) -> str:
    """A number of bytes in words.

    >>> in_units(812), in_units(7_056_000), in_units(2.5e9)
    ('812 bytes', '7.1 MB', '2.5 GB')
    """
    if count < 1e5:
        return f"{count:,.0f} bytes"
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def check_fits(key: str, number: int, needed: int, device: torch.device) -> None:
    """What a number of things takes fits into the free RAM of a device.

    Args:
        key: The setting that gives the number.
        number: How many things there are.
        needed: Bytes that all of them take.
        device: Where they are.

    Raises:
        ConfigError: If it does not fit.
    """
    free = free_bytes(device)
    if free is not None and needed > free:
        raise ConfigError(
            f"{key} is {number:,}, which takes {in_units(needed)} of {ram_of(device)}, but "
            f"{in_units(free)} are free: give at most {number * free // needed:,}"
        )
