"""Settings of the model that do not go together: refused before a network is built."""

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.world.settings import WorldSettings


def check_model(
    network: NetworkSettings, dqn: DqnSettings, world: WorldSettings, compiles: bool
) -> None:
    """Refuse settings of one group that do not go with those of another one.

    Args:
        network: The Q-network.
        dqn: How it learns.
        world: The world.
        compiles: Whether updates are compiled.

    Raises:
        ConfigError: If there are any; names the keys, and what to do.
    """
    _check_distributions(network, dqn)
    if compiles and network.planning_steps:
        raise ConfigError(
            "model.compile is on, but the sweeps of model.network.planning_steps "
            f"{network.planning_steps} make a graph that takes many minutes to compile: "
            "turn one of them off"
        )
    if network.memory and world.loss != "none":
        raise ConfigError(
            f"model.world.loss is {world.loss!r}, but dreams keep no memory of an episode "
            f"(model.network.memory {network.memory}): set model.world.loss to none, or "
            "model.network.memory to 0"
        )
    if network.memory and compiles:
        raise ConfigError(
            "model.compile is on, but updates along the sequences of model.network.memory "
            f"{network.memory} are not compiled: turn one of them off"
        )


def _check_distributions(network: NetworkSettings, dqn: DqnSettings) -> None:
    if network.atoms and dqn.td_loss != "huber":
        raise ConfigError(
            f"model.dqn.td_loss is {dqn.td_loss!r}, but distributions "
            f"(model.network.atoms {network.atoms}) have a loss of their own: leave "
            "model.dqn.td_loss out, or set model.network.atoms to 0"
        )
    if dqn.support is not None and not network.atoms:
        raise ConfigError(
            f"model.dqn.support is {list(dqn.support)}, but there are no distributions: "
            "set model.network.atoms to 51, or leave it out"
        )
