"""Tiny runs that the tests share: a car with short episodes, a run of seconds, bitwise equality."""

import contextlib
import copy
import functools
import gc
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor

from lit_crl import CreativeLearner, ReplayDataModule
from lit_crl.envs import LevelEnv, MountainCar
from lit_crl.runs.callbacks.report import RunReport
from lit_crl.runs.checkpoints.experience import collected_state
from lit_crl.training.batches import ReplayLoader
from lit_crl.training.compiled import phase
from lit_crl.training.flat import phase as flat_phase
from lit_crl.training.graphs import choice
from lit_crl.training.renamed import RENAMED

# The networks here are tiny, and threads that wait for each other would take most of the time.
torch.set_num_threads(1)

# A change that passes once passes again; `pytest --hypothesis-profile=default` draws new examples,
# and three times as many. A deadline would fail on a machine that is busy.
settings.register_profile("repeatable", derandomize=True, max_examples=30, deadline=None)
settings.load_profile("repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Workers for the whole suite alone: what is selected is done before they have started.

    The long tests measure memory and kill processes, and those on a GPU share it.
    """
    is_whole = (
        config.args_source is config.ArgsSource.TESTPATHS
        and config.option.markexpr == "not slow and not gpu"
        and not config.option.keyword
    )
    workers = min((os.cpu_count() or 1) + 1, 4)  # one more: some tests wait for processes
    return workers if is_whole and workers > 1 else 0


#: Files whose tests run one after another on one worker, by what they share: processes that would
#: disturb each other, or runs and kernels that take seconds to make.
TOGETHER = {
    "tests/training/test_data_parallel.py": "processes",
    "tests/runs/checkpoints/test_signals.py": "processes",
    "tests/runs/study/test_ray.py": "processes",
    "tests/runs/dashboard/test_dashboard.py": "dashboard",
    "tests/test_notebooks.py": "kernel",
    "tests/test_documents.py": "run of the documents",
    "tests/runs/checkpoints/test_interruption.py": "whole run",
    "tests/runs/checkpoints/test_best.py": "whole run of the best",
    "tests/runs/checkpoints/test_resume.py": "whole run to resume",
    "tests/runs/callbacks/test_callbacks.py": "finished run",
    "tests/runs/test_policy.py": "run of a policy",
    "tests/runs/cli/test_errors.py": "small run",
    "tests/runs/cli/test_logs.py": "kept run",
    "tests/training/test_dream_settings.py": "run with the usual settings",
}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays: searching it for garbage takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send those together, and all other tests one by one.

    This is not left to the mark ``xdist_group``, which pytest-xdist 3.8 loses under pytest 9.2.
    """
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return TOGETHER.get(nodeid.partition("::")[0], nodeid)

    return Together(config, log)


#: Experiments that need an extra: its name, and a module that it brings.
EXTRAS = {
    "atari": ("atari", "ale_py"),
    "lunar_lander": ("box2d", "Box2D"),
    "minatar": ("minatar", "minatar"),
    "minigrid": ("minigrid", "minigrid"),
}


class ShortCar(MountainCar):
    """A mountain car that gives up after 25 steps, and that is evaluated in itself."""

    max_episode_steps = 25
    gymnasium_id = None


#: Small networks, and a GAN phase soon.
LEARNER: dict[str, Any] = {"hidden": (16, 16), "gan_hidden": (16, 16)}
DATA: dict[str, Any] = {
    "env_steps": 1_200,
    "num_envs": 8,
    "capacity": 2_000,
    "warmup": 200,
    "batch_size": 32,
    "updates_per_batch": 2,
    "gan_every": 4,
    "gan_updates": 2,
    "gan_batch_size": 32,
    "min_outcomes": 8,
    "tried": 256,
    "visited": 512,
    "label_epsilon": 1.0,
    "validate_every": 330,
    "validation_episodes": 4,
    "test_episodes": 6,
    "generated_levels": 4,
}


def learner_settings(**short: Any) -> dict[str, Any]:
    """Arguments of a learner, from the short names of settings that the tests use."""
    return _grouped("model", short)


def data_settings(**short: Any) -> dict[str, Any]:
    """Arguments of the data, from the short names of settings that the tests use."""
    return _grouped("data", short)


def _grouped(section: str, short: Mapping[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    for name, value in short.items():
        _, *path = RENAMED.get(f"{section}.{name}", f"{section}.{name}").split(".")
        inner = arguments
        for group in path[:-1]:
            inner = inner.setdefault(group, {})
        inner[path[-1]] = value
    return arguments


@dataclass
class Run:
    """A learner, its data and the Trainer that brings them together."""

    learner: CreativeLearner
    data: ReplayDataModule
    trainer: Trainer

    def fit(self, checkpoint: Path | None = None) -> "Run":
        path = None if checkpoint is None else str(checkpoint)
        self.trainer.fit(self.learner, datamodule=self.data, ckpt_path=path)
        return self

    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(dict(self.learner.state_dict()))

    def everything(self) -> dict[str, Any]:
        """All that a run consists of: networks, optimizers, counters, streams, collected data."""
        checkpoint: dict[str, Any] = {}
        self.learner.on_save_checkpoint(checkpoint)
        state = {
            "weights": dict(self.learner.state_dict()),
            "optimizers": [optimizer.state_dict() for optimizer in self.trainer.optimizers],
            "learner": checkpoint["learner"],
            "data": collected_state(self.data, self.learner),
        }
        return copy.deepcopy(state)


def make_trainer(**changes: Any) -> Trainer:
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "inference_mode": False,
    }
    return Trainer(**{**settings, **changes})


def prepare_run(
    env: Callable[..., Any] = ShortCar,
    learner: Mapping[str, Any] | None = None,
    seed: int = 0,
    validate: bool = True,
    callbacks: Sequence[Callback] = (),
    trainer: Mapping[str, Any] | None = None,
    **data: Any,
) -> Run:
    settings = {"callbacks": list(callbacks), "limit_val_batches": 1.0 if validate else 0}
    run = Run(
        CreativeLearner(**learner_settings(**{**LEARNER, "seed": seed, **(learner or {})})),
        ReplayDataModule(env, **data_settings(**{**DATA, "seed": seed, **data})),
        make_trainer(**settings, **(trainer or {})),
    )
    return run


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """``make_run(env=..., learner={...}, seed=..., validate=..., **data)`` prepares a run."""
    return prepare_run


class GivenBatches(LightningDataModule):
    """Data that hands out prepared batches."""

    def __init__(self, env: LevelEnv, given: list[Any]) -> None:
        super().__init__()
        self.env = env
        self.given = given

    def train_dataloader(self) -> ReplayLoader:
        return ReplayLoader(lambda: iter(self.given), len(self.given))

    def val_dataloader(self) -> ReplayLoader:
        return ReplayLoader(lambda: iter([]), 0)


@pytest.fixture(scope="session")
def train_on() -> Callable[..., Trainer]:
    """``train_on(learner, batches, env)`` runs one epoch of ``training_step`` over ``batches``."""

    def train(learner: CreativeLearner, batches: Iterable[Any], env: LevelEnv) -> Trainer:
        trainer = make_trainer(max_epochs=1, limit_val_batches=0)
        trainer.fit(learner, datamodule=GivenBatches(env, list(batches)))
        return trainer

    return train


@pytest.fixture(scope="session")
def short_car() -> type[ShortCar]:
    return ShortCar


def _difference(first: Any, second: Any, path: str) -> str | None:
    if isinstance(first, Tensor):
        alike = isinstance(second, Tensor) and first.dtype == second.dtype
        if not alike or first.shape != second.shape:
            return path
        one, other = (t.cpu().contiguous().flatten().view(torch.uint8) for t in (first, second))
        return None if torch.equal(one, other) else path  # of NaN, too
    if isinstance(first, Mapping):
        if not isinstance(second, Mapping) or first.keys() != second.keys():
            return path
        parts = ((f"{path}.{key}", first[key], second[key]) for key in first)
    elif isinstance(first, list | tuple):
        if not isinstance(second, list | tuple) or len(first) != len(second):
            return path
        parts = ((f"{path}[{i}]", *pair) for i, pair in enumerate(zip(first, second, strict=True)))
    else:
        return None if first == second else path
    return next((found for p, a, b in parts if (found := _difference(a, b, p)) is not None), None)


@pytest.fixture(scope="session")
def difference() -> Callable[[Any, Any], str | None]:
    """Where two nested states first differ in a single bit, or None."""
    return lambda first, second: _difference(first, second, "")


@pytest.fixture
def wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager updates run under Lightning's wrappers, also where these have nothing to do."""
    monkeypatch.setattr(choice, "is_unwrapped", lambda learner: False)


def trace_instead(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Graphs are traced whole, and run one operation at a time by a backend of torch's."""
    compile = torch.compile

    @functools.wraps(compile)
    def trace(function: Any, *, options: Any, **settings: Any) -> Any:
        return compile(function, backend=backend, **settings)

    monkeypatch.setattr(torch, "compile", trace)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates are recorded at once, also in runs that are too short for it to be worth it."""
    monkeypatch.setattr(flat_phase, "WORTH_RECORDING", 0)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is only traced, with one update in each graph: several times as quick."""
    trace_instead(monkeypatch, "eager")
    monkeypatch.setattr(phase, "UNROLL", dict.fromkeys(phase.UNROLL, 1))


@pytest.fixture
def traced_as_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many updates in a graph as users have, without mutations, as the compiler gets them."""
    trace_instead(monkeypatch, "aot_eager")


DRAWING = RunReport._draw


@pytest.fixture(scope="session", autouse=True)
def undrawn() -> Iterator[None]:
    """Runs draw no figures and films at their end: that would take a half of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "_draw", lambda *_: None)
        yield


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Within it, runs draw as users see them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunReport, "_draw", DRAWING)
        yield


@pytest.fixture
def drawn() -> Iterator[None]:
    """A test that looks at what runs draw."""
    with drawing():
        yield
