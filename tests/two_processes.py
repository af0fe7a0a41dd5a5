"""What each process of a data-parallel run does; ``test_data_parallel.py`` starts several of them.

``python -m torch.distributed.run ... two_processes.py TASK FOLDER [TASK FOLDER ...]`` does one
task after the other, and leaves ``rank<r>.pt`` files in the folder of each.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from conftest import GivenBatches, Run, learner_settings, make_trainer, prepare_run
from crashes import KillAt, Killed
from dreamers import prepared
from lightning.pytorch import Callback

from lit_crl import CreativeLearner
from lit_crl.dqn.equations import Transitions
from lit_crl.envs import MountainCar
from lit_crl.evaluation.final import FinalEvaluation
from lit_crl.evaluation.pool import EvaluationEnvs
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.gan.batch import GanBatch
from lit_crl.runs.callbacks import BestCheckpoint, RecordMetrics, RunCheckpoint, StopOnSignal
from lit_crl.runs.checkpoints.signals import RunStopped, Signals
from lit_crl.training.batches import Batch
from lit_crl.training.ddp import PhaseDDP
from lit_crl.training.dreams import dreaming
from lit_crl.world.real_steps import Split, split
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan

ENV = MountainCar(4)


class Notes(Callback):
    """Takes down what this process drew, and checks the weights against the other's."""

    def __init__(self) -> None:
        self.drawn: list[torch.Tensor] = []
        self.noise: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        if index < 5:
            self.drawn.append(batch.dqn.obs.clone())
            self.noise.append(pl_module.streams("z", pl_module.device).get_state())


def spread(world_size: int) -> dict[str, Any]:
    """Trainer settings for so many processes."""
    nodes = int(os.environ.get("NODES", 1))
    return {
        "strategy": PhaseDDP(timeout_seconds=30) if world_size > 1 else "auto",
        "devices": world_size // nodes,
        "num_nodes": nodes,
        "log_every_n_steps": 4,
    }


def train(folder: Path, world_size: int, **settings: Any) -> tuple[Run, Notes]:
    """A short run of everything, with checkpoints in ``folder``."""
    notes = Notes()
    saves = RunCheckpoint(folder)
    callbacks = [RecordMetrics(), saves, notes, *settings.pop("callbacks", [])]
    if (signals := settings.pop("signals", None)) is not None:
        callbacks.append(StopOnSignal(saves, signals))
    checkpoint = settings.pop("checkpoint", None)
    trainer = spread(world_size) | settings.pop("trainer", {})
    run = prepare_run(callbacks=callbacks, trainer=trainer, **settings)
    return run.fit(checkpoint), notes


def everything(run: Run, notes: Notes) -> dict[str, Any]:
    """A run's state, and what it drew."""
    return {**run.everything(), "drawn": notes.drawn, "noise": notes.noise}


#: Enough for 100 updates of the Q-network in two processes, and for two checkpoints.
LONG = {"env_steps": 1_500, "updates_per_batch": 6, "validate_every": 600}


class Dies(Callback):
    """Ends the process at a batch as a kill -9 would."""

    def __init__(self, batches: int, rank: int) -> None:
        self.batches, self.rank = batches, rank

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == self.batches and trainer.global_rank == self.rank:
            os._exit(9)


class Signalled(Callback):
    """Sends one process a signal at a batch."""

    def __init__(self, batches: int, rank: int) -> None:
        self.batches, self.rank = batches, rank

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == self.batches and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGTERM)


class Draws(Callback):
    """Takes the first process a minute after a validation, once, as films and uploads may."""

    has_drawn = False

    def on_validation_end(self, trainer: Any, *_: Any) -> None:
        if trainer.is_global_zero and not self.has_drawn:
            time.sleep(50)
        self.has_drawn = True


def rainbow(folder: Path, world_size: int, rank: int) -> None:
    """A short run with distributions of returns, noisy layers and priorities."""
    network = {"hidden": (16,), "atoms": 11, "noise": 0.5, "dueling": True}
    short = {"env_steps": 1_200, "validate_every": 600, "arm": "target", "priority_exponent": 0.5}
    run, notes = train(folder, world_size, learner={"network": network}, **short)
    torch.save(everything(run, notes), folder / f"rank{rank}.pt")


def memory(folder: Path, world_size: int, rank: int) -> None:
    """A short run with a memory."""
    network = {"hidden": (16,), "memory": 8}
    replay = {"burn_in": 2, "sequence_length": 4, "n_steps": 2, "capacity": 2_000, "batch_size": 8}
    short = {"env_steps": 900, "validate_every": 600, "arm": "target", "updates_per_batch": 2}
    run, notes = train(folder, world_size, learner={"network": network}, replay=replay, **short)
    torch.save(everything(run, notes), folder / f"rank{rank}.pt")


