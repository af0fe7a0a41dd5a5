"""One update of the DQN, of the level GAN and of the world GAN, each from its minibatch on.

The functions here say what happens in an update. An *engine* says how a network is changed: one
operation at a time (``eager.py``), or in one compiled graph (``compiled/phase.py``). Both engines
run the same functions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from lit_crl.core.categorical import expected
from lit_crl.dqn import c51
from lit_crl.dqn import equations as dqn
from lit_crl.dqn.networks import ActionValues, CategoricalQNetwork, RecurrentQNetwork
from lit_crl.dqn.settings import DqnSettings
from lit_crl.gan import equations as gan
from lit_crl.gan.level_gan import LevelGan
from lit_crl.gan.settings import GanSettings
from lit_crl.training.batches import (
    DqnMinibatch,
    GanMinibatch,
    Minibatch,
    SequenceMinibatch,
    WorldMinibatch,
)
from lit_crl.world import equations as dream
from lit_crl.world.batch import RealSteps
from lit_crl.world.networks import LikelihoodGenerators
from lit_crl.world.settings import WorldSettings
from lit_crl.world.transition_gan import TransitionGan

#: Numbers about an update by their names: 0-dimensional, except for the DQN's TD errors ``[B]``.
Report = dict[str, Tensor]
#: What an optimizer minimises, and what to report about it.
LossAndReport = tuple[Tensor, Report]
#: What a report calls the TD errors ``[B]``, from which priorities are made.
TD_ERROR = "td_error"


class Engine(Protocol):
    """How an update changes networks."""

    def descend(
        self,
        network: nn.Module,
        loss: Callable[[], LossAndReport],
        norm_name: str,
        max_norm: float = math.inf,
    ) -> Report:
        """Take the loss's gradient, clip it, and make one step of the network's optimizer.

        Args:
            network: The only network that changes; the others are frozen.
            loss: Computes the loss with the network as it is now.
            norm_name: What to call the norm of the gradient before clipping.
            max_norm: The gradient is scaled down to this norm, if it is longer.

        Returns:
            What ``loss`` reports, and the norm. A loss scaler keeps the norm to itself.
        """

    def follow(self, slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
        """Move a slow network towards a fast one: θ⁻ ← (1 − rate) θ⁻ + rate θ."""


def dqn_update(
    q_network: ActionValues,
    target_network: ActionValues,
    settings: DqnSettings,
    engine: Engine,
    batch: DqnMinibatch,
    rate: float | Tensor,
) -> Report:
    """Move Q(s, a) towards its target, Mnih et al. 2015, algorithm 1.

    Args:
        q_network: Is trained.
        target_network: Values the next observations; it follows ``q_network``.
        settings: Which target, which loss, and how long a gradient may be.
        engine: Changes the two networks.
        batch: One minibatch.
        rate: Share of ``q_network``'s weights that goes into ``target_network``.
    """
    obs, action, reward, discount, next_obs = batch.transitions
    noise, target_noise = noises(batch)
    # Float32, also under mixed precision: a TD error is a small difference of large values.
    with torch.no_grad(), torch.autocast(obs.device.type, enabled=False):
        next_q = target_network(next_obs, *target_noise)
        if settings.double:
            online = q_network(next_obs, *noise)
            target = dqn.double_td_target(reward, discount, next_q, online)
        else:
            target = dqn.td_target(reward, discount, next_q)
        report: Report = {}
        if batch.returns is not None:
            report["dqn/impossible_targets"] = dqn.impossible_share(target, batch.returns)
            target = target.clamp(*batch.returns)

    def loss_of_q() -> LossAndReport:
        values = q_network(obs, *noise)
        q = dqn.q_of(values, action)
        loss = dqn.td_loss(q, target, settings.td_loss, batch.weight)
        report = {"dqn/loss": loss, "dqn/q_mean": q.detach().mean()}
        if settings.conservative_weight > 0:
            penalty = dqn.conservative_penalty(values, action)
            report["dqn/conservative_penalty"] = penalty
            loss = loss + settings.conservative_weight * penalty
        if batch.weight is not None:
            report[TD_ERROR] = target - q.detach()
        return loss, report

    report |= engine.descend(q_network, loss_of_q, "dqn/gradient_norm", settings.max_grad_norm)
    engine.follow(target_network, q_network, rate)
    return report


def categorical_update(
    q_network: CategoricalQNetwork,
    target_network: CategoricalQNetwork,
    settings: DqnSettings,
    engine: Engine,
    batch: DqnMinibatch,
    rate: float | Tensor,
) -> Report:
    """Move the distribution of returns towards its target, Bellemare et al. 2017, algorithm 1.

    Args:
        q_network: Is trained.
        target_network: Has the same atoms, and says what follows; it follows ``q_network``.
        settings: Who selects the next action, and how long a gradient may be.
        engine: Changes the two networks.
        batch: One minibatch.
        rate: Share of ``q_network``'s weights that goes into ``target_network``.
    """
    obs, action, reward, discount, next_obs = batch.transitions
    noise, target_noise = noises(batch)
    atoms = q_network.atoms
    # Float32, also under mixed precision: probabilities are small, and a returns' unit is large.
    with torch.no_grad(), torch.autocast(obs.device.type, enabled=False):
        next_logits = target_network.logits(next_obs, *target_noise)
        if settings.double:
            best = q_network(next_obs, *noise).argmax(-1)
        else:
            best = expected(next_logits, atoms).argmax(-1)
        next_logits = c51.of_action(next_logits, best)
        step = (reward, discount, next_logits.softmax(-1), atoms)
        target = c51.categorical_td_target(*step, batch.returns)
        report = {"dqn/clipped_targets": c51.clipped_share(*step)}
        if batch.returns is not None:
            mean = reward + discount * expected(next_logits, atoms)
            report["dqn/impossible_targets"] = dqn.impossible_share(mean, batch.returns)

    def loss_of_q() -> LossAndReport:
        logits = q_network.logits(obs, *noise)
        error = c51.divergence(target, c51.of_action(logits, action))
        loss = (error if batch.weight is None else batch.weight * error).mean()
        values = expected(logits, atoms)
        report = {"dqn/loss": loss, "dqn/q_mean": dqn.q_of(values, action).detach().mean()}
        if settings.conservative_weight > 0:
            penalty = dqn.conservative_penalty(values, action)
            report["dqn/conservative_penalty"] = penalty
            loss = loss + settings.conservative_weight * penalty
        if batch.weight is not None:
            report[TD_ERROR] = error.detach()
        return loss, report

    report |= engine.descend(q_network, loss_of_q, "dqn/gradient_norm", settings.max_grad_norm)
    engine.follow(target_network, q_network, rate)
    return report


def recurrent_update(
    q_network: RecurrentQNetwork,
    target_network: RecurrentQNetwork,
    settings: DqnSettings,
    engine: Engine,
    batch: SequenceMinibatch,
    rate: float | Tensor,
) -> Report:
    """Move Q along sequences towards its targets, Kapturowski et al. 2019 (R2D2), §3.

    ``dqn/memory.py`` says which steps of a sequence count. Both networks begin with the stored
    memory and carry it through the burn-in by themselves. Targets are not rescaled as in R2D2.

    Args:
        q_network: Is trained.
        target_network: Values what follows; it follows ``q_network``.
        settings: Which target, which loss, and how long a gradient may be.
        engine: Changes the two networks.
        batch: One minibatch of sequences.
        rate: Share of ``q_network``'s weights that goes into ``target_network``.
    """
    seen, returns = batch
    before, begins = seen.begins.tensor_split([seen.burn_in.shape[1]], 1)
    counts = seen.counts
    # Float32, also under mixed precision: a TD error is a small difference of large values.
    with torch.no_grad(), torch.autocast(seen.obs.device.type, enabled=False):
        _, memory = q_network.unroll(seen.burn_in, seen.memory, before)
        _, target_memory = target_network.unroll(seen.burn_in, seen.memory, before)
        target_q, _ = target_network.unroll(seen.obs, target_memory, begins)

    def loss_of_q() -> LossAndReport:
        values, _ = q_network.unroll(seen.obs, memory, begins)
        step = (seen.reward[counts], seen.discount[counts])
        next_q = of_rows(target_q, seen.after)[counts]
        if settings.double:
            online = of_rows(values.detach(), seen.after)[counts]
            target = dqn.double_td_target(*step, next_q, online)
        else:
            target = dqn.td_target(*step, next_q)
        report: Report = {}
        if returns is not None:
            report["dqn/impossible_targets"] = dqn.impossible_share(target, returns)
            target = target.clamp(*returns)
        values, action = values[:, : counts.shape[1]][counts], seen.action[counts]
        q = dqn.q_of(values, action)
        loss = dqn.td_loss(q, target, settings.td_loss)
        report |= {"dqn/loss": loss, "dqn/q_mean": q.detach().mean()}
        if settings.conservative_weight > 0:
            penalty = dqn.conservative_penalty(values, action)
            report["dqn/conservative_penalty"] = penalty
            loss = loss + settings.conservative_weight * penalty
        return loss, report

    report = engine.descend(q_network, loss_of_q, "dqn/gradient_norm", settings.max_grad_norm)
    engine.follow(target_network, q_network, rate)
    return report


def of_rows(values: Tensor, rows: Tensor) -> Tensor:
    """The values of some rows of each sequence: ``[B, T, A], [B, L] -> [B, L, A]``."""
    return values.gather(1, rows.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def noises(batch: DqnMinibatch) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What the Q-network and the target network take beside observations: noise, or nothing.

    Each has one draw for an update (Fortunato et al. 2018, §3.1): also where a Q-network selects
    the next action, it has the noise that it learns with.
    """
    return ((), ()) if batch.noise is None else ((batch.noise[0],), (batch.noise[1],))


