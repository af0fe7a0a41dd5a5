"""CreativeLearner: the DQN that acts, the GAN that makes its levels, and their two phases."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, Self, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_crl.core import checks
from lit_crl.core.checks import ConfigError
from lit_crl.core.seeding import RandomStreams
from lit_crl.core.stopwatch import Stopwatch
from lit_crl.core.tensor_files import check_fit, contiguous, plain
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.networks import ActionValues
from lit_crl.envs import LevelEnv
from lit_crl.evaluation.protocol import Evaluation
from lit_crl.gan import equations as gan
from lit_crl.gan.batch import GanBatch
from lit_crl.gan.level_gan import LevelGan
from lit_crl.training import trainer_checks
from lit_crl.training.batches import Batch, DqnMinibatch, GanMinibatch
from lit_crl.training.blueprint import Blueprint, Sizes
from lit_crl.training.compiled.parameters import FlatNetwork
from lit_crl.training.eager import EagerPhase
from lit_crl.training.optimizers import (
    gan_adam,
    make_optimizer,
    q_adam,
    refresh_settings,
)
from lit_crl.training.running_means import LossSums
from lit_crl.training.updates import (
    TD_ERROR,
    AnyMinibatch,
    Networks,
    Phase,
    Update,
    dqn_update,
    gan_update,
)

#: Settings that make optimizers, in the order of ``configure_optimizers``: code, not plain values.
OPTIMIZERS = ("q_optimizer", "discriminator_optimizer", "generator_optimizer")


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
    #: Generator and discriminator; None where the environment has no levels.
    level_gan: LevelGan | None

    def __init__(
        self,
        hidden: Sequence[int] = (128, 128),
        dueling: bool = False,
        layer_norm: bool = True,
        scale_obs: bool = True,
        planning_steps: int = 0,
        double_dqn: bool = True,
        td_loss: dqn.TDLoss = "huber",
        target_rate: float = 0.01,
        target_period: int = 1,
        max_grad_norm: float = 10.0,
        final_lr: float = 0.1,
        gan_loss: gan.GANLoss = "relativistic",
        lambda_gan: float = 2.0,
        r1: float = 0.5,
        r2: float = 0.5,
        gan_hidden: Sequence[int] = (128, 128),
        noise_dim: int = 0,
        ema_rate: float = 0.005,
        level_noise: float = 0.05,
        q_optimizer: OptimizerCallable = q_adam,
        generator_optimizer: OptimizerCallable = gan_adam,
        discriminator_optimizer: OptimizerCallable = gan_adam,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        """Say how the networks look and learn.

        Args:
            hidden: Width of each hidden layer of the Q-network.
            dueling: Split the Q-network's head into state value and advantages.
            layer_norm: LayerNorm after each hidden layer of the Q-network.
            scale_obs: Scale bounded vectors to [−1, 1]; turn it off where bounds say little.
            planning_steps: Longest way that is planned, in maps around the agent; 0: plain network.
            double_dqn: The online network selects the bootstrap action.
            td_loss: Loss of a TD error: ``huber``, linear beyond 1, or ``mse``, its square.
            target_rate: Share of online weights in each sync of the target network; 1: hard copy.
            target_period: DQN updates from one sync of the target network to the next.
            max_grad_norm: The Q-network's gradient is scaled down to this norm, if it is larger.
            final_lr: The Q-network's learning rate falls linearly over the run to this share of
                its start; 1 keeps it constant.
            gan_loss: Adversarial loss: ``relativistic``, ``non_saturating``,
                ``least_squares`` (labelled, as in Goal-GAN) or ``hinge``.
            lambda_gan: λ of what the generator minimises,
                ``challenge + λ · L_GAN``: a large λ makes levels like those reached, a small one
                levels that are solved every other time.
            r1: Weight of the gradient penalty on real levels.
            r2: Weight of the gradient penalty on generated levels.
            gan_hidden: Width of each hidden layer of generator and discriminator.
            noise_dim: Length of the generator's noise z; 0: max(8, twice the level's), 32 for maps.
            ema_rate: Share of the generator's weights that goes into its moving average, which
                makes the levels that are played, at each update.
            level_noise: Standard deviation of the noise added to levels that are played, as a share
                of the level space (of maps: share of tiles that change).
            q_optimizer: Optimizer of the Q-network.
            generator_optimizer: Optimizer of the generator.
            discriminator_optimizer: Optimizer of the discriminator and its success head.
            compile: Compile whole updates: the run starts up to a minute later (seconds, from a
                cache) and then updates two to three times as fast.
            seed: Seed of the first weights, of exploration and of z.

        Raises:
            ConfigError: If a number makes no sense.
        """
        super().__init__()
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        checks.model_settings(given)
        # Lightning writes these into checkpoints, which hold no code.
        named = {key: value for key, value in given.items() if key not in OPTIMIZERS}
        self.save_hyperparameters(plain(named), logger=False)
        self.automatic_optimization = False
        sizes = (planning_steps, tuple(gan_hidden), noise_dim, level_noise)
        self.sizes = Sizes(tuple(hidden), dueling, layer_norm, scale_obs, *sizes)
        self.double_dqn, self.td_loss, self.compile_updates = double_dqn, td_loss, compile
        self.target_rate, self.target_period = target_rate, target_period
        self.max_grad_norm, self.final_lr = max_grad_norm, final_lr
        self.gan_loss, self.lambda_gan = gan_loss, lambda_gan
        self.r1, self.r2 = r1, r2
        self.level_noise, self.ema_rate = level_noise, ema_rate
        self.q_optimizer = q_optimizer
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        self.level_gan = None
        self.clock, self.losses = Stopwatch(), LossSums()
        self.updates = self.gan_updates = 0
        #: Which numbers the last evaluation had.
        self._measured: set[str] = set()
        self.streams, self.seed = RandomStreams(seed), seed

    def build(self, env: LevelEnv) -> "CreativeLearner":
        """Make the networks for an environment's spaces; without levels there is no GAN."""
        return self._build(Blueprint.of(env, self.sizes))

    def _build(self, blueprint: Blueprint) -> "CreativeLearner":
        self.blueprint, self.num_actions = blueprint, blueprint.num_actions
        with torch.random.fork_rng(devices=()):  # the global stream is left as it was
            torch.default_generator.manual_seed(self.seed)
            self.q_network, level_gan = blueprint.q_network(), blueprint.level_gan()
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
        are not in it: give them once more if they were not the default ones.
        """
        return super().load_from_checkpoint(
            checkpoint_path, map_location, hparams_file, strict, weights_only, **kwargs
        )

    def setup(self, stage: str) -> None:
        """Refuse what this learner cannot keep of the Trainer's promises."""
        checks.default_dtype()
        if stage == "fit":
            trainer_checks.check(self.trainer)

    def configure_model(self) -> None:
        """Build the networks for the DataModule's environment, once."""
        self.streams.rank = self.global_rank
        # Without a Trainer a checkpoint is being loaded, which says what the networks look like.
        if not hasattr(self, "q_network") and self._trainer is not None:
            self.build(cast(Any, self.trainer).datamodule.env)

    def configure_optimizers(self) -> list[Optimizer]:
        """One optimizer each for Q-network, discriminator and generator."""
        optimizers = [make_optimizer("q_optimizer", self.q_optimizer, self.q_network)]
        # Kept here, so that on resume the configured rates beat those in the checkpoint.
        self._q_optimizer = optimizers[0]
        self._q_rates = [group["lr"] for group in self._q_optimizer.param_groups]
        if (level_gan := self.level_gan) is not None:
            optimizers += [
                make_optimizer(
                    "discriminator_optimizer",
                    self.discriminator_optimizer,
                    level_gan.discriminator,
                ),
                make_optimizer(
                    "generator_optimizer", self.generator_optimizer, level_gan.generator
                ),
            ]
        return optimizers

    @torch.no_grad()
    def act(self, obs: Tensor, epsilon: Tensor | float = 0.0) -> Tensor:
        """Actions ``[N]`` of the online network: random with probability ε, else greedy."""
        return dqn.greedy_unless(*self.toss(len(obs), epsilon), self.q_network(obs))

    def toss(self, n: int, epsilon: Tensor | float) -> tuple[Tensor, Tensor]:
        """Which of ``n`` environments act at random, and how: ``dqn.toss``."""
        return dqn.toss(n, self.num_actions, epsilon, self.streams("exploration", self.device))

    @torch.no_grad()
    def action_values(self, obs: Tensor) -> Tensor:
        """Q of the target network ``[N, A]``: smoother than the online one, so it is judged."""
        return cast(Tensor, self.target_network(obs))

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
            difficulty: p̂ wanted, from 0 (hopeless) to 1 (easy): the n nearest of 16 n levels.

        Raises:
            ConfigError: If the environment has no levels, or ``difficulty`` makes no sense.
        """
        level_gan, rng = self._gan(), self.streams("z", self.device)
        if difficulty is not None:
            checks.difficulty(difficulty, n_or_z)
            return level_gan.of_difficulty(cast(int, n_or_z), difficulty, self.level_noise, rng)
        if isinstance(n_or_z, Tensor):
            return level_gan.generate(n_or_z)
        return level_gan.explore(n_or_z, self.level_noise, rng)

    def success_probability(self, levels: Tensor) -> Tensor:
        """p̂ ``[n]``: how likely the present policy solves levels in the environment's units."""
        return self._gan().success_probability(levels)

    def realness(self, levels: Tensor) -> Tensor:
        """The discriminator's logits ``[n]`` of levels in the environment's units."""
        return self._gan().realness(levels)

    def on_train_start(self) -> None:
        """Set up the phases, now that the optimizers have the state they start from."""
        #: Where updates are compiled: each network with its parameters as one vector.
        self.flat_networks: dict[nn.Module, FlatNetwork] = {}
        optimizers: Any = self.optimizers()
        q_optimizer, *gan_optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        update_dqn = partial(
            dqn_update,
            self.q_network,
            self.target_network,
            double=self.double_dqn,
            td_loss=self.td_loss,
            max_grad_norm=self.max_grad_norm,
        )
        networks: Networks = {self.q_network: q_optimizer, self.target_network: None}
        self._train_dqn: Phase[DqnMinibatch] = self._phase(update_dqn, networks)
        if (level_gan := self.level_gan) is not None:
            update_gan = partial(
                gan_update,
                level_gan,
                kind=self.gan_loss,
                r1=self.r1,
                r2=self.r2,
                lambda_gan=self.lambda_gan,
            )
            discriminator_optimizer, generator_optimizer = gan_optimizers
            networks = {
                level_gan.discriminator: discriminator_optimizer,
                level_gan.generator: generator_optimizer,
                level_gan.generator_ema: None,
            }
            self._train_gan: Phase[GanMinibatch] = self._phase(update_gan, networks)

    def _phase(self, update: Update[AnyMinibatch], networks: Networks) -> Phase[AnyMinibatch]:
        if not self.compile_updates:
            return EagerPhase(self, update, networks)
        with self.clock("compile"):  # importing the compiler takes seconds
            from lit_crl.training.compiled.phase import CompiledPhase
        phase = CompiledPhase(self, update, networks, self.clock)
        self.flat_networks |= phase.flat
        return phase

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """The DQN phase, and on batches that bring levels the GAN phase."""
        with self.clock("dqn"):
            self._dqn_phase(batch)
        if batch.gan is not None:
            # Gradient penalties and p̂ near 0 and 1 need float32, also under mixed precision.
            with self.clock("gan"), torch.autocast(self.device.type, enabled=False):
                self._gan_phase(batch.gan)
        self.losses.check_finite()

    def _dqn_phase(self, batch: Batch) -> None:
        for group, rate in zip(self._q_optimizer.param_groups, self._q_rates, strict=True):
            group["lr"] = rate * (1 - batch.progress * (1 - self.final_lr))
        first = self.updates + 1
        self.updates += len(batch.dqn.obs)
        is_due = [number % self.target_period == 0 for number in range(first, self.updates + 1)]
        rates = [self.target_rate * due for due in is_due]
        report = self._train_dqn(rates, DqnMinibatch(batch.dqn, batch.weight))
        if batch.reprioritize is not None:
            batch.reprioritize(report.pop(TD_ERROR))
        self.losses.add(report, first)

    def _gan_phase(self, stack: GanBatch) -> None:
        updates, levels = stack.real.shape[:2]
        noise = self.draw_noise(updates * levels).view(updates, levels, -1)
        report = self._train_gan([self.ema_rate] * updates, GanMinibatch(noise, stack))
        self.losses.add(report, self.gan_updates + 1)
        self.gan_updates += updates

    def validation_step(self, evaluation: Evaluation, batch_idx: int) -> dict[str, float]:
        """Play the evaluation's episodes with the greedy policy, and judge the generator."""
        with self.clock("evaluation"):
            results = evaluation.run(self, self.gan_updates > 0)
        for name in self._measured - results.keys():  # the Trainer would keep the older number
            self.trainer.callback_metrics.pop(name, None)
        self._measured = set(results)
        # While training, RecordMetrics hands them to the loggers, over env steps.
        to_loggers = False if self.trainer.state.fn == "fit" else None
        # The same keys and numbers in all processes, which have shared the evaluation.
        self.log_dict(results, logger=to_loggers, batch_size=1, sync_dist=True)
        return results

    test_step = validation_step

    def predict_step(self, asked: tuple[int, float | None], batch_idx: int) -> dict[str, Tensor]:
        """So many generated levels of that difficulty, with their p̂.

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
        """Add the counters, which all processes share (see also ``collected_state``), and sizes."""
        counters = {"updates": self.updates, "gan_updates": self.gan_updates}
        checkpoint["learner"] = {**counters, "blueprint": self.blueprint.state_dict()}
        for optimizer in checkpoint.get("optimizer_states", []):
            optimizer["state"] = contiguous(optimizer["state"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the counters back; for ``load_from_checkpoint`` also build the networks.

        What the optimizers had learnt goes on under the settings that this learner was given.

        Raises:
            ConfigError: If it is of other networks, or of optimizers that keep other numbers.
        """
        saved = checkpoint["learner"]
        if not hasattr(self, "q_network"):
            self._build(Blueprint.from_state_dict(saved["blueprint"]))
        self.blueprint.check_layout(saved["blueprint"])
        check_fit(dict(self.state_dict()), checkpoint["state_dict"])
        self.updates, self.gan_updates = saved["updates"], saved["gan_updates"]
        if self._trainer is not None and self._trainer.state.fn == "fit":
            if not checkpoint.get("optimizer_states"):
                raise ConfigError(
                    "the checkpoint has weights alone, from which no fit can go on: give one that "
                    "RunCheckpoint wrote, or start a new run with these weights"
                )
            self._give_own_settings(checkpoint["optimizer_states"])

    def _give_own_settings(self, states: Sequence[dict[str, Any]]) -> None:
        falling = [group["lr"] for group in states[0]["param_groups"]]
        mine = self.configure_optimizers()
        for name, optimizer, state in zip(OPTIMIZERS, mine, states, strict=False):
            refresh_settings(f"model.{name}", optimizer, state)
        # The Q-network's rate is as it was when the checkpoint was saved; each DQN phase sets it.
        for group, rate in zip(states[0]["param_groups"], falling, strict=True):
            group["lr"] = rate
