"""Levels that are as good as others, because a symmetry of the task turns one into the other."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.core.levels import UnitBox
from lit_crl.curriculum.sources import SourceContext, Teacher

#: Levels ``[n, d]`` to the same levels under each of g symmetries, ``[g, n, d]``.
Symmetries = Callable[[Tensor], Tensor]


def symmetries_of(env: object) -> Symmetries:
    """The symmetries that an environment declares.

    Raises:
        ConfigError: If it declares none.
    """
    declared: Symmetries | None = getattr(env, "symmetries", None)
    if declared is None:
        raise ConfigError(
            f"{type(env).__name__} declares no symmetries of its levels: give it a method "
            "symmetries(levels) that returns [g, n, d]; or use data.curriculum.arm edits or gan, "
            "and data.gan.symmetries false"
        )
    return declared


def symmetries(n: int, curriculum: SourceContext, teacher: Teacher) -> Tensor:
    """The arm ``symmetries``: target levels under a random symmetry of the task, ``[n, d]``."""
    env, rng = curriculum.env, curriculum.rng
    same = symmetries_of(env)(env.target_levels(n, rng))
    pick = torch.randint(len(same), (n,), generator=rng, device=rng.device)
    return same[pick, torch.arange(n, device=same.device)]


def signed_places(same: Symmetries, box: UnitBox) -> Tensor:
    """Symmetries as places in ``[x, −x]``, for levels x of the unit cube: ``[g, d]``.

    Each symmetry lets the coordinates of a level change places and signs. So coordinate i of the
    symmetric level is ``torch.cat([x, -x])[places[i]]``.

    Raises:
        ConfigError: If a symmetry does anything else.
    """
    dim = box.dim
    # All coordinates of this level differ, also from each other's negatives.
    probe = torch.arange(1, dim + 1, device=box.low.device) / (dim + 1)
    images = box.to_unit(same(box.from_unit(probe[None])))[:, 0]
    signed = torch.cat([probe, -probe])
    distance, places = (images[..., None] - signed).abs().min(dim=-1)
    if bool((distance > 0.1 / (dim + 1)).any()):
        raise ConfigError(
            "data.gan.symmetries is true, but those that the environment declares do more to "
            "levels (in the box scaled to [−1, 1]) than to change places and signs of coordinates: "
            "set it to false"
        )
    return places
