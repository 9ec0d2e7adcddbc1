"""Names of formulas that a setting chooses among. Nothing here imports torch: `--help` reads it at once."""

from typing import Literal

Estimator = Literal["monte-carlo", "n-step", "gae"]
"""Estimators of returns (losses/estimators.py)."""
KlEstimator = Literal["k1", "k2", "k3"]
"""Estimators of the KL from samples (losses/kl.py)."""
Credit = Literal["turns", "tokens"]
"""What an advantage belongs to: a whole turn, or each of its tokens (algorithms/talk)."""
