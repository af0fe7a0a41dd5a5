"""What of the data does not go with a Q-network: refused before the first env step."""

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.training.settings import DataSettings


def check_support(data: DataSettings, network: NetworkSettings, dqn: DqnSettings) -> None:
    """Refuse distributions of returns whose support nothing says.

    Raises:
        ConfigError: If the rewards seen do not bound returns, and no support is given.
    """
    if not network.atoms or dqn.support is not None:
        return
    found = None
    if data.replay.hindsight > 0:
        found = (
            f"data.replay.hindsight is {data.replay.hindsight:g}, whose goals pay other rewards "
            "than those seen"
        )
    elif data.collect.gamma == 1:
        found = "data.collect.gamma is 1, with which rewards may add up without bound"
    if found is not None:
        raise ConfigError(
            f"model.network.atoms is {network.atoms}, and {found}: give the lowest and the highest "
            "return as model.dqn.support, or set model.network.atoms to 0"
        )
