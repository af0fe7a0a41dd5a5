"""A trained policy without a Trainer: it acts, judges levels and generates them."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import random_stream
from lit_crl.core.tensor_files import (
    FORMAT,
    NAMES,
    best_of,
    check_fit,
    check_format,
    plain,
    read_plain,
)
from lit_crl.dqn.networks import RecurrentQNetwork
from lit_crl.gan.level_gan import LevelGan
from lit_crl.training.blueprint import Blueprint
from lit_crl.world.settings import WorldSettings

if TYPE_CHECKING:
    from lit_crl.training.learner import CreativeLearner

#: Where checkpoints hold the settings of a learner, as Lightning names it.
SETTINGS = "hyper_parameters"

Array = npt.NDArray[Any]
#: Answers are of the same kind as what was given: NumPy arrays (or lists of numbers), or tensors.
Kind = TypeVar("Kind", Array, Tensor)


class Policy:
    """The greedy policy of the target network, as evaluations use it, and the generator.

    Observations are those of the environment in training: one (``[*shape]``) or a batch
    (``[N, *shape]``), NumPy or tensors; answers are of the same kind. So wrap your environment as
    training did: in ``gymnasium.wrappers.FrameStackObservation`` for a stack of frames, with the
    ``stack_size`` of ``data.replay.frame_stack``; in ``FlattenObservation`` for discrete, ``Dict``
    and ``Tuple`` observations. Networks calculate in float32. Further training does not change it.

    Where training had a memory (``model.network.memory``), each call is a step of the running
    episodes, of which the policy keeps the memory itself: call ``reset`` where episodes begin, and
    ask once a step, either for actions or for values. ``predict`` takes and gives the memory
    instead.

    Attributes:
        blueprint: The sizes of the networks, and the spaces of observations and levels.
        q_network: Observations ``[N, *shape]`` to action values ``[N, A]``.
        level_gan: Generator and success head; None if they were not trained.
        world: What the run's dreams were made of: ``world.imagine(obs, action, rng)`` is one step
            from observations ``[N, d]`` with actions ``[N]``, which are numbered from 0; None
            without a world.
        memory_size: Numbers that it remembers of an episode; 0: it has no memory.
        memory: What it remembers of the running episodes, ``[N, H]``; None: of none yet.
        rng: Random stream of ``generate_levels``; reseed it for other levels.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        weights: Mapping[str, Tensor],
        *,
        gan_updates: int,
        world: Mapping[str, Any] | WorldSettings = WorldSettings(),
        device: torch.device | str = "cpu",
    ) -> None:
        """Rebuild the networks; see ``load`` and ``Policy.of``.

        Args:
            blueprint: The sizes of the networks.
            weights: The learner's ``state_dict``; it is copied.
            gan_updates: The number of updates of the GAN; with 0 the policy has no generator.
            world: The settings of the world's networks.
            device: The device of the networks.

        Raises:
            ConfigError: If the weights belong to other networks.
        """
        self._world_settings = checks.group("model.world", WorldSettings, world)
        self.blueprint, self.device = blueprint, checks.device("device", str(device))
        with torch.random.fork_rng(devices=()):  # the initial weights are replaced at once
            self.q_network = blueprint.q_network()
            level_gan = blueprint.level_gan() if gan_updates else None
            self.world = blueprint.world_gan(self._world_settings)
        self._gan_updates, self.level_gan = gan_updates, level_gan
        self.memory_size, self.memory = self.q_network.memory_size, cast(Tensor | None, None)
        for name, network in self._networks.items():
            if network is not None:
                _restore(network, name, weights)
                network.to(self.device).eval().requires_grad_(False)
        self.rng = random_stream(0, "policy", device=self.device)

    @property
    def _networks(self) -> dict[str, nn.Module | None]:
        """Its networks, by their names in a checkpoint."""
        return {
            "target_network": self.q_network,
            "level_gan": self.level_gan,
            "world_gan": self.world,
        }

    @classmethod
    def of(cls, learner: CreativeLearner) -> Self:
        """The present policy of a learner, on the CPU.

        Raises:
            ConfigError: If the learner has no networks yet.
        """
        if not hasattr(learner, "blueprint"):
            raise ConfigError("the learner has no networks yet: train it, or build it, first")
        return cls(
            learner.blueprint,
            learner.state_dict(),
            gan_updates=learner.gan_updates,
            world=learner.world,
        )

    def __call__(self, obs: Kind) -> Kind:
        """Greedy actions as the task numbers them: one for an observation, ``[N]`` for a batch.

        Raises:
            ConfigError: If observations have another shape than in training, or are not as many as
                the episodes that are remembered.
        """
        return self._greedy(obs, *self._values(obs))

    def _greedy(self, obs: Kind, values: Tensor, is_single: bool) -> Kind:
        actions = values.argmax(dim=1) + self.blueprint.first_action
        return _like(obs, actions[0] if is_single else actions)

    def reset(self, begins: Any = None) -> None:
        """Forget the episodes that have ended, where the policy has a memory.

        Args:
            begins: Where an episode begins with the next observation, bool ``[N]``; None: all do,
                and there may be another number of them.

        Raises:
            ConfigError: If ``begins`` has another shape than the running episodes.
        """
        if begins is None or self.memory is None:
            self.memory = None
            return
        fresh = torch.as_tensor(begins, dtype=torch.bool, device=self.device)
        if fresh.shape != self.memory.shape[:1]:
            raise ConfigError(
                f"begins has shape {tuple(fresh.shape)}, but {len(self.memory)} episodes are "
                f"remembered: give [{len(self.memory)}], or call reset() for all of them"
            )
        self.memory = self.memory.masked_fill(fresh[:, None], 0.0)

    def action_values(self, obs: Kind) -> Kind:
        """The value of every action, ``[A]`` for one observation, ``[N, A]`` for a batch.

        Raises:
            ConfigError: If observations have another shape than in training, or are not as many as
                the episodes that are remembered.
        """
        values, is_single = self._values(obs)
        return _like(obs, values[0] if is_single else values)

    @torch.no_grad()
    def remembering_values(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Action values ``[N, A]``, and the memory ``[N, H]`` after ``obs [N, *shape]``.

        ``memory`` is what is remembered of each episode before; of one that begins, zeros. It is
        the caller's, and the policy's own stays as it is.
        """
        batch, _ = self._batch(obs)
        return cast(RecurrentQNetwork, self.q_network).step(batch, memory)

    def predict(
        self,
        obs: Kind,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Kind, Any]:
        """Actions and ``state``, as Stable-Baselines3's ``evaluate_policy`` calls it.

        Args:
            obs: The observations.
            state: The memory ``[N, H]`` that the last call gave; None: episodes begin. A policy
                without a memory gives it back as it is.
            episode_start: Where an episode begins, ``[N]``: its memory is 0; None: nowhere.
            deterministic: True, because the policy is greedy.

        Raises:
            ConfigError: If ``deterministic`` is False, or observations have another shape than in
                training.
        """
        if not deterministic:
            raise ConfigError("the policy is greedy: ask for deterministic=True")
        if not self.memory_size:
            return self(obs), state
        batch, is_single = self._batch(obs)
        memory = batch.new_zeros(len(batch), self.memory_size, dtype=torch.float32)
        if state is not None:
            memory = torch.as_tensor(state, dtype=torch.float32, device=self.device).view_as(memory)
        if episode_start is not None:
            fresh = torch.as_tensor(episode_start, dtype=torch.bool, device=self.device).view(-1, 1)
            memory = memory.masked_fill(fresh, 0.0)
        values, memory = self.remembering_values(batch, memory)
        return self._greedy(obs, values, is_single), _like(obs, memory)

    def generate_levels(self, n: int, difficulty: float | None = None) -> Tensor:
        """``n`` generated levels in the environment's units, ``[n, d]``, as training plays them.

        They lie in the level space, but some may not be ``valid`` in the environment.

        Args:
            n: The number of levels.
            difficulty: The p̂ to come close to, from 0 (hopeless) to 1 (easy): the nearest n of
                16 n levels are returned.

        Raises:
            ConfigError: If there is no trained generator, or a number is out of range.
        """
        level_gan, noise = self._gan(), self.blueprint.sizes.level_noise
        checks.positive(n=n)
        if difficulty is None:
            return level_gan.explore(n, noise, self.rng)
        checks.difficulty(difficulty, n)
        return level_gan.of_difficulty(n, difficulty, noise, self.rng)

    def success_probability(self, levels: Kind) -> Kind:
        """p̂ ``[n]``: the probability that the policy solves ``levels [n, d]``.

        Levels are in the environment's units.

        Raises:
            ConfigError: If there is no trained success head, or levels have another shape.
        """
        level_gan = self._gan()
        given = _tensor(levels, self.device).float()
        if given.dim() != 2 or given.shape[1] != level_gan.box.dim:
            raise ConfigError(
                f"levels have shape {tuple(given.shape)}: give [n, {level_gan.box.dim}]"
            )
        return _like(levels, level_gan.success_probability(given))

    def export(self, path: str | os.PathLike[str]) -> None:
        """Write a file that runs without lit_crl: batches of observations to actions and values.

        ``.onnx`` (with ``pip install 'lit_crl[export]'``) has the input ``obs`` and the outputs
        ``action`` and ``action_value``, and opening it runs no foreign code. ``.pt2`` is for
        ``torch.export.load(path).module()``, which unpickles: open only files that you wrote.
        A policy with a memory has the further input ``memory [N, H]``, zeros where an episode
        begins, and the further output ``next_memory``, which is the input at the next step.

        Raises:
            ConfigError: If the name has another ending, or a package or the folder is missing.
        """
        from lit_crl.runs.export import export  # imports the compiler

        export(self.q_network, self.blueprint, Path(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file for ``load``: the networks, without optimizers or experience.

        Raises:
            ConfigError: If the folder is missing.
        """
        weights = {
            f"{name}.{key}": tensor.cpu()
            for name, network in self._networks.items()
            if network is not None
            for key, tensor in network.state_dict().items()
        }
        about = {"gan_updates": self._gan_updates, "blueprint": self.blueprint.state_dict()}
        world = {
            name: value
            for name, value in dataclasses.asdict(self._world_settings).items()
            if not name.endswith("optimizer")
        }
        saved = {
            "lit_crl": {"format": FORMAT},
            "state_dict": weights,
            "learner": about,
            SETTINGS: {"world": plain(world)},
        }
        torch.save(saved, checks.writable(path))

    def _gan(self) -> LevelGan:
        if self.level_gan is None:
            if self.blueprint.level_space is None:
                raise ConfigError("there is no generator: the task has no levels")
            raise ConfigError(
                "there is no generator: no GAN was trained, which takes data.curriculum.arm "
                "archive, gan or one of your own, data.gan.updates above 0, and a run long enough "
                "for data.curriculum.min_outcomes outcomes"
            )
        return self.level_gan

    @torch.no_grad()
    def _values(self, obs: Kind) -> tuple[Tensor, bool]:
        """Action values ``[N, A]``, and whether a single observation was given."""
        batch, is_single = self._batch(obs)
        if not isinstance(self.q_network, RecurrentQNetwork):
            return self.q_network(batch), is_single
        memory = self.q_network.no_memory(len(batch)) if self.memory is None else self.memory
        if len(memory) != len(batch):
            raise ConfigError(
                f"there are {len(batch)} observations, but {len(memory)} episodes are remembered: "
                "call reset() first where other episodes begin"
            )
        values, self.memory = self.q_network.step(batch, memory)
        return values, is_single

    def _batch(self, obs: Array | Tensor) -> tuple[Tensor, bool]:
        """Observations as a batch ``[N, *shape]``, and whether a single one was given."""
        given = _tensor(obs, self.device)
        space = self.blueprint.obs_space
        is_single = given.shape == space.shape
        if not is_single and given.shape[1:] != space.shape:
            raise ConfigError(
                f"observations have shape {tuple(given.shape)}: give {space.shape}, or a batch "
                "[N, ...], as in training (wrap the environment in FrameStackObservation for "
                "stacks of frames, in FlattenObservation for discrete or named observations)"
            )
        is_bytes = space.dtype == np.uint8
        if is_bytes and given.is_floating_point():
            raise ConfigError(f"observations are {given.dtype}: give bytes, as in training")
        batch = given if is_bytes else given.float()
        return batch[None] if is_single else batch, is_single


def load(
    run_or_checkpoint: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    which: Literal["last", "best"] = "last",
) -> Policy:
    """The policy of a checkpoint, or of a run: its last one, or its best by validation.

    Nothing in the file is executed: it is read as tensors and plain values (``weights_only=True``),
    and the networks are rebuilt from their saved sizes. The run's configuration is not read, and no
    class that it names is imported. So a stranger's checkpoint is safe to load.

    Args:
        run_or_checkpoint: A run folder (``runs/mountain_car/seed0``); or a file that a run,
            ``Trainer.save_checkpoint`` or ``Policy.save`` wrote.
        device: The device of the networks.
        which: Of a run: ``last``, its newest undamaged checkpoint; or ``best``, which
            ``lit_crl.evaluation.best_score.score`` chose.

    Raises:
        ConfigError: If the file is missing, damaged or from another program, or if the run has
            chosen no best policy.
    """
    path = Path(run_or_checkpoint)
    if which not in ("last", "best"):
        raise ConfigError(f"which is {which!r}: use last or best")
    if which == "best":
        if path.is_file():
            raise ConfigError(f"which is best, but {path} is a file: give the folder of a run")
        return _load(best_of(path), device)
    if not path.is_dir():
        return _load(path, device)
    files = [path / "checkpoints" / name for name in NAMES]
    if not (present := [file for file in files if file.is_file()]):
        raise ConfigError(
            f"{path} holds no checkpoints/{NAMES[0]}: give the folder of a run, or a checkpoint"
        )
    for file in present[:-1]:
        try:
            return _load(file, device)
        except ConfigError as error:
            warnings.warn(f"{error}; using the checkpoint before it", stacklevel=2)
    return _load(present[-1], device)


def _load(path: Path, device: torch.device | str) -> Policy:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: give a run folder or a checkpoint")
    saved = read_plain(path)
    if isinstance(saved, dict) and isinstance(saved.get("lit_crl"), dict):
        check_format(path, saved)
    return policy_of(saved, path, device)


def policy_of(saved: Any, path: Path, device: torch.device | str) -> Policy:
    """The policy of a checkpoint, whose content was ``saved`` as ``path``.

    Raises:
        ConfigError: If that is no checkpoint of a learner.
    """
    try:
        about, weights = saved["learner"], saved["state_dict"]
        blueprint, gan_updates = about["blueprint"], int(about["gan_updates"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{path} is no checkpoint of a learner, or too old to hold the sizes of its networks: "
            "train it again"
        ) from error
    try:
        made = Blueprint.from_state_dict(blueprint)
        world = saved.get(SETTINGS, {}).get("world", {})
        return Policy(made, weights, gan_updates=gan_updates, world=world, device=device)
    # Torch refuses sizes beyond memory, and settings from a stranger may be anything.
    except (ConfigError, AttributeError, TypeError, RuntimeError, MemoryError) as error:
        raise ConfigError(f"{path} cannot be used: {error}") from error


def _restore(network: nn.Module, name: str, weights: Mapping[str, Tensor]) -> None:
    """Load the part of ``weights`` under ``name``."""
    prefix = f"{name}."
    part = {
        key.removeprefix(prefix): tensor
        for key, tensor in weights.items()
        if key.startswith(prefix)
    }
    check_fit(dict(network.state_dict()), part)
    network.load_state_dict(part)


def _tensor(given: Array | Tensor, device: torch.device) -> Tensor:
    """A tensor on ``device``; arrays are copied: some are read-only or strided backwards."""
    if isinstance(given, Tensor):
        return given.to(device)
    array = np.array(given, order="C")
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{type(given).__name__} is no array: give numbers of one shape")
    return torch.from_numpy(array).to(device)


def _like(given: Kind, answer: Tensor) -> Kind:
    """The answer as a tensor if a tensor was given, else as an array or NumPy number."""
    if isinstance(given, Tensor):
        return answer.to(given.device)
    return answer.cpu().numpy()[()]
