"""Any Gymnasium environment with discrete actions, behind the package's environment interface.

Copies of the environment are stepped one after another in Python, in processes, or by the id's own
vector environment. They take levels with a ``level_space`` and a function ``set_level``, or if
their levels are visited states; otherwise the ``target`` arm trains.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from lit_crl.core.checks import ConfigError
from lit_crl.envs import interface
from lit_crl.envs.gym import levels as user_levels
from lit_crl.envs.gym import making
from lit_crl.envs.gym.adapter_checks import check_levels, check_numbers, check_vectorization
from lit_crl.envs.gym.atari_states import why_not_restored
from lit_crl.envs.gym.game import in_words
from lit_crl.envs.gym.guard import Env, SetLevel
from lit_crl.envs.gym.making_copies import new_copies, try_out
from lit_crl.envs.gym.returned import Array
from lit_crl.envs.gym.success import successes
from lit_crl.envs.gym.vectorized import Vectorization
from lit_crl.envs.gym.visited_starts import VisitedStarts
from lit_crl.envs.gym.visited_states import VisitedStates
from lit_crl.envs.gym.wrapping import Wrapper
from lit_crl.envs.images import DeclaredLayout, layout_in
from lit_crl.envs.interface import check_mask, draw_box, in_bounds, uniform_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class GymnasiumEnv(VectorEnv[Tensor, Tensor, Tensor]):
    """``num_envs`` copies of one Gymnasium environment, tensors in and out.

    ``uint8`` observations stay ``uint8``, images of other numbers become ``uint8`` if they fit,
    and all others become float32. Actions are numbered from 0, whatever the environment's
    ``start``. A copy whose episode has ended waits until it is reset.

    The success of an episode is the last value of ``is_success`` or ``success`` in the infos of
    its steps. Most environments report it in the last step; a value from an earlier step counts if
    no later step reports one. Without any value (or with None), an episode succeeds if its return
    reaches ``success_return``. Without that threshold too, its success is unknown, so an
    environment should report False as well as True.

    Rewards and ends are those of the whole game, which evaluation measures. What transitions learn
    from may differ: ``clip_rewards`` and ``terminal_on_life_loss`` put other rewards and ends into
    the infos of a step, for the replay alone.

    Environments of Gymnasium's classic control and toy text, of MinAtar and MiniGrid, and most
    Atari games are saved with their running episodes. Others cannot be (``resumable`` is false, and
    ``why_not_resumable`` says why): there ``load_state_dict`` starts new episodes, from a seed that
    depends only on the saved run.

    Attributes:
        name: What messages call the environment.
        game: What is played: frames of a step, time limit.
        first_action: The environment's own number of action 0.
        image_layout: How the axes of images lie; None if observations are vectors.
        levels: Levels [N, d] at which the running episodes started, NaN rows for the task's
            own resets; None without a level space.
    """

    single_observation_space: Box
    single_action_space: Discrete[Any]
    tracks_visited: bool = False

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        id: str | None = None,
        make: Callable[..., Env] | None = None,
        level_space: Box | user_levels.Bounds | None = None,
        set_level: SetLevel | None = None,
        target_levels: user_levels.TargetLevels | None = None,
        visited_levels: int | None = None,
        success_return: float | None = None,
        max_episode_steps: int | None = None,
        env_kwargs: dict[str, Any] | None = None,
        image_layout: DeclaredLayout | None = None,
        wrappers: Sequence[Wrapper] | None = None,
        vectorization: Vectorization = "sync",
        clip_rewards: float | None = None,
        terminal_on_life_loss: bool = False,
    ) -> None:
        """Build the environments, and try the first one out: one reset and one step.

        Args:
            num_envs: Number of environments N that step together.
            device: Where the tensors that come out live; the environments run on the CPU.
            id: Gymnasium id with a Discrete action space, or ``module:id``.
            make: Instead of an id: a ``gymnasium.Env`` class, or a function that makes one
                environment.
            level_space: Box of shape (d,) with finite bounds, or the low and high bound of each
                coordinate by its name (for YAML); needs ``set_level``.
            set_level: Called as ``set_level(env.unwrapped, level [d])`` after ``env.reset()``;
                puts the env at the level and returns the first observation, unwrapped.
            target_levels: Draws [n, d] levels from the task's own reset distribution; None:
                target levels are NaN rows, which stand for the task's own reset.
            visited_levels: Levels are visited states of running games, of which the newest this
                many are kept; in the place of ``level_space`` and ``set_level``. None: they are
                not.
            success_return: Episode return that counts as success where infos report none; None:
                the id's threshold.
            max_episode_steps: Time limit in env steps, those of the outermost wrapper; None: the
                environment's own.
            env_kwargs: Further arguments of ``gymnasium.make`` or ``make``.
            image_layout: How the axes of images lie: HWC, channels last; CHW, channels first; HW,
                grey; or vector, which is no image. With one more axis, they are stacks of frames
                along the first. None: Gymnasium's conventions, see ``images.gymnasium_space``.
            wrappers: Put around each environment, the last one outermost: a class by its path with
                arguments, as in ``{class_path: gymnasium.wrappers.AtariPreprocessing, init_args:
                {noop_max: 30}}``, or a function of an environment.
            vectorization: How copies are stepped: ``sync``, one after another; ``async``, in as
                many processes as there are cores; or ``vector_entry_point``, by the id's own vector
                environment, whose settings must all be in ``env_kwargs``.
            clip_rewards: The replay gets rewards clipped to ± this bound; returns, and so all that
                evaluation measures, are those of the unclipped rewards. None: not clipped.
            terminal_on_life_loss: A lost life (``info["lives"]``) ends the transition, with
                discount 0, while game, frame stack and episode run on.

        Raises:
            ConfigError: If the environment cannot be used, or the arguments do not fit together.
        """
        check_numbers(num_envs, clip_rewards)
        check_levels(level_space, set_level, target_levels, visited_levels)
        check_vectorization(vectorization, id, wrappers, set_level, max_episode_steps)
        self.num_envs, self.device = num_envs, torch.device(device)
        # The caller resets, because it chooses the level of each new episode.
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self._init_levels(level_space, target_levels)
        self._clip, self._life_loss_ends = clip_rewards, terminal_on_life_loss
        self.name, make_one = making.maker(
            id, make, max_episode_steps, env_kwargs or {}, wrappers or ()
        )
        self.gymnasium_id: str | None = id
        self.envs = new_copies(
            vectorization,
            make_one,
            num_envs,
            self.name,
            env_kwargs=env_kwargs or {},
            layout=image_layout,
            set_level=set_level,
            counts_lives=terminal_on_life_loss,
        )
        self._init_from_kind(success_return)
        self.rng = torch.Generator()
        self._seed, self._resets, self._returns = 0, 0, np.zeros(num_envs)
        self._is_reset, self._is_warned = False, False
        self._visited_starts: VisitedStarts | None = None
        try:
            try_out(self.envs, self.level_space)
            if visited_levels is not None:
                self._let_visited_be_levels(visited_levels)
        except ConfigError:
            self.close()
            raise

    def _init_levels(
        self,
        level_space: Box | user_levels.Bounds | None,
        target_levels: user_levels.TargetLevels | None,
    ) -> None:
        self._target_levels = target_levels
        self.level_space, self.level_names = user_levels.named_space(level_space)
        size = len(self.level_names)
        self.level_plane = (0, min(1, max(size - 1, 0)))
        self.levels: Tensor | None = None
        if self.level_space is not None:
            self.levels = torch.full((self.num_envs, size), torch.nan, device=self.device)

    def _let_visited_be_levels(self, capacity: int) -> None:
        given = (self.envs, capacity, self.name, self.why_not_resumable)
        self._visited_starts, self.tracks_visited = VisitedStarts(*given), True
        self._init_levels(self._visited_starts.states.level_space, None)

    @property
    def visited(self) -> VisitedStates | None:
        """The states that are levels; None if visited states are no levels."""
        return None if self._visited_starts is None else self._visited_starts.states

    def share_levels(self, other: object) -> None:
        """Start at the visited states of ``other``, if its levels are such: the same ones."""
        theirs = getattr(other, "visited", None)
        if self._visited_starts is not None and theirs is not None:
            self._visited_starts.states = theirs

    def _init_from_kind(self, success_return: float | None) -> None:
        """Take over the attributes that all copies have in common."""
        kind = self.envs.kind
        self.spec, self.game = kind.spec, kind.game
        self.metadata = {**kind.metadata, **self.metadata}
        self.max_episode_steps = kind.game.max_episode_steps
        if success_return is None and kind.spec is not None:
            success_return = kind.spec.reward_threshold
        self.success_return = success_return
        self.first_action = kind.first_action
        self.single_action_space = Discrete(kind.num_actions)
        self.single_observation_space = kind.space
        self.image_layout = layout_in(kind.space)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    @cached_property
    def why_not_resumable(self) -> str | None:
        """Why running episodes cannot be saved, in words; None: they can."""
        why, emulated = self.envs.why_not_saved(), self.envs.kind.emulated
        return why if why or emulated is None else why_not_restored(*emulated)

    @cached_property
    def resumable(self) -> bool:
        """Whether running episodes are saved; if not, a resumed run starts new ones."""
        return self.why_not_resumable is None

    @property
    def game_in_words(self) -> str:
        """One line on what is played: frames, sticky actions, no-ops, clipping, lives."""
        rules = self._clip, self._life_loss_ends, self.envs.has_lives
        return in_words(self.name, self.game, *rules)

    @property
    def has_levels(self) -> bool:
        """Whether levels can be told apart: of visited states, one is kept from the beginning."""
        return self.visited is None or len(self.visited) > 1

    @property
    def has_success(self) -> bool:
        """Whether there is a threshold, or an environment has reported success or failure."""
        return self.success_return is not None or self.envs.reports_success

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Start new episodes.

        Args:
            seed: Env i is seeded with ``seed + i``, as Gymnasium does.
            options: ``"levels"`` [N, d] (a NaN row: the task's own reset; absent: target
                levels) and ``"reset_mask"`` bool [N] (absent: all); the rest goes to the id.

        Returns:
            Observations [N, ...] of all envs, and an empty dict.

        Raises:
            ValueError: If the levels or the mask are misshapen or out of bounds.
            RunError: If an environment fails or returns something that it should not.
        """
        if seed is not None:
            self._seed, self._resets = seed, 0
            self.rng.manual_seed(seed)
        self._resets += 1
        rest = dict(options or {})
        mask = check_mask(rest.pop("reset_mask", None), self.num_envs, torch.device("cpu"))
        levels = self._levels_at_reset(rest.pop("levels", None), mask)
        chosen = mask.numpy()
        if not self._is_reset and not chosen.all():
            raise ValueError("options['reset_mask'] must hold all envs at the first reset.")
        if self._visited_starts is not None and levels is not None:
            own_seed = self._draw_seed() if seed is None else seed
            levels = self._visited_starts.reset(chosen, levels, own_seed, rest)
        else:
            rows = None if levels is None else levels.numpy()
            self.envs.reset(chosen, seed=seed, options=rest, levels=rows)
        self._is_reset = True
        self._returns[chosen] = 0
        if self.levels is not None and levels is not None:
            rows_reset = mask.unsqueeze(-1).to(self.device)
            self.levels = torch.where(rows_reset, levels.to(self.device), self.levels)
        return self.current_observations(), {}

    def _draw_seed(self) -> int:
        return int(torch.randint(2**31, (), generator=self.rng))

    def _levels_at_reset(self, levels: Any, mask: Tensor) -> Tensor | None:
        if levels is None and self.level_space is None:
            return None
        low, high = self._bounds()
        if levels is None:
            levels = self.target_levels(self.num_envs, self.rng)
        return interface.check_levels(levels, low, high, mask, allow_nan=True)

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advance every env whose episode is running by one env step.

        Args:
            actions: Actions [N], int64, numbered from 0.

        Returns:
            Observations [N, ...], rewards [N] float32 (0 for envs that wait for a reset),
            terminated [N], truncated [N], and a dict: ``"success"`` and ``"success_known"``, bool
            [N], describe the running episodes so far; ``"replay_reward"`` and
            ``"replay_terminated"`` [N], if they differ by ``clip_rewards`` and
            ``terminal_on_life_loss``, are what transitions learn from.

        Raises:
            RunError: If an environment fails or returns something that it should not.
        """
        if not self._is_reset:
            raise ResetNeeded("call reset() before step().")
        waited = ~self.envs.running
        rewards = self.envs.step(actions.cpu().numpy() + self.first_action)
        self._returns += rewards
        success, known = successes(self.envs.reported, self._returns, self.success_return)
        self._warn_if_some_are_unknown(known)
        reward = torch.from_numpy(rewards).to(self.device, torch.float32)
        flags = np.array((self.envs.terminated, self.envs.truncated, success, known))
        terminated, truncated, won, is_known = torch.from_numpy(flags).to(self.device).unbind()
        info = {"success": won, "success_known": is_known}
        if self._clip is not None:
            info["replay_reward"] = reward.clamp(-self._clip, self._clip)
        if self._life_loss_ends:
            lost = torch.from_numpy(self.envs.lost_life & ~waited).to(self.device)
            info["replay_terminated"] = terminated | lost
        return self.current_observations(), reward, terminated, truncated, info

    def _warn_if_some_are_unknown(self, known: Array) -> None:
        """Say so once, if some episodes report success or failure and others end without."""
        ended = self.envs.terminated | self.envs.truncated
        if self.envs.reports_success and not self._is_warned and (~known & ended).any():
            self._is_warned = True
            warnings.warn(
                f"{self.name}: some episodes say in their infos whether they succeeded, others do "
                "not and are left out of success rates: also say False, in the last step",
                stacklevel=3,
            )

    def current_observations(self) -> Tensor:
        """Return the observations [N, ...] of the envs' present states."""
        if not self._is_reset:
            raise ResetNeeded("call reset() before anything else.")
        # A copy, because the next step writes into the same array.
        return torch.from_numpy(self.envs.observations).to(self.device, copy=True)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] target levels; NaN rows if they stand for the task's own resets."""
        space = self._levels_needed()
        return user_levels.draw(self._target_levels, n, space, rng, self.name).to(self.device)

    def reference_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, d] levels uniformly from the level space, or from the visited states."""
        if self.visited is not None:
            return self.visited.draw(n, rng).to(self.device)
        low, high = self._bounds()
        return uniform_levels(n, low, high, rng).to(self.device)

    def current_levels(self) -> Tensor:
        """Keep the state of one copy, of each in turn; return its level, [N, d].

        Rows of all other copies are NaN, and so is its own if it waits for a reset. All are NaN
        where visited states are no levels.
        """
        if self._visited_starts is not None:
            return self._visited_starts.keep_next().to(self.device)
        size = self._levels_needed().shape
        return torch.full((self.num_envs, *size), torch.nan, device=self.device)

    def nearest_levels(self, levels: Tensor) -> Tensor:
        """The levels [n, d] at which episodes start in the place of ``levels``; NaN rows stay."""
        return levels if self.visited is None else self.visited.nearest(levels)

    def valid(self, levels: Tensor) -> Tensor:
        """Mask [n] of the levels in bounds; NaN rows can be reset to, but are no levels."""
        low, high = (bound.to(levels.device) for bound in self._bounds())
        return in_bounds(levels, low, high)

    def _levels_needed(self) -> Box:
        if self.level_space is None:
            raise ValueError(
                f"{self.name} takes no levels; give level_space and set_level, or use "
                "the target curriculum."
            )
        return self.level_space

    def _bounds(self) -> tuple[Tensor, Tensor]:
        space = self._levels_needed()
        low, high = (torch.as_tensor(x, dtype=torch.float32) for x in (space.low, space.high))
        return low, high

    def heldout(self) -> dict[str, Tensor]:
        """Return no held-out levels: none are known for an arbitrary id."""
        return {}

    def draw_level_plane(self, axes: Axes) -> None:
        """Label ``axes`` with the two level axes and limit them to the level space."""
        draw_box(axes, self._levels_needed(), self.level_names, self.level_plane)

    def state_dict(self) -> dict[str, Any]:
        """Return the running episodes, or the seed of those that will start in their place."""
        state: dict[str, Any] = {
            "seed": torch.tensor(self._seed),
            "resets": torch.tensor(self._resets),
            "rng": self.rng.get_state().clone(),
        }
        if self.resumable:
            returns = torch.tensor(self._returns)
            state["episodes"] = self.envs.state_dict() | {"returns": returns, "levels": self.levels}
        return state if self._visited_starts is None else state | self._visited_starts.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the saved episodes, or start new ones, seeded by what was saved."""
        seed, resets = int(state["seed"]), int(state["resets"])
        # The seeds that these resets have used are behind this one.
        self.reset(seed=seed + self.num_envs * resets)
        self._seed, self._resets = seed, resets + 1
        self.rng.set_state(state["rng"].cpu())
        if self.resumable:
            # The reset above has brought the wrappers into order; now it is undone.
            episodes = state["episodes"]
            self._resets = resets
            self.envs.load_state_dict(episodes)
            self._returns[:] = episodes["returns"].numpy()
            if self.levels is not None:
                self.levels.copy_(episodes["levels"])
        if self._visited_starts is not None:
            self._visited_starts.load_state_dict(state)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        if hasattr(self, "envs"):  # VectorEnv closes itself when deleted, even if not made whole
            self.envs.close()
