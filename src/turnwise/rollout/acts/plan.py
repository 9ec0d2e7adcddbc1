"""A chooser that plans: the belief over the hidden state of a learnt model, and what its plan does there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.planner import Planner
from turnwise.rollout.acts.chooser import Choice, Prefix

IMPOSSIBLE = 1e-6
"""probability of what was heard, in the model, below which the model is said to make nothing of it"""
SHOWN = 5
"""acts of which a trace has the values, the best ones"""
MODEL, PLAN = "model.npz", "plan.npz"


@dataclass(frozen=True)
class PlanChooser:
    """Filters the belief through a talk and takes the best act at it.

    The planner's model has `copies` times the hidden states that people are shown: if it is a mixture of
    models whose states were learnt from one another, state s of each is shown as one. `names` are the acts'.
    """

    planner: Planner
    names: tuple[str, ...]
    copies: int = 1

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """The best act of each talk; nothing is drawn."""
        if not talks:
            return []
        beliefs, strange = self.beliefs(talks)
        times = np.array([len(t) for t in talks])
        q = self.planner.q(beliefs, times)  # [N, A]
        found = []
        for i in range(len(talks)):
            order = np.argsort(-q[i], kind="stable")
            best = order[np.isfinite(q[i][order])][:SHOWN]
            value = float(q[i, best[0]])
            trace: dict[str, Any] = {
                "belief": self.shown(beliefs[i]).round(4).tolist(),
                "v": value,
                "chosen_q": value,
                "values": {self.names[a]: round(float(q[i, a]), 4) for a in best.tolist()},
            }
            found.append(Choice(int(best[0]), None, trace, tuple(strange[i])))
        return found

    def beliefs(self, talks: Sequence[Prefix]) -> tuple[np.ndarray, list[list[int]]]:
        """[N, S], the belief after each talk, and what in it the model makes nothing of (0: the opening)."""
        model = self.planner.model
        firsts = np.array([t.first for t in talks])
        beliefs = model.first(firsts).copy()
        chance = (model.start @ model.firsts)[firsts]
        strange = [[0] if p < IMPOSSIBLE else [] for p in chance.tolist()]
        for k in range(max(map(len, talks))):
            here = [i for i, t in enumerate(talks) if len(t) > k]
            acts, answers = (np.array([x[k] for x in part]) for part in (
                [talks[i].acts for i in here], [talks[i].answers for i in here]
            ))  # fmt: skip
            # A talk that goes on was not ended by the clock, however long it is.
            after, p = model.update(beliefs[here], acts, answers)
            doubtful = [n for n, i in enumerate(here) if _told(talks[i], k) is not None]
            if doubtful:  # words that were never logged: what they say of each answer counts, not one guess
                told = np.stack([np.asarray(_told(talks[here[n]], k)) for n in doubtful])
                after[doubtful] = model.weigh(beliefs[here][doubtful], acts[doubtful], told)
            beliefs[here] = after
            for n, (i, likely) in enumerate(zip(here, p.tolist(), strict=True)):
                if likely < IMPOSSIBLE and n not in doubtful:
                    strange[i].append(k + 1)
        return beliefs, strange

    def shown(self, belief: np.ndarray) -> np.ndarray:
        """[S / copies], the belief as people see it."""
        return belief.reshape(self.copies, -1).sum(0)

    def save(self, folder: Path) -> None:
        """Write the model and the plan into a folder that is there."""
        self.planner.model.save(folder / MODEL)
        self.planner.save(folder / PLAN)


def _told(talk: Prefix, k: int) -> np.ndarray | None:
    """[O], what the words after turn k say of each answer; None if there is no doubt."""
    return talk.evidence[k] if talk.evidence else None


def load_plan(folder: Path, names: Sequence[str], copies: int) -> PlanChooser:
    """What `PlanChooser.save` wrote. InputError for anything else."""
    model = LearntModel.load(folder / MODEL)
    return PlanChooser(Planner.load(folder / PLAN, model), tuple(names), copies)
