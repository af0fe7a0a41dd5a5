"""Several seeds at once: a whole run each, whose environments and updates go in one batch.

Every seed has a Trainer, data and a run folder of its own, and a thread that does what it would do
alone. Only where all do the same to tensors of the same shapes they meet, and one works for all:
acting, stepping the environments, and both phases, as one compiled graph on the parameters of all
seeds (``torch.vmap``). So nothing else knows of the others, and a seed's run equals its solo run,
up to rounding.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table
from torch import Tensor

from lit_crl.bars import line_console
from lit_crl.callbacks.interruption import RunStopped, StopOnSignal
from lit_crl.checks import ConfigError
from lit_crl.compiled import CompiledPhase
from lit_crl.compiled_play import CompiledPlay
from lit_crl.envs import BatchedEnv, LevelEnv
from lit_crl.envs.batched import has_pure_step
from lit_crl.meeting import Meeting, MeetingBroken
from lit_crl.phases import Phase, Turns
from lit_crl.rollout import Play, Played
from lit_crl.stopwatch import Stopwatch

#: What a phase is given for one of the seeds: rates and fields; both are empty for one that has
#: nothing to learn from yet.
Given = tuple[Sequence[float], Sequence[Tensor | None]]


class Seat(Callback):
    """A seed's place among those that are trained together; its learner knows it."""

    def __init__(self, number: int, meeting: Meeting, seats: list["Seat"]) -> None:
        """Be the ``number``-th of ``seats``, which grows as they are taken."""
        self.number, self.meeting, self.seats = number, meeting, seats
        self.learner: Any = None
        self.turn = threading.Event()
        #: Whether all are to stop after this batch.
        self.told = False
        seats.append(self)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the first seed alone speak."""
        self.learner = learner = cast(Any, pl_module)
        learner.seat = self
        if self.number and trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the next seed draw its weights, now that Lightning leaves the global stream alone.

        All draw them from that stream, each after seeding it.
        """
        if self.number + 1 < len(self.seats):
            self.seats[self.number + 1].turn.set()
        # The first seed has the main thread, which hears the signals.
        self.stopper = next(c for c in trainer.callbacks if isinstance(c, StopOnSignal))  # type: ignore[attr-defined]

    def phase(self, learner: Any, turns: Turns) -> Phase:
        """A phase that all seeds go through together."""

        def compiled(turns_of_all: list[Turns]) -> list[CompiledPhase]:
            return [CompiledPhase(learner, *turns_of_all)] * len(turns_of_all)

        whole = self.meeting(self.number, turns, compiled)
        if turns.fast is learner.q_network:
            self.students = whole.flat
        return partial(self._update, whole)

    def _update(
        self, whole: CompiledPhase, rates: Sequence[float], fields: Sequence[Tensor | None]
    ) -> dict[str, Tensor]:
        return self.meeting(self.number, (rates, fields), partial(self._update_all, whole))

    def _update_all(self, whole: CompiledPhase, given: list[Given]) -> list[dict[str, Tensor]]:
        for seat in self.seats:
            seat.told = self.stopper.received is not None
        present = [number for number, (rates, _) in enumerate(given) if rates]
        if not present:
            return [{} for _ in given]
        rates, stand_in = given[present[0]]
        stacks = zip(*(fields or stand_in for _, fields in given), strict=True)
        fields = [None if stack[0] is None else torch.stack(stack, dim=1) for stack in stacks]
        absent = [number for number in range(len(given)) if number not in present]
        with whole.without(absent) if absent else nullcontext():
            report = whole(rates, fields)
        return [
            {name: numbers[:, number] for name, numbers in report.items()}
            for number in range(len(given))
        ]

    def play_in(self, env: LevelEnv, clock: Stopwatch) -> Play:
        """Act and step with the others; environments that cannot be batched step by themselves."""
        if not has_pure_step(env):
            return lambda act, obs, epsilon: (action := act(obs, epsilon), env.step(action))

        def ready(envs: list[BatchedEnv]) -> list[CompiledPlay]:
            learners = [seat.learner for seat in self.seats]
            return [CompiledPlay(learners, envs, self.students, clock)] * len(envs)

        play = self.meeting(self.number, env, ready)

        def play_all(given: list[tuple[Tensor, Tensor]]) -> list[Played]:
            obs, epsilon = zip(*given, strict=True)
            return play(obs, epsilon)

        return lambda act, obs, epsilon: self.meeting(self.number, (obs, epsilon), play_all)


