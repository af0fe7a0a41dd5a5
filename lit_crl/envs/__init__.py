"""Environments whose every reset is a *level*: batched torch tasks and a Gymnasium adapter."""

from lit_crl.envs.acrobot import Acrobot
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

__all__ = [
    "Acrobot",
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
