"""The agent: equations, networks, planning, exploration, objective and replay."""

from lit_crl.dqn.exploration import EpsilonLadder, Exploration, LinearEpsilon

__all__ = ["EpsilonLadder", "Exploration", "LinearEpsilon"]
