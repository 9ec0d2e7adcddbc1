"""The same problem under other conventions: another discount, other ends, so many steps and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

ALIKE = 1e-4
"""how far two distributions may differ in a state and still be one: files round"""
MOST_ENTRIES = 50_000_000
"""transitions of a problem with a clock, at most: some 2 GB"""


def continuing(problem: POMDP) -> POMDP:
    """The problem without ends: what ended goes on from the state that it leads to, as the tables say."""
    return replace(problem, ends=np.zeros(len(problem.ends), bool))


def ending(problem: POMDP) -> POMDP:
    """The problem that ends where it begins anew: what leads back to the start distribution is an end.

    That is a state which all actions leave for the start, or an action that leads to it from all states. What
    ends already stays an end. InputError if nothing begins anew.
    """
    S, A, _ = problem.shape
    t = problem.transitions
    off = np.array([_distance(*t.row(i), problem.start) for i in range(A * S)])
    again: np.ndarray = (off <= ALIKE).reshape(A, S)
    # A start that is one state and is never left is no new beginning.
    sure = problem.start > 0
    by_state = np.asarray(again.all(0) & ~(sure & (sure.sum() == 1)))
    by_action = np.asarray(again.all(1))
    back = by_state[None, :] | by_action[:, None]
    if not back.any() and not problem.episodic:
        raise InputError(
            f"{problem.name or 'problem'}: nothing begins anew: expected a state that all actions leave for "
            "the start distribution, or an action that leads to it from every state"
        )
    return replace(problem, ends=problem.ends | back.ravel()[t.of_entries()])


def _distance(columns: np.ndarray, values: np.ndarray, start: np.ndarray) -> float:
    difference = start.copy()
    difference[columns] -= values
    return float(np.abs(difference).max())


def with_horizon(problem: POMDP, steps: int) -> POMDP:
    """The problem that ends after so many steps: states with a clock, [S * steps], number t*S + s.

    Its optimal value is that of `exact.horizon.horizon_value`, and its policies may depend on the time left.
    """
    S, A, O = problem.shape
    t, e = problem.transitions, problem.emissions
    if steps * max(len(t.data), len(e.data)) > MOST_ENTRIES:
        raise InputError(
            f"{steps:,} steps of {len(t.data):,} transitions; expected at most {MOST_ENTRIES:,} in all"
        )
    # Row a*S + s of a table, at time t: entries in the order of a, then t, then s.
    action, state = np.divmod(t.of_entries(), S)
    clock = np.repeat(np.arange(steps), len(t.data))
    row = np.tile(action, steps) * (S * steps) + clock * S + np.tile(state, steps)
    order = np.argsort(row, kind="stable")
    last = clock == steps - 1
    column = np.where(last, clock, clock + 1) * S + np.tile(t.indices, steps)
    entry = np.tile(np.arange(len(t.data)), steps)[order]
    seen = problem.seen_rewards
    if seen is not None:
        position, at = seen.entries_of(entry)
        seen = Rows.from_entries(position, seen.indices[at], seen.data[at], (len(entry), O))
    return replace(
        problem,
        states=tuple(f"{name}, step {i + 1}" for i in range(steps) for name in problem.states),
        start=np.concatenate([problem.start, np.zeros(S * (steps - 1))]),
        transitions=Rows.from_entries(row, column, np.tile(t.data, steps), (A * S * steps, S * steps)),
        emissions=_tiled(e, steps, A, S, O),
        rewards=problem.rewards[entry],
        ends=problem.ends[entry] | last[order],
        seen_rewards=seen,
        initial=None if problem.initial is None else _tiled(problem.initial, steps, 1, S, O),
    )


def _tiled(rows: Rows, steps: int, actions: int, states: int, width: int) -> Rows:
    """[actions * steps * states, width], the rows of each action `steps` times."""
    at = np.arange(actions * states).reshape(actions, 1, states)
    position, entry = rows.entries_of(np.tile(at, (1, steps, 1)).ravel())
    shape = (actions * steps * states, width)
    return Rows.from_entries(position, rows.indices[entry], rows.data[entry], shape)
