"""The end of a run: a table of what was reached, and the files that hold it."""

import csv
import json
import platform
import subprocess
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.table import Table

from lit_crl.core import distributed
from lit_crl.core.checks import ConfigError
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.core.tensor_files import replace_text
from lit_crl.core.version import __version__
from lit_crl.runs.bars import line_console
from lit_crl.runs.callbacks.metrics import MetricsCsv, RecordMetrics

#: What the time of training goes into; the learner's and the data's stopwatch name these parts.
PARTS = {
    "compile": "compiling",
    "environments": "acting and stepping environments",
    "replay": "sampling from the replay",
    "dqn": "DQN phase",
    "gan": "GAN phase, and choosing levels",
    "evaluation": "validation",
    "saving": "metrics and checkpoints",
}
#: What the table shows, in this order; what a task lacks is left out.
ROWS = {
    "target_return_mean": ("mean return, target levels", "{:.2f}"),
    "target_return_std": ("  standard deviation over episodes", "{:.2f}"),
    "target_success_rate": ("success, target levels", "{:.1%}"),
    "target_episodes": ("  from so many episodes", "{:.0f}"),
    "heldout_success_rate": ("success, held-out levels", "{:.1%}"),
    "heldout_cvar10": ("  the worst tenth of them", "{:.1%}"),
    "levels_valid_rate": ("generated levels: valid", "{:.1%}"),
    "levels_unique_rate": ("generated levels: distinct", "{:.1%}"),
    "levels_frontier_rate": ("generated levels: on the frontier", "{:.1%}"),
    "reference_frontier_rate": ("  reference levels, for comparison", "{:.1%}"),
    "levels_learnability": ("generated levels: mean 4 p (1 − p)", "{:.2f}"),
    "reference_learnability": ("  reference levels, for comparison", "{:.2f}"),
    "levels_path_length_p50": ("generated levels: median length of the way", "{:.1f}"),
    "levels_played": ("generated levels: episodes played in them", "{:,.0f}"),
    "p_hat_auc": ("p̂ ranks played levels (AUC)", "{:.2f}"),
    "env_steps": ("env steps", "{:,.0f}"),
    "updates": ("DQN updates", "{:,.0f}"),
    "gan_updates": ("GAN updates", "{:,.0f}"),
    "wall_seconds": ("seconds of training", "{:.0f}"),
    **{f"seconds_{part}": (f"  {label}", "{:.1f}") for part, label in PARTS.items()},
    "seconds_lightning": ("  Lightning, and the rest", "{:.1f}"),
}


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
    """Versions of what a result depends on."""
    found = {"python": platform.python_version(), "lit_crl": __version__}
    return found | {name: version(name) for name in ("torch", "lightning", "gymnasium", "numpy")}


