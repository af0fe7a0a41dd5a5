"""The phase in which the explorer learns where to go, while the world is fixed."""

from collections.abc import Sequence
from functools import partial

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer

from lit_crl.dqn.networks import ActionValues
from lit_crl.dqn.settings import DqnSettings
from lit_crl.training.batches import DqnMinibatch
from lit_crl.training.updates import MakePhase, Networks, Phase, Report, dqn_update
from lit_crl.world.curiosity import bonus
from lit_crl.world.transition_gan import TransitionGan

#: The explorer's numbers that are reported, by the names that they have in the judge's update.
NAMES = {"dqn/loss": "explorer/loss", "dqn/q_mean": "explorer/q_mean"}


class ExplorerPhase:
    """The explorer learns the task's reward and curiosity; the judge sees none of it."""

    def __init__(
        self,
        world: TransitionGan,
        explorer: ActionValues,
        target_network: ActionValues,
        settings: DqnSettings,
        optimizer: LightningOptimizer,
        make_phase: MakePhase,
    ) -> None:
        """Set up the updates.

        Args:
            world: Says what is new.
            explorer: Is trained.
            target_network: Values the next observations; it follows ``explorer``.
            settings: How the explorer learns: as the judge does.
            optimizer: Of the explorer.
            make_phase: Runs the updates.
        """
        self._world = world
        networks: Networks = {explorer: optimizer, target_network: None}
        update = partial(dqn_update, explorer, target_network, settings)
        self._train: Phase[DqnMinibatch] = make_phase(update, networks)

    def __call__(self, rates: Sequence[float], stack: DqnMinibatch, curiosity: float) -> Report:
        """Make K updates.

        Args:
            rates: Rate of the slow network at each update.
            stack: Transitions ``[K, B, ...]`` with the task's rewards.
            curiosity: Weight of the bonus, which is computed here and kept nowhere.
        """
        transitions = stack.transitions
        # In float32 under mixed precision, too: the members differ by little.
        with torch.autocast(transitions.reward.device.type, enabled=False):
            found = self._world.disagreement(
                transitions.obs.flatten(0, 1), transitions.action.flatten()
            )
        extra = bonus(found, curiosity).view_as(transitions.reward)
        curious = transitions._replace(reward=transitions.reward + extra)
        report = self._train(rates, DqnMinibatch(curious))
        told = {NAMES[name]: numbers for name, numbers in report.items() if name in NAMES}
        return told | {"explorer/bonus": extra.mean(1)}
