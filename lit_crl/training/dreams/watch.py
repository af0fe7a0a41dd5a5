"""The watch over a world: it measures at each validation, and says in words what looks wrong."""

from typing import Any

import torch

from lit_crl.core import distributed
from lit_crl.core.seeding import random_stream
from lit_crl.evaluation import world_verdicts as verdicts
from lit_crl.evaluation.protocol import Learner, Played
from lit_crl.training.dreams.dreaming import Dreaming
from lit_crl.training.dreams.measurements import measure
from lit_crl.world.curiosity import reward_scale


class WorldWatch:
    """Measures a world whenever the policy is evaluated. Without a world it does nothing.

    A sentence is printed when it newly holds, and again only after it has ceased to hold.

    Attributes:
        dreaming: The world with its real steps and dreams, as soon as there is one.
        numbers: What the last look measured; empty before the first.
    """

    def __init__(self, seed: int) -> None:
        """Watch a run; the random stream of each look begins anew with ``seed``."""
        self.dreaming: Dreaming | None = None
        self.numbers: dict[str, float] = {}
        self._seed = seed
        #: Looks running at which each of these looked so.
        self._running = {"exploited": 0, "frozen": 0, "blind to ends": 0}
        self._holds: list[str] = []

    def look(self, judge: Learner, played: Played | None) -> dict[str, float]:
        """Measure the world as it is now, and say what newly looks wrong.

        Args:
            judge: The policy that is evaluated.
            played: Its real episodes, just played; None: nobody played.

        Returns:
            The numbers, named ``world/…``; none before the world has learnt.
        """
        dreaming = self.dreaming
        if dreaming is None or not dreaming.phases:
            return {}
        device = dreaming.env.device
        with judge.clock("watch"), torch.autocast(device.type, enabled=False):
            # The same draws at each look: what changes between two looks is the world.
            rng = random_stream(self._seed, "watch over the world", device=device)
            measured = measure(dreaming, judge, played, rng)
            self.numbers = distributed.reduce_metrics(measured)
            self._judge(dreaming)
        return dict(self.numbers)

    def _judge(self, dreaming: Dreaming) -> None:
        numbers, scale = self.numbers, reward_scale(dreaming.replay.reward).item()
        dreamed = 0 if dreaming.store is None else len(dreaming.store.reward)
        suspected = {
            "exploited": verdicts.dreams_pay_too_much(numbers, scale),
            "frozen": dreaming.settings.curiosity != 0 and verdicts.members_agree(numbers),
            "blind to ends": verdicts.missed_ends(numbers, dreamed) >= verdicts.MISSED_ENDS,
        }
        running = {name: self._running[name] + 1 if suspected[name] else 0 for name in suspected}
        self._running = running
        found = {
            "exploited": verdicts.exploited(numbers, scale, running["exploited"]),
            "frozen": verdicts.frozen(numbers, running["frozen"]),
            "ignores noise": verdicts.ignores_noise(numbers),
            "blind to ends": verdicts.blind_to_ends(numbers, dreamed, running["blind to ends"]),
        }
        for name, sentence in found.items():
            if sentence is not None and name not in self._holds:
                distributed.print_once(sentence)
        self._holds = [name for name, sentence in found.items() if sentence is not None]

    def state_dict(self) -> dict[str, Any]:
        """The last numbers, and which sentences hold."""
        return {"numbers": self.numbers, "running": dict(self._running), "holds": self._holds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict()``."""
        self.numbers, self._holds = dict(state["numbers"]), list(state["holds"])
        self._running = dict(state["running"])
