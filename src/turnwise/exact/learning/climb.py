"""EM from one place to where it ends, and from many states to few; what was reached is noted down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from turnwise.exact.learning.data import Data
from turnwise.exact.learning.expectation import expected, log_prior, maximised
from turnwise.exact.learning.kernels import Tables
from turnwise.exact.learning.merging import losses, merged

NOTE_SECONDS = 10.0
"""time between notes of a climb under way"""
GROWTH = 1.3
"""by how much the stride grows while it pays"""
PAIRS, AFTER = 3, 2
"""pairs of states that are tried for a merger, and iterations that each is given"""
AT_ONCE = 0.15
"""share of many states that is merged at once"""

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
    """the parameters to be looked at next; at the end, the result"""
    safe: Tables
    """what plain EM made of the last parameters that were kept"""
    stride: float
    """how far beyond plain EM `tables` went: 1 is plain EM"""
    values: tuple[float, ...]
    """the penalised log-likelihood in nats of each parameters that were kept; it never falls"""
    looks: int
    """E-steps so far"""
    converged: bool

    def arrays(self) -> Arrays:
        """For `Notes`."""
        return {
            **self.tables._asdict(),
            **{f"safe_{f}": getattr(self.safe, f) for f in Tables._fields},
            "values": np.array(self.values),
            "here": np.array([self.stride, self.looks, self.converged]),
        }

    @staticmethod
    def of(arrays: Arrays) -> Climb:
        """From `Notes`."""
        stride, looks, converged = arrays["here"].tolist()
        return Climb(
            Tables(**{f: arrays[f] for f in Tables._fields}),
            Tables(**{f: arrays[f"safe_{f}"] for f in Tables._fields}),
            stride,
            tuple(arrays["values"].tolist()),
            int(looks),
            bool(converged),
        )


def climb(
    data: Data,
    tables: Tables,
    iterations: int,
    tolerance: float,
    *,
    longer: bool = True,
    notes: Notes | None = None,
    name: str = "climb",
    watch: Watch | None = None,
) -> Climb:
    """EM until a step gains less than `tolerance` nats per step of the data, or `iterations` are over.

    Plain EM creeps where a probability goes to 0 (a tiger that never moves). So each step goes `stride` times
    as far, in logarithms, and the stride grows while the likelihood does; if it fell, plain EM's step is
    taken instead (adaptive overrelaxed EM; Salakhutdinov & Roweis 2003). Not `longer`: plain EM.
    """
    notes = notes or Notes()
    found = notes.get(name)
    here = Climb(tables, tables, 1.0, (), 0, False) if found is None else Climb.of(found)
    m, noted = len(data.steps.actions), time.monotonic()
    try:
        while here.looks < iterations and not here.converged:
            here = _step(data, here, tolerance * m, longer)
            if watch is not None:
                watch(name, here.values[-1] / m)
            if time.monotonic() - noted > NOTE_SECONDS:
                notes.put(name, here.arrays())
                noted = time.monotonic()
    except KeyboardInterrupt:
        notes.put(name, here.arrays())
        raise
    if not here.converged:  # iterations are over: what was not looked at yet might be worse
        here = replace(here, tables=here.safe, converged=True)
    if found is None or not bool(found["here"][2]):
        notes.put(name, here.arrays())
    return here


def _step(data: Data, here: Climb, least: float, longer: bool) -> Climb:
    """One E-step and what follows from it."""
    counts, likelihoods = expected(data.steps, here.tables)
    value = float(likelihoods.sum()) + log_prior(data.prior, here.tables)
    looks = here.looks + 1
    if here.values and here.stride > 1 and not value >= here.values[-1]:
        return replace(here, tables=here.safe, stride=1.0, looks=looks)
    safe = maximised(counts, data.prior, here.tables)
    done = bool(here.values) and value - here.values[-1] < least
    values = (*here.values, value)
    if done:
        return Climb(safe, safe, 1.0, values, looks, True)
    stride = here.stride * GROWTH if longer and here.values else 1.0
    ahead = _beyond(here.tables, safe, stride) if stride > 1 else safe
    return Climb(ahead, safe, stride, values, looks, False)


def _beyond(old: Tables, new: Tables, stride: float) -> Tables:
    """Rows proportional to old (new / old)^stride: from `old` through `new` and beyond, in logarithms."""
    axes = {"start": 0, "firsts": 0, "transitions": 2, "emissions": 1, "lasts": 2, "bins": 2}

    def further(p: np.ndarray, q: np.ndarray, axis: int) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(p) + stride * (np.log(q) - np.log(p))
        logs = np.where((p > 0) & (q > 0), logs, -np.inf)
        rows = np.exp(logs - logs.max(axis, keepdims=True, initial=-np.inf))  # a table may be empty
        return rows / rows.sum(axis, keepdims=True)

    found = {f: further(getattr(old, f), getattr(new, f), axis) for f, axis in axes.items()}
    was, is_ = (np.stack([t.ends, 1 - t.ends], -1) for t in (old, new))
    return Tables(ends=np.ascontiguousarray(further(was, is_, 2)[..., 0]), **found)


def value_of(data: Data, tables: Tables) -> float:
    """The penalised log-likelihood, in nats."""
    return float(expected(data.steps, tables)[1].sum()) + log_prior(data.prior, tables)


def reduced(data: Data, tables: Tables) -> tuple[Data, Tables]:
    """The same with one state less: of the pairs that lose least, the best one after a short climb."""
    counts, _ = expected(data.steps, tables)
    lost = losses(counts)
    S = len(tables.start)
    fewer = data.of(S - 1)
    nothing = _nothing(fewer)
    best: tuple[float, Tables] | None = None
    for pair in np.argsort(lost, axis=None)[:PAIRS].tolist():
        i, j = divmod(pair, S)
        if not np.isfinite(lost[i, j]):
            continue
        begin = maximised(merged(counts, i, j), fewer.prior, nothing)
        after = climb(fewer, begin, AFTER, 0.0, longer=False).tables
        value = value_of(fewer, after)
        if best is None or value > best[0]:
            best = value, after
    assert best is not None  # two states are a pair
    return fewer, best[1]


def thinned(data: Data, tables: Tables, states: int) -> tuple[Data, Tables]:
    """The same with so many states: in a few rounds, `AT_ONCE` of the pairs that lose least are made one.

    Each state is in one pair at most. It is `reduced` for many states, which tries each merger by itself.
    """
    while (S := len(tables.start)) > states:
        counts, _ = expected(data.steps, tables)
        taken: set[int] = set()
        pairs: list[tuple[int, int]] = []
        most = min(S - states, max(1, round(AT_ONCE * S)))
        for i, j in (divmod(pair, S) for pair in np.argsort(losses(counts), axis=None).tolist()):
            if j <= i or len(pairs) == most:
                break
            if not taken & {i, j}:
                pairs.append((i, j))
                taken |= {i, j}
        for i, j in sorted(pairs, key=lambda pair: -pair[1]):  # states behind j move up
            counts = merged(counts, i, j)
        data = data.of(S - len(pairs))
        tables = maximised(counts, data.prior, _nothing(data))
        tables = climb(data, tables, AFTER, 0.0, longer=False).tables
    return data, tables


def _nothing(data: Data) -> Tables:
    """Zeros in the shapes of the tables."""
    zeros = Tables(*(np.zeros_like(t) for t in data.prior))
    return zeros._replace(ends=np.zeros(data.prior.ends.shape[:2]))
