"""The task that a log is about: spaces from the log, or from an environment; never from values."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.dqn.logs.log import Array, Log, refused
from lit_crl.envs.bits import with_bits
from lit_crl.envs.images import ImageLayout, with_layout
from lit_crl.envs.interface import LevelEnv


class LoggedTask:
    """The spaces of a task that cannot be played: there is a log of it, and no environment.

    It has the attributes of a ``LevelEnv`` without levels, and refuses to be reset or stepped.
    """

    level_space: Box | None = None
    level_names: tuple[str, ...] = ()
    level_plane: tuple[int, int] = (0, 1)
    gymnasium_id: str | None = None
    tracks_visited: bool = False
    resumable: bool = True
    has_success: bool = False
    max_episode_steps: int | None = None

    def __init__(self, log: Log, device: torch.device | str = "cpu") -> None:
        """Take the spaces from what ``log`` declares.

        Raises:
            ConfigError: If it does not declare them.
        """
        declared, self.name = log.declared, "the log's task"
        missing = ["num_actions"] if declared.num_actions is None else []
        missing += ["obs_low and obs_high"] if declared.bounds is None else []
        if declared.num_actions is None or declared.bounds is None:
            raise refused(
                log.key,
                f"it does not say {' and '.join(missing)}, and values do not tell",
                "add them to the file, or name the environment with --data.env",
            )
        self.num_envs, self.device = 1, torch.device(device)
        self.first_action = declared.first_action
        self.image_layout: ImageLayout | None = declared.image_layout
        low, high = (_bound(log, bound) for bound in declared.bounds)
        if not (low <= high).all():
            raise refused(log.key, "obs_low is above obs_high, or NaN", "correct the bounds")
        dtype: Any = np.uint8 if log.obs_dtype == np.uint8 else np.float32
        space = with_bits(Box(low.astype(dtype), high.astype(dtype), dtype=dtype), log.obs_dtype)
        self.single_observation_space = with_layout(space, declared.image_layout)
        self.single_action_space: Discrete[Any] = Discrete(declared.num_actions)

    def heldout(self) -> dict[str, Tensor]:
        """Return no held-out levels."""
        return {}

    def close(self) -> None:
        """Nothing is open."""

    def _unplayable(self) -> ConfigError:
        return ConfigError(
            "data.env is missing, and a log cannot be played: give the environment with --data.env"
        )

    def reset(self, **_: Any) -> tuple[Tensor, dict[str, Any]]:
        """It cannot be reset.

        Raises:
            ConfigError: Always.
        """
        raise self._unplayable()

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """It cannot be stepped.

        Raises:
            ConfigError: Always.
        """
        raise self._unplayable()

    def current_observations(self) -> Tensor:
        """There are none.

        Raises:
            ConfigError: Always.
        """
        raise self._unplayable()

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """It has no levels.

        Raises:
            ConfigError: Always.
        """
        raise self._unplayable()

    reference_levels = target_levels

    def valid(self, levels: Tensor) -> Tensor:
        """It has no levels.

        Raises:
            ConfigError: Always.
        """
        raise self._unplayable()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing changes."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing changes."""


def _bound(log: Log, bound: Array) -> Array:
    """A bound as an array of the shape of an observation."""
    if bound.shape not in ((), log.obs_shape) or bound.dtype.kind not in "biuf":
        raise refused(
            log.key,
            f"a bound of observations is {bound.dtype} of shape {bound.shape}",
            f"give numbers of shape {log.obs_shape}, as observations have, or one number for all",
        )
    return np.broadcast_to(bound, log.obs_shape)


def check_agreement(log: Log, env: LevelEnv) -> None:
    """The environment that evaluates is of the task that the log is about.

    Raises:
        ConfigError: If their spaces differ.
    """
    space, actions = env.single_observation_space, int(env.single_action_space.n)
    remedy = "give the environment that the log was recorded in, as data.env"
    if log.obs_shape != space.shape:
        raise refused(
            log.key, f"observations have shape {log.obs_shape}, but data.env {space.shape}", remedy
        )
    if (log.obs_dtype == np.uint8) != (space.dtype == np.uint8):
        raise refused(
            log.key,
            f"observations are {log.obs_dtype}, but {space.dtype} in data.env",
            "give bytes where it gives bytes, and numbers where it gives numbers",
        )
    if log.declared.num_actions not in (None, actions):
        raise refused(
            log.key,
            f"num_actions is {log.declared.num_actions}, but data.env has {actions} actions",
            remedy,
        )
    for name, bound, theirs in zip(
        ("obs_low", "obs_high"), log.declared.bounds or (), (space.low, space.high), strict=False
    ):
        if not np.allclose(_bound(log, bound).astype(np.float64), theirs.astype(np.float64)):
            raise refused(log.key, f"{name} differs from that of data.env", remedy)
