"""Logs of transitions: files that a policy learns from where there is no environment."""
