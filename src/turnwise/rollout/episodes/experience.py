"""Lanes and the replay of what they gave, as one thing that a checkpoint holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.data.replay import Replay
from turnwise.rollout.episodes.lanes import Actor, StepLanes


@dataclass(frozen=True)
class Experience:
    """Lanes under way, and the replay that they fill."""

    lanes: StepLanes
    replay: Replay

    @property
    def changes(self) -> int:
        """Collections so far."""
        return self.lanes.changes

    def collect(self, agent: Actor, steps: int) -> None:
        """Act for `steps` steps in each lane and keep what happened."""
        if not self.lanes.under_way:
            self.replay.begin_anew()
        self.replay.add(self.lanes.collect(agent, steps), steps)

    def state(self) -> dict[str, Any]:
        """State of the lanes and of the replay, for a checkpoint."""
        return {"lanes": self.lanes.state(), "replay": self.replay.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.lanes.load(state["lanes"])
        self.replay.load(state["replay"])
