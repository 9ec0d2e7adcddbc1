"""Learning a POMDP from sequences, with so many hidden states.

    1. Some starts on a sample of the data, each with more states than are wanted (`starts`).
    2. EM, then two states are made one, again and again, until the wanted number is left (`merging`).
    3. The best of them is split: two copies of each state, EM, mergers; again as long as that gains.
    4. EM on all data from the best of them, until an iteration gains next to nothing.

A model may have found all but one thing, which no state alone can tell: splitting all states at once makes
room for it. (Splits and mergers against poor optima: Ueda, Nakano, Ghahramani & Hinton 2000.)

The same path of mergers has a model for *every* smaller number of states, so `choose` pays for it once.
Beyond eight states, and of states that never change, of which there may be dozens, each wanted number has
starts of its own, and many pairs are merged at once (`searched_many`). Classes that never change and have
phases have starts without mergers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.exact.learning.climb import Climb, Notes, Watch, climb, reduced, thinned, value_of
from turnwise.exact.learning.data import Data, finished, longest_of, prepared, sampled
from turnwise.exact.learning.expectation import tables_of
from turnwise.exact.learning.kernels import Tables
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.starts import CLASSES, KINDS, PHASES, Kind, phased, start_of, twofold
from turnwise.run.errors import InputError

ROUNDS = 3
"""times that the best model is split and merged again, at most"""
FEW = 8
"""states that may move are searched for by single mergers and splits up to this number"""
MANY_STARTS = 3
"""starts for a larger number, or for states that stay, at most"""


@dataclass(frozen=True)
class Effort:
    """How long to look."""

    starts: int = 6
    """different starts"""
    surplus: float = 2.0
    """states that a start has for each one that is wanted"""
    sample: int = 60_000
    """steps that starts read, at most"""
    early: int = 150
    """iterations of a start, at most"""
    iterations: int = 300
    """iterations on all data, at most"""
    tolerance: float = 1e-7
    """an iteration on all data that gains less nats per step is the last one; of a start, ten times that"""

    def __post_init__(self) -> None:
        if self.starts < 1 or self.sample < 1 or self.early < 1 or self.iterations < 1:
            raise ValueError(f"{self}; expected 1 or more of each")
        if self.surplus < 1 or self.tolerance < 0:
            raise ValueError(f"{self}; expected a surplus of at least 1 and a tolerance of at least 0")


DEFAULT = Effort()


def fit(
    sequences: Sequences,
    states: int,
    rng: np.random.Generator,
    *,
    longest: int | str | None = "auto",
    smoothing: float = 1.0,
    phases: int | None = None,
    begin: LearntModel | None = None,
    effort: Effort = DEFAULT,
    notes: Notes | None = None,
    watch: Watch | None = None,
) -> LearntModel:
    """A model of so many hidden states.

    `longest`: steps after which every episode has ended; "auto": found in the data; None: there is none.
    `phases`: an episode never leaves the class of its first state, and a class has so many states (1: the
    state is the same for a whole episode); None: any state may become any other.
    `smoothing`: imagined counts in each row. `begin`: a model to begin with, in place of starts of its own
    (for resampled data). `notes` of a search that was stopped let it go on, to the same numbers but for
    rounding (`exact/compiled.py`). InputError if there are no episodes, or more states than steps.
    """
    seed = int(rng.integers(2**62))
    # Rewards are binned as in the model to begin with: drawn data may have fewer different ones.
    data = prepared_for(sequences, states, longest, smoothing, None if begin is None else begin.pay)
    notes = notes or Notes()
    if begin is not None:
        if begin.shape[0] != states:
            raise ValueError(f"begin has {begin.shape[0]} states; expected {states}")
        tables, data = tables_of(begin), data.within(1 if begin.stays else phases, states)
    elif phases is not None or states > FEW:
        data = data.within(phases, states)
        tables = searched_many(data, seed, effort, notes, watch)
    else:
        tables = searched(data, [states], seed, effort, notes, watch)[states]
    found = climb(
        data, tables, effort.iterations, effort.tolerance, notes=notes, name=f"fit{states}", watch=watch
    )
    return finished(data, found.tables)


def searched(
    data: Data, wanted: Sequence[int], seed: int, effort: Effort, notes: Notes, watch: Watch | None
) -> dict[int, Tables]:
    """For each wanted number of states the best tables of all starts, on a sample of the data."""
    small = sampled(data, effort.sample, np.random.default_rng([seed, 0]))
    best: Found = {}
    least = 10 * effort.tolerance * len(small.steps.actions)
    for j in range(effort.starts):
        found = _noted(notes, f"start{j}", wanted)
        if not found:
            here, tables = _start(small, max(wanted), seed, j, effort, watch)
            found = _path(here, tables, wanted, effort, notes, f"start{j}")
        _keep_better(best, found)
    for j in range(ROUNDS):
        found = _noted(notes, f"split{j}", wanted)
        if not found:
            rng, name = np.random.default_rng([seed, 3, j]), f"split {j + 1}"
            here, tables = _split(small, best[max(wanted)][1], rng, effort, watch, name)
            found = _path(here, tables, wanted, effort, notes, f"split{j}")
        if not _keep_better(best, found) > least:
            break
    return {k: tables for k, (_, tables) in best.items()}


def searched_many(
    data: Data,
    seed: int,
    effort: Effort,
    notes: Notes,
    watch: Watch | None,
    classes: Tables | None = None,
) -> Tables:
    """Tables of as many states as `data` is for, learnt from a sample of it: those of the best start.

    Without phases a start has more states than are wanted. `classes`, learnt before, of which the states are
    to be phases, are one start more.
    """
    k, phased_ = data.sizes[0], data.phases not in (None, 1)
    small = sampled(data, effort.sample, np.random.default_rng([seed, 0]))
    many = small if phased_ else small.of(max(k, round(effort.surplus * k)) if k > 1 else 1)
    kinds = PHASES if phased_ else CLASSES if data.phases else KINDS
    begins = [*kinds[: min(effort.starts, MANY_STARTS)], *([] if classes is None else [classes])]
    best: Climb | None = None
    for j, kind in enumerate(begins):
        name = f"many{k}x{data.phases or k}-{j}"
        if notes.get(name) is None:
            rng = np.random.default_rng([seed, 4, k, data.phases or 0, j])
            if isinstance(kind, Kind):
                begin = start_of(many.of(many.sizes[0], 1.0).prior, kind, rng)
            else:
                begin = phased(kind, data.phases or 1, rng)
            found = climb(many, begin, effort.early, 10 * effort.tolerance, watch=watch, name=name).tables
            begin = found if phased_ else thinned(many, found, k)[1]
        else:
            begin = small.prior  # not looked at: the notes have how it ended
        found = climb(small, begin, effort.early // 3 + 1, 10 * effort.tolerance, notes=notes, name=name)
        if best is None or found.values[-1] > best.values[-1]:
            best = found
    assert best is not None
    return best.tables


Found = dict[int, tuple[float, Tables]]
"""by number of states: the penalised log-likelihood in nats, and its tables"""


def _keep_better(best: Found, found: Found) -> float:
    """Put what is better into `best`; the largest gain, in nats."""
    gains = [v - best[k][0] if k in best else np.inf for k, (v, _) in found.items()]
    best.update({k: found[k] for k, gain in zip(found, gains, strict=True) if gain > 0})
    return max(gains)


def _noted(notes: Notes, name: str, wanted: Sequence[int]) -> Found:
    """What `_path` noted; nothing if it had not come to its end."""
    found = {k: notes.get(f"{name}/{k}") for k in wanted}
    return {
        k: (float(v["value"]), Tables(**{f: v[f] for f in Tables._fields}))
        for k, v in found.items()
        if v is not None and all(found.values())
    }


def _start(
    small: Data, most: int, seed: int, j: int, effort: Effort, watch: Watch | None
) -> tuple[Data, Tables]:
    """Start j, climbed, with more states than the `most` that are wanted."""
    many = most if most == 1 else max(most + 1, round(effort.surplus * most))
    rng, kind, name = np.random.default_rng([seed, 1, j]), KINDS[j % len(KINDS)], f"start {j + 1}"
    size = max(1, many // 2) if kind.twofold else many
    here = small.of(size)
    tables = start_of(here.of(size, 1.0).prior, kind, rng)
    tables = climb(here, tables, effort.early, 10 * effort.tolerance, watch=watch, name=name).tables
    return _split(small, tables, rng, effort, watch, name) if kind.twofold else (here, tables)


def _split(
    small: Data, tables: Tables, rng: np.random.Generator, effort: Effort, watch: Watch | None, name: str
) -> tuple[Data, Tables]:
    """Two of each state, climbed."""
    here = small.of(2 * len(tables.start))
    double = twofold(tables, rng)
    return here, climb(here, double, effort.early, 10 * effort.tolerance, watch=watch, name=name).tables


def _path(
    here: Data, tables: Tables, wanted: Sequence[int], effort: Effort, notes: Notes, name: str
) -> Found:
    """Mergers from so many states to the smallest wanted number, and what is wanted on the way."""
    reached: Found = {}
    while True:
        k = len(tables.start)
        if k in wanted:
            tables = climb(here, tables, effort.early // 3 + 1, 10 * effort.tolerance).tables
            reached[k] = value_of(here, tables), tables
        if k == min(wanted):
            break
        here, tables = reduced(here, tables)
    for k, (value, tables) in reached.items():
        notes.put(f"{name}/{k}", {"value": np.array(value), **tables._asdict()})
    return reached


def prepared_for(
    sequences: Sequences, states: int, longest: int | str | None, smoothing: float, like: Pay | None = None
) -> Data:
    """`prepared`, with the longest length found in the data if it is "auto", and checked."""
    if longest == "auto":
        longest = longest_of(sequences)
    if isinstance(longest, str):
        raise ValueError(f"longest is {longest!r}; expected a number of steps, None or 'auto'")
    if states < 1:
        raise ValueError(f"states is {states}; expected 1 or more")
    if states > len(sequences.actions):
        raise InputError(
            f"{states} hidden states for {len(sequences.actions)} steps; expected fewer states, or more data"
        )
    if smoothing < 0:
        raise ValueError(f"smoothing is {smoothing}; expected 0 or more imagined counts")
    return prepared(sequences, states, longest=longest, smoothing=smoothing, like=like)


def iterations_of(effort: Effort, moving: Sequence[int], others: int) -> tuple[int, int, int]:
    """How often `watch` is called at most: (by starts up to `FEW` states, by those of more, by climbs).

    `moving` numbers of states that may move, and so many `others`, are what `choose` chooses from, or the
    one that `fit` is given.
    """
    few = [k for k in moving if k <= FEW]
    many, sizes = len(moving) - len(few) + others, len(moving) + others
    starts = (2 * effort.starts + ROUNDS) * effort.early if few else 0
    return starts, many * min(effort.starts, MANY_STARTS) * effort.early, sizes * effort.iterations
