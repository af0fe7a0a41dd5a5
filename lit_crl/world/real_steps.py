"""Real steps for a world: which step each member learns from, and which steps none may see.

Both follow from a hash of a step's *serial number*, its place in the order in which its environment
wrote rows. So a step belongs to the same members for as long as the replay keeps it, nothing has to
be stored, and a resumed run finds everything as it was.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_crl.core.checks import RunError
from lit_crl.core.distributed import gather_rows
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.world.batch import RealSteps
from lit_crl.world.equations import end_log_odds

#: Salt of the hash that holds episodes back; members have the salts from 1 on.
HELD_BACK = 0
#: Rewards further than this from the median reward are rare.
REWARD_TOLERANCE = 1e-3

#: Constants of SplitMix64 as signed 64-bit numbers, and the numbers between two salts.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
MIX_2 = 0x94D049BB133111EB - 2**64
SALT_STRIDE = 2**48


class Split(NamedTuple):
    """Rows of a replay at which a real step starts."""

    #: Rows that each member learns from, bool ``[E, rows]``.
    members: Tensor
    #: Rows of episodes that no member learns from, bool ``[rows]``.
    held_back: Tensor


class Drawn(NamedTuple):
    """What K updates of a world learn from."""

    rows: RealSteps
    rare: RealSteps
    end_log_odds: Tensor


def uniform_hash(number: Tensor, salt: int) -> Tensor:
    """A number in [0, 1) for each int64 ``number [...]``, as if drawn: always the same one.

    The mixer of SplitMix64, Steele et al. 2014, figure 15, in int64 that wraps around.

    >>> uniform_hash(torch.arange(4), salt=1)
    tensor([0.8146, 0.1049, 0.8635, 0.7063], dtype=torch.float64)
    """
    # Numbers of one salt follow each other; salts are far apart.
    mixed = (number + salt * SALT_STRIDE + 1) * GOLDEN_GAMMA
    for shift, factor in ((30, MIX_1), (27, MIX_2)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    mixed = mixed ^ _shifted(mixed, 31)
    return _shifted(mixed, 11).double() * 2.0**-53


def _shifted(bits: Tensor, shift: int) -> Tensor:
    """Logical shift to the right: ``>>`` would fill up with the sign."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)


def numbered(boundary: Tensor, cursor: Tensor) -> tuple[Tensor, Tensor]:
    """Serial numbers of the rows in rings, and of the final row of each row's episode.

    Args:
        boundary: Rows that hold an episode's final observation, bool ``[length, N]``.
        cursor: How many rows each column has ever written, ``[N]``.

    Returns:
        The serial number of each row, and of the final row of its episode, ``[length, N]`` int64.
        The first is −1 for rows that were never written, the second for rows of running episodes.

    >>> boundary = torch.tensor([[False], [True], [False]])
    >>> [numbers.flatten().tolist() for numbers in numbered(boundary, torch.tensor([4]))]
    [[3, 1, 2], [-1, 1, -1]]
    """
    length = len(boundary)
    age = torch.arange(length, device=boundary.device)[:, None]
    held = cursor.clamp(max=length)
    # Positions from the oldest row to the newest; of a ring that is not full, the empty ones last.
    position = torch.where(cursor > length, cursor + age, age) % length
    serial = torch.where(age < held, cursor - held + age, -1)
    never = torch.iinfo(torch.int64).max
    is_final = boundary.gather(0, position) & (serial >= 0)
    final = torch.where(is_final, serial, never).flip(0).cummin(0).values.flip(0)
    final = torch.where((final == never) | (serial < 0), -1, final)
    empty = torch.empty_like(serial)
    return empty.scatter(0, position, serial), empty.scatter(0, position, final)


def split(replay: ReplayBuffer, members: int, member_share: float, held_back_share: float) -> Split:
    """Which rows each member learns from, and which belong to episodes that are held back.

    Whole episodes are held back, because neighbouring steps are much alike. An episode that is
    still running is not, and so its steps can only move from the members to those held back.

    Args:
        replay: Where the real steps are.
        members: Number E of members.
        member_share: Share of the other steps that each member learns from.
        held_back_share: Share of the episodes that are held back.
    """
    serial, final = numbered(replay.boundary.view(-1, replay.num_envs), replay.cursor)
    column = torch.arange(replay.num_envs, device=serial.device)
    # Numbers of different columns must differ, or all environments would share their hashes.
    of_step, of_episode = ((x * replay.num_envs + column).flatten() for x in (serial, final))
    startable = replay.startable
    is_held = (final.flatten() >= 0) & (uniform_hash(of_episode, HELD_BACK) < held_back_share)
    learns = torch.stack(
        [uniform_hash(of_step, 1 + member) < member_share for member in range(members)]
    )
    return Split(learns & startable & ~is_held, startable & is_held)


