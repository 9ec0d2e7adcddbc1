"""How far a critic moves the policy that it guides: the shift of log-probabilities, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from turnwise.data.tokens import Tokens
from turnwise.models.lm.critics import TokenCritic
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.rerank import Reranker

FAR = 3.0
"""nats beyond which a shift is called far: a factor of 20 in probability"""
ROWS, CHOICES = 256, 32
"""rows that are read at most; turns for which proposals are made at most"""


def measure_shift(agent: Agent, rows: Sequence[Tokens], *, said: bool = False) -> dict[str, Any] | None:
    """Size of the shift of log-probability that the critic makes on `rows`: mean, 95th percentile; in nats.

        token critic   |log pi'(a) - log pi(a)| of each logged token; `turn` has the sums over whole turns
        a choice       |log (n p)| of the proposal that is said, of n proposals, after the logged history

    A critic of turns always chooses, one of tokens if there are several proposals. pi is the language model,
    pi' what it becomes under the critic; `said` if the agent itself said what is
    in the rows. None without a critic, or without rows.
    """
    rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int))]
    if agent.critic is None or not rows:
        return None
    found: dict[str, Any] = {"beta": agent.acting.beta, "said": said, "far": FAR}
    if isinstance(agent.critic, TokenCritic) and not agent.reranks:
        shifts, turns = _of_tokens(agent, rows)
        found |= {"per": "token", **_sizes(shifts), "turn": _sizes(turns)}
    else:
        found |= {"per": "turn", **_sizes(_of_choices(agent, rows))}
    return found | {"sentence": _in_words(found)}


def _of_tokens(agent: Agent, rows: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    shifts, turns = [], []
    for row in rows:
        shift = agent.values(row)["shift"].astype(np.float64)
        chosen = np.flatnonzero(row.action[1:]) + 1
        learnt = chosen > row.learn_from
        shifts.append(shift[learnt])
        turn = np.cumsum(row.turn_end[chosen]) - row.turn_end[chosen]
        turns += [float(shift[learnt & (turn == k)].sum()) for k in np.unique(turn[learnt])]
    return np.concatenate(shifts), np.array(turns)


def _of_choices(agent: Agent, rows: Sequence[Tokens]) -> np.ndarray:
    """Of turns spread over the rows; the critic chooses among proposals as it does when the agent acts."""
    opens = [np.flatnonzero(row.action[1:] & ~row.action[:-1]) for row in rows]
    turns = [(row, int(at)) for row, places in zip(rows, opens, strict=True) for at in places]
    chosen = np.unique(np.linspace(0, len(turns) - 1, min(CHOICES, len(turns))).astype(int))
    model = agent.lane_model(len(chosen), agent.chat.stop)
    if not isinstance(model, Reranker):  # beta is 0: nothing is proposed
        return np.zeros(1)
    for lane, i in enumerate(chosen):
        row, at = turns[i]
        model.reset(lane, lane)
        model.submit(lane, row.ids[: at + 1].tolist())
    waiting = len(chosen)
    while waiting:
        waiting -= len(model.collect())
    # A lane in which all proposals fill the context chooses nothing.
    return np.array([model.shifts.get(lane, 0.0) for lane in range(len(chosen))])


def _sizes(shifts: np.ndarray) -> dict[str, float]:
    sizes = np.abs(shifts)
    return {"mean": float(sizes.mean()), "p95": float(np.quantile(sizes, 0.95))}


def _in_words(shift: dict[str, Any]) -> str:
    """One sentence: how far, and whether that is far."""
    what = "the reply that is said"
    if shift["per"] == "token":
        what = "a word that it says" if shift["said"] else "a logged word"
    text = (
        f"Beta {shift['beta']:g} moves the log-probability of {what} by {shift['mean']:.2f} nats on average, "
        f"and by more than {shift['p95']:.2f} in one case of twenty"
    )
    if is_far(shift):
        text += f": far from the cloned policy (over {shift['far']:g} nats). A smaller beta stays closer"
    return text + "."


def is_far(shift: dict[str, Any]) -> bool:
    """Whether one case in twenty is moved by more than `FAR`."""
    return shift["p95"] > shift["far"]
