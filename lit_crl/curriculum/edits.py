"""Levels that are other levels with a few changes."""

import torch
from torch import Tensor

from lit_crl.curriculum.sources import SourceContext
from lit_crl.gan.level_gan import perturbed


def valid_edits(levels: Tensor, share: float, curriculum: SourceContext) -> Tensor:
    """Levels ``[n, d]``, each edited a little; an edit that makes a level invalid is undone.

    In maps ``share`` of the tiles turn from wall to floor or back; vectors get Gaussian noise with
    a standard deviation of ``share`` times the level space's width.
    """
    env, box = curriculum.env, curriculum.box
    shape: tuple[int, int, int] | None = getattr(env, "level_shape", None)
    changed = perturbed(box.to_unit(levels), share, box, shape, curriculum.rng)
    return torch.where(env.valid(changed)[:, None], changed, levels)


class TargetEdits:
    """The arm ``edits``: target levels with the edits of ACCEL (Parker-Holder et al. 2022)."""

    def __init__(self, edit: float = 0.05) -> None:
        """Prepare to edit.

        Args:
            edit: Share of a map's tiles that an edit changes, or standard deviation of its noise as
                a share of the level space's width.
        """
        self.edit = edit

    def __call__(self, n: int, curriculum: SourceContext, teacher: object) -> Tensor:
        """``n`` edited target levels ``[n, d]``."""
        levels = curriculum.env.target_levels(n, curriculum.rng)
        return valid_edits(levels, self.edit, curriculum)