def parts(count: int, batch: int, gan_updates: int) -> Batch:
    """A batch of K updates for all processes together."""
    rng = torch.Generator().manual_seed(3)
    low, high = torch.as_tensor(ENV.level_space.low), torch.as_tensor(ENV.level_space.high)

    def states(*shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, 2, generator=rng)

    transitions = Transitions(
        states(count, batch),
        torch.randint(3, (count, batch), generator=rng),
        torch.randn(count, batch, generator=rng),
        0.97 * (torch.rand(count, batch, generator=rng) < 0.7),
        states(count, batch),
    )
    label, success = (torch.rand(2, gan_updates, batch, generator=rng) < 0.5).float()
    levels = GanBatch(states(gan_updates, batch), label, states(gan_updates, batch), success)
    return Batch(transitions, levels, 0.0)


class GivenNoise(CreativeLearner):
    """A learner whose noise is prepared for all processes together, each taking its part."""

    part = slice(None)

    def draw_noise(self, n: int, rng: torch.Generator | None = None) -> torch.Tensor:
        rng = torch.Generator().manual_seed(self.gan_updates)
        updates = n // len(range(64)[self.part])
        z = torch.randn(updates, 64, self.level_gan.generator.noise_dim, generator=rng)
        return z[:, self.part].reshape(n, -1)


def descend(folder: Path, world_size: int, rank: int) -> None:
    """Plain gradient descent on prepared batches of 64, of which each process takes its part."""

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    torch.manual_seed(0)
    learner = GivenNoise(**learner_settings(
        hidden=(16, 16), gan_hidden=(16, 16), final_lr=1.0, max_grad_norm=0.5,
        q_optimizer=sgd, generator_optimizer=sgd, discriminator_optimizer=sgd,
    ))  # fmt: skip
    size = 64 // world_size
    learner.part = slice(rank * size, (rank + 1) * size)
    whole = parts(6, 64, 4)
    mine = Batch(
        Transitions(*(field[:, learner.part] for field in whole.dqn)),
        GanBatch(*whole.gan.map(lambda field: field[:, learner.part])),
        0.0,
    )
    trainer = make_trainer(max_epochs=1, limit_val_batches=0, **spread(world_size))
    trainer.fit(learner, datamodule=GivenBatches(ENV, [mine, mine]))
    torch.save(dict(learner.state_dict()), folder / f"rank{rank}.pt")


def evaluate(folder: Path, rank: int) -> None:
    """A validation and a test of networks that nobody trained; no process has other numbers."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    learner = CreativeLearner(**learner_settings(hidden=(16, 16), gan_hidden=(16, 16))).build(ENV)
    found = {}
    for allowance in (64, 3_000, 40_000):
        for kind in (Evaluation, FinalEvaluation):
            # Replicas differ by rounding: on which levels are valid, say, and which are solved.
            torch.manual_seed(rank)
            for weights in learner.parameters():
                weights.data.mul_(1 + 1e-7 * torch.randn(weights.shape))
            envs = EvaluationEnvs(MountainCar, ENV)
            results = kind(envs, 15, 12, allowance, seed=0).run(learner, True)
            found[f"{kind.KIND} {allowance}"] = results
    torch.save(found, folder / f"rank{rank}.pt")


class StopsAt(Callback):
    """Ends a run after some batches."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.datamodule.batches_done == self.batches:
            trainer.should_stop = True


def keep_best(folder: Path, world_size: int, rank: int) -> None:
    """A run that is stopped, goes on, and measures its best policy each time."""

    def fit(*callbacks: Callback, checkpoint: Path | None = None) -> dict[str, Any]:
        # The second process has another folder in mind, but the first one alone reads and writes.
        best = BestCheckpoint(folder if rank == 0 else folder / "elsewhere")
        short = {"env_steps": 1_600, "validate_every": 240, "checkpoint": checkpoint}
        run, _ = train(folder, world_size, callbacks=[best, *callbacks], **short)
        run.trainer.test(run.learner, datamodule=run.data, verbose=False)
        assert best.best is not None
        return {"best": [*best.best], "numbers": best.numbers}

    stopped = fit(StopsAt(14))
    found = {"stopped": stopped, "resumed": fit(checkpoint=folder / "last.ckpt")}
    torch.save(found, folder / f"rank{rank}.pt")


