"""What a level is to the package: the interface of environments, and checks that they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUND_TOLERANCE = 1e-5  # relative to the width of the level box: forgives float rounding only


@runtime_checkable
class LevelEnv(Protocol):
    """What the rest of the package relies on; write your own environment against this.

    An environment with images has an attribute ``image_layout``, which says how their axes lie (see
    ``lit_crl.envs.images``).

    It may also have ``level_shape``, (maps, rows, columns) of levels that are maps of walls, of
    starts (a map for each way to face) and of the goal; ``render_levels``, which turns levels into
    images [n, rows, columns, 3], and a ``BatchedEnv``'s states as well; ``draw_level_plane``, which
    draws the task's picture on the ``level_plane`` axes; ``optimal_steps`` [n], the fewest steps
    that solve levels; and ``benchmark_return`` [n], what others report, from success and length of
    episodes.

    The environment must not reset by itself (``AutoresetMode.DISABLED``): the caller resets
    finished environments with ``reset(options={"levels": ..., "reset_mask": ...})``.
    """

    num_envs: int
    device: torch.device

    @property
    def single_observation_space(self) -> Box:
        """Space of one observation; ``uint8`` observations stay ``uint8``, others are float32."""

    @property
    def single_action_space(self) -> Discrete[Any]:
        """Space of one action, numbered from 0."""

    @property
    def level_space(self) -> Box | None:
        """Box of shape (d,) with finite bounds in env units; None: the env takes no levels."""

    @property
    def level_names(self) -> tuple[str, ...]:
        """One name for each level axis, with its unit."""

    @property
    def level_plane(self) -> tuple[int, int]:
        """The two level axes to draw."""

    @property
    def max_episode_steps(self) -> int | None:
        """Env steps after which an episode is truncated; None: unknown or never."""

    @property
    def gymnasium_id(self) -> str | None:
        """Id of the same task in Gymnasium, where one exists."""

    @property
    def tracks_visited(self) -> bool:
        """Whether ``current_levels`` exists, that is, visited states can become levels."""

    @property
    def resumable(self) -> bool:
        """Whether ``load_state_dict`` continues running episodes; else it starts new ones."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start episodes in the masked envs (all without a mask) at the given levels."""

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Return observations, rewards, terminated, truncated and ``{"success": bool [N]}``."""

    def current_observations(self) -> Tensor:
        """Observations [N, ...] of where the envs are now, for instance after a resume."""

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels from the task's own reset distribution."""

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels from a broad distribution; valid, where anybody can sample such."""

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels at which an episode can start."""

    def heldout(self) -> dict[str, Tensor]:
        """Fixed levels [m, d] by name, never for training."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to continue."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict()``."""

    def close(self) -> None:
        """Close all environments; nothing steps them any more."""


def uniform_levels(n: int, low: Tensor, high: Tensor, rng: torch.Generator) -> Tensor:
    """Draw levels uniformly between two corners.

    Args:
        n: How many.
        low: Lower corner [d].
        high: Upper corner [d].
        rng: Generator on the CPU or on the device of ``low``.

    Returns:
        Levels [n, d] on the device of ``low``.
    """
    unit = torch.rand(n, low.numel(), generator=rng, device=rng.device).to(low.device)
    return torch.lerp(low, high, unit).clamp(low, high)  # lerp may round past the corner


def in_bounds(levels: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return which levels are finite and inside a box, up to float rounding.

    Args:
        levels: Levels [n, d].
        low: Lower corner [d].
        high: Upper corner [d].

    Returns:
        Mask [n].
    """
    slack = BOUND_TOLERANCE * (high - low)
    return ((levels >= low - slack) & (levels <= high + slack)).all(-1)  # NaN compares false


def check_mask(mask: Any, num_envs: int, device: torch.device) -> Tensor | None:
    """Return ``options["reset_mask"]`` as a bool tensor [num_envs], or None for all envs.

    Raises:
        ValueError: If it has another shape or type.
    """
    if mask is None:
        return None
    checked = torch.as_tensor(mask, device=device)
    if checked.shape != (num_envs,) or checked.dtype != torch.bool:
        raise ValueError(
            f"options['reset_mask'] has shape {tuple(checked.shape)} and type {checked.dtype}, "
            f"but a bool tensor of shape ({num_envs},) is needed."
        )
    return checked


def check_levels(
    levels: Any,
    num_envs: int,
    low: Tensor,
    high: Tensor,
    mask: Tensor | None,
    *,
    allow_nan: bool = False,
) -> Tensor:
    """Return ``options["levels"]`` as float32 [num_envs, d] on the device of ``low``, clamped.

    Args:
        levels: What the caller gave.
        num_envs: Number of envs N.
        low: Lower corner of the level box [d].
        high: Upper corner of the level box [d].
        mask: Envs that are reset [N], None for all; other rows may hold anything.
        allow_nan: Accept rows of NaN, which stand for the task's own reset.

    Raises:
        ValueError: If the shape is wrong or a level is not finite or out of bounds.
    """
    checked = torch.as_tensor(levels, dtype=torch.float32, device=low.device)
    shape = (num_envs, low.numel())
    if checked.shape != shape:
        raise ValueError(
            f"options['levels'] has shape {tuple(checked.shape)}, but {shape} is needed: one row "
            "per env; rows outside 'reset_mask' are ignored."
        )
    fine = in_bounds(checked, low, high)
    if allow_nan:
        fine = fine | checked.isnan().all(-1)
    if mask is not None:
        fine = fine | ~mask
    if not bool(fine.all()):
        row = int((~fine).nonzero()[0])
        raise ValueError(
            f"options['levels'][{row}] is {checked[row].tolist()}, which is not finite or outside "
            f"the level space {low.tolist()} to {high.tolist()}; clip it, or drop it with valid()."
        )
    return checked.clamp(low, high)


def draw_box(axes: Axes, space: Box, names: tuple[str, ...], plane: tuple[int, int]) -> None:
    """Label ``axes`` with two level axes and limit them to the level space.

    Args:
        axes: Matplotlib axes to draw into.
        space: Level space, shape (d,).
        names: Name of each level axis, with unit.
        plane: Indices of the horizontal and the vertical level axis.
    """
    across, up = plane
    axes.set_xlim(float(space.low[across]), float(space.high[across]))
    axes.set_xlabel(names[across])
    if across != up:
        axes.set_ylim(float(space.low[up]), float(space.high[up]))
        axes.set_ylabel(names[up])
