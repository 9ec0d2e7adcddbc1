"""Learning a POMDP from sequences: so many hidden states, or as many as held-out episodes tell apart.

    1. Some starts on a sample of the data, each with more states than are wanted (`starts`).
    2. EM, then two states are made one, again and again, until the wanted number is left (`merging`).
    3. The best of them is split: two copies of each state, EM, mergers; again as long as that gains.
    4. EM on all data from the best of them, until an iteration gains next to nothing.

A model may have found all but one thing, which no state alone can tell: splitting all states at once makes
room for it. (Splits and mergers against poor optima: Ueda, Nakano, Ghahramani & Hinton 2000.)

The same path of mergers has a model for *every* smaller number of states, so `choose` pays for it once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.exact.learning.climb import Climb, Notes, Watch, climb, reduced, value_of
from turnwise.exact.learning.data import Data, finished, longest_of, prepared, sampled
from turnwise.exact.learning.expectation import tables_of
from turnwise.exact.learning.kernels import Tables
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.starts import KINDS, start_of, twofold
from turnwise.run.errors import InputError

NOISE = 1.0
"""Standard errors within which a smaller model counts as good as the best (the rule of Breiman et al. 1984,
section 3.4.3). A state too many costs a little data; one too few merges two situations that a plan must tell
apart."""

ROUNDS = 3
"""times that the best model is split and merged again, at most"""


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
    begin: LearntModel | None = None,
    effort: Effort = DEFAULT,
    notes: Notes | None = None,
    watch: Watch | None = None,
) -> LearntModel:
    """A model of so many hidden states.

    `longest`: steps after which every episode has ended; "auto": found in the data; None: there is none.
    `smoothing`: imagined counts in each row. `begin`: a model to begin with, in place of starts of its own
    (for resampled data). `notes` of a search that was stopped let it go on, to the same bits. InputError if
    there are no episodes, or more states than steps.
    """
    seed = int(rng.integers(2**62))
    # Rewards are binned as in the model to begin with: drawn data may have fewer different ones.
    data = _prepared(sequences, states, longest, smoothing, None if begin is None else begin.pay)
    notes = notes or Notes()
    if begin is not None:
        if begin.shape[0] != states:
            raise ValueError(f"begin has {begin.shape[0]} states; expected {states}")
        tables = tables_of(begin)
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


@dataclass(frozen=True)
class Choice:
    """A model, and what the number of its states was chosen by."""

    model: LearntModel
    states: int
    smoothing: float
    heldout: Mapping[int, tuple[float, float]]
    """by number of states: ln P of what a held-out episode showed (nats per step), and how much that is
    below the best number's, with rewards"""
    errors: Mapping[int, float]
    """by number of states: the standard error of that difference"""
    by_smoothing: Mapping[float, float]
    """nats per step, held out, by imagined counts, for the chosen number of states"""


def choose(
    sequences: Sequences,
    rng: np.random.Generator,
    *,
    states: Sequence[int] = range(1, 9),
    smoothing: Sequence[float] = (0.3, 1.0, 3.0, 10.0),
    longest: int | str | None = "auto",
    share: float = 0.2,
    effort: Effort = DEFAULT,
    notes: Notes | None = None,
    watch: Watch | None = None,
) -> Choice:
    """The smallest number of states that explains held-out episodes as well as the best, within the noise.

    A `share` of the episodes is held out. Their log-likelihoods, rewards among what is explained, are
    compared in pairs with those of the best number: one within `NOISE` standard errors of it is as good.
    Then the smoothing is chosen likewise by what is best, and the model is fitted to all episodes.
    """
    seed = int(rng.integers(2**62))
    wanted = sorted(set(states))
    if not wanted or wanted[0] < 1:
        raise ValueError(f"states are {list(states)}; expected numbers from 1 on")
    if len(sequences) < 2:
        raise InputError(f"{len(sequences)} episodes; expected at least 2, some to be held out")
    notes = notes or Notes()
    whole = _prepared(sequences, wanted[-1], longest, 1.0)
    order = np.random.default_rng([seed, 2]).permutation(len(sequences))
    unseen = max(1, round(share * len(sequences)))
    apart, own = sequences.select(order[:unseen]), sequences.select(order[unseen:])
    data = prepared(own, wanted[-1], longest=whole.longest, smoothing=1.0, like=whole)
    tables = searched(data, wanted, seed, effort, notes, watch)
    fitted: dict[int, Climb] = {}
    scores: dict[int, np.ndarray] = {}
    for k in wanted:
        here = data.of(k)
        fitted[k] = _climbed(here, tables[k], effort, notes, f"own{k}", watch)
        scores[k] = _explained(here, fitted[k].tables, apart)
    chosen, heldout, errors = _smallest(scores, apart)
    strengths: dict[float, tuple[float, Tables]] = {}
    for strength in sorted(set(smoothing)):
        here = data.of(chosen, strength)
        found = _climbed(here, fitted[chosen].tables, effort, notes, f"smooth{strength:g}", watch)
        value = float(_explained(here, found.tables, apart).sum()) / len(apart.actions)
        strengths[strength] = value, found.tables
    best = max(strengths, key=lambda k: strengths[k][0])
    last = whole.of(chosen, best)
    final = _climbed(last, strengths[best][1], effort, notes, "all", watch)
    return Choice(
        model=finished(last, final.tables),
        states=chosen,
        smoothing=best,
        heldout=heldout,
        errors=errors,
        by_smoothing={k: v for k, (v, _) in strengths.items()},
    )


def _smallest(
    scores: Mapping[int, np.ndarray], apart: Sequences
) -> tuple[int, dict[int, tuple[float, float]], dict[int, float]]:
    """(the smallest number of states within the noise of the best, its table, its errors)."""
    per_step = len(apart.actions)
    best = max(scores, key=lambda k: float(scores[k].sum()))
    heldout, errors = {}, {}
    n = len(apart)
    for k, found in scores.items():
        below = scores[best] - found
        heldout[k] = (float(found.sum()) / per_step, float(below.sum()) / per_step)
        errors[k] = float(below.std() * np.sqrt(n)) / per_step
    good = [k for k in scores if heldout[k][1] <= NOISE * errors[k]]
    return min(good), heldout, errors


def _explained(data: Data, tables: Tables, apart: Sequences) -> np.ndarray:
    """[n], ln P of held-out episodes, rewards included."""
    model = finished(data, tables)
    return model.log_likelihoods(apart, rewards=model.pay is not None)


def _climbed(
    data: Data, tables: Tables, effort: Effort, notes: Notes, name: str, watch: Watch | None
) -> Climb:
    return climb(data, tables, effort.iterations, effort.tolerance, notes=notes, name=name, watch=watch)


def _prepared(
    sequences: Sequences, states: int, longest: int | str | None, smoothing: float, like: Pay | None = None
) -> Data:
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


def iterations_of(effort: Effort, choosing: int = 0, smoothings: int = 0) -> int:
    """How often `watch` is called at most: by `fit`, or by `choose` among so many numbers of states."""
    climbs = choosing + smoothings + 1
    return (2 * effort.starts + ROUNDS) * effort.early + climbs * effort.iterations
