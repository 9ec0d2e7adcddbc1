"""Replay of rows, with priorities, for agents with a memory.

A row is an episode, or a segment of one, as a collection cut it, with the memory before its first observation
(the "stored state" of Kapturowski et al. 2019, "Recurrent experience replay in distributed reinforcement
learning", section 3). That memory was written by older weights. So each row knows the row before it of the
same episode: reading may begin there, as burn-in, and the current weights make the memory afresh. If the row
before has been dropped, reading begins with the row itself.

Rows have names: how many rows were ever added before. Names stay when old rows go, so priorities that are
computed for a name are never written to another row.
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
    """Names of the rows, [n]."""
    weights: np.ndarray
    """Importance weights that undo the priorities, at most 1, [n]."""


class Replay:
    """The latest rows, at most `capacity` steps of them.

    Row i is drawn with probability p_i^exponent / sum_j p_j^exponent, where p_i is its priority (Schaul et
    al. 2015, arXiv:1511.05952, eq. 1; exponent 0 draws all alike). New rows get the largest priority there
    is, so that each is likely to be drawn once before its error is known.
    """

    def __init__(self, capacity: int, lanes: int, *, exponent: float = 0.0, pauses: bool = False) -> None:
        """`lanes`: how many rows come from at once; `pauses`: `LaneEnv.autoresets`.

        With pauses, an environment takes one step of a lane to begin a new episode, in which nothing is
        decided and which belongs to no row.
        """
        self.capacity, self.exponent, self.pauses = capacity, exponent, pauses
        self._rows: list[Episode] = []
        self._before: list[int] = []
        self._priorities = np.zeros(0)
        self._dropped, self._steps = 0, 0
        # By lane: the name of its latest row, and whether that row ended with the collection. [N]
        self._last, self._to_the_end = np.full(lanes, -1), np.zeros(lanes, bool)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._rows)

    @property
    def steps(self) -> int:
        """Number of steps in all rows."""
        return self._steps

    def add(self, rows: Sequence[Episode], steps: int) -> None:
        """Add all rows of one collection of `steps` steps in each lane, by lane and then by time.

        Rows do not say which lane they are of. Their lengths do: those of a lane fill its `steps`, and the
        next row is the next lane's. ValueError if they do not.
        """
        if steps < 2:
            raise ValueError(f"collections of {steps} steps; expected 2 or more, to tell rows apart")
        coming = iter(rows)
        row = next(coming, None)
        for lane in range(len(self._last)):
            # The last episode ended with the last collection, so this one opens with the pause after it.
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
                t += self.pauses and t < steps  # a row that ends inside a collection ends its episode
                row = next(coming, None)
        if row is not None:
            raise ValueError(f"more rows than {len(self._last)} lanes of {steps} steps have")
        self._steps += sum(len(r) for r in rows)
        largest = self._priorities.max(initial=0.0) or 1.0
        self._priorities = np.append(self._priorities, np.full(len(rows), largest))
        self._drop()

    def begin_anew(self) -> None:
        """All lanes begin an episode with the next collection, whether or not their last one ended."""
        self._to_the_end[:] = False

    def sample(self, rng: np.random.Generator, n: int, importance: float = 0.0) -> Drawn:
        """Draw n rows by their priorities, with repetition.

        The weights are P_i^-importance, divided by the largest of those drawn. At `importance` 1 they undo
        the priorities entirely, at 0 they are 1 (Schaul et al. 2015, section 3.4).
        """
        mass = self._priorities**self.exponent  # [R], P up to its sum, which the weights do not need
        upto = np.cumsum(mass)
        # Rounding may leave the draw at upto[-1] itself, which is no row's.
        places = np.searchsorted(upto, rng.random(n) * upto[-1], side="right").clip(max=len(mass) - 1)
        weights = (mass[places] / mass[places].min()) ** -importance
        return Drawn(self._dropped + places, weights)

    def read(self, row: int, back: int | None = 0) -> Episode:
        """The row, joined to up to `back` rows before it as burn-in (None: to all that are still there)."""
        episode, before = self._rows[row - self._dropped], self._before[row - self._dropped]
        while before >= self._dropped and back != 0:
            episode = joined(self._rows[before - self._dropped], episode)
            before = self._before[before - self._dropped]
            back = None if back is None else back - 1
        return episode

    def reprioritise(self, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Give new `priorities` [n], above 0, to the `rows` [n], which must still be there."""
        if not (priorities > 0).all():
            raise ValueError(f"a priority of {priorities.min()}; expected more than 0")
        self._priorities[rows - self._dropped] = priorities

    def state(self) -> dict[str, Any]:
        """Everything, as a few large tensors: a checkpoint of thousands of small ones is slow to write."""
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
        tensors = {k: torch.from_numpy(v.copy()) for k, v in columns.items() if v is not None}
        return {"dropped": int(self._dropped), **tensors}

    def load(self, state: dict[str, Any]) -> None:
        """Replace everything by what `state` returned."""
        c = {k: v.numpy().copy() for k, v in state.items() if k != "dropped"}
        self._dropped, self._before = state["dropped"], c["before"].tolist()
        self._priorities, self._last, self._to_the_end = c["priorities"], c["last"], c["to_the_end"]
        self._rows, self._steps = [], int(c["lengths"].sum())
        start = later = 0
        for i, n in enumerate(c["lengths"].tolist()):
            here = slice(start, start + n)
            seen = slice(start + i, start + i + n + 1)  # each row has one observation more than actions
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
        """Drop the oldest rows until the rest is within the capacity; the latest row always stays."""
        gone = 0
        while self._steps > self.capacity and gone < len(self._rows) - 1:
            self._steps -= len(self._rows[gone])
            gone += 1
        del self._rows[:gone], self._before[:gone]
        self._priorities, self._dropped = self._priorities[gone:], self._dropped + gone


def _cat(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """End to end; None if there are none."""
    known = [p for p in parts if p is not None]
    return np.concatenate(known) if known else None
