"""What of the data does not go with a Q-network: refused before the first env step."""

from lit_crl.core.checks import ConfigError
from lit_crl.curriculum.sfl import LearnabilityScreen
from lit_crl.curriculum.sources import CustomSource
from lit_crl.dqn.replay.settings import ReplaySettings
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


def check_memory(
    data: DataSettings, arm: str, source: CustomSource | None, has_log: bool, memory: int
) -> None:
    """Refuse what does not go with a Q-network that remembers ``memory`` numbers of an episode.

    Without a memory there are no sequences, so that their settings would do nothing.

    Args:
        data: All settings of the data.
        arm: The arm's name.
        source: The arm's custom source of levels, if it has one.
        has_log: Whether a log takes the place of environments.
        memory: ``model.network.memory``; 0: there is none.

    Raises:
        ConfigError: If something does not, or the first batch could not be drawn.
    """
    replay, collect = data.replay, data.collect
    if not memory:
        _check_no_sequences(replay)
        return
    found = None
    if replay.priority_exponent:
        found = f"data.replay.priority_exponent is {replay.priority_exponent:g}", "set it to 0"
    elif replay.hindsight:
        found = f"data.replay.hindsight is {replay.hindsight:g}", "set it to 0"
    elif has_log:
        found = "data.transitions is a log, which keeps no memory of its policy", "leave it out"
    elif hasattr(source, "record") or isinstance(source, LearnabilityScreen):
        remedy = "use target, reference, valid_reference, archive or gan"
        found = f"data.curriculum.arm {arm!r} asks for values of single observations", remedy
    if found is not None:
        raise ConfigError(
            f"model.network.memory is {memory}, but {found[0]}, which does not go with a memory: "
            f"{found[1]}, or set model.network.memory to 0"
        )
    rows = replay.rows_of_a_sequence
    whole = f"{rows} rows (burn_in + sequence_length + n_steps) of one environment"
    if replay.capacity // collect.num_envs < (least := rows + replay.frame_stack - 1):
        raise ConfigError(
            f"data.replay.capacity is {replay.capacity}, too small for sequences of {whole}: give "
            f"at least {least * collect.num_envs}"
        )
    first = collect.num_envs * collect.steps_per_batch
    if collect.warmup + first < rows * collect.num_envs:
        raise ConfigError(
            f"data.collect.warmup is {collect.warmup}, too little for sequences of {whole}: give "
            f"at least {rows * collect.num_envs - first}"
        )


def _check_no_sequences(replay: ReplaySettings) -> None:
    plain = ReplaySettings()
    for name in ("burn_in", "sequence_length"):
        if (given := getattr(replay, name)) != getattr(plain, name):
            raise ConfigError(
                f"data.replay.{name} is {given}, but the Q-network has no memory "
                "(model.network.memory 0) and learns from no sequences: give it 128, or leave "
                f"data.replay.{name} out"
            )
