"""Replay of rows, with priorities, for agents with a memory.

A row is what lanes gave at once: an episode or a segment of one, with the memory before its first
observation (the stored state of Kapturowski et al. 2019, "Recurrent experience replay in distributed
reinforcement learning", section 3). Each row knows the row before it of the same episode, so that reading may
begin earlier and never in another episode. A row whose predecessor has been dropped begins where it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from turnwise.data.episode import Episode
from turnwise.data.steps import joined


class Drawn(NamedTuple):
    """Rows that were drawn, with repetition."""

    rows: np.ndarray
    """[n], names of rows: how many were added before each"""
    weights: np.ndarray
    """[n], what undoes the priorities, at most 1"""


class Replay:
    """The latest rows, at most `capacity` steps of them.

    Row i is drawn with probability p_i^exponent / sum_j p_j^exponent, p its priority (Schaul et al. 2015,
    arXiv:1511.05952, eq. 1; exponent 0 draws all alike); new rows have the largest priority there is.
    """

    def __init__(self, capacity: int, lanes: int, *, exponent: float = 0.0, pauses: bool = False) -> None:
        """`lanes` that rows come from; `pauses`: `LaneEnv.begins_while_stepping`."""
        self.capacity, self.exponent, self.pauses = capacity, exponent, pauses
        self._rows: list[Episode] = []
        self._before: list[int] = []
        self._priorities = np.zeros(0)
        self._dropped, self._steps = 0, 0
        self._last, self._to_the_end = np.full(lanes, -1), np.zeros(lanes, bool)

    def __len__(self) -> int:
        """Rows that are held."""
        return len(self._rows)

    @property
    def steps(self) -> int:
        """Steps that are held."""
        return self._steps

    def add(self, rows: Sequence[Episode], steps: int) -> None:
        """All rows of one collection of `steps` steps in each lane, by lane and then by time."""
        if steps < 2:
            raise ValueError(f"collections of {steps} steps; expected 2 or more, to tell rows apart")
        coming = iter(rows)
        row = next(coming, None)
        for lane in range(len(self._last)):
            began_anew = self.pauses and self._to_the_end[lane] and row is not None and row.age == 0
            t = int(began_anew)
            while t < steps:
                if row is None or t + len(row) > steps:
                    raise ValueError(f"rows do not fill {len(self._last)} lanes of {steps} steps")
                self._before.append(self._last[lane] if row.age else -1)
                self._last[lane] = self._dropped + len(self._rows)
                self._rows.append(row)
                t += len(row)
                self._to_the_end[lane] = t == steps
                t += self.pauses and t < steps
                row = next(coming, None)
        if row is not None:
            raise ValueError(f"more rows than {len(self._last)} lanes of {steps} steps have")
        self._steps += sum(len(r) for r in rows)
        largest = self._priorities.max(initial=0.0) or 1.0
        self._priorities = np.append(self._priorities, np.full(len(rows), largest))
        self._drop()

    def sample(self, rng: np.random.Generator, n: int, importance: float = 0.0) -> Drawn:
        """n rows by their priorities; weights are (P_i)^-importance over the largest of those drawn.

        At `importance` 1 they undo the priorities entirely (Schaul et al. 2015, section 3.4).
        """
        mass = self._priorities**self.exponent
        upto = np.cumsum(mass)
        places = np.searchsorted(upto, rng.random(n) * upto[-1], side="right").clip(max=len(mass) - 1)
        weights = (mass[places] / mass[places].min()) ** -importance
        return Drawn(self._dropped + places, weights)

    def read(self, row: int, back: int | None = 0) -> Episode:
        """The row, joined to up to `back` rows before it (None: all that are held), which are burn-in."""
        episode, before = self._rows[row - self._dropped], self._before[row - self._dropped]
        while before >= self._dropped and back != 0:
            episode = joined(self._rows[before - self._dropped], episode)
            before = self._before[before - self._dropped]
            back = None if back is None else back - 1
        return episode

    def reprioritise(self, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Give `rows` [n] that are held new `priorities` [n], above 0."""
        if not (priorities > 0).all():
            raise ValueError(f"a priority of {priorities.min()}; expected more than 0")
        self._priorities[rows - self._dropped] = priorities

    def state(self) -> dict[str, Any]:
        """All of it, as few large tensors."""
        rows = self._rows
        later = [r for r in rows if r.age]
        columns = {
            "lengths": np.array([len(r) for r in rows], np.int64),
            "terminated": np.array([r.terminated for r in rows], bool),
            "ages": np.array([r.age for r in rows], np.int64),
            "previous_rewards": np.array([r.previous_reward for r in rows], np.float64),
            "observations": _cat([r.observations for r in rows]),
            "actions": _cat([r.actions for r in rows]),
            "rewards": _cat([r.rewards for r in rows]),
            "behavior_logp": _cat([r.behavior_logp for r in rows]),
            "states": _cat([r.states for r in rows]),
            "previous_actions": _cat([np.asarray(r.previous_action)[None] for r in later]),
            "memories": _cat([None if r.memory is None else np.asarray(r.memory)[None] for r in later]),
            "before": np.array(self._before, np.int64),
            "priorities": self._priorities,
            "last": self._last,
            "to_the_end": self._to_the_end,
        }
        held = {k: torch.from_numpy(v.copy()) for k, v in columns.items() if v is not None}
        return {"dropped": int(self._dropped), **held}

    def load(self, state: dict[str, Any]) -> None:
        """Hold what `state` held."""
        c = {k: v.numpy().copy() for k, v in state.items() if k != "dropped"}
        self._dropped, self._before = state["dropped"], c["before"].tolist()
        self._priorities, self._last, self._to_the_end = c["priorities"], c["last"], c["to_the_end"]
        self._rows, self._steps = [], int(c["lengths"].sum())
        start = later = 0
        for i, n in enumerate(c["lengths"].tolist()):
            here = slice(start, start + n)
            seen = slice(start + i, start + i + n + 1)  # one observation more than actions
            goes_on = bool(c["ages"][i])
            self._rows.append(
                Episode(
                    observations=c["observations"][seen],
                    actions=c["actions"][here],
                    rewards=c["rewards"][here],
                    terminated=bool(c["terminated"][i]),
                    truncated=not c["terminated"][i],
                    behavior_logp=c["behavior_logp"][here] if "behavior_logp" in c else None,
                    states=c["states"][seen] if "states" in c else None,
                    age=int(c["ages"][i]),
                    previous_action=c["previous_actions"][later] if goes_on else None,
                    previous_reward=float(c["previous_rewards"][i]),
                    memory=c["memories"][later] if goes_on and "memories" in c else None,
                )
            )
            start, later = start + n, later + goes_on

    def _drop(self) -> None:
        """Let the oldest rows go, until the rest is within the capacity."""
        gone = 0
        while self._steps > self.capacity and gone < len(self._rows) - 1:
            self._steps -= len(self._rows[gone])
            gone += 1
        del self._rows[:gone], self._before[:gone]
        self._priorities, self._dropped = self._priorities[gone:], self._dropped + gone


def _cat(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """End to end; None where there are none."""
    known = [p for p in parts if p is not None]
    return np.concatenate(known) if known else None