def update_of(
    q_network: ActionValues, target_network: ActionValues, settings: DqnSettings
) -> "Update[Any]":
    """The update of values, of distributions, or along sequences, as the networks need it."""
    if isinstance(q_network, RecurrentQNetwork):
        remembering = cast(RecurrentQNetwork, target_network)
        return partial(recurrent_update, q_network, remembering, settings)
    if isinstance(q_network, CategoricalQNetwork):
        twin = cast(CategoricalQNetwork, target_network)
        return partial(categorical_update, q_network, twin, settings)
    return partial(dqn_update, q_network, target_network, settings)


def gan_update(
    level_gan: LevelGan,
    settings: GanSettings,
    engine: Engine,
    batch: GanMinibatch,
    rate: float | Tensor,
) -> Report:
    """Train the discriminator with its success head, and then the generator against it.

    Args:
        level_gan: The networks; ``generator_ema`` follows the generator.
        settings: Which adversarial loss, its penalties, and λ.
        engine: Changes the networks.
        batch: One minibatch.
        rate: Share of the generator's weights that goes into its moving average.
    """
    generator, discriminator = level_gan.generator, level_gan.discriminator
    kind, r1, r2 = settings.loss, settings.r1, settings.r2
    z, levels = batch
    real, tried = level_gan.box.to_unit(levels.real), level_gan.box.to_unit(levels.level)
    real = gan.augmented(real, levels.places, levels.noise)
    with torch.no_grad():
        fake = gan.augmented(generator(z), levels.places, levels.noise)

    def loss_of_discriminator() -> LossAndReport:
        report = gan.discriminator_losses(discriminator, kind, real, levels.label, fake, r1, r2)
        p_logit = discriminator.success_logit(tried)
        report["gan/success_loss"] = gan.success_loss(p_logit, levels.success)
        loss = torch.stack(list(report.values())).sum()
        return loss, report | {"gan/discriminator_objective": loss}

    def loss_of_generator() -> LossAndReport:
        made = gan.augmented(generator(z), levels.places, levels.noise)
        challenge, adversarial = gan.generator_losses(discriminator, kind, real, made)
        loss = gan.generator_objective(challenge, adversarial, settings.lambda_gan)
        report = {"gan/challenge": challenge, "gan/generator_loss": adversarial}
        return loss, report | {"gan/generator_objective": loss}

    judged = engine.descend(discriminator, loss_of_discriminator, "gan/discriminator_gradient_norm")
    made = engine.descend(generator, loss_of_generator, "gan/generator_gradient_norm")
    engine.follow(level_gan.generator_ema, generator, rate)
    return judged | made


