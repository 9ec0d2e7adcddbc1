"""The rules of HelpDesk as numbers, and what an utterance of the agent can do."""

from __future__ import annotations

from typing import Literal, NamedTuple

PARTS = ("battery", "screen", "speaker", "camera")
TEST_COST = 0.05  # what a turn without a fix costs, whether a test or something nobody understood
RELIABILITY = 0.85  # probability that the customer's answer to a test is right
HORIZON = 8  # agent turns; the last one without a fix is a true end


class Act(NamedTuple):
    """What an utterance of the agent does: test or fix a part (an index into `PARTS`), or neither (-1)."""

    kind: Literal["test", "fix", "none"]
    part: int

    def __str__(self) -> str:
        return f"{self.kind} {PARTS[self.part]}" if self.kind != "none" else "none"


NONE = Act("none", -1)
ACTS = tuple(Act(kind, k) for kind in ("test", "fix") for k in range(len(PARTS)))
