"""Environments whose every reset is a *level*: batched torch tasks and a Gymnasium adapter."""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "Acrobot",
    "ArmPoses",
    "BatchedEnv",
    "CartPole",
    "FacingMaze",
    "GustyPass",
    "GymnasiumEnv",
    "LevelEnv",
    "Maze",
    "MountainCar",
    "PointMass",
    "Spiral",
    "ThinManifold",
]

if TYPE_CHECKING:
    from lit_crl.envs.acrobot import Acrobot
    from lit_crl.envs.arm_poses import ArmPoses
    from lit_crl.envs.batched import BatchedEnv
    from lit_crl.envs.cartpole import CartPole
    from lit_crl.envs.gusty_pass import GustyPass
    from lit_crl.envs.gym.adapter import GymnasiumEnv
    from lit_crl.envs.interface import LevelEnv
    from lit_crl.envs.mazes.facing_maze import FacingMaze
    from lit_crl.envs.mazes.maze import Maze
    from lit_crl.envs.mountain_car import MountainCar
    from lit_crl.envs.point_mass import PointMass
    from lit_crl.envs.spiral import Spiral
    from lit_crl.envs.thin_manifold import ThinManifold
else:
    # Imported when they are first asked for: a process that steps environments does without torch.
    _MODULES = {
        "Acrobot": "acrobot",
        "ArmPoses": "arm_poses",
        "BatchedEnv": "batched",
        "CartPole": "cartpole",
        "FacingMaze": "mazes.facing_maze",
        "GustyPass": "gusty_pass",
        "GymnasiumEnv": "gym.adapter",
        "LevelEnv": "interface",
        "Maze": "mazes.maze",
        "MountainCar": "mountain_car",
        "PointMass": "point_mass",
        "Spiral": "spiral",
        "ThinManifold": "thin_manifold",
    }

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"lit_crl.envs.{_MODULES[name]}"), name)
