"""The end of a run: a table of its results, and the files that hold them."""

import csv
import json
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.core.tensor_files import replace_text
from lit_crl.core.version import __version__
from lit_crl.envs import GymnasiumEnv, LevelEnv
from lit_crl.evaluation.solved import meets_bar, return_threshold, solved_at
from lit_crl.runs.bars import line_console
from lit_crl.runs.callbacks.metrics import MetricsCsv, RecordMetrics
from lit_crl.runs.checkpoints.best import MEASURED, BestCheckpoint
from lit_crl.runs.ending import is_regular_validation
from lit_crl.runs.parts import data_of, learner_of
from lit_crl.training.datamodule import ReplayDataModule
from lit_crl.training.learner import CreativeLearner

#: The parts of training that the stopwatches of learner and data time, in words.
PARTS = {
    "compile": "compiling",
    "environments": "acting and stepping environments",
    "replay": "sampling from the replay",
    "dqn": "DQN phase",
    "gan": "GAN phase, and choosing levels",
    "world": "world phase, dreaming, and curiosity",
    "evaluation": "validation",
    "watch": "measuring the world",
    "saving": "metrics and checkpoints",
}
#: Numbers in the table, in this order; those that a task lacks are left out.
ROWS = {
    "target_return_mean": ("mean return, target levels", "{:.2f}"),
    "target_return_std": ("  standard deviation over episodes", "{:.2f}"),
    "target_success_rate": ("success, target levels", "{:.1%}"),
    "target_episodes": ("  number of episodes", "{:.0f}"),
    "heldout_success_rate": ("success, held-out levels", "{:.1%}"),
    "heldout_cvar10": ("  the worst tenth of them", "{:.1%}"),
    "best_target_return_mean": ("best policy by validation: mean return", "{:.2f}"),
    "best_target_success_rate": ("  success", "{:.1%}"),
    "best_env_steps": ("  kept at env steps", "{:,.0f}"),
    "levels_valid_rate": ("generated levels: valid", "{:.1%}"),
    "levels_unique_rate": ("generated levels: distinct", "{:.1%}"),
    "levels_frontier_rate": ("generated levels: on the frontier", "{:.1%}"),
    "reference_frontier_rate": ("  reference levels, for comparison", "{:.1%}"),
    "levels_learnability": ("generated levels: mean 4 p (1 − p)", "{:.2f}"),
    "reference_learnability": ("  reference levels, for comparison", "{:.2f}"),
    "levels_path_length_p50": ("generated levels: median path length", "{:.1f}"),
    "levels_played": ("generated levels: episodes played in them", "{:,.0f}"),
    "p_hat_auc": ("p̂ ranks played levels (AUC)", "{:.2f}"),
    "env_steps": ("env steps", "{:,.0f}"),
    "frames": ("  frames of the game", "{:,.0f}"),
    "updates": ("DQN updates", "{:,.0f}"),
    "gan_updates": ("GAN updates", "{:,.0f}"),
    "world_updates": ("updates of the world", "{:,.0f}"),
    "imagined_steps": ("imagined steps", "{:,.0f}"),
    "world_error_1": ("world: error after 1 step, in spreads of observations", "{:.3f}"),
    "world_error_20": ("  after 20 steps", "{:.3f}"),
    "dream_return_gap": ("  return in dreams, less the real one", "{:.2f}"),
    "solved_at_env_steps": ("solved, twice running, at env steps", "{:,.0f}"),
    "wall_seconds": ("seconds of training", "{:.0f}"),
    **{f"seconds_{part}": (f"  {label}", "{:.1f}") for part, label in PARTS.items()},
    "seconds_lightning": ("  Lightning, and the rest", "{:.1f}"),
}
#: Numbers of the world that ``summary.json`` has, from the last time that it was measured.
WORLD_KEYS = {
    "world_error_1": "world/error_1",
    "world_error_20": "world/error_20",
    "dream_return_gap": "world/dream_return_gap",
}
#: Keys that ``summary.json`` always has, with null where a task lacks them.
ALWAYS = (
    "target_return_mean",
    "target_return_std",
    "target_success_rate",
    "heldout_success_rate",
    "heldout_cvar10",
    "levels_valid_rate",
    "levels_frontier_rate",
    "levels_unique_rate",
    "reference_frontier_rate",
    "best_env_steps",
    *MEASURED,
)
#: The film of a dream that a fit ends with, in the run's folder, and its frames a second.
FILM, FPS = Path("films", "dream_beside_reality.gif"), 20


def played(env: LevelEnv, env_steps: int) -> dict[str, Any]:
    """What was played, in words, and how many frames where a step takes several."""
    if not isinstance(env, GymnasiumEnv):
        return {"game": None, "frames": None}
    frames = env.game.frames(env_steps)
    return {"game": env.game_in_words, "frames": None if frames == env_steps else frames}


