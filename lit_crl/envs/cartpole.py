"""Cart-pole in batched torch, equal to Gymnasium's ``CartPole-v1``, with its physics in the level.

The level holds the start state and five physics parameters. The observation does not show these,
so one policy must balance poles of many kinds without knowing which one it has.
Source: Barto, Sutton & Anderson (1983); Gymnasium ``classic_control/cartpole.py`` (Euler).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from lit_crl.envs.batched import BatchedEnv
from lit_crl.envs.interface import uniform_levels

TAU = 0.02  # s per env step
MAX_POSITION = 2.4  # m
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad
START = 0.05  # half width of the target start box, in each unit
WIDEST_START = np.array([1.2, 1.0, 0.15, 1.0])  # half widths of the level box
PHYSICS = (9.8, 1.0, 0.1, 0.5, 10.0)  # gravity, masscart, masspole, length, force_mag


def cartpole_step(state: Tensor, physics: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Advance cart-poles by one Euler step of 0.02 s.

    Args:
        state: Cart position (m), velocity (m/s), pole angle (rad), angular velocity (rad/s),
            [N, 4].
        physics: Gravity (m/s²), cart mass (kg), pole mass (kg), half pole length (m), force
            (N), [N, 5].
        actions: 0 pushes left, 1 pushes right [N].

    Returns:
        Next states [N, 4], and whether the pole fell or the cart left the track [N].
    """
    _, velocity, angle, spin = state.unbind(-1)
    gravity, masscart, masspole, length, force_mag = physics.unbind(-1)
    total_mass = masscart + masspole
    share = masspole * length / total_mass  # written once: it appears in all three equations
    cos, sin = torch.cos(angle), torch.sin(angle)
    force = (2 * actions - 1) * force_mag
    push = torch.addcmul(force / total_mass, share * sin, spin.square())
    leverage = torch.addcmul(length * (4.0 / 3.0), share, cos.square(), value=-1)
    spin_change = torch.addcmul(gravity * sin, cos, push, value=-1) / leverage
    acceleration = torch.addcmul(push, share * cos, spin_change, value=-1)
    change = torch.stack((velocity, acceleration, spin, spin_change), -1)
    state = torch.add(state, change, alpha=TAU)
    return state, (state[:, 0].abs() > MAX_POSITION) | (state[:, 2].abs() > MAX_ANGLE)


class CartPole(BatchedEnv):
    """``CartPole-v1``: reward 1 for each env step, success is balancing for all 500.

    Level: start (position, velocity, angle, angular velocity), then physics (gravity, cart
    mass, pole mass, half pole length, force). Target: start U[-0.05, 0.05]⁴ with the default
    physics. Reference: uniform over the level box, whose physics span half to twice the
    default unless ``physics_spread`` says otherwise. Observation: the state alone.
    """

    single_observation_space = Box(
        -np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf], np.float32),
        np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf], np.float32),
    )
    single_action_space = Discrete(2)
    level_names = (
        "cart position (m)",
        "cart velocity (m/s)",
        "pole angle (rad)",
        "pole angular velocity (rad/s)",
        "gravity (m/s²)",
        "cart mass (kg)",
        "pole mass (kg)",
        "half pole length (m)",
        "force (N)",
    )
    level_plane = (2, 3)
    max_episode_steps = 500
    gymnasium_id = "CartPole-v1"

    def __init__(
        self,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        physics_spread: float = 2.0,
    ) -> None:
        """Build the environments.

        Args:
            num_envs: Number of environments N that step together.
            device: Where all tensors live.
            physics_spread: Factor above 1: each physics parameter of a level lies between its
                default divided by the factor and its default times the factor.

        Raises:
            ValueError: If ``physics_spread`` is not above 1.
        """
        if not physics_spread > 1:
            raise ValueError(f"physics_spread is {physics_spread}, but must be above 1.")
        self.physics_spread = physics_spread
        physics = np.array(PHYSICS)
        self.level_space = Box(
            np.array([*-WIDEST_START, *physics / physics_spread], np.float32),
            np.array([*WIDEST_START, *physics * physics_spread], np.float32),
        )
        super().__init__(num_envs, device)

    def initial_state(self, levels: Tensor) -> Tensor:
        """Return the start state [n, 4], the level's first four numbers."""
        return levels[:, :4].clone()

    def dynamics(
        self, state: Tensor, levels: Tensor, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Advance by ``cartpole_step``; every step earns 1, even the one that fails."""
        state, terminated = cartpole_step(state, levels[:, 4:], actions)
        return state, torch.ones_like(state[:, 0]), terminated

    def observe(self, state: Tensor, levels: Tensor) -> Tensor:
        """Return a copy of the state [n, 4]; the physics stay hidden."""
        return state.clone()

    def visited_level(self, state: Tensor, levels: Tensor) -> Tensor:
        """A visited state with the episode's physics is a level [n, 9]."""
        return torch.cat((state, levels[:, 4:]), -1)

    def target_levels(self, n: int, rng: torch.Generator) -> Tensor:
        """Draw [n, 9]: each start coordinate U[-0.05, 0.05], default physics."""
        low, high = (
            self.level_low.new_tensor([bound] * 4 + list(PHYSICS)) for bound in (-START, START)
        )
        return uniform_levels(n, low, high, rng)

    @staticmethod
    def success(terminated: Tensor, truncated: Tensor) -> Tensor:
        """An episode is won if it lasts until the time limit without a fall."""
        return truncated & ~terminated

    def heldout(self) -> dict[str, Tensor]:
        """Return ``physics`` [256, 9]: 4 gravities by 4 pole masses by 4 lengths by 4 forces.

        Starts are small. The cart's mass stays at 1 kg: only its ratio to the force matters much.
        """
        gravities, masspoles, lengths, forces = (
            self.physics_spread ** torch.tensor([-0.75, -0.25, 0.25, 0.75]) * PHYSICS[axis]
            for axis in (0, 2, 3, 4)
        )
        grid = torch.cartesian_prod(gravities, masspoles, lengths, forces)
        # Drawn on the CPU, so that the held-out set is the same on every device.
        start = torch.rand(len(grid), 4, generator=torch.Generator().manual_seed(0))
        masscart = torch.full((len(grid), 1), PHYSICS[1])
        levels = torch.cat(((2 * start - 1) * START, grid[:, :1], masscart, grid[:, 1:]), -1)
        return {"physics": levels.to(self.device)}
