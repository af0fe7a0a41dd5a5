"""Collected experience that changes hands between processes, against plain unions."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_crl.core.checks import ConfigError
from lit_crl.core.tensor_files import companions, read_checkpoint
from lit_crl.curriculum.archive import Archive
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.runs.callbacks import RunCheckpoint
from lit_crl.runs.checkpoints.resharding import load_resharded

Make = Callable[..., Any]
#: Room for what two processes collected.
ROOMY = {"capacity": 8_000, "visited": 4_096, "tried": 1_024}


def rows(*fields: torch.Tensor) -> Counter[tuple[float, ...]]:
    return Counter(map(tuple, torch.cat([f.flatten(1) for f in fields], dim=1).tolist()))


def transitions(replay: ReplayBuffer) -> Counter[tuple[float, ...]]:
    """All that could be sampled."""
    found = replay.gather(replay.startable.nonzero().squeeze(1))
    return rows(*(f.float() if f.ndim > 1 else f.float()[:, None] for f in found))


@pytest.fixture(scope="module")
def two(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A checkpoint of two processes, and what they had collected."""
    folder = tmp_path_factory.mktemp("two")
    runs = []
    for rank in range(2):
        run = make_run(callbacks=[RunCheckpoint(folder / str(rank))], seed=rank, **ROOMY).fit()
        own = folder / str(rank) / "last.ckpt"
        saved = read_checkpoint(own)
        if rank == 0:
            saved["lit_crl"]["world_size"] = 2
            torch.save(saved, folder / "last.ckpt")
            names = list(companions(folder / "last.ckpt", saved))
        else:
            saved["lit_crl"]["world_size"] = 1
        (collected,) = companions(own, {"lit_crl": {**saved["lit_crl"], "world_size": 1}})
        names[rank].write_bytes(collected.read_bytes())
        runs.append(run)
    return folder / "last.ckpt", runs


def taken_over(make_run: Make, checkpoint: Path, rank: int, world_size: int, **data: Any) -> Any:
    run = make_run(**{**ROOMY, **data})
    run.data.setup("fit")
    run.data.rank, run.data.world_size = rank, world_size
    load_resharded(run.data, checkpoint, read_checkpoint(checkpoint))
    return run.data


def test_one_process_takes_over_what_two_had(make_run: Make, two: tuple[Path, list[Any]]) -> None:
    checkpoint, runs = two
    data = taken_over(make_run, checkpoint, 0, 1)
    saved = [run.data for run in runs]
    everything = sum((transitions(one.replay) for one in saved), Counter())
    found = transitions(data.replay)
    # The steps of the last n rows of a column become samplable once more rows follow them.
    assert not everything - found
    steps = sum(one.rollout.env_steps for one in saved)
    assert steps - 3 * 8 <= found.total() <= steps
    visited = rows(data.archive.visited.levels[: len(data.archive.visited)])
    assert visited == sum(
        (rows(one.archive.visited.levels[: len(one.archive.visited)]) for one in saved), Counter()
    )
    # Outcomes are exchanged: two real processes have the same ones.
    assert torch.equal(data.archive.tried.levels, saved[1].archive.tried.levels)
    assert data.rollout.env_steps == saved[0].rollout.env_steps  # the checkpoint says so
    for source in data.rollout.log.episodes:
        episodes = sum(one.rollout.log.episodes[source] for one in saved)
        assert data.rollout.log.episodes[source] == episodes
    assert data.curriculum.counts.played == sum(one.curriculum.counts.played for one in saved)


def test_additional_processes_start_from_copies(
    make_run: Make, two: tuple[Path, list[Any]]
) -> None:
    checkpoint, runs = two
    datas = [taken_over(make_run, checkpoint, rank, 4) for rank in range(4)]
    for rank, data in enumerate(datas):
        source = runs[rank % 2].data
        assert not transitions(source.replay) - transitions(data.replay)
        assert data.rollout.env_steps == runs[0].data.rollout.env_steps // 4
        counted = sum(data.rollout.log.episodes.values())
        assert counted == (sum(source.rollout.log.episodes.values()) if rank < 2 else 0)
    drawn = {float(torch.rand(1, generator=data.rng)) for data in datas}
    assert len(drawn) == 4


def test_a_ring_that_is_too_small_keeps_the_newest(two: tuple[Path, list[Any]]) -> None:
    space = two[1][0].data.env.single_observation_space
    small, large = (ReplayBuffer(160, 8, space, n_steps=3) for _ in range(2))
    obs = torch.arange(8.0)[:, None].expand(8, 2)
    for step in range(15):
        for replay, first in ((small, 100), (large, 200)):
            replay.add(obs + first + step, torch.zeros(8), torch.zeros(8), torch.ones(8))
    for replay in (small, large):
        replay.add_final(obs, torch.ones(8, dtype=torch.bool))
    small.append(large)
    # 20 rows a column: the 16 of the second, after the last 4 of the first.
    kept = small.obs.view(20, 8, 2)[:, 0, 0].sort().values
    assert kept.tolist() == [0, 0, 112, 113, 114, *range(200, 215)]


def test_other_sizes_are_refused(make_run: Make, two: tuple[Path, list[Any]]) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        taken_over(make_run, two[0], 0, 1, num_envs=4)


def test_levels_from_files_go_to_the_device_of_the_archive(
    make_run: Make, two: tuple[Path, list[Any]]
) -> None:
    """The device is a make-believe one; files are read to the CPU."""
    run = make_run(**ROOMY)
    run.data.setup("fit")
    run.data.archive = Archive(2, tried=1_024, visited=4_096, device="meta")
    run.data.env = SimpleNamespace(device=torch.device("meta"))
    given: list[torch.Tensor] = []
    run.data.archive.visited.add = lambda *tensors: given.extend(tensors)
    load_resharded(run.data, two[0], read_checkpoint(two[0]))
    assert len(given) == 4 and all(tensor.is_meta for tensor in given)
