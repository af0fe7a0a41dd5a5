"""Who acts and remembers: equations, networks, planning, exploration, objective, replay."""

from lit_crl.dqn.exploration import EpsilonLadder, Exploration, LinearEpsilon

__all__ = ["EpsilonLadder", "Exploration", "LinearEpsilon"]