def share(config: Any) -> None:
    """Change the settings of a run into those of one of several seeds.

    Raises:
        ConfigError: If what they use exists only once.
    """
    if config.ckpt_path not in (None, "last"):
        raise ConfigError(
            f"seeds is {config.seeds}, but --ckpt_path {config.ckpt_path} is of one of them: "
            "use --ckpt_path last, which continues every seed"
        )
    config.model.compile = True
    if config.name is not None:
        config.name = f"{config.name}-seed{config.seed_everything}"


def fit(runs: Sequence[Any]) -> None:
    """Train the prepared runs of ``CreativeCLI`` at once, then test and report each.

    Raises:
        ConfigError: If each needs several processes.
        Exception: What went wrong in the first one that failed.
    """
    if runs[0].trainer.world_size > 1:
        raise ConfigError(
            f"seeds is {len(runs)}, but the Trainer spreads each over several processes: use "
            "--trainer.devices 1"
        )
    meeting, seats = Meeting(len(runs)), list[Seat]()
    for number, run in enumerate(runs):
        run.trainer.callbacks.insert(0, Seat(number, meeting, seats))
        run.report.console.quiet = True
    failed: list[BaseException] = []
    cpu_threads = torch.get_num_threads()

    def train(run: Any, seat: Seat) -> None:
        torch.set_num_threads(cpu_threads)  # OpenMP counts them for each Python thread
        try:
            seat.turn.wait()
            if not failed:
                run.fit_alone()
        except MeetingBroken:
            pass
        except BaseException as error:
            failed.append(error)
            meeting.break_up()
        if failed:  # then nobody else may wait for a turn
            for other in seats:
                other.turn.set()

    threads = [
        threading.Thread(target=train, args=pair, name=f"seed {pair[0].datamodule.seed}")
        for pair in list(zip(runs, seats, strict=True))[1:]
    ]
    for thread in threads:
        thread.start()
    seats[0].turn.set()
    train(runs[0], seats[0])  # in this thread, which receives the signals
    for thread in threads:
        thread.join()
    for run, seat in zip(runs, seats, strict=True):  # from now on each is alone
        run.trainer.callbacks.remove(seat)
        run.model.seat = None
    if failed:
        if isinstance(failed[0], RunStopped):
            failed[0].go_on = "the same command and --ckpt_path last, which continues every seed"
        raise failed[0]
    for run in runs:
        run.after_fit()
    report(runs)


def report(runs: Sequence[Any]) -> None:
    """Print what each seed reached."""
    table = Table(title=f"{len(runs)} seeds at once", title_justify="left")
    columns = {
        "target_return_mean": ("mean return", "{:.2f}"),
        "target_success_rate": ("success", "{:.1%}"),
        "heldout_success_rate": ("held-out", "{:.1%}"),
    }
    found = [run.report.summary for run in runs]
    shown = {key: how for key, how in columns.items() if found[0].get(key) is not None}
    table.add_column("seed", justify="right")
    for label, _ in shown.values():
        table.add_column(label, justify="right")
    table.add_column("folder")
    for run, summary in zip(runs, found, strict=True):
        cells = [form.format(summary[key]) for key, (_, form) in shown.items()]
        table.add_row(str(summary["seed"]), *cells, str(run.run_folder))
    console = line_console()
    console.print(table)
    console.print(f"{found[0]['wall_seconds']:.0f} seconds of training for all of them.")