def world_update(
    world: TransitionGan, settings: WorldSettings, engine: Engine, batch: WorldMinibatch
) -> Report:
    """Train heads, discriminators and then, against these, generators: all members at once.

    What is minimised is the sum over members, and what is reported is their mean.

    Args:
        world: The networks; its units stay as they are.
        settings: Which loss, its penalties, and λ.
        engine: Changes the networks.
        batch: One minibatch, with rows of each member's own.
    """
    generators, discriminators, heads = world.generators, world.discriminators, world.heads
    rows, z = batch.rows, batch.z
    condition = world.condition(rows.obs, rows.action)
    target, learns = world.target(rows.obs, rows.next_obs), world.learns(rows)
    real = torch.cat([condition, target], -1)

    def loss_of_heads() -> LossAndReport:
        return heads_loss(world, batch)

    report = engine.descend(heads, loss_of_heads, "world/heads_gradient_norm")
    norm_name = "world/generators_gradient_norm"
    if isinstance(generators, LikelihoodGenerators):

        def loss_of_likelihood() -> LossAndReport:
            return summed({"likelihood_loss": generators.loss(condition, target, learns)})

        return report | engine.descend(generators, loss_of_likelihood, norm_name)
    assert discriminators is not None

    def loss_of_discriminators() -> LossAndReport:
        with torch.no_grad():
            fake = torch.cat([condition, generators(condition, z[..., 0, :])], -1)
        r1, r2 = settings.r1, settings.r2
        return summed(dream.discriminator_losses(discriminators, real, fake, learns, r1, r2))

    def loss_of_generators() -> LossAndReport:
        draw = generators(condition, z[..., 0, :])
        fake = torch.cat([condition, draw], -1)
        adversarial = dream.generator_loss(discriminators, real, fake, learns)
        loss, report = summed({"generator_loss": adversarial})
        if settings.loss == "gan":
            return loss, report
        other = generators(condition, z[..., 1, :])
        error = dream.squared_error_of_mean(target, draw, other, learns)
        reconstruction, about_it = summed({"reconstruction_loss": error})
        return settings.lambda_gan * loss + reconstruction, report | about_it

    report |= engine.descend(
        discriminators, loss_of_discriminators, "world/discriminators_gradient_norm"
    )
    return report | engine.descend(generators, loss_of_generators, norm_name)


