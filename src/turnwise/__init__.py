"""Turnwise: reinforcement learning for agents that act on a history."""

__version__ = "0.1.0"
