"""The maze in words: find the goal by saying where to go, told where one stands, or only where walls are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from turnwise.envs.dialogue import Message, Reference, Response, signed, task_words
from turnwise.envs.tasks.maze.rules import Observed
from turnwise.envs.tasks.maze.walks import Walks
from turnwise.envs.tasks.maze.words import Guide
from turnwise.run.errors import SettingError


class Maze:
    """A guide who says what is seen: a `DialogueTask`.

    A move costs 1, also one against a wall; the one that reaches the goal costs nothing and ends the
    conversation; what is no move costs 4 and moves nothing. A conversation is cut after 100 messages of the
    agent: this is a truncation, and the only one.
    """

    name = "maze"

    def __init__(
        self, observed: Observed = "full", unseen_wordings: bool = False, acts: bool = False
    ) -> None:
        """`observed`: "full" tells place, goal and walls; "part" tells walls alone.

        `unseen_wordings`: half of the guide's wordings of everything stand in no log, and are spoken live as
        often as the others. `acts`: every message of the logs, and every one of the live guide, carries its
        act. SettingError for any other value.
        """
        if observed not in get_args(Observed):
            raise SettingError("observed", observed, "full or part")
        for key, value in (("unseen_wordings", unseen_wordings), ("acts", acts)):
            if not isinstance(value, bool):
                raise SettingError(key, value, "true or false")
        self.observed: Observed = observed
        self.unseen_wordings, self.acts = unseen_wordings, acts
        self._walks = Walks(Guide(), observed)

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from the defaults."""
        own: dict[str, Any] = {} if self.observed == "full" else {"observed": self.observed}
        return own | {key: True for key in ("unseen_wordings", "acts") if getattr(self, key)}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin anew in a cell drawn from each seed."""
        return [self._shown(messages) for messages in self._walks.reset(lanes, seeds)]

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """Read each reply and go there. ValueError if a lane's conversation is over."""
        responses = self._walks.step(lanes, replies)
        return [replace(r, messages=self._shown(r.messages)) for r in responses]

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """Row and column of the cell."""
        return self._walks.hidden(lane)

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations of the strolling walker in the log format (`maze_logs`)."""
        from turnwise.envs.tasks.maze.logs import maze_logs  # only who writes logs needs them

        rows = maze_logs(conversations, seed, self.observed, halved=self.unseen_wordings, acts=self.acts)
        return signed(rows, task_words(self.name, self.settings))

    def references(self) -> list[Reference]:
        """What the best walker earns, and what the walker of the logs earns in the whole maze, exactly."""
        from turnwise.envs.tasks.maze.exact import behavior_value, optimal_value  # as above

        best, logged = optimal_value(self.observed), behavior_value(self.observed)
        return [
            Reference("optimum", "optimum", best, note="by value iteration over all reachable beliefs"),
            Reference("behaviour", "behaviour", logged, note="the walker of the logs, in the whole maze"),
        ]

    def _shown(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(messages) if self.acts else tuple(replace(m, act=None) for m in messages)
