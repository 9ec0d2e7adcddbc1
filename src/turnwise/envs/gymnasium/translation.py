"""How an environment speaks and how an agent does: one translation, of lanes, evaluation and players."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from turnwise.envs.gymnasium.door import gymnasium_space
from turnwise.envs.gymnasium.spaces import Actions, Observations
from turnwise.envs.gymnasium.written import space_of, written
from turnwise.envs.protocol import MultiDiscrete, Space


@dataclass(frozen=True)
class Translation:
    """Of observations, to what an agent reads, and of actions, to what the environment takes."""

    observations: Observations
    actions: Actions

    @staticmethod
    def of(observations: Any, actions: Any) -> Translation:
        """Between Gymnasium's spaces and ours. InputError for spaces that have no counterpart."""
        return Translation(Observations.of(observations), Actions.of(actions))

    @staticmethod
    def of_ours(observations: Space, actions: Space) -> Translation:
        """Of an environment of ours, which speaks in Gymnasium as `gymnasium_space` says."""
        several = Actions.of(gymnasium_space(actions), combinations=0)  # several symbols stay several
        return Translation(Observations.of(gymnasium_space(observations)), several)

    def written(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        together = not isinstance(self.actions.space, MultiDiscrete)
        single = {"observations": self.observations.single, "actions": self.actions.single}
        return {"together": together, **{name: written(space) for name, space in single.items()}}

    @staticmethod
    def read(found: dict[str, Any]) -> Translation:
        """What `written` gave."""
        several = {} if found["together"] else {"combinations": 0}
        actions = Actions.of(space_of(found["actions"]), **several)
        return Translation(Observations.of(space_of(found["observations"])), actions)