def heads_loss(world: TransitionGan, batch: WorldMinibatch) -> LossAndReport:
    """What the heads of reward and end minimise."""
    rows, rare, end_log_odds, _ = batch
    both = RealSteps(*(torch.cat(fields, 1) for fields in zip(rows, rare, strict=True)))
    condition = world.condition(both.obs, both.action)
    logits, end_logit = world.heads(condition, world.target(both.obs, both.next_obs))
    # Of the rare rows the end head sees the ends alone, so that their odds are known.
    counts = torch.cat([torch.ones_like(rows.terminated), rare.terminated], 1)
    return summed(
        {
            "reward_loss": dream.reward_loss(logits, world.reward_target(both.reward)),
            "end_loss": dream.end_loss(end_logit, both.terminated.float(), end_log_odds, counts),
        }
    )


def summed(losses: Mapping[str, Tensor]) -> LossAndReport:
    """The sum of the world's losses, ``[E]`` each, and their means over members as its report."""
    report = {f"world/{name}": loss.mean() for name, loss in losses.items()}
    return torch.stack(list(losses.values())).sum(), report


AnyMinibatch = TypeVar("AnyMinibatch", bound=Minibatch)
#: ``dqn_update`` or ``gan_update`` of given networks with given settings.
Update = Callable[[Engine, AnyMinibatch, float | Tensor], Report]
#: The networks of an update with their optimizers; None: the network only follows another.
Networks = Mapping[nn.Module, LightningOptimizer | None]
#: Makes K updates, one after another. Takes the slow network's rate at each of them (0: it stays as
#: it is) and a stack ``[K, B, ...]``; gives their reports, stacked ``[K]`` (TD errors ``[K, B]``).
Phase = Callable[[Sequence[float], AnyMinibatch], Report]


class MakePhase(Protocol):
    """Makes a phase, eager or compiled."""

    def __call__(self, update: Update[AnyMinibatch], networks: Networks) -> Phase[AnyMinibatch]:
        """A phase that changes ``networks`` as ``update`` says."""
