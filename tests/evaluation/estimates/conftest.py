"""Logs of no world in particular: unequal lengths, and anything for ratios, rewards and values."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from turnwise.evaluation.estimates.logged import Logged

sys.path.insert(0, str(Path(__file__).parent))  # told_worlds.py

MakeLogs = Callable[..., Logged]


@pytest.fixture(scope="session")
def make_logs() -> MakeLogs:
    """In a share `never` of the decisions the target would not have done what was done."""

    def make(seed: int, episodes: int = 7, decisions: int = 4, *, never: float = 0.1, discount=0.9) -> Logged:
        rng = np.random.default_rng(seed)
        shape = (episodes, decisions)
        lengths = rng.integers(1, decisions + 1, episodes)
        lengths[0] = decisions
        logp = np.log(rng.uniform(0.2, 1, shape))
        logp[rng.random(shape) < never] = -np.inf
        return Logged(
            rewards=rng.normal(size=shape),
            mask=np.arange(decisions) < lengths[:, None],
            discount=discount,
            logp=logp,
            behavior_logp=np.log(rng.uniform(0.2, 1, shape)),
            q=rng.normal(size=shape),
            v=rng.normal(size=shape),
        )

    return make