def git_commit() -> str | None:
    """The commit of the checkout that this code runs from, or None if it was installed."""
    package = Path(__file__).parents[2]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def versions() -> dict[str, str]:
    """Versions of the software that a result depends on."""
    found = {"python": platform.python_version(), "lit_crl": __version__}
    return found | {name: version(name) for name in ("torch", "lightning", "gymnasium", "numpy")}


class RunReport(Callback):
    """Counts wall time and evaluation steps; writes test.json, summary.json and the figures."""

    def __init__(self, folder: Path, experiment: str, config: str) -> None:
        """Report on ``experiment`` into ``folder``; ``config`` is the resolved YAML."""
        self.folder = folder
        self.config = config
        self.experiment = experiment
        self.console = line_console()
        self.wall_seconds = 0.0
        self.evaluation_env_steps = 0.0
        self.summary: dict[str, Any] = {}
        #: Results of the test; empty without one.
        self.test: dict[str, float] = {}
        self.played = 0
        #: Env steps of each validation, and whether it met the bar of a solved task.
        self.validations: list[tuple[int, bool]] = []
        self._is_regular = True
        self.seconds: dict[str, float] = {}
        self._clocks: list[Stopwatch] = []
        self._started: float | None = None
        self._fitted = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Silence all processes but the first."""
        self.console.quiet |= not trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and write the configuration: nothing can be wrong with it now."""
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(self.config, encoding="utf-8")
        self._fitted = True
        self._started = time.monotonic()
        self._clocks = [learner_of(trainer).clock, data_of(trainer).clock]
        for clock in self._clocks:
            clock.seconds.clear()  # from an earlier fit

    def seconds_of_training(self) -> float:
        """Seconds of training, including the running fit."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.wall_seconds + running

    def seconds_by_part(self) -> dict[str, float]:
        """Seconds of training by part, including the running fit."""
        total = Counter(self.seconds)
        for clock in self._clocks:
            total.update(clock.seconds)
        return dict(total)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, and add up the levels that all processes played."""
        self.wall_seconds, self.seconds = self.seconds_of_training(), self.seconds_by_part()
        self._started, self._clocks = None, []  # the test that follows is not part of training
        curriculum = data_of(trainer).curriculum
        played = float(curriculum.counts.played) if curriculum else 0.0
        total = distributed.reduce_metrics({"generated_played": played})
        self.played = int(total["generated_played"])

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether this validation counts."""
        self._is_regular = is_regular_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the env steps of a validation in training; print the table of any other."""
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if trainer.sanity_checking:
            return
        if trainer.state.fn == "fit":
            self.evaluation_env_steps += numbers.get("evaluation_env_steps", 0.0)
            if self._is_regular and numbers.get("evaluation_env_steps") is not None:
                data = data_of(trainer)
                is_met = meets_bar(numbers, return_threshold(data.env))
                self.validations.append((data.spent, is_met))
        else:
            self._print("Validation", numbers)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table and write ``test.json``."""
        if not trainer.is_global_zero:
            return
        self.test = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self._write_json("test.json", self.test)
        if "target_return_mean" not in self.test:
            self.console.print("No return was measured: no environment was named (data.env).")
        if self.test and not self._fitted:  # after a fit, the summary shows these numbers and more
            self._print("Test: greedy policy on levels that training never saw", self.test)
            self.console.print(f"Written to {self.folder / 'test.json'}")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: object
    ) -> None:
        """Write generated levels, from hard to easy, as a table in the environment's units."""
        if not trainer.is_global_zero:
            return
        data = data_of(trainer)
        path = self.folder / "predicted_levels.csv"
        p_hat, order = outputs["p_hat"].sort()
        header = ["p_hat", *data.env.level_names]
        rows = torch.column_stack((p_hat, outputs["levels"][order])).tolist()
        wanted = ""
        if data.settings.evaluation.difficulty is not None:
            header, rows = (
                ["difficulty", *header],
                [[data.settings.evaluation.difficulty, *row] for row in rows],
            )
            wanted = f" of difficulty {data.settings.evaluation.difficulty:.2f}"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        self.console.print(
            f"{len(rows)} generated levels{wanted}, p̂ from {p_hat[0]:.2f} to {p_hat[-1]:.2f}: "
            f"{path}"
        )
        from lit_crl.runs.pictures import figures

        try:
            figure = figures.predicted_levels(learner_of(trainer), data)
        except ConfigError as error:  # the table is written all the same
            self.console.print(f"No pictures of them: {error}")
            return
        path = figures.save(figure, self.folder / "figures" / "predicted_levels.png")
        self.console.print(f"Pictures of generated levels, from hard to easy: {path}")

    def _print(self, title: str, numbers: dict[str, float]) -> None:
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for key, (label, form) in ROWS.items():
            if numbers.get(key) is not None:
                table.add_row(label, form.format(numbers[key]))
        self.console.print(table)
        if numbers.get("evaluation_cut_off"):
            self.console.print(
                f"{numbers['evaluation_cut_off']:.0f} episodes were cut off, and count as not "
                "solved: to let them end, give a time limit or a larger data.evaluation.share."
            )

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_text(json.dumps(content, indent=2) + "\n", self.folder / name)

    def summarise(self, trainer: Trainer, learner: CreativeLearner) -> None:
        """After fit and test, write ``summary.json`` and figures, and list all files."""
        if not trainer.is_global_zero:
            return
        data = data_of(trainer)
        self.evaluation_env_steps += self.test.get("evaluation_env_steps", 0.0)
        best: dict[str, float] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, BestCheckpoint):
                best = callback.numbers
                self.evaluation_env_steps += callback.evaluation_env_steps
        rest = self.wall_seconds - sum(self.seconds.values())
        seconds = {part: round(spent, 2) for part, spent in self.seconds.items()}
        self.summary = {
            "experiment": self.experiment,
            "arm": data.arm,
            "seed": data.seed,
            "env_steps": data.env_steps,
            **played(data.env, data.env_steps),
            **dict.fromkeys(ALWAYS),
            **{name: number for name, number in self.test.items() if "/" not in name},
            **best,
            "evaluation_env_steps": self.evaluation_env_steps,
            "updates": learner.updates,
            "gan_updates": learner.gan_updates,
            "world_updates": learner.world_updates if data.dreaming else None,
            "imagined_steps": data.dreaming.imagined_steps if data.dreaming else None,
            **{key: data.watch.numbers.get(name) for key, name in WORLD_KEYS.items()},
            "solved_at_env_steps": solved_at(self.validations),
            "wall_seconds": round(self.wall_seconds, 2),
            **{f"seconds_{part}": seconds.get(part) for part in [*PARTS, *seconds]},
            "seconds_lightning": round(rest, 2),
            "levels_played": self.played if learner.gan_updates else None,
            "git_commit": git_commit(),
            "versions": versions(),
        }
        self._write_json("summary.json", self.summary)
        title = f"{self.experiment}, arm {data.arm}, seed {data.seed}"
        self._draw(trainer, data, title)
        self._print(title, self.summary)
        self.console.print(f"Written to {self.folder}:")
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and "wandb" not in path.parts:
                self.console.print(f"  {path.relative_to(self.folder)}")

    def _draw(self, trainer: Trainer, data: ReplayDataModule, title: str) -> None:
        from lit_crl.runs.pictures import figures  # slow to import

        folder = self.folder / "figures"
        for log in trainer.loggers:
            if isinstance(log, MetricsCsv):
                game = getattr(data.env, "game", None)
                frames = 1 if game is None else game.frames_per_step or 1
                curve = figures.learning_curve(log.rows, title, frames)
                figures.save(curve, folder / "learning_curve.png")
                if data.dreaming is not None:
                    self._draw_world(learner_of(trainer), data, log.rows, title)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        snapshots = next(c.snapshots for c in callbacks if isinstance(c, RecordMetrics))
        if snapshots:
            pictures = hasattr(data.env, "render_levels")
            draw = figures.level_gallery if pictures else figures.generated_levels
            figures.save(draw(snapshots, data.env), folder / "generated_levels.png")
            steps, levels, p_hat = (
                np.stack([each[key] for each in snapshots])
                for key in ("env_steps", "levels", "p_hat")
            )
            np.savez(self.folder / "levels.npz", env_steps=steps, levels=levels, p_hat=p_hat)

    def _draw_world(
        self,
        learner: CreativeLearner,
        data: ReplayDataModule,
        rows: Sequence[Mapping[str, Any]],
        title: str,
    ) -> None:
        """Draw what the world makes of real paths, and how it errs; say what cannot be drawn."""
        from lit_crl.runs.pictures import dream_film, dreams, figures, films

        folder = self.folder / "figures"
        learner.to(data.env.device)  # where the real steps are: Lightning has moved it to the CPU
        if (errors := dreams.world_error(rows, title)) is not None:
            figures.save(errors, folder / "world_error.png")
        try:
            figures.save(dreams.dreams_of_run(learner, data), folder / "dreams.png")
        except ConfigError as error:
            self.console.print(f"No figure of dreams: {error}")
        try:
            found = dream_film.beside_of_run(learner, data, 1)
            films.write_gif(dream_film.film_beside(found, FPS), folder.parent / FILM, FPS)
        except ConfigError as error:
            self.console.print(f"No film of a dream beside reality: {error}")

    def state_dict(self) -> dict[str, Any]:
        """Clock and counts."""
        return {
            "wall_seconds": self.seconds_of_training(),
            "evaluation_env_steps": self.evaluation_env_steps,
            "seconds": self.seconds_by_part(),
            "validations": self.validations,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore clock and counts."""
        vars(self).update(state_dict)
