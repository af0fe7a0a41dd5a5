"""Going on with another number of processes than a checkpoint was saved by.

What process r of R had collected goes to process r mod N of the N new ones: transitions, visited
levels and counts of several are joined. Where there are more processes than before, process r
starts from a copy of what r mod R had, with counts of 0. Running episodes are cut off as by a
time limit, and random streams start anew. Outcomes are the same everywhere anyway.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from lit_crl.core.seeding import stream_seed
from lit_crl.core.tensor_files import companions, read_checkpoint
from lit_crl.curriculum.proposals import ProposalCounts
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.runs.checkpoints.experience import fitting
from lit_crl.training.datamodule import ReplayDataModule


def load_resharded(data: ReplayDataModule, checkpoint: Path, saved: dict[str, Any]) -> None:
    """Take over this process's share of what the files beside ``checkpoint`` hold.

    Raises:
        ConfigError: If they come from a run with other sizes or another environment.
    """
    files = list(companions(checkpoint, saved))
    mine = files[data.rank :: data.world_size]
    is_copy = not mine
    with fitting():
        for path in mine or [files[data.rank % len(files)]]:
            state = read_checkpoint(path)
            # Files are read to the CPU; the replay is copied row by row.
            state["archive"] = move_data_to_device(state["archive"], data.env.device)
            _join(data, state, is_copy)
    env_steps = saved["lit_crl"]["env_steps"]
    data.rollout.env_steps = env_steps // data.world_size
    for purpose, rng in (("replay", data.rng), ("curriculum", getattr(data.curriculum, "rng", 0))):
        if isinstance(rng, torch.Generator):
            rng.manual_seed(stream_seed(data.seed, f"{purpose} from {env_steps}", data.rank))


def _join(data: ReplayDataModule, state: dict[str, Any], is_copy: bool) -> None:
    data.batches_done = state["batches_done"]
    _join_replay(data.replay, state)
    log = data.rollout.log
    if not is_copy:
        for source, episodes in state["rollout"]["episodes"].items():
            log.episodes[source] += episodes
            log.solved[source] += state["rollout"]["solved"][source]
        log.returns.extend(state["rollout"]["returns"])
        log.successes.extend(state["rollout"]["successes"])
    if data.archive is None or data.curriculum is None:
        return
    rings, counts = state["archive"]["rings"], data.curriculum.counts
    data.archive.load_ring("tried", rings)
    visited = data.archive.visited
    held = rings["visited.written"]  # of format 1 also rows that hold nothing
    visited.add(rings["visited.levels"][:held], rings["visited.values"][:held])
    if not is_copy:
        for levels, success in state["archive"]["new"]:
            data.archive.add_outcomes(levels, success)
        data.curriculum.counts = ProposalCounts(
            **{name: n + vars(counts)[name] for name, n in state["curriculum"]["counts"].items()}
        )


def _join_replay(replay: ReplayBuffer, state: dict[str, Any]) -> None:
    """Write another buffer's rows after those of ``replay``, column by column."""
    theirs = replay.empty_copy()
    theirs.load_state_dict(state["replay"])
    obs, done = (state["rollout"][name].to(replay.obs.device) for name in ("obs", "done"))
    theirs.add_final(obs, ~done)
    replay.append(theirs)
