"""Whole cycles as CUDA graphs, each launched by one call."""
