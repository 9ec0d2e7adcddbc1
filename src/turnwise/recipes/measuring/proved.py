"""What is proved of a problem's best policy, and when a mean contradicts it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from turnwise.envs.pomdp import POMDP
from turnwise.exact.sarsop.solve import solve
from turnwise.run.errors import InputError

ERRORS = 3.0
"""standard errors by which a mean may leave what was proved"""


def room_of(error: float, tail: float = 0.0) -> float:
    """How far a mean with this standard error may be off by chance; `tail` was lost as episodes were cut."""
    return ERRORS * error + tail + 1e-6


def optimum(
    table: POMDP, deadline: float, progress: Callable[[float, float, float], None] | None
) -> dict[str, Any]:
    """Certified bounds of the best value, `lower` and `upper`, in so many seconds; or `notes`: why not."""
    if importlib.util.find_spec("numba") is None:
        why = "the optimum: numba is not installed (pip install 'turnwise[fast]')"
        return {"lower": None, "upper": None, "notes": [why]}
    try:
        found = solve(table, deadline=deadline, progress=progress)
    except InputError as e:
        return {"lower": None, "upper": None, "notes": [f"the optimum: {e}"]}
    return {"lower": found.lower, "upper": found.upper, "notes": []}


def random_in_words(chance: Mapping[str, float]) -> str:
    """What actions at random earn, with its interval."""
    return f"actions at random: {chance['mean']:.4g} ({chance['low']:.4g} to {chance['high']:.4g}, 95%)"
