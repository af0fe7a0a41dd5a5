"""The progress of a run: one bar over env steps, and a line for each validation."""

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from lit_crl.core.free_ram import in_units, ram_of
from lit_crl.envs import GymnasiumEnv, LevelEnv
from lit_crl.envs.images import in_words, space_of
from lit_crl.runs.bars import Bar, line_console
from lit_crl.runs.parts import data_of, learner_of

#: Numbers in the line of a validation, in this order; those that a task lacks are left out.
FORMS = {
    "target_return_mean": "return {:8.2f}",
    "target_success_rate": "success {:4.0%}",
    "heldout_success_rate": "held-out {:4.0%}",
    "levels_valid_rate": "generated: valid {:4.0%}",
    "levels_frontier_rate": "frontier {:4.0%}",
}


def about_game(env: LevelEnv, budget: int) -> list[str]:
    """What is played and what its env steps are, in sentences; none for a built-in environment.

    Args:
        env: The training environments.
        budget: Env steps of the run.
    """
    if not isinstance(env, GymnasiumEnv):
        return []
    sentences = [env.game_in_words]
    frames = env.game.frames(budget)
    if frames not in (None, budget):
        sentences.append(f"Env steps are agent steps: {budget:,} of them are {frames:,} frames.")
    if env.visited is not None:
        sentences.append(env.visited.in_words)
    if env.why_not_resumable:
        sentences.append(
            f"If the run is resumed, new episodes start, because {env.why_not_resumable}."
        )
    return sentences


class EnvStepProgress(ProgressBar):
    """Plain lines and, in a terminal or notebook, a bar with return, success, ε and steps/s."""

    #: Seconds between two updates of the bar.
    REFRESH = 0.5

    def __init__(self) -> None:
        """Write to standard output."""
        super().__init__()
        self.console = line_console()
        self._bar: Bar | None = None
        self._enabled = True
        self._shown = 0.0
        self._mark = (0.0, 0)

    def disable(self) -> None:
        """Stay silent; Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Announce the run, and start the bar."""
        if not self._enabled:
            return
        data = data_of(trainer)
        trained = ["GAN"] if data.trains_gan else []
        trained += ["world GAN"] if data.dreaming is not None else []
        gan = " and ".join(["DQN", *trained]) if trained else "DQN alone"
        env = getattr(data.env, "name", type(data.env).__name__)
        unit = data.schedule.unit
        devices = "" if trainer.world_size == 1 else f"{trainer.world_size} × "
        source = f"{data.env_steps:,} logged transitions"
        if data.transitions is None:
            copies = data.num_envs * data.world_size
            source = f"{copies} environments, levels from arm '{data.arm}'"
        self.console.print(
            f"Training {gan} on {env}: {data.schedule.budget:,} {unit}, {source}, "
            f"seed {data.seed}, on {devices}{trainer.strategy.root_device.type}."
        )
        if data.dreaming is not None and data.dreaming.settings.makes_dreams:
            self.console.print(f"Dreams take {data.dreaming.dreams.bytes / 1e6:.1f} MB.")
        if images := in_words(space_of(data.env)):
            self.console.print(images)
        if data.transitions is None:
            size, rows = data.replay.bytes, len(data.replay.boundary)
            ram, of_a_row = ram_of(data.env.device), in_units(size / rows)
            self.console.print(f"The replay takes {in_units(size)} of {ram}, {of_a_row} a row.")
            for sentence in about_game(data.env, data.schedule.budget):
                self.console.print(sentence)
        if learner_of(trainer).compile_updates:
            self.console.print(
                "Compiling the updates first: up to a minute, or seconds from torch's cache."
            )
        self._mark = (time.monotonic(), data.spent)
        self._bar = Bar(
            TextColumn("{task.completed:>9,.0f} / {task.total:,.0f} " + unit),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._bar.add_task("fit", total=data.schedule.budget, completed=data.spent, status="")
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """Move the bar."""
        now = time.monotonic()
        if self._bar is None or now - self._shown < self.REFRESH:
            return
        self._shown = now
        data = data_of(trainer)
        started, steps = self._mark
        speed = (data.spent - steps) / max(now - started, 1e-9)
        numbers = data.metrics()
        status = f"{speed:,.0f} {data.schedule.unit.split()[-1]}/s"
        if "behaviour/epsilon" in numbers:
            status = f"ε {numbers['behaviour/epsilon']:.2f}  {status}"
        if "behaviour/return_mean" in numbers:
            if "behaviour/success_rate" in numbers:
                status = f"success {numbers['behaviour/success_rate']:.0%}  {status}"
            status = f"return {numbers['behaviour/return_mean']:.1f}  {status}"
        self._bar.update(self._bar.task_ids[0], completed=data.spent, status=status)
        self._bar.refresh()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print a line with the results of the validation."""
        if not self._enabled or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        data = data_of(trainer)
        words = [f"{data.spent:>9,} {data.schedule.unit}"]
        words += [form.format(numbers[name]) for name, form in FORMS.items() if name in numbers]
        if cut_off := numbers.get("evaluation_cut_off"):
            words.append(f"{cut_off:.0f} episodes cut off")
        self.console.print("  ".join(words))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar, so that the message is readable."""
        self.on_train_end(trainer, pl_module)
