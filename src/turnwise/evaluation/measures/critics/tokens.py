"""What critics of tokens, and of turns, know of returns on conversations that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import continues
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.critics.figures import (
    ENOUGH,
    LEARNT,
    MEASURED,
    Judged,
    ended,
    measure_values,
)
from turnwise.models.lm.critics import Estimand, TurnCritic
from turnwise.rollout.agent import Agent


def measure_critic(
    agent: Agent,
    estimand: Estimand,
    learnt: tuple[Sequence[Dialogue], Sequence[Tokens]],
    held: tuple[Sequence[Dialogue], Sequence[Tokens]],
    seed: int = 0,
) -> dict[str, Any]:
    """The critic of `agent` against the returns of held-out conversations, as plain JSON values.

    `learnt` and `held` are conversations and their token rows, in the same order. A conversation that was cut
    is left out: what would have followed is unknown. See `docs/how-to/critics.md` for every entry.
    """
    rows, asked = _rows_of(learnt, LEARNT), _rows_of(held, MEASURED)
    many = len(asked) >= ENOUGH
    return measure_values(
        [Judged(d, returns_of(parts, estimand)) for d, parts in rows],
        [
            Judged(d, returns_of(parts, estimand), values_of(agent, parts) if many else None)
            for d, parts in asked
        ],
        estimates=dict(vars(estimand)),
        improved=estimand.improved,
        cut=sum(not d.terminated for d in held[0]),
        std=agent.acting.return_std,
        seed=seed,
    )


def returns_of(parts: Sequence[Tokens], e: Estimand) -> tuple[np.ndarray, np.ndarray]:
    """Returns of a whole conversation: [K] from the state before each turn, and [K] from its last token on.

    G_k = r_k + d_k G_{k+1} over the agent's tokens, with the discounts of `e`. The two differ only by
    `gamma_within_turn`.
    """
    rewards, ends, opens = [], [], []
    for row in parts:
        chosen = np.flatnonzero(row.action[1:]) + 1
        chosen = chosen[chosen > row.learn_from]  # what comes before was learnt from in an earlier part
        rewards.append(row.rewards[chosen])
        ends.append(row.turn_end[chosen])
        opens.append(~row.action[chosen - 1] | row.turn_end[chosen - 1])
    reward, end, first = (np.concatenate(x) for x in (rewards, ends, opens))
    discount = np.where(end, e.gamma, e.gamma_within_turn)
    returns, after = np.zeros(len(reward)), 0.0
    for k in range(len(reward) - 1, -1, -1):
        returns[k] = after = reward[k] + discount[k] * after
    return returns[first], returns[end]


def values_of(agent: Agent, parts: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """The critic's values of a whole conversation: V before each turn [K], and Q after its last token [K]."""
    pack: Any = pack_turns if isinstance(agent.critic, TurnCritic) else pack_tokens
    v, q = [], []
    for row in parts:
        batch, values = pack([row], gamma=1.0), agent.values(row)
        before, after = batch.decisions[0, :-1].numpy(), batch.ends[0].numpy()
        learnt = before >= row.learn_from
        v.append(values["v"][learnt & (~row.action[before] | row.turn_end[before])])
        q.append(values["q"][learnt & row.turn_end[after]])
    return np.concatenate(v).astype(np.float64), np.concatenate(q).astype(np.float64)


def _rows_of(
    conversations: tuple[Sequence[Dialogue], Sequence[Tokens]], most: int
) -> list[tuple[Dialogue, list[Tokens]]]:
    """Those that came to a true end with their rows (segments of one are neighbours), evenly spread."""
    dialogues, rows = conversations
    stops = np.flatnonzero(~continues(rows)) + 1
    starts = np.append(0, stops[:-1])
    chosen = ended(dialogues, most).tolist()
    return [(dialogues[c], [rows[i] for i in range(starts[c], stops[c])]) for c in chosen]
