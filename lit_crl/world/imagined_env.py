"""An environment that is imagined: a world, and the interface of every other environment."""

import math
from typing import Any, NamedTuple, Protocol

import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from lit_crl.core import checks
from lit_crl.envs.images import layout_in
from lit_crl.envs.interface import check_mask
from lit_crl.world.gate import unknown
from lit_crl.world.interface import World


class DrawStarts(Protocol):
    """Where dreams start, see ``lit_crl.world.starts.Starts``."""

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """``n`` observations ``[n, ...]``, none of them final ones."""


class Dreamt(NamedTuple):
    """What one step makes of N dreams."""

    obs: Tensor
    #: Imagined steps of each dream with this one, ``[N]`` int64.
    elapsed: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    disagreement: Tensor
    #: Which dreams are cut because the world knows too little, ``[N]``.
    gated: Tensor


class ImaginedEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """A batch of dreams, which are stepped and reset like the environments that they imitate.

    A dream *ends* (terminated) where the world says that the task ends. It is *cut* (truncated)
    at the horizon, and where the world knows too little: where its members disagree more than the
    gate allows, or their disagreement is not finite. A cut is no end: the value of what would have
    followed still counts. As elsewhere, both can be true of one step, which then is an end.

    To step a dream that is over is undefined, as in Gymnasium: reset it first. Nothing here asks
    the real environment anything.

    Attributes:
        world: Says what follows an observation and an action.
        starts: Says where dreams start.
        num_actions: How many actions there are.
        obs: The present observations [N, ...].
        elapsed: Imagined steps [N] of each dream, int64.
        gate: Largest disagreement that is not cut, 0-dimensional, in units of its mean on real
            data; infinite until it is set.
        rng: The random stream of starts and worlds.
    """

    #: Dreams start at observations, not at levels.
    level_space: Box | None = None
    level_names: tuple[str, ...] = ()
    level_plane: tuple[int, int] = (0, 1)
    gymnasium_id: str | None = None
    tracks_visited: bool = False
    resumable: bool = True
    #: A world does not say whether an episode was won.
    has_success: bool = False

    def __init__(
        self,
        num_envs: int,
        world: World,
        starts: DrawStarts,
        *,
        observation_space: Box,
        action_space: Discrete[Any],
        horizon: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Build ``num_envs`` dreams, which start at the first ``reset``.

        Args:
            num_envs: Number of dreams N that step together.
            world: Says what follows an observation and an action.
            starts: Says where dreams start.
            observation_space: Space of one observation of the real environment.
            action_space: Space of one action of the real environment.
            horizon: Imagined steps after which a dream is cut.
            device: Where all tensors live.

        Raises:
            ConfigError: If ``num_envs`` or ``horizon`` is not positive.
        """
        checks.positive(num_envs=num_envs, horizon=horizon)
        self.num_envs, self.world, self.starts = num_envs, world, starts
        self.device = torch.device(device)
        # The caller resets, as in every environment here.
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.num_actions = int(action_space.n)
        self.image_layout = layout_in(observation_space)
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.max_episode_steps = horizon
        self.rng = torch.Generator(self.device)
        self.gate = torch.tensor(math.inf, device=self.device)
        dtype = torch.uint8 if observation_space.dtype == "uint8" else torch.float32
        self.obs = torch.zeros(num_envs, *observation_space.shape, dtype=dtype, device=self.device)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._is_reset = False

    @torch.no_grad()
    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start new dreams.

        Args:
            seed: Restarts the random stream of starts and world.
            options: ``"reset_mask"``: bool [N], the dreams to start anew (absent: all);
                ``"observations"``: [N, ...], where to start them (absent: where ``starts`` says),
                none of them a final one. Rows outside the mask are ignored.

        Returns:
            Observations [N, ...] of all dreams, and an empty dict.

        Raises:
            ValueError: If an option is unknown or misshapen.
        """
        if seed is not None:
            self.rng.manual_seed(seed)
        options = options or {}
        if extra := options.keys() - {"observations", "reset_mask"}:
            raise ValueError(
                f"options has the unknown key {min(extra)!r}; dreams take 'observations' and "
                "'reset_mask'."
            )
        mask = check_mask(options.get("reset_mask"), self.num_envs, self.device)
        row = mask.nonzero().squeeze(1)
        if "observations" in options:
            drawn = self._given(options["observations"]).index_select(0, row)
        else:
            drawn = self.starts.draw(len(row), self.rng) if len(row) else self.obs[:0]
        # Never written in place: tensors that were handed out must not change.
        self.obs = self.obs.index_copy(0, row, drawn.to(self.obs.dtype))
        self.elapsed = self.elapsed.masked_fill(mask, 0)
        self._is_reset = True
        return self.current_observations(), {}

    def _given(self, observations: Any) -> Tensor:
        given = torch.as_tensor(observations, device=self.device)
        if given.shape != self.obs.shape:
            raise ValueError(
                f"options['observations'] has shape {tuple(given.shape)}, but "
                f"{tuple(self.obs.shape)} is needed: one row per dream."
            )
        return given

    @torch.no_grad()
    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Imagine one step of every dream.

        Args:
            actions: Actions [N], int64, numbered from 0. Their range is not checked.

        Returns:
            Observations [N, ...], rewards [N], terminated [N], truncated [N] and a dict:
            ``"success"`` and ``"success_known"`` (never), ``"disagreement"`` [N], and ``"gated"``
            [N], which dreams were cut because the world knows too little.

        Raises:
            ResetNeeded: If ``reset`` was never called.
            ValueError: If ``actions`` is not of shape [N].
        """
        if not self._is_reset:
            raise ResetNeeded("call reset() before step().")
        if actions.shape != (self.num_envs,):
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, but one action for each of the "
                f"{self.num_envs} dreams is needed, shape ({self.num_envs},)."
            )
        dreamt = self.advanced(self.obs, self.elapsed, actions)
        self.obs, self.elapsed, reward, terminated, truncated, disagreement, gated = dreamt
        never = torch.zeros_like(terminated)
        info = {
            "success": never,
            "success_known": never,
            "disagreement": disagreement,
            "gated": gated,
        }
        return self.current_observations(), reward, terminated, truncated, info

    @torch.no_grad()
    def advanced(self, obs: Tensor, elapsed: Tensor, actions: Tensor) -> Dreamt:
        """Imagine one step of dreams at ``obs [N, ...]``, which stay where they are.

        Its shapes depend on no number, and nothing in it waits for a GPU: it may be in a graph.
        """
        imagined = self.world.imagine(obs, actions, self.rng)
        elapsed = elapsed + 1
        gated = unknown(imagined.disagreement, self.gate)
        return Dreamt(
            imagined.next_obs.to(obs.dtype),
            elapsed,
            imagined.reward,
            imagined.terminated,
            gated | (elapsed >= self.max_episode_steps),
            imagined.disagreement,
            gated,
        )

    def current_observations(self) -> Tensor:
        """Return a copy of the present observations [N, ...]."""
        return self.obs.clone()

    def _no_levels(self) -> ValueError:
        return ValueError(
            "Dreams take no levels; reset them with options {'observations': ...}, or let the "
            "starts draw observations of levels."
        )

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Dreams take no levels.

        Raises:
            ValueError: Always.
        """
        raise self._no_levels()

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Dreams take no levels.

        Raises:
            ValueError: Always.
        """
        raise self._no_levels()

    def valid(self, levels: Tensor) -> Tensor:
        """Dreams take no levels.

        Raises:
            ValueError: Always.
        """
        raise self._no_levels()

    def heldout(self) -> dict[str, Tensor]:
        """Return no held-out levels."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all that is needed to continue the dreams exactly.

        World and starts are saved by their owner.
        """
        return {
            "obs": self.obs.clone(),
            "elapsed": self.elapsed.clone(),
            "gate": self.gate.clone(),
            "rng": self.rng.get_state().clone(),
            "is_reset": torch.tensor(self._is_reset),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from ``state_dict()`` of as many dreams of the same task.

        Raises:
            ValueError: If the number of dreams or the size of observations differs.
        """
        for name in ("obs", "elapsed", "gate"):
            present: Tensor = getattr(self, name)
            loaded = state[name]
            if present.shape != loaded.shape:
                raise ValueError(
                    f"{name!r} in the state has shape {tuple(loaded.shape)}, but these dreams "
                    f"have {tuple(present.shape)}; build them with the same settings."
                )
            setattr(self, name, loaded.to(self.device, present.dtype, copy=True))
        self.rng.set_state(state["rng"].cpu())
        self._is_reset = bool(state["is_reset"])
