"""Who runs: ours, the peers from PyPI, and a whole loop in JAX.

Each contender is a module of its own, run in a process of its own by
``TASK=NAME python -m contenders.NAME --env-steps N --seed S ...``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tasks import TASKS


@dataclass(frozen=True)
class Contender:
    """How to run a contender, and how to call it.

    Args:
        label: Its name in tables.
        module: Its file in this folder.
        package: The import that it needs.
        arguments: What its command line has besides ``--env-steps`` and ``--seed``.
        slow: Whether only a slice of the schedule is run.
        tasks: What it can learn here.
    """

    label: str
    module: str
    package: str
    arguments: tuple[str, ...] = ()
    slow: bool = False
    tasks: tuple[str, ...] = ("cartpole",)


POLYAK = ("cartpole", "cartpole_polyak")
PICTURES = ("pictures_10", "pictures_84")


def _with_envs(
    num_envs: int, label: str, module: str, package: str, slow: bool, tasks: tuple[str, ...]
) -> Contender:
    label = f"{label}, {num_envs} env{'s' * (num_envs > 1)}"
    return Contender(label, module, package, ("--num-envs", str(num_envs)), slow, tasks)


_sb3 = {"label": "Stable-Baselines3", "module": "sb3", "package": "stable_baselines3"}
_tianshou = {"label": "Tianshou", "module": "tianshou_dqn", "package": "tianshou"}
_torchrl = {"label": "TorchRL", "module": "torchrl_dqn", "package": "torchrl"}

CONTENDERS: dict[str, Contender] = {
    "ours_eager": Contender(
        "lit_crl, eager", "ours", "lit_crl", ("--compiled", "0"), tasks=tuple(TASKS)
    ),
    "ours_compiled": Contender(
        "lit_crl, compiled", "ours", "lit_crl", ("--compiled", "1"), tasks=tuple(TASKS)
    ),
    # A Polyak step follows each vector step, and so each update if there is one environment.
    "sb3_1": _with_envs(1, **_sb3, slow=False, tasks=POLYAK),
    "sb3_4": _with_envs(4, **_sb3, slow=False, tasks=PICTURES),
    "sb3_100": _with_envs(100, **_sb3, slow=False, tasks=("cartpole",)),
    # It has hard copies alone.
    "tianshou_1": _with_envs(1, **_tianshou, slow=True, tasks=("cartpole",)),
    "tianshou_100": _with_envs(100, **_tianshou, slow=True, tasks=("cartpole",)),
    "torchrl_1": _with_envs(1, **_torchrl, slow=True, tasks=POLYAK),
    "torchrl_100": _with_envs(100, **_torchrl, slow=True, tasks=POLYAK),
    "jax": Contender("JAX, whole loop in one jit", "jax_dqn", "jax", tasks=(*POLYAK, *PICTURES)),
}


def contenders_of(task: str, names: Iterable[str]) -> list[str]:
    """Those of ``names`` that can learn a task."""
    return [name for name in names if task in CONTENDERS[name].tasks]
