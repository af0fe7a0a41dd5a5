"""A replay that holds a whole log: each episode's observations once, in one column."""

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor

from lit_crl.dqn.logs.log import Array, Log
from lit_crl.dqn.logs.sound import ObservationChecks, check_columns
from lit_crl.dqn.replay.buffer import ReplayBuffer


def rows_of_steps(ended: Array) -> Array:
    """The row of each step ``[T]``, where each episode has a row more for its last observation.

    >>> rows_of_steps(np.array([False, True, True, False]))
    array([0, 1, 3, 5])
    """
    rows: Array = np.arange(len(ended)) + np.cumsum(ended) - ended
    return rows


def replay_of(
    log: Log,
    space: Box,
    num_actions: int,
    *,
    gamma: float,
    n_steps: int = 1,
    device: torch.device | str = "cpu",
) -> ReplayBuffer:
    """Read a log into a replay that has just the room, and check it on the way.

    Args:
        log: The steps.
        space: Space of one observation.
        num_actions: How many actions there are.
        gamma: Discount factor of one step.
        n_steps: Steps that a sampled transition folds.
        device: Where the replay lives.

    Raises:
        ConfigError: If the log is not sound; says in which row, and what to do.
    """
    columns, ended = log.columns, log.columns.ended
    check_columns(log.key, columns, num_actions)
    rows = rows_of_steps(ended)
    written = int(rows[-1]) + 2
    capacity = max(written, n_steps + 2)
    replay = ReplayBuffer(
        capacity, 1, space, n_steps=n_steps, num_actions=num_actions, device=device
    )

    def put(field: Tensor, row: Array, values: Array) -> None:
        # Numbers are converted as NumPy does: torch has no unsigned ones beyond bytes.
        given = torch.from_numpy(np.ascontiguousarray(values)).to(device)
        field.index_copy_(0, torch.from_numpy(row).to(device), given.to(field.dtype))

    put(replay.action, rows, columns.action.astype(np.int64))
    put(replay.reward, rows, columns.reward.astype(np.float32))
    put(replay.discount, rows, np.where(columns.terminated, 0.0, gamma).astype(np.float32))
    final = rows[ended] + 1
    put(replay.boundary, final, np.ones(len(final), bool))
    put(replay.startable, rows, np.ones(len(rows), bool))
    kept = np.uint8 if replay.obs.dtype == torch.uint8 else np.float32
    checks, seen = ObservationChecks(log.key, ended, space.low, space.high), 0
    for obs, next_obs in log.observations():
        checks.see(obs, next_obs)
        part = slice(seen, seen + len(obs))
        put(replay.obs, rows[part], obs.astype(kept, copy=False))
        last = ended[part]
        put(replay.obs, rows[part][last] + 1, next_obs[last].astype(kept, copy=False))
        seen += len(obs)
    checks.conclude()
    replay.cursor.fill_(written)
    return replay


def first_observations(replay: ReplayBuffer, ended: Array) -> Tensor:
    """The observations with which episodes begin, ``[n, ...]``."""
    begins = rows_of_steps(ended)[np.append(True, ended[:-1])]
    return replay.observations(torch.from_numpy(begins).to(replay.obs.device))
