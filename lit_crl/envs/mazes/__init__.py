"""Mazes as levels: layouts, shortest paths, and two environments that walk in them."""
