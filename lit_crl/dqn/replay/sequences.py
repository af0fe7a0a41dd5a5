"""Sequences of the replay, from which a network with memory learns (``dqn/memory.py``)."""

import torch
from torch import Tensor

from lit_crl.dqn.equations import n_step
from lit_crl.dqn.memory import Sequences, begins_after
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.dqn.replay.sampling import Shape, draw_stretches


def sample_sequences(
    replay: ReplayBuffer, shape: Shape, rng: torch.Generator, burn_in: int, length: int
) -> Sequences:
    """Sequences that are drawn uniformly, each field ``[*shape, ...]``.

    A sequence lies within the rows that its column has written and that have lost nothing: it
    never runs from the newest row into the oldest one. So the first ``burn_in`` rows and the
    last n rows of a column do not count.

    Args:
        replay: Holds the rows, with what the policy remembered before each.
        shape: How many sequences.
        rng: Draws them.
        burn_in: b, rows before those that count.
        length: L, rows that count.

    Raises:
        RuntimeError: If no column has so many rows yet.
    """
    rows = burn_in + length + replay.n_steps
    # The oldest rows of a full ring have lost frames of their stacks.
    whole = replay.cursor.clamp(max=replay.length - (replay.frame_stack - 1))
    column, age = draw_stretches(whole, rows, torch.Size(shape).numel(), rng)
    newest = replay.cursor.index_select(0, column)
    first = (newest - age) % replay.length * replay.num_envs + column
    found = sequences_from(replay, first, burn_in, length)
    return Sequences(*(field.reshape(*shape, *field.shape[1:]) for field in found))


def sequences_from(replay: ReplayBuffer, first: Tensor, burn_in: int, length: int) -> Sequences:
    """The sequences from the flat rows ``first [B]`` on; see ``sample_sequences``."""
    steps = torch.arange(burn_in + length + replay.n_steps, device=first.device)
    row = replay.shift(first[:, None], steps)
    window = row[:, burn_in:].unfold(1, replay.n_steps + 1, 1)
    reward, discount, boundary = (
        replay.take(one, window[..., :-1])
        for one in (replay.reward, replay.discount, replay.boundary)
    )
    folded, weight, span = n_step(reward, discount, boundary)
    obs, start = replay.observations(row), window[..., 0]
    return Sequences(
        memory=replay.take(replay.memory, first),
        burn_in=obs[:, :burn_in],
        obs=obs[:, burn_in:],
        begins=begins_after(replay.take(replay.boundary, row)),
        action=replay.take(replay.action, start).long(),
        reward=folded,
        discount=weight,
        after=steps[:length] + span,
        counts=~boundary[..., 0],
    )
