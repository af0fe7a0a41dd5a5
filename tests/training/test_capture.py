"""What is done around the recording of a CUDA graph, with fakes where there is no CUDA.

What a device does of it is tested in ``test_gpu``.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from lit_crl.training.graphs import capture
from lit_crl.training.graphs.capture import Rows, capture_on


class FakeGraph:
    """Knows which generators it was told of."""

    told: list[Generator]

    def __init__(self) -> None:
        FakeGraph.told = []

    def register_generator_state(self, generator: Generator) -> None:
        self.told.append(generator)

    def replay(self) -> None:
        """Nothing was recorded."""


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which device is used, and what is done to free memory; what is recorded is done."""
    notes: list[str] = []

    def use(device: torch.device) -> Any:
        notes.append(str(device))
        return nullcontext()

    def note(name: str, *_: Any) -> None:
        notes.append(name)

    fakes: dict[str, Any] = {
        "device": use,
        "current_device": lambda: 1,
        "CUDAGraph": FakeGraph,
        "graph_pool_handle": lambda: (0, 1),
        "default_generators": (Generator(), Generator()),
        "graph": lambda graph, pool: nullcontext(),
        "empty_cache": partial(note, "emptied"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, partial(note, name), raising=False)
    monkeypatch.setattr(capture, "_warm_up", lambda work: work())
    monkeypatch.setattr(capture, "_no_waiting", nullcontext)
    monkeypatch.setattr(capture, "_renew", lambda generator, state: generator.set_state(state))
    return notes


class Work:
    """Draws a number and adds it up; fails from one of its calls on."""

    def __init__(self, fails_at: int | None) -> None:
        self.rng, self.total = Generator().manual_seed(3), torch.zeros(2)
        self.table, self.calls, self.fails_at = torch.zeros(3, 2), 0, fails_at

    def __call__(self) -> Tensor:
        self.calls += 1
        drawn = torch.rand(2, generator=self.rng)
        self.total += drawn
        self.table[1] += drawn
        if self.fails_at is not None and self.calls >= self.fails_at:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        return drawn

    def record(self) -> Callable[[], Tensor]:
        record = capture_on(torch.device("cuda", 1))
        assert record is not None
        held = [self.total, Rows(self.table, torch.tensor([1]))]
        return record(self, held, [self.rng], "tests")


def test_on_a_cpu_there_is_nothing_to_record_with() -> None:
    assert capture_on(torch.device("cpu")) is None


def test_recording_uses_the_device_of_the_work_and_has_no_lasting_effect(noted: list[str]) -> None:
    """But for what the fake does while it records, which is the first draw once more."""
    work = Work(fails_at=None)
    launch = work.record()
    assert set(noted) == {"cuda:1"} and FakeGraph.told == [work.rng]
    first = torch.rand(2, generator=Generator().manual_seed(3))
    assert work.calls == 3 and torch.equal(launch(), first)
    assert torch.equal(work.total, first) and torch.equal(work.table[1], first)


@pytest.mark.parametrize("fails_at", [2, 3], ids=["found before", "found while recording"])
def test_what_cannot_be_recorded_is_done_one_operation_at_a_time(
    fails_at: int, noted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    work = Work(fails_at)
    before = work.rng.get_state()
    launch = work.record()
    assert capsys.readouterr().out == (
        "The tests run one operation at a time, because they make no CUDA graph (operation not "
        "permitted).\n"
    )
    assert launch is work and torch.equal(work.rng.get_state(), before)
    freed = ["_cuda_endAllocateToPool", "_cuda_releasePool", "emptied"]
    assert [note for note in noted if "cuda:" not in note] == (freed if fails_at == 3 else [])


def test_a_mistake_in_the_work_itself_is_no_reason_to_go_on(noted: list[str]) -> None:
    """It would fail one operation at a time as well: nobody reads a sentence in its place."""
    with pytest.raises(RuntimeError, match="not permitted"):
        Work(fails_at=1).record()