def write_json(content: dict[str, Any], path: Path) -> None:
    """Replace ``path`` by ``content`` as a whole."""
    replace_text(json.dumps(content, indent=2) + "\n", path)


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
        #: What the test found; empty without one.
        self.test: dict[str, float] = {}
        self.played = 0
        self.seconds: dict[str, float] = {}
        self._clocks: list[Stopwatch] = []
        self._started: float | None = None
        self._fitted = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let only the first process speak."""
        self.console.quiet |= not trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; keep the configuration, now that nothing can be wrong with it."""
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "config.yaml").write_text(self.config, encoding="utf-8")
        self._fitted = True
        self._started = time.monotonic()
        self._clocks = [pl_module.clock, trainer.datamodule.clock]  # type: ignore[attr-defined, list-item]
        for clock in self._clocks:
            clock.seconds.clear()  # of an earlier fit

    def seconds_of_training(self) -> float:
        """Seconds of training, those of the running fit included."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self.wall_seconds + running

    def seconds_by_part(self) -> dict[str, float]:
        """What they went into."""
        total = Counter(self.seconds)
        for clock in self._clocks:
            total.update(clock.seconds)
        return dict(total)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock, and add up the levels that all processes played."""
        self.wall_seconds, self.seconds = self.seconds_of_training(), self.seconds_by_part()
        self._clocks = []  # the test that follows is no part of training
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        played = {"generated_played": data.curriculum.counts.played if data.curriculum else 0}
        self.played = int(distributed.reduce_metrics(played)["generated_played"])
        self._started = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count what evaluation cost."""
        numbers = trainer.callback_metrics
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.evaluation_env_steps += float(numbers["evaluation_env_steps"])
        elif not trainer.sanity_checking:
            self._print("Validation", {k: float(v) for k, v in numbers.items()})

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table and write ``test.json``."""
        if not trainer.is_global_zero:
            return
        results = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.test = results
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(results, self.folder / "test.json")
        if not self._fitted:  # after a fit, the summary shows these numbers and more
            self._print("Test: greedy policy on levels that training never saw", results)
            self.console.print(f"Written to {self.folder / 'test.json'}")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Write generated levels, from hard to easy, as a table in the environment's units."""
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        path = self.folder / "predicted_levels.csv"
        p_hat = outputs["p_hat"]
        asked = (
            {}
            if data.settings.evaluation.difficulty is None
            else {"difficulty": data.settings.evaluation.difficulty}
        )
        levels = outputs["levels"][p_hat.argsort()].tolist()
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*asked, "p_hat", *data.env.level_names])
            for p, level in zip(p_hat.sort().values.tolist(), levels, strict=True):
                writer.writerow([*asked.values(), p, *level])
        wanted = f" of difficulty {data.settings.evaluation.difficulty:.2f}" if asked else ""
        self.console.print(
            f"{len(levels)} generated levels{wanted}, p̂ from {p_hat.min():.2f} to "
            f"{p_hat.max():.2f}: {path}"
        )
        self._draw_gallery(pl_module, data)

    def _draw_gallery(self, learner: Any, data: Any) -> None:
        from lit_crl.runs.pictures import figures
        from lit_crl.runs.pictures.gallery import generated_gallery

        try:
            figure = generated_gallery(learner, data.make_env, data.env.device)
        except ConfigError as error:  # the table is there, and what is missing is said
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
                "solved: to let them end give a time limit, or a larger data.evaluation.share."
            )

    def summarise(self, trainer: Trainer, learner: Any) -> None:
        """After fit and test: write ``summary.json`` and figures, and say where everything is."""
        if not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.evaluation_env_steps += self.test.get("evaluation_env_steps", 0.0)
        nothing = dict.fromkeys(
            ("target_return_mean", "target_return_std", "target_success_rate",
             "heldout_success_rate", "heldout_cvar10", "levels_valid_rate",
             "levels_frontier_rate", "levels_unique_rate", "reference_frontier_rate")
        )  # fmt: skip
        has_gan = learner.gan_updates > 0
        summary = {
            "experiment": self.experiment,
            "arm": data.arm,
            "seed": data.seed,
            "env_steps": data.env_steps,
            **nothing,
            **self.test,
            "evaluation_env_steps": self.evaluation_env_steps,
            "updates": learner.updates,
            "gan_updates": learner.gan_updates,
            "wall_seconds": round(self.wall_seconds, 2),
            **self._where_time_went(),
            "levels_played": self.played if has_gan else None,
            "git_commit": git_commit(),
            "versions": versions(),
        }
        write_json(summary, self.folder / "summary.json")
        self.summary = summary
        self._draw(trainer, data)
        self._print(f"{self.experiment}, arm {data.arm}, seed {data.seed}", summary)
        self.console.print(f"Written to {self.folder}:")
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and "wandb" not in path.parts:
                self.console.print(f"  {path.relative_to(self.folder)}")

    def _where_time_went(self) -> dict[str, float | None]:
        """Seconds of training by part; None for a part that there was not."""
        rest = self.wall_seconds - sum(self.seconds.values())
        seconds: dict[str, float | None] = dict.fromkeys(PARTS)
        seconds |= {part: round(spent, 2) for part, spent in self.seconds.items()}
        return {f"seconds_{part}": spent for part, spent in seconds.items()} | {
            "seconds_lightning": round(rest, 2)
        }

    def _draw(self, trainer: Trainer, data: Any) -> None:
        from lit_crl.runs.pictures import figures  # drawing is slow to import and comes last

        title = f"{self.experiment}, arm {data.arm}, seed {data.seed}"
        folder = self.folder / "figures"
        for log in trainer.loggers:
            if isinstance(log, MetricsCsv):
                curve = figures.learning_curve(log.rows, title)
                figures.save(curve, folder / "learning_curve.png")
        recorder = next(c for c in trainer.callbacks if isinstance(c, RecordMetrics))  # type: ignore[attr-defined]
        if recorder.snapshots:
            pictures = hasattr(data.env, "render_levels")
            draw = figures.level_gallery if pictures else figures.generated_levels
            figure = draw(recorder.snapshots, data.env)
            figures.save(figure, folder / "generated_levels.png")
            steps, levels, p_hat = (
                np.stack([np.asarray(snapshot[key]) for snapshot in recorder.snapshots])
                for key in ("env_steps", "levels", "p_hat")
            )
            np.savez(self.folder / "levels.npz", env_steps=steps, levels=levels, p_hat=p_hat)

    def state_dict(self) -> dict[str, Any]:
        """Clock and counts."""
        return {
            "wall_seconds": self.seconds_of_training(),
            "evaluation_env_steps": self.evaluation_env_steps,
            "seconds": self.seconds_by_part(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        vars(self).update(state_dict)