def unseen(replay: ReplayBuffer, held_back_share: float, cursor: Tensor) -> Tensor:
    """Rows, bool ``[rows]``, of steps that no member of a world has learnt from.

    Those are the steps of episodes that are held back and, since the first of these may end late,
    the steps that came after the world had last learnt.

    Args:
        replay: Where the real steps are.
        held_back_share: Share of the episodes that are held back.
        cursor: How many rows each column had written when the world last learnt, ``[N]``.
    """
    return split(replay, 1, 1.0, held_back_share).held_back | came_after(replay, cursor)


def came_after(replay: ReplayBuffer, cursor: Tensor) -> Tensor:
    """Rows, bool ``[rows]``, of steps that could not be drawn when ``cursor [N]`` was this."""
    serial, _ = numbered(replay.boundary.view(-1, replay.num_envs), replay.cursor)
    # The newest n rows had to wait for those below them.
    return (serial >= cursor - replay.n_steps).flatten() & replay.startable


def steps_at(replay: ReplayBuffer, row: Tensor) -> RealSteps:
    """The single steps that start at flat rows ``row [...]`` of a replay, whatever its n.

    The discount of a step is 0 at an end alone, so γ must be above 0. At a cut the next observation
    is the episode's own last one. Generators and discriminators learn no end: what is observed when
    a task has ended leads nowhere.
    """
    terminated = replay.take(replay.discount, row) == 0
    return RealSteps(
        replay.observations(row),
        replay.take(replay.action, row).long(),
        replay.take(replay.reward, row),
        terminated,
        replay.observations(replay.shift(row, 1)),
        ~terminated,
    )


def of_all_processes(steps: RealSteps) -> RealSteps:
    """The rows of ``steps [n, ...]`` of all processes, in order of rank; n may differ."""
    return RealSteps(*(gather_rows(field) for field in steps))


def is_rare(replay: ReplayBuffer, startable: Tensor) -> Tensor:
    """Rows ``[rows]`` of ends, and of rewards unlike the median reward of ``startable`` rows."""
    median = replay.reward[startable].median()
    unusual = (replay.reward - median).abs() > REWARD_TOLERANCE
    return startable & ((replay.discount == 0) | unusual)


def draw(
    replay: ReplayBuffer,
    learns: Tensor,
    updates: int,
    size: int,
    extra: int,
    rngs: Sequence[torch.Generator],
) -> Drawn:
    """Rows for ``updates`` K of a world, drawn for each member with a random stream of its own.

    Args:
        replay: Where the real steps are.
        learns: Rows that each member learns from, bool ``[E, rows]``.
        updates: Number K of minibatches.
        size: Rows of a minibatch, drawn as they come.
        extra: Rows beside them for the heads, drawn from ends and rare rewards.
        rngs: A stream for each member.

    Returns:
        Steps ``[K, E, size, ...]`` and ``[K, E, extra, ...]``, and the log odds that the latter add
        to ends, ``[K, E]``. A member without rare rows gets none of them counted as ends.

    Raises:
        RunError: If a member has nothing to learn from.
    """
    rare = is_rare(replay, learns.any(0))
    ended = replay.discount == 0
    rows, extras, log_odds = [], [], []
    for mask, rng in zip(learns, rngs, strict=True):
        pool = mask.nonzero().squeeze(1)
        if not len(pool):
            raise RunError("a member of the world has no real step to learn from: collect more")
        special = (mask & rare).nonzero().squeeze(1)
        # Without rare rows usual ones stand in: the end head passes over them.
        extra_pool = special if len(special) else pool
        rows.append(_drawn(pool, (updates, size), rng))
        extras.append(_drawn(extra_pool, (updates, extra), rng))
        share, extra_share = (ended[one].double().mean() for one in (pool, extra_pool))
        log_odds.append(end_log_odds(size, extra, share, extra_share).float())
    return Drawn(
        steps_at(replay, torch.stack(rows, 1)),
        steps_at(replay, torch.stack(extras, 1)),
        torch.stack(log_odds).expand(updates, -1),
    )


def _drawn(pool: Tensor, shape: tuple[int, int], rng: torch.Generator) -> Tensor:
    return pool[torch.randint(len(pool), shape, generator=rng, device=pool.device)]
