"""A problem that shows something before the first action, made one that shows it after an idle action.

The `.pomdp` format has no observation before the first action. So the agent takes one step more, whatever it
is: it pays nothing, leads from `before` to where the episode begins, and shows what would have been shown.
With a discount below 1 all values are discounted once more.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows


def with_first_look(problem: POMDP) -> POMDP:
    """The problem with the explicit first look; itself if it shows nothing beforehand.

    Each state that an episode may begin in has a twin `NAME-first`, in which it is for the first turn only:
    what is seen on the way to a state must not depend on whether it is the first. ValueError if rewards
    depend on what is seen.
    """
    if problem.initial is None:
        return problem
    if problem.seen_rewards is not None:
        raise ValueError("rewards depend on what is seen; expected rewards of transitions")
    S, A, O = problem.shape
    begins = np.flatnonzero(problem.start)
    n = len(begins)
    width = S + n + 1  # the old states, the twins, and `before`
    before = S + n
    t, rows = problem.transitions, problem.transitions.of_entries()
    action, state = np.divmod(rows, S)
    parts = [(action * width + state, t.indices, t.data, problem.rewards, problem.ends)]
    for i, s in enumerate(begins.tolist()):
        here = state == s
        parts.append(
            (
                action[here] * width + S + i,
                t.indices[here],
                t.data[here],
                problem.rewards[here],
                problem.ends[here],
            )
        )
    every = np.repeat(np.arange(A), n)
    parts.append(
        (
            every * width + before,
            np.tile(S + np.arange(n), A),
            np.tile(problem.start[begins], A),
            np.zeros(A * n),
            np.zeros(A * n, bool),
        )
    )
    row, column, chance, pay, ends = (np.concatenate(x) for x in zip(*parts, strict=True))
    order = np.lexsort((column, row))
    row, column, chance, pay, ends = (x[order] for x in (row, column, chance, pay, ends))
    emissions = np.zeros((A, width, O))
    emissions[:, :S] = problem.emissions.dense().reshape(A, S, O)
    emissions[:, S:before] = problem.initial.dense()[begins]
    emissions[:, before] = emissions[:, S]  # nothing leads there
    return replace(
        problem,
        states=(*problem.states, *(f"{problem.states[s]}-first" for s in begins.tolist()), "before"),
        start=np.append(np.zeros(before), 1.0),
        transitions=Rows(np.searchsorted(row, np.arange(A * width + 1)), column, chance, width),
        emissions=Rows.from_dense(emissions.reshape(A * width, O)),
        rewards=pay,
        ends=ends,
        initial=None,
    )
