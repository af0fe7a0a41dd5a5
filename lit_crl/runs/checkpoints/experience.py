"""Everything a run collected, as tensors and plain values: a resume needs it beside the weights."""

from typing import Any

from lightning.fabric.utilities import move_data_to_device

from lit_crl.core.checks import ConfigError
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner


def collected_state(data: ReplayDataModule, learner: CreativeLearner) -> dict[str, Any]:
    """Replay, archive, curriculum, running episodes, counters, random streams, unlogged losses.

    These are the run's own tensors: write or copy them before the run continues.
    """
    return {
        "batches_done": data.batches_done,
        "rng": data.rng.get_state(),
        "replay": data.rollout.replay_state(),
        "rollout": data.rollout.state_dict(),
        "archive": data.archive.state_dict() if data.archive is not None else {},
        "curriculum": data.curriculum.state_dict() if data.curriculum is not None else {},
        "dreams": data.dreaming.state_dict() if data.dreaming is not None else {},
        "watch": data.watch.state_dict(),
        "losses": learner.losses.state_dict(),
        "streams": learner.streams.state_dict(),
    }


def load_collected_state(
    data: ReplayDataModule, learner: CreativeLearner, state: dict[str, Any]
) -> None:
    """Restore a ``collected_state``.

    Raises:
        ConfigError: If it comes from a run with other sizes or another environment.
    """
    try:
        data.rollout.load_replay_state(state["replay"])
        data.rollout.load_state_dict(state["rollout"])
        if data.archive is not None and data.curriculum is not None:
            data.archive.load_state_dict(state["archive"])
            data.curriculum.load_state_dict(state["curriculum"])
        data.set_up_dreams()
        if data.dreaming is not None:
            data.dreaming.load_state_dict(state["dreams"])
            data.watch.load_state_dict(state["watch"])
        # Files are read to the CPU; tensors that are not copied into existing ones move here.
        learner.losses.load_state_dict(move_data_to_device(state["losses"], learner.device))
        learner.streams.load_state_dict(state["streams"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the checkpoint does not fit this run's data settings ({error}): resume with "
            "the env, num_envs, capacity, tried and visited it was saved with"
        ) from error
    data.batches_done = state["batches_done"]
    data.rng.set_state(state["rng"].cpu())
