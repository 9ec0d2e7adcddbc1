"""EM from one place to where it ends, and from many states to few; what was reached is noted down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from turnwise.exact.learning.data import Data
from turnwise.exact.learning.expectation import expected, log_prior, maximised
from turnwise.exact.learning.kernels import Tables
from turnwise.exact.learning.merging import losses, merged

NOTE_SECONDS = 10.0
"""time between notes of a climb under way"""
PAIRS, AFTER = 3, 2
"""pairs of states that are tried for a merger, and iterations that each is given"""

Arrays = dict[str, np.ndarray]
Watch = Callable[[str, float], None]
"""called after each iteration with what is being done and nats per step"""


class Notes:
    """What has been reached, by name: a search that is begun again with them goes on where it was.

    `keep`: called with all notes whenever there is something new, to write them down.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray] | None = None, keep: Callable[[Arrays], None] | None = None
    ) -> None:
        self.arrays: Arrays = dict(arrays or {})
        self._keep = keep

    def get(self, name: str) -> Arrays | None:
        """What was noted under the name; None if nothing was."""
        found = {k[len(name) + 1 :]: v for k, v in self.arrays.items() if k.startswith(f"{name}/")}
        return found or None

    def put(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Note it down, in place of what was there."""
        self.arrays = {k: v for k, v in self.arrays.items() if not k.startswith(f"{name}/")}
        self.arrays |= {f"{name}/{k}": np.asarray(v) for k, v in arrays.items()}
        if self._keep is not None:
            self._keep(self.arrays)


@dataclass(frozen=True)
class Climb:
    """Where EM stands."""

    tables: Tables
    values: tuple[float, ...]
    """the penalised log-likelihood in nats, before each iteration"""
    converged: bool

    def arrays(self) -> Arrays:
        """For `Notes`."""
        return {**self.tables._asdict(), "values": np.array(self.values), "done": np.array(self.converged)}

    @staticmethod
    def of(arrays: Arrays) -> Climb:
        """From `Notes`."""
        tables = Tables(**{f: arrays[f] for f in Tables._fields})
        return Climb(tables, tuple(arrays["values"].tolist()), bool(arrays["done"]))


def climb(
    data: Data,
    tables: Tables,
    iterations: int,
    tolerance: float,
    *,
    notes: Notes | None = None,
    name: str = "climb",
    watch: Watch | None = None,
) -> Climb:
    """EM until an iteration gains less than `tolerance` nats per step, or `iterations` are over."""
    notes = notes or Notes()
    found = notes.get(name)
    here = Climb(tables, (), False) if found is None else Climb.of(found)
    m, noted = len(data.steps.actions), time.monotonic()
    try:
        while len(here.values) < iterations and not here.converged:
            counts, likelihoods = expected(data.steps, here.tables)
            value = float(likelihoods.sum()) + log_prior(data.prior, here.tables)
            done = bool(here.values) and value - here.values[-1] < tolerance * m
            tables = here.tables if done else maximised(counts, data.prior, here.tables)
            here = Climb(tables, (*here.values, value), done)
            if watch is not None:
                watch(name, float(likelihoods.sum()) / m)
            if time.monotonic() - noted > NOTE_SECONDS:
                notes.put(name, here.arrays())
                noted = time.monotonic()
    except KeyboardInterrupt:
        notes.put(name, here.arrays())
        raise
    if found is None or len(found["values"]) < len(here.values):
        notes.put(name, here.arrays())
    return here


def value_of(data: Data, tables: Tables) -> float:
    """The penalised log-likelihood, in nats."""
    return float(expected(data.steps, tables)[1].sum()) + log_prior(data.prior, tables)


def reduced(data: Data, tables: Tables) -> tuple[Data, Tables]:
    """The same with one state less: of the pairs that lose least, the best one after a short climb."""
    counts, _ = expected(data.steps, tables)
    lost = losses(counts)
    S = len(tables.start)
    fewer = data.of(S - 1)
    nothing = Tables(*(np.zeros_like(t) for t in fewer.prior))
    nothing = nothing._replace(ends=np.zeros(fewer.prior.ends.shape[:2]))
    best: tuple[float, Tables] | None = None
    for pair in np.argsort(lost, axis=None)[:PAIRS].tolist():
        i, j = divmod(pair, S)
        if not np.isfinite(lost[i, j]):
            continue
        begin = maximised(merged(counts, i, j), fewer.prior, nothing)
        after = climb(fewer, begin, AFTER, 0.0).tables
        value = value_of(fewer, after)
        if best is None or value > best[0]:
            best = value, after
    assert best is not None  # two states are a pair
    return fewer, best[1]