def late(rows_of: Callable[..., Split], calls: int) -> Callable[..., Split]:
    """``split`` as it would be if no member had a row in its first ``calls``."""
    made = 0

    def split(replay: Any, members: int, *shares: float) -> Split:
        nonlocal made
        rows = rows_of(replay, members, *shares)
        made += members > 1
        return rows if made > calls else rows._replace(members=rows.members & False)

    return split


def imagine(folder: Path, world_size: int, rank: int) -> None:
    """A run with a world, whose second process has nothing to learn from at first; and resumed."""

    def fit(*callbacks: Callback, checkpoint: str | None = None) -> dict[str, Any]:
        learner, data, _ = prepared(env_steps=960, dreams={"gate": 0.9, "held_back": 0.3})
        trainer = make_trainer(
            callbacks=[RunCheckpoint(folder), *callbacks], limit_val_batches=0, **spread(world_size)
        )
        if rank == 1 and checkpoint is None:
            dreaming.split = late(split, calls=3)  # type: ignore[attr-defined]
        trainer.fit(learner, datamodule=data, ckpt_path=checkpoint)
        dreaming.split = split  # type: ignore[attr-defined]
        assert data.dreaming is not None
        return {
            "weights": {name: value.clone() for name, value in learner.state_dict().items()},
            "gate": data.dreaming.env.gate,
            "dreams": data.dreaming.state_dict(),
            "phases": data.dreaming.phases,
            "error": data.dreaming.condition.state_dict(),
            "scale": data.dreaming._reward_scale(),
            "replay": data.replay.state_dict(),
        }

    whole = fit()
    fit(StopsAt(20))
    resumed = fit(checkpoint=str(folder / "last.ckpt"))
    found = {"whole": whole, "resumed": resumed, "units": units(range(rank, 2, world_size))}
    torch.save(found, folder / f"rank{rank}.pt")


def units(parts: range) -> dict[str, torch.Tensor]:
    """Units that a world takes from the rows of some ``parts``, which have unequal numbers."""
    torch.manual_seed(0)
    world = TransitionGan(2, 3, WorldSettings(loss="gan", members=2, hidden=(8,)))
    rngs = [torch.Generator().manual_seed(part) for part in parts]
    rows = [
        (part + 1) * torch.randn(40 + 30 * part, 5, generator=rng) + 1e3 * part
        for part, rng in zip(parts, rngs, strict=True)
    ]
    obs, next_obs, reward = torch.cat(rows).split([2, 2, 1], 1)
    world.fit_normaliser(obs, reward[:, 0], next_obs)
    world.fit_disagreement(obs, (obs[:, 0] > 0).long())
    return dict(world.named_buffers())


def work(task: str, folder: Path) -> None:
    """Do one task; the environment says in how many processes."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    folder.mkdir(exist_ok=True)
    if task == "evaluate":
        evaluate(folder, rank)
        return
    if task == "imagine":
        imagine(folder, world_size, rank)
        return
    if task == "best":
        keep_best(folder, world_size, rank)
        return
    if task == "rainbow":
        rainbow(folder, world_size, rank)
        return
    if task == "memory":
        memory(folder, world_size, rank)
        return
    if task == "descend":
        descend(folder, world_size, rank)
        return
    if task == "wait":
        short = {"env_steps": 2_000, "validate_every": 1_000}
        patient = {"strategy": PhaseDDP()}  # as it is where nothing else is said
        train(folder, world_size, **short, callbacks=[Draws()], trainer=patient)
        return
    if task == "train":
        run, notes = train(folder, world_size, **LONG)
    elif task == "die":
        train(folder, world_size, **LONG, callbacks=[Dies(12, rank=1)])
        return
    elif task == "crash":
        with contextlib.suppress(Killed):
            train(folder, world_size, **LONG, callbacks=[KillAt(12)])
        if rank == 0:
            shutil.copy(folder / "last.ckpt", folder / "crashed.ckpt")
        return
    elif task == "signal":
        last, signalled = folder / "last.ckpt", [Signalled(15, rank=1)]
        with Signals() as signals:
            try:
                train(folder, world_size, **LONG, checkpoint=last, callbacks=signalled,
                      signals=signals)  # fmt: skip
            except RunStopped as stopped:
                (folder / f"stopped{rank}").write_text(str(stopped))
        return
    else:
        run, notes = train(folder, world_size, **LONG, checkpoint=folder / "last.ckpt")
    torch.save(everything(run, notes), folder / f"rank{rank}.pt")


if __name__ == "__main__":
    for task, folder in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        work(task, Path(folder))
    if torch.distributed.is_initialized():
        # What gloo still does while the process ends would abort it.
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
