"""Who runs: ours, the peers from PyPI, and a whole loop in JAX.

Each contender is a module of its own, run in a process of its own by
``python -m contenders.NAME --env-steps N --seed S ...``.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Contender:
    """How to run a contender, and how to call it.

    Args:
        label: Its name in tables.
        module: Its file in this folder.
        package: The import that it needs.
        arguments: What its command line has besides ``--env-steps`` and ``--seed``.
        slow: Whether only a slice of the schedule is run.
    """

    label: str
    module: str
    package: str
    arguments: tuple[str, ...] = ()
    slow: bool = False


def _with_envs(label: str, module: str, package: str, slow: bool) -> list[Contender]:
    return [
        Contender(f"{label}, {n} env{'s' * (n > 1)}", module, package, ("--num-envs", str(n)), slow)
        for n in (1, 100)
    ]


_sb3 = _with_envs("Stable-Baselines3", "sb3", "stable_baselines3", slow=False)
_tianshou = _with_envs("Tianshou", "tianshou_dqn", "tianshou", slow=True)
_torchrl = _with_envs("TorchRL", "torchrl_dqn", "torchrl", slow=True)

CONTENDERS: dict[str, Contender] = {
    "ours_eager": Contender("lit_crl, eager", "ours", "lit_crl", ("--compiled", "0")),
    "ours_compiled": Contender("lit_crl, compiled", "ours", "lit_crl", ("--compiled", "1")),
    "sb3_1": _sb3[0],
    "sb3_100": _sb3[1],
    "tianshou_1": _tianshou[0],
    "tianshou_100": _tianshou[1],
    "torchrl_1": _torchrl[0],
    "torchrl_100": _torchrl[1],
    "jax": Contender("JAX, whole loop in one jit", "jax_dqn", "jax"),
}
