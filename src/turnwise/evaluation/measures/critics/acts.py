"""What values of acts know of returns on conversations that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.acts.pack import pack_acts
from turnwise.data.dialogue import Dialogue
from turnwise.data.episode import Episode
from turnwise.data.order import chunks
from turnwise.evaluation.measures.critics.figures import (
    ENOUGH,
    LEARNT,
    MEASURED,
    Judged,
    ended,
    measure_values,
)
from turnwise.losses.returns import discounted_returns
from turnwise.losses.value import action_values
from turnwise.models.agents.act_critic import ActCritic

ROWS = 256
"""talks that are read at a time"""


def measure_act_critic(
    critic: ActCritic,
    learnt: tuple[Sequence[Dialogue], Sequence[Episode]],
    held: tuple[Sequence[Dialogue], Sequence[Episode]],
    *,
    gamma: float,
    improved: bool,
    std: float,
    seed: int = 0,
) -> dict[str, Any]:
    """`critic`, in the units of the task, against the returns of held-out conversations.

    `learnt` and `held` are conversations and their acts, in the same order, with rewards in these units. See
    `measure_values` for what is found.
    """
    parts = []
    for (dialogues, talks), most, judged in ((learnt, LEARNT, False), (held, MEASURED, True)):
        chosen = ended(dialogues, most).tolist()
        rows = [talks[i] for i in chosen]
        read = judged and len(chosen) >= ENOUGH
        found = [
            (g, (v, q) if read else None)
            for part in chunks(rows, ROWS)
            for g, v, q in _values(critic if read else None, part, gamma)
        ]
        parts.append([Judged(dialogues[i], (g, g), x) for i, (g, x) in zip(chosen, found, strict=True)])
    return measure_values(
        parts[0],
        parts[1],
        estimates={"gamma": gamma, "gamma_within_turn": 1.0, "improved": improved},
        improved=improved,
        cut=sum(not d.terminated for d in held[0]),
        std=std,
        seed=seed,
    )


@torch.inference_mode()
def _values(
    critic: ActCritic | None, rows: Sequence[Episode], gamma: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each talk: returns, V and Q of its acts, [K] each; V and Q are the returns if there is no critic."""
    batch = pack_acts(rows, gamma=gamma, dtype=torch.float64)
    returns = v = q = discounted_returns(batch.rewards, batch.discounts, batch.mask)
    if critic is not None:
        single = pack_acts(rows, gamma=gamma)
        values = critic(single)
        v = values.v[:, :-1]
        q = action_values(values.q[:, :, :-1], single.actions).amin(0)
    triples = zip(rows, returns.double().numpy(), v.double().numpy(), q.double().numpy(), strict=True)
    return [(g[: len(e)], a[: len(e)], b[: len(e)]) for e, g, a, b in triples]
