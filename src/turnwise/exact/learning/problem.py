"""A learnt model as a problem to plan in: a `POMDP` for the solvers and for `.pomdp` files.

Its states are the model's, and one more, `over`, in which an episode has ended. With a clock they are pairs
of a hidden state and a time: the problem then ends for certain, so that it has a value at discount 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.learning.model import CUT_OFF, END, ENDED, GO_ON, STOP, LearntModel


def pomdp_of(
    model: LearntModel,
    discount: float,
    *,
    actions: Sequence[str] | None = None,
    observations: Sequence[str] | None = None,
    firsts: Sequence[str] | None = None,
    name: str = "",
) -> POMDP:
    """The problem. States are s0, s1, ... or, with a clock, s0_t0, ..., then `over` if there is an end.

    If there are several first observations, they follow the O observations as symbols of their own and are
    shown before the first action (`initial`). Names are a0, ..., o0, ..., f0, ... if none are given.
    ValueError if the model has no rewards: then there is nothing to plan for.
    """
    if model.pay is None:
        raise ValueError("the model has no rewards, so there is nothing to plan for")
    S, A, O = model.shape
    F = model.firsts.shape[1]
    H = model.longest or 1
    over = H * S if model.episodic else None
    width = H * S + (over is not None)
    pieces = [piece for t in range(H) for piece in _step(model, t, width, over)]
    if over is not None:
        rows = np.arange(A) * width + over
        pieces.append((rows, np.full(A, over), np.ones(A), np.zeros(A), np.ones(A, bool)))
    row, column, chance, pay, ends = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    order = np.lexsort((column, row))
    row, column, chance, pay, ends = (x[order] for x in (row, column, chance, pay, ends))
    transitions = Rows(
        np.searchsorted(row, np.arange(A * width + 1)), column, _to_one(row, chance, A * width), width
    )
    shown = F if F > 1 else 0
    initial = None
    if shown:
        table = np.zeros((width, O + F))
        table[:, O:] = 1 / F
        table[:S, O:] = model.firsts
        initial = Rows.from_dense(table)
    labels = _names(observations, "o", O) + (_names(firsts, "f", F) if shown else ())
    return POMDP(
        states=_states(S, model.longest, over is not None),
        actions=_names(actions, "a", A),
        observations=labels,
        discount=discount,
        start=np.append(model.start, np.zeros(width - S)),
        transitions=transitions,
        emissions=_emissions(model, H, over is not None, shown),
        rewards=pay,
        ends=ends,
        initial=initial,
        name=name,
    )


def plan_beliefs(model: LearntModel, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[N, states of `pomdp_of`], beliefs [N, S] of agents that have taken `times` [N] steps."""
    n, S = beliefs.shape
    H = model.longest or 1
    found = np.zeros((n, H * S + model.episodic))
    at = np.minimum(np.asarray(times), H - 1) * S
    found[np.arange(n)[:, None], at[:, None] + np.arange(S)] = beliefs
    return found


def _step(model: LearntModel, t: int, width: int, over: int | None):
    """(row, column, probability, reward, ends) of the transitions at time t: what goes on, then the end."""
    assert model.pay is not None
    S, A, _ = model.shape
    H = model.longest
    last = H is not None and t == H - 1
    e, means = model.ends, model.pay.means
    late = model.pay.late[t] if H is not None else 0.0
    rows = np.arange(A)[:, None] * width + (t * S + np.arange(S) if H is not None else np.arange(S))
    if not last:
        ahead = (t + 1) * S if H is not None else 0
        chance = (1 - e)[:, :, None] * model.transitions
        a, s, s2 = np.nonzero(chance)
        yield (
            rows[a, s],
            ahead + s2,
            chance[a, s, s2],
            means[GO_ON, a, s],
            np.zeros(len(a), bool),
        )
    if over is not None:
        chance = np.ones((A, S)) if last else e
        paid = (e * means[END] + (1 - e) * means[STOP] if last else means[END]) + late
        a, s = np.nonzero(chance)
        yield rows[a, s], np.full(len(a), over), chance[a, s], paid[a, s], np.ones(len(a), bool)


def _emissions(model: LearntModel, H: int, over: bool, shown: int) -> Rows:
    """[A*states, O + shown]; in `over` the last answers, averaged over states: nothing depends on them."""
    S, A, O = model.shape
    table = np.zeros((A, H * S + over, O + shown))
    for t in range(H):
        table[:, t * S : (t + 1) * S, :O] = model.emissions
    if over:
        kind = ENDED if (model.ends > 0).any() else CUT_OFF
        table[:, -1, :O] = model.lasts[kind].mean(1)
    return Rows.from_dense(table.reshape(-1, O + shown))


def _to_one(row: np.ndarray, chance: np.ndarray, n: int) -> np.ndarray:
    """Rows that sum to 1 to the last bits: rounding of products is divided out."""
    return chance / np.bincount(row, chance, minlength=n)[row]


def _states(S: int, longest: int | None, over: bool) -> tuple[str, ...]:
    plain = [f"s{s}" for s in range(S)]
    timed = plain if longest is None else [f"{s}_t{t}" for t in range(longest) for s in plain]
    return (*timed, "over") if over else tuple(timed)


def _names(given: Sequence[str] | None, letter: str, n: int) -> tuple[str, ...]:
    if given is None:
        return tuple(f"{letter}{i}" for i in range(n))
    if len(given) != n:
        raise ValueError(f"{len(given)} names {list(given)[:3]}...; expected {n}")
    return tuple(given)
