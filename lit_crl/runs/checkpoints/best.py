"""Keeps the best policy of a run by validation, and measures it anew when the run ends."""

from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_crl.core.checks import ConfigError
from lit_crl.core.distributed import print_once
from lit_crl.core.tensor_files import BEST, FORMAT, read_best, write_atomically
from lit_crl.evaluation.best_score import VALIDATIONS, score
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.runs.ending import is_regular_validation
from lit_crl.runs.parts import data_of, learner_of
from lit_crl.runs.policy import policy_of

#: Numbers of the best policy in the test's target episodes, by their names in ``summary.json``.
MEASURED = {
    f"best_{name}": name
    for name in (
        "target_return_mean",
        "target_return_std",
        "target_success_rate",
        "target_episodes",
    )
}


class Best(NamedTuple):
    """What a best policy scored, and when."""

    score: float
    #: Of a run from a log: updates.
    env_steps: int


class BestCheckpoint(Callback):
    """Writes ``best.ckpt`` whenever a policy scores higher than all before it.

    ``lit_crl.evaluation.best_score.score`` says what a score is. It chooses, and it is never
    reported: a maximum over noisy numbers is too high. After a fit the best policy plays the target
    episodes of the test instead. They are those that the last policy plays, and no validation has
    played them.

    The file holds all networks, and neither optimizers nor experience, so it is small and quickly
    written; policies come from it, and no fit goes on from it. It says itself what it scored, and a
    resumed run compares with that. So whenever a run is killed, the file is whole, and a lower
    score never replaces a higher one.

    Attributes:
        best: The best policy so far; None: there is none yet.
        numbers: After the test of a fit, how the best policy did: keys of ``summary.json``.
        evaluation_env_steps: What that took.
    """

    def __init__(self, folder: Path) -> None:
        """Keep ``best.ckpt`` in ``folder``."""
        self.folder = folder
        self.best: Best | None = None
        self.numbers: dict[str, float] = {}
        self.evaluation_env_steps = 0.0
        self._returns: list[float] = []
        self._is_regular = self._fitted = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the best policy of a run that is resumed."""
        self._fitted = True
        if trainer.ckpt_path is not None:
            source = Path(str(trainer.ckpt_path)).parent
            found = self._found(source, data_of(trainer).spent) if trainer.is_global_zero else None
            self.best = trainer.strategy.broadcast(found)

    def _found(self, source: Path, spent: int) -> Best | None:
        """The best policy beside the loaded checkpoint; another run's is copied, if it is older."""
        path = source / BEST
        path.with_name(f"{BEST}.partial").unlink(missing_ok=True)  # of a run that was killed
        try:
            saved = read_best(path) if path.is_file() else None
        except ConfigError as error:
            print_once(f"{error}. The best policy is chosen anew.")
            return None
        if saved is None:
            if self.best is not None:
                print_once(f"{path} is missing: the best policy is chosen anew.")
            return None
        best = Best(saved["lit_crl"]["score"], saved["lit_crl"]["env_steps"])
        if source.resolve() != self.folder.resolve():
            if best.env_steps > spent:
                print_once(f"{path} is of a later time: the best policy is chosen anew.")
                return None
            self._write(saved)
        return best

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether this validation counts."""
        self._is_regular = is_regular_validation(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the policy, if it is the best."""
        number = trainer.callback_metrics.get("target_return_mean")
        if trainer.state.fn != "fit" or not self._is_regular or number is None:
            return
        self._returns = [*self._returns, float(number)][-VALIDATIONS:]
        scored = score(self._returns)
        if scored is None or (self.best is not None and scored <= self.best.score):
            return
        best = Best(scored, data_of(trainer).spent)
        if trainer.is_global_zero:
            with learner_of(trainer).clock("saving"):
                # Of what a whole checkpoint holds, the networks and what describes them.
                saved = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
                self._write(saved | {"lit_crl": {"format": FORMAT, **best._asdict()}})
        self.best = best

    def _write(self, saved: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(saved, self.folder / BEST)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """After a fit, measure the best policy in the target episodes of the test."""
        if not self._fitted or self.best is None or not isinstance(batch, FinalEvaluation):
            return
        path = self.folder / BEST
        saved = None
        if trainer.is_global_zero:
            try:
                saved = read_best(path)
            except ConfigError as error:
                print_once(f"The best policy is not measured: {error}.")
        if (saved := trainer.strategy.broadcast(saved)) is None:
            return
        policy = policy_of(saved, path, pl_module.device)
        with trainer.precision_plugin.test_step_context():
            found = batch.target_alone(policy, has_gan=learner_of(trainer).gan_updates > 0)
        self.evaluation_env_steps = found["evaluation_env_steps"]
        self.numbers = {key: found[name] for key, name in MEASURED.items() if name in found}
        self.numbers["best_env_steps"] = self.best.env_steps

    def state_dict(self) -> dict[str, Any]:
        """The last returns; and what was best, to miss its file if that is lost."""
        return {"returns": self._returns, "best": None if self.best is None else [*self.best]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember them."""
        self._returns, best = list(state_dict["returns"]), state_dict["best"]
        self.best = None if best is None else Best(*best)
