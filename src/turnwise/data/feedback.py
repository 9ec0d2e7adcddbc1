"""What people say of replies: which of two is better, an order of several, a like, a score.

A reply is one turn: the prompt is whatever stands before it (earlier turns of the agent included), and the
reply alone is the action. `one_turn` casts it as a conversation whose reward comes at its end.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message

Prompt = tuple[Message, ...]
"""Messages before the reply, in order."""


@dataclass(frozen=True)
class Pair:
    """Two replies to one prompt, and which is preferred; a tie prefers neither.

    `margin`: by how much, in units of reward, if anybody was asked; `annotator`: who said so.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None = None
    tie: bool = False
    annotator: str | None = None
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def replies(self) -> tuple[str, ...]:
        """The preferred one first."""
        return (self.chosen, self.rejected)


@dataclass(frozen=True)
class Ranking:
    """n >= 2 replies to one prompt and their ranks, 1 the best; equal ranks are ties."""

    prompt: Prompt
    replies: tuple[str, ...]
    ranks: tuple[int, ...]
    annotator: str | None = None
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.replies) < 2 or len(self.ranks) != len(self.replies):
            raise ValueError(
                f"{len(self.replies)} replies with {len(self.ranks)} ranks; expected two or more"
            )

    @property
    def tie(self) -> bool:
        """All replies have one rank: none is preferred to another."""
        return len(set(self.ranks)) == 1

    @property
    def order(self) -> tuple[int, ...]:
        """Indices of the replies, the best first; ties in the order given."""
        return tuple(sorted(range(len(self.ranks)), key=lambda i: self.ranks[i]))


@dataclass(frozen=True)
class Like:
    """One reply, liked or not."""

    prompt: Prompt
    completion: str
    liked: bool
    annotator: str | None = None
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def replies(self) -> tuple[str, ...]:
        """The one reply."""
        return (self.completion,)


@dataclass(frozen=True)
class Score:
    """One reply and a number for it, in units of reward."""

    prompt: Prompt
    completion: str
    score: float
    annotator: str | None = None
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"score is {self.score}; expected a finite number")

    @property
    def replies(self) -> tuple[str, ...]:
        """The one reply."""
        return (self.completion,)


Feedback = Pair | Ranking | Like | Score

Kind = Literal["pairs", "rankings", "likes", "scores"]


def kind_of(item: Feedback) -> Kind:
    """The word for it in files and settings."""
    if isinstance(item, Pair):
        return "pairs"
    if isinstance(item, Ranking):
        return "rankings"
    return "likes" if isinstance(item, Like) else "scores"


def shortened(prompt: Prompt, fits: Callable[[Prompt], bool]) -> Prompt | None:
    """The prompt without as many of its earliest messages as it takes to fit; None if nothing helps.

    What opens it as a system message stays, and so does the last message of the user with what follows it.
    What is kept begins with a message of the user, as chat templates ask. `fits` is true of a prompt if it is
    true of one with more messages.
    """
    if fits(prompt):
        return prompt
    lead = next((i for i, m in enumerate(prompt) if m.role != "system"), len(prompt))
    asked = [i for i in range(lead + 1, len(prompt)) if prompt[i].role == "user"]
    if not asked and prompt[lead : lead + 1] and prompt[lead].role != "user":
        asked = [len(prompt) - 1]  # nobody asks: what was said last is answered
    i = bisect.bisect_left(asked, True, key=lambda start: fits((*prompt[:lead], *prompt[start:])))
    return (*prompt[:lead], *prompt[asked[i] :]) if i < len(asked) else None


def one_turn(prompt: Sequence[Message], reply: str, reward: float = 0.0, id: str = "") -> Dialogue:
    """The reply as the last turn of a conversation that ends with it."""
    return Dialogue((*prompt, Message("assistant", reply, reward)), id=id)
