"""CreativeLearner: the DQN that acts, the GANs that make what it learns in, and their phases."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import RandomStreams
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.core.tensor_files import check_fit, contiguous, plain, read_plain
from lit_crl.dqn.equations import greedy_unless, toss
from lit_crl.dqn.memory import Sequences
from lit_crl.dqn.networks import ActionValues, RecurrentQNetwork
from lit_crl.dqn.noisy import factorised_noise
from lit_crl.dqn.settings import DqnSettings, NetworkSettings
from lit_crl.envs import LevelEnv
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.settings import GanSettings
from lit_crl.training import trainer_checks
from lit_crl.training.batches import (
    Batch,
    DqnMinibatch,
    GanMinibatch,
    SequenceMinibatch,
    WorldMinibatch,
)
from lit_crl.training.blueprint import Blueprint, Sizes
from lit_crl.training.clipped_targets import ClippedTargets
from lit_crl.training.dreams.phases import explorer_phase, world_phase
from lit_crl.training.flat.network import FlatNetwork
from lit_crl.training.graphs.choice import PhaseMaker
from lit_crl.training.model_checks import check_model
from lit_crl.training.optimizers import (
    Trained,
    make_optimizer,
    trained_of_levels,
    trained_of_world,
    without_optimizers,
)
from lit_crl.training.phases import dqn_phase, gan_phase
from lit_crl.training.resuming import give_own_settings
from lit_crl.training.running_means import LossSums
from lit_crl.training.supports import spread_as_given, spread_as_possible
from lit_crl.training.updates import TD_ERROR
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan


class CreativeLearner(LightningModule):
    """A DQN and a GAN, trained in turn.

    In the *DQN phase* the Q-network learns from replayed transitions while the GAN is frozen. In
    the *GAN phase* the discriminator learns what levels the policy reaches (and, with its
    success head, which of them it solves) and the generator learns to make such levels, while
    the Q-network is frozen. The networks are built when the environment is known: by the
    Trainer, or by ``build``.
    """

    q_network: ActionValues
    target_network: ActionValues
    num_actions: int
    #: Where updates are graphs: each network with its parameters as one vector.
    flat_networks: dict[nn.Module, FlatNetwork]
    #: Generator and discriminator; None where the environment has no levels.
    level_gan: LevelGan | None
    #: Imagines transitions, and the Q-network that explores in them; None without a world.
    world_gan: TransitionGan | None
    explorer: ActionValues | None
    explorer_target: ActionValues

    def __init__(
        self,
        network: NetworkSettings = NetworkSettings(),
        dqn: DqnSettings = DqnSettings(),
        gan: GanSettings = GanSettings(),
        world: WorldSettings = WorldSettings(),
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        """Configure the networks and how they learn.

        In place of each group of settings, a mapping of its fields is accepted as well.

        Args:
            network: Architecture of the Q-network.
            dqn: How the Q-network learns.
            gan: The level GAN and what it minimises.
            world: The world GAN, in whose dreams an explorer learns where to go.
            compile: Compile whole updates. The run then starts up to a minute later (seconds, from
                a cache; twice that with a world), and its updates take half of the time,
                and those of a world six tenths. On a GPU updates are CUDA graphs in any case,
                and compiled ones take half of the time.
            seed: Seed of the first weights, of exploration and of z.

        Raises:
            ConfigError: If a number makes no sense.
        """
        super().__init__()
        self.network = checks.group("model.network", NetworkSettings, network)
        self.dqn = checks.group("model.dqn", DqnSettings, dqn)
        self.gan = checks.group("model.gan", GanSettings, gan)
        self.world = checks.group("model.world", WorldSettings, world)
        check_model(self.network, self.dqn, self.world, compile)
        names = ("network", "dqn", "gan", "world")
        groups = {name: without_optimizers(getattr(self, name)) for name in names}
        self.save_hyperparameters(plain({**groups, "compile": compile, "seed": seed}), logger=False)
        self.automatic_optimization = False
        self.compile_updates = compile
        #: Numbers that the Q-network remembers of an episode; 0: it has no memory.
        self.memory_size = self.network.memory
        self.level_gan = None
        self.world_gan, self.explorer = None, None
        self.clock, self.losses = Stopwatch(), LossSums()
        self._clipped = ClippedTargets()
        self.updates = self.gan_updates = self.world_updates = 0
        #: Which numbers the last evaluation had.
        self._measured: set[str] = set()
        self.streams, self.seed = RandomStreams(seed), seed

    @property
    def sizes(self) -> Sizes:
        """The settings that say how the networks look."""
        return Sizes.of(self.network, self.gan)

    def build(self, env: LevelEnv) -> "CreativeLearner":
        """Make the networks for an environment's spaces; without levels there is no GAN."""
        return self._build(Blueprint.of(env, self.sizes))

    def _build(self, blueprint: Blueprint) -> "CreativeLearner":
        self.blueprint, self.num_actions = blueprint, blueprint.num_actions
        with torch.random.fork_rng(devices=()):  # the global stream is left as it was
            torch.default_generator.manual_seed(self.seed)
            self.q_network, level_gan = blueprint.q_network(), blueprint.level_gan()
            # First the explorer, so that it begins alike in whatever world.
            self.explorer = None if self.world.loss == "none" else blueprint.q_network()
            self.world_gan = blueprint.world_gan(self.world)
        if self.explorer is not None:
            self.explorer_target = copy.deepcopy(self.explorer).requires_grad_(False)
        self.target_network = copy.deepcopy(self.q_network).requires_grad_(False)
        self.level_gan = level_gan
        return self

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """The learner of a checkpoint, with the settings and networks that it was saved with.

        See ``LightningModule.load_from_checkpoint``; nothing in the file is executed. Optimizers
        are not in it: give them once more if they were not the default ones. A mapping in place
        of a group of settings changes only the settings that it names.
        """
        changed = {name: given for name, given in kwargs.items() if isinstance(given, Mapping)}
        if changed:
            saved = read_plain(Path(checkpoint_path)).get(cls.CHECKPOINT_HYPER_PARAMS_KEY, {})
            kwargs |= {name: {**saved.get(name, {}), **given} for name, given in changed.items()}
        return super().load_from_checkpoint(
            checkpoint_path, map_location, hparams_file, strict, weights_only, **kwargs
        )

    def setup(self, stage: str) -> None:
        """Refuse a Trainer whose settings this learner cannot keep."""
        checks.default_dtype()
        if stage == "fit":
            trainer_checks.check(self.trainer)

    def configure_model(self) -> None:
        """Build the networks for the DataModule's environment, once."""
        self.streams.rank = self.global_rank
        # Without a Trainer a checkpoint is being loaded, and it says what the networks look like.
        if not hasattr(self, "q_network") and self._trainer is not None:
            self.build(cast(Any, self.trainer).datamodule.env)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer each for Q-networks, discriminators and generators.

        A world adds groups of parameters: its explorer to the first, its discriminators and heads
        to the second, its generators to the third.
        """
        optimizers = [make_optimizer(trained) for trained in self._trained()]
        # Kept here, so that a resumed run uses the configured rates and not the checkpoint's.
        self._q_optimizer = optimizers[0]
        self._q_rates = [group["lr"] for group in self._q_optimizer.param_groups]
        return optimizers

    def _trained(self) -> list[list[Trained]]:
        """What each optimizer trains."""
        q_networks = [Trained("dqn.optimizer", self.dqn.optimizer, [self.q_network])]
        gans: list[tuple[Trained, Trained]] = []
        if self.level_gan is not None:
            gans.append(trained_of_levels(self.level_gan, self.gan))
        if self.world_gan is not None and self.explorer is not None:
            q_networks.append(Trained("dqn.optimizer", self.dqn.optimizer, [self.explorer]))
            gans.append(trained_of_world(self.world_gan, self.world))
        return [q_networks, *map(list, zip(*gans, strict=True))]

    @torch.no_grad()
    def act(
        self, obs: Tensor, epsilon: Tensor | float = 0.0, explores: Tensor | None = None
    ) -> Tensor:
        """Actions ``[N]``: random with probability ε, else greedy.

        Greedy is the online network or, where ``explores [N]``, the explorer.
        """
        explore, random = self.toss(len(obs), epsilon)
        noise = self.acting_noise(len(obs))
        q = self.q_network(obs, *noise)
        if explores is not None and self.explorer is not None:
            q = torch.where(explores[:, None], self.explorer(obs, *noise), q)
        return greedy_unless(explore, random, q)

    @torch.no_grad()
    def act_remembering(
        self, obs: Tensor, memory: Tensor, epsilon: Tensor | float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Actions ``[N]`` of a Q-network with memory, and the memory ``[N, H]`` after ``obs``.

        Args:
            obs: Observations.
            memory: What the network remembers of each episode before them, ``[N, H]``.
            epsilon: Probability of a random action.
        """
        explore, random = self.toss(len(obs), epsilon)
        q, memory = cast(RecurrentQNetwork, self.q_network).step(obs, memory)
        return greedy_unless(explore, random, q), memory

    def toss(self, n: int, epsilon: Tensor | float) -> tuple[Tensor, Tensor]:
        """Which of ``n`` environments act at random, and their random actions, ``[n]`` each."""
        return toss(n, self.num_actions, epsilon, self.streams("exploration", self.device))

    def acting_noise(self, n: int) -> tuple[Tensor, ...]:
        """What Q-networks take beside ``n`` observations to act: noise ``[n, size]``, if any.

        Each environment has noise of its own, which is drawn anew for each step.
        """
        if not (size := self.q_network.noise_size):
            return ()
        return (factorised_noise(n, size, rng=self.streams("exploration", self.device)),)

    @torch.no_grad()
    def action_values(self, obs: Tensor) -> Tensor:
        """Q of the target network ``[N, A]``. It is evaluated because it changes more smoothly.

        Raises:
            ConfigError: If it has a memory: see ``remembering_values``.
        """
        if self.memory_size:
            raise ConfigError(
                f"model.network.memory is {self.memory_size}, so values depend on what an episode "
                "has shown before: use remembering_values, or lit_crl.Policy.of(learner)"
            )
        return cast(Tensor, self.target_network(obs))

    @torch.no_grad()
    def remembering_values(self, obs: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Q of the target network ``[N, A]``, and its memory ``[N, H]`` after ``obs``.

        ``memory`` is what it remembers of each episode before; of one that begins, zeros.
        """
        return cast(RecurrentQNetwork, self.target_network).step(obs, memory)

    def forward(self, obs: Tensor) -> Tensor:
        """Greedy actions ``[N]`` of the target network."""
        return self.action_values(obs).argmax(dim=1)

    def _gan(self) -> LevelGan:
        if self.level_gan is None:
            raise ConfigError("there is no generator: the environment has no level_space")
        return self.level_gan

    def draw_noise(self, n: int, rng: torch.Generator | None = None) -> Tensor:
        """Noise z for ``n`` levels, ``[n, noise_dim]``."""
        return self._gan().draw_noise(n, rng or self.streams("z", self.device))

    def generate_levels(self, n_or_z: int | Tensor, difficulty: float | None = None) -> Tensor:
        """Levels in the environment's units, ``[n, d]``.

        Args:
            n_or_z: A number draws z and adds the sampler's noise (what training plays); noise
                ``z [n, noise_dim]`` gives exactly the averaged generator's levels.
            difficulty: Wanted p̂, from 0 (hopeless) to 1 (easy): gives the nearest n of 16 n levels.

        Raises:
            ConfigError: If the environment has no levels, or ``difficulty`` makes no sense.
        """
        level_gan, rng = self._gan(), self.streams("z", self.device)
        if difficulty is not None:
            checks.difficulty(difficulty, n_or_z)
            return level_gan.of_difficulty(cast(int, n_or_z), difficulty, self.gan.level_noise, rng)
        if isinstance(n_or_z, Tensor):
            return level_gan.generate(n_or_z)
        return level_gan.explore(n_or_z, self.gan.level_noise, rng)

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ ``[n]``: how likely the present policy solves levels in the environment's units."""
        return self._gan().success_probability(levels)

    def realness(self, levels: Tensor) -> Tensor:
        """The discriminator's logits ``[n]`` of levels in the environment's units."""
        return self._gan().realness(levels)

    def on_train_start(self) -> None:
        """Set up the phases, now that the optimizers have the state they start from."""
        new_phase = PhaseMaker(self, self.compile_updates, self.clock)
        self.flat_networks = new_phase.flat
        made: Any = self.optimizers()
        q_optimizer, *gan_optimizers = made if isinstance(made, list) else [made]
        judge = (self.q_network, self.target_network)
        if self.dqn.support is not None:
            spread_as_given(self.dqn.support, judge)
        self._train_dqn = dqn_phase(*judge, self.dqn, q_optimizer, new_phase)
        if self.level_gan is not None:
            judges, makers = gan_optimizers
            self._train_gan = gan_phase(self.level_gan, self.gan, judges, makers, new_phase)
        if self.world_gan is not None and self.explorer is not None:
            judges, makers = gan_optimizers
            self._train_world = world_phase(self.world_gan, self.world, judges, makers, new_phase)
            explorer = (self.explorer, self.explorer_target)
            self._train_explorer = explorer_phase(*explorer, self.dqn, q_optimizer, new_phase)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """The DQN phase and, if the batch brings what they learn from, the phases of the GANs."""
        with self.clock("dqn"):
            self._dqn_phase(batch)
        if batch.gan is not None:
            # Gradient penalties and p̂ near 0 and 1 need float32, also under mixed precision.
            with self.clock("gan"), torch.autocast(self.device.type, enabled=False):
                self._gan_phase(batch.gan)
        if batch.world is not None:
            with self.clock("world"), torch.autocast(self.device.type, enabled=False):
                self._world_phase(batch.world)
        self.losses.check_finite()

    def _dqn_phase(self, batch: Batch) -> None:
        for group, rate in zip(self._q_optimizer.param_groups, self._q_rates, strict=True):
            group["lr"] = rate * (1 - batch.progress * (1 - self.dqn.final_lr))
        first = self.updates + 1
        self.updates += len(batch.dqn.obs)
        rates = self.dqn.target_rates(first, len(batch.dqn.obs))
        self._move_supports(batch)
        if isinstance(batch.dqn, Sequences):
            report = self._train_dqn(rates, SequenceMinibatch(batch.dqn, batch.returns))
        else:
            noise = self._noise_of_updates("noise", len(rates))
            stack = DqnMinibatch(batch.dqn, batch.weight, batch.returns, noise)
            report = self._train_dqn(rates, stack)
        if batch.reprioritize is not None:
            batch.reprioritize(report.pop(TD_ERROR))
        if self.dqn.support is not None:
            self._clipped.add(report["dqn/clipped_targets"])
        self.losses.add(report, first)
        if batch.explorer is not None and batch.bonus is not None:
            rates = self.dqn.target_rates(first, len(batch.bonus))
            noise = self._noise_of_updates("explorer's noise", len(rates))
            report = self._train_explorer(rates, batch.explorer._replace(noise=noise))
            self.losses.add(report | {"explorer/bonus": batch.bonus}, first)

    def _move_supports(self, batch: Batch) -> None:
        """Let distributions reach as far as returns can, unless the settings say how far."""
        if not (atoms := self.network.atoms):
            return
        if self.dqn.support is None:
            spread_as_possible(batch.returns, (self.q_network, self.target_network), atoms)
        explorers = None if batch.explorer is None else batch.explorer.returns
        if explorers is not None and self.explorer is not None:
            spread_as_possible(explorers, (self.explorer, self.explorer_target), atoms)

    def _noise_of_updates(self, purpose: str, updates: int) -> Tensor | None:
        """Noise of a Q-network and its target network in each of K updates, ``[K, 2, size]``."""
        if not (size := self.q_network.noise_size):
            return None
        return factorised_noise(updates, 2, size, rng=self.streams(purpose, self.device))

    def _gan_phase(self, stack: GanBatch) -> None:
        updates, levels = stack.real.shape[:2]
        noise = self.draw_noise(updates * levels).view(updates, levels, -1)
        report = self._train_gan([self.gan.ema_rate] * updates, GanMinibatch(noise, stack))
        self.losses.add(report, self.gan_updates + 1)
        self.gan_updates += updates

    def _world_phase(self, stack: WorldMinibatch) -> None:
        updates = len(stack.end_log_odds)
        report = self._train_world([0.0] * updates, stack)
        self.losses.add(report, self.world_updates + 1)
        self.world_updates += updates

    def on_train_epoch_end(self) -> None:
        """Say if a support that was given is too narrow."""
        if self.dqn.support is not None:
            self._clipped.look(self.dqn.support)

    def on_train_end(self) -> None:
        """Lay the weights out in memory like those of a loaded policy: both then act alike."""
        for parameter in self.parameters():
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)

    def validation_step(self, evaluation: Evaluation, batch_idx: int) -> dict[str, float]:
        """Play the evaluation's episodes with the greedy policy, and judge the generator."""
        with self.clock("evaluation"):
            results = evaluation.run(self, self.gan_updates > 0)
        # The Trainer would go on showing the older number of a metric that is now absent.
        for name in self._measured - results.keys():
            self.trainer.callback_metrics.pop(name, None)
        self._measured = set(results)
        # During training RecordMetrics gives them to the loggers, over env steps.
        to_loggers = False if self.trainer.state.fn == "fit" else None
        # All processes have shared the evaluation, so keys and numbers are the same.
        self.log_dict(results, logger=to_loggers, batch_size=1, sync_dist=True)
        return results

    test_step = validation_step

    def predict_step(self, asked: tuple[int, float | None], batch_idx: int) -> dict[str, Tensor]:
        """Generated levels with their p̂; ``asked`` is how many, and of which difficulty.

        Raises:
            ConfigError: If the generator has never been trained.
        """
        if not self.gan_updates:
            raise ConfigError(
                "there is no generator to make levels with: no GAN was trained, which takes "
                "data.curriculum.arm archive, gan, or one of your own, and data.gan.updates above 0"
            )
        levels = self.generate_levels(*asked)
        return {"levels": levels, "p_hat": self.success_probability(levels)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add counters and sizes; ``collected_state`` has what each process holds by itself."""
        counters = {
            "updates": self.updates,
            "gan_updates": self.gan_updates,
            "world_updates": self.world_updates,
        }
        checkpoint["learner"] = {**counters, "blueprint": self.blueprint.state_dict()}
        for optimizer in checkpoint.get("optimizer_states", []):
            optimizer["state"] = contiguous(optimizer["state"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counters back; for ``load_from_checkpoint`` also build the networks.

        The optimizers keep what they had learnt, and take the settings of this learner.

        Raises:
            ConfigError: If the checkpoint is of other networks, or of optimizers that keep other
                numbers.
        """
        saved = checkpoint["learner"]
        if not hasattr(self, "q_network"):
            if "network" not in checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}):
                raise ConfigError(
                    "an older version wrote the checkpoint, whose settings had other names: use "
                    "lit_crl.load for its policy, or train it anew"
                )
            self._build(Blueprint.from_state_dict(saved["blueprint"]))
        self.blueprint.check_layout(saved["blueprint"])
        check_fit(dict(self.state_dict()), checkpoint["state_dict"])
        self.updates, self.gan_updates = saved["updates"], saved["gan_updates"]
        self.world_updates = saved["world_updates"]
        if self._trainer is not None and self._trainer.state.fn == "fit":
            give_own_settings(checkpoint, self._trained(), self.configure_optimizers())
