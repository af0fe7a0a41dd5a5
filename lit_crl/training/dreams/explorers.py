"""Where the explorer acts, and where the judge does."""

import torch
from torch import Tensor

from lit_crl.core import distributed
from lit_crl.dqn.exploration import Exploration
from lit_crl.dqn.replay.buffer import ReplayBuffer
from lit_crl.training.settings import DreamSettings
from lit_crl.world.real_steps import is_rare


def explorers_places(settings: DreamSettings, num_envs: int) -> Tensor | None:
    """In which of ``num_envs`` environments the explorer acts, bool ``[N]``; None: in none.

    They are spread evenly, so that explorer and judge act with large and with small ε.

    >>> explorers_places(DreamSettings(explorers=0.5), 4)
    tensor([False,  True, False,  True])
    """
    explorers = round(settings.explorers * num_envs) if settings.has_explorer else 0
    place = torch.arange(num_envs)
    before, after = (p * explorers // num_envs for p in (place, place + 1))
    return after > before if explorers else None


def acting(places: Tensor, replay: ReplayBuffer) -> Tensor:
    """In which environments the explorer acts now, bool ``[N]``.

    Those are its ``places [N]`` and, as long as no real step has ended the task or paid anything
    unusual, all the others as well: until then the judge has nothing to judge.
    """
    knows_nothing = not is_rare(replay, replay.startable).any()
    return places | distributed.all_agree(knows_nothing, places.device)


def judges(exploration: Exploration, explores: Tensor | None) -> Exploration:
    """ε where the judge acts: everywhere but in the environments of ``explores [N]``."""
    return exploration if explores is None else JudgesExploration(exploration, explores)


class JudgesExploration(Exploration):
    """ε in the environments of the judge alone: the explorer's episodes give no outcomes."""

    def __init__(self, exploration: Exploration, explores: Tensor) -> None:
        """Leave out the environments of ``explores [N]``."""
        self.exploration, self.explores = exploration, explores

    def __call__(self, num_envs: int, env_steps: int) -> Tensor:
        """ε where the judge acts, after ``env_steps`` env steps."""
        return self.exploration(num_envs, env_steps)[~self.explores]
