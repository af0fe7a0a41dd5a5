"""Memory of a run with a world: nothing piles up from cycle to cycle."""

import gc
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import make_trainer
from dreamers import prepared
from lightning.pytorch import Callback

from lit_crl.core import free_ram
from lit_crl.core.checks import ConfigError
from lit_crl.runs.callbacks import EnvStepProgress

#: Dreams, their horizon, and the bytes of an imagined step: two observations of two numbers, action
#: (8), reward, discount, and the world's doubt.
DREAMS, HORIZON, BYTES = 1_000, 10, 2 * 8 + 8 + 4 + 4 + 4


def status(name: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 2**10


class Memory(Callback):
    """Resident memory after the tenth world phase and after the last, and the dreams' bytes."""

    def __init__(self) -> None:
        self.resident: dict[int, float] = {}
        self.kept: set[int] = set()
        self.said: set[int] = set()
        self._phase = 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        dreaming = trainer.datamodule.dreaming
        if dreaming.phases == self._phase:
            return
        self._phase = dreaming.phases
        if dreaming.store is not None:
            self.kept.add(sum(x.nbytes for x in (*dreaming.store, dreaming.dreams.disagreement)))
            self.said.add(dreaming.dreams.bytes)
        if self._phase in (10, 70):
            gc.collect()
            self.resident[self._phase] = status("VmRSS")
        if self._phase == 10:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on


def cycles(memory: Memory) -> float:
    """By how much 60 cycles of dreaming and learning raise the resident memory, in MiB."""
    learner, data, trainer = prepared(
        env_steps=1_320, capacity=500, steps_per_batch=4, updates_per_batch=1,
        dreams={"every": 16, "updates": 1, "dreams": DREAMS, "horizon": HORIZON},
        callbacks=(memory,),
    )  # fmt: skip
    trainer.fit(learner, datamodule=data)
    return memory.resident[70] - memory.resident[10]


def test_what_dreams_take_is_said_at_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    """In megabytes; nothing is said where nobody learns from dreams, or there is no world."""
    sized = {"dreams": 1_600, "horizon": 100}  # 36 bytes each
    for dreams, world, expected in (
        (sized, {}, ["Dreams take 5.8 MB."]),
        (sized | {"share": 0.0}, {}, []),
        (sized, {"loss": "none"}, []),
    ):
        learner, data, _ = prepared(world=world, dreams=dreams, env_steps=200)
        progress = EnvStepProgress()
        trainer = make_trainer(callbacks=[progress], enable_progress_bar=True, limit_val_batches=0)
        trainer.fit(learner, datamodule=data)
        told = [line for line in capsys.readouterr().out.splitlines() if "Dreams take" in line]
        assert told == expected


def test_dreams_that_do_not_fit_are_refused_before_the_first_env_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """4,096 dreams of 100 steps of 36 bytes are 14.7 MB."""
    learner, data, trainer = prepared(dreams={"dreams": 4_096, "horizon": 100})
    free = iter([10**9, 10**7])  # as the replay asks, and as dreams do
    monkeypatch.setattr(free_ram, "free_bytes", lambda device: next(free))
    sentence = (
        r"data\.world\.dreams is 4,096, which takes 14\.7 MB of RAM, but 10\.0 MB are free: give "
        r"at most 2,777$"
    )
    with pytest.raises(ConfigError, match=sentence):
        trainer.fit(learner, datamodule=data)
    assert data.env_steps == 0


def test_the_next_dreams_take_the_place_of_the_last() -> None:
    places: set[int] = set()

    class Places(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if (store := trainer.datamodule.dreaming.store) is not None:
                places.update(field.data_ptr() for field in store)

    learner, data, trainer = prepared(callbacks=(Places(),))
    trainer.fit(learner, datamodule=data)
    assert data.dreaming is not None and data.dreaming.phases > 4 and len(places) == 5


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads /proc")
def test_memory_is_flat_over_sixty_cycles_of_dreams() -> None:
    """Were all dreams kept, it would rise by 21 MiB."""
    memory = Memory()
    assert cycles(memory) < 6
    assert status("VmHWM") - memory.resident[10] < 10
    assert memory.kept == memory.said == {DREAMS * HORIZON * BYTES}
