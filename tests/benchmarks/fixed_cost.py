"""What a run costs beside its training: imports, building, validation, saving, test, figures.

Run it alone on one core: ``OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/fixed_cost.py``.
It counts this process's own seconds on the processor, which other programs hardly change.
"""

import argparse
import contextlib
import gc
import os
import tempfile
import time
from collections import Counter
from typing import Any

started = time.process_time()  # Python itself has started
gc.disable()  # as the command line does while it imports

from lightning.pytorch import Callback  # noqa: E402

import lit_crl  # noqa: E402
from lit_crl.runs.cli import entry  # noqa: E402, F401 - what the command line imports

imported = time.process_time()
gc.enable()


class Clock(Callback):
    """Counts seconds from each moment of a run to the next, by what happens between them."""

    def __init__(self) -> None:
        """The run begins."""
        self.seconds: Counter[str] = Counter()
        self.validations = 0
        self.last = time.process_time()

    def count(self, part: str) -> None:
        """What happened since the last moment was ``part``."""
        now = time.process_time()
        self.seconds[part] += now - self.last
        self.last = now

    def on_train_start(self, *_: Any) -> None:
        """The first line is printed."""
        self.count("reading the settings, building")

    def on_validation_start(self, *_: Any) -> None:
        """Training pauses."""
        self.count("training")
        self.validations += 1

    def on_validation_end(self, *_: Any) -> None:
        """Training goes on."""
        self.count("validation, each")

    def on_train_end(self, *_: Any) -> None:
        """Training has ended."""
        self.count("training")

    def on_test_start(self, *_: Any) -> None:
        """The test follows the last checkpoint."""
        self.count("checkpoint at the end")

    def on_test_end(self, *_: Any) -> None:
        """Figures, film and report follow the test."""
        self.count("test")


def measured(experiment: str, env_steps: int) -> dict[str, float]:
    """Seconds of each part of one short run of an experiment, with its own validations."""
    clock = Clock()
    collect = {"env_steps": env_steps}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            lit_crl.train(experiment, data={"collect": collect}, callbacks=[clock])
        clock.count("figures, film and report")
    clock.seconds["validation, each"] /= max(clock.validations, 1)
    parts = dict(clock.seconds)
    del parts["training"]
    return {"starting Python": started, "imports": imported - started, **parts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiment", default="mountain_car")
    parser.add_argument("--env-steps", type=int, default=400)
    given = parser.parse_args()
    print("| part | seconds |\n| --- | --: |")
    for part, seconds in measured(given.experiment, given.env_steps).items():
        print(f"| {part} | {seconds:.2f} |")
