"""Acts: what was meant, message for message, as one of a few dozen; by the log, a function, or discovered.

    agent, partner, opening  <-  field `act` | module:fn | the sentence itself | discovered
    discovered: split each side's sentences by what stands around them, in turns; join what is not told apart

Wordings of one act may have no word in common, and sentences that share all but one word may mean opposite
things; but what is meant alike is answered alike and leads to the same (Harris 1954). The steps of discovery
are in `data/acts/`: `discover.py` (the turns of the two sides), `splitting.py` and `canon.py` (what goes with
what, on conversations apart), `telling.py` (bits that acts tell, held out), `agreement.py` (words and what
stands around them teach each other), `gate.py` (reading what was never said). Ritter et al. (2010) find acts
of unlabelled talk with a hidden Markov model over words, and Zhao et al. (2019) latent acts of an encoder and
decoder; both explain the words themselves. Here words are only asked what they say about what comes after and
what is earned, which is what a plan needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, check
from turnwise.run.errors import SettingError
from turnwise.run.metrics import Metric

if TYPE_CHECKING:
    from turnwise.data.acts.build import Built
    from turnwise.data.dialogue import Dialogue


@dataclass(frozen=True)
class Config:
    """How acts come about."""

    agent_acts: str = "auto"
    """Acts of the agent: field (the field act of messages), sentence (each sentence is one), discover,
    module:function (of a text and the messages before it; in Python the function itself), or auto: the field
    if every message has one, the sentence if there are but a handful, else discover."""
    partner_acts: str = "auto"
    """Acts of what answers it, in the same words; what the agent knows beforehand is read likewise."""
    embed: str = "words"
    """What sentences are compared by: words (sparse), or a run, a folder or a hub name of a language model or
    an encoder, whose features stand beside words and are taken where they tell more, held out."""
    count: str | int = "auto"
    """Acts of a side that is discovered, at most; auto: as many as what stands around them tells apart."""
    twice: int = 1
    """Times that acts are discovered again, from a random half of the conversations, to see if they agree."""

    def __post_init__(self) -> None:
        count = self.count
        if count != "auto":
            try:
                object.__setattr__(self, "count", int(count))
            except (TypeError, ValueError):
                raise SettingError("count", count, "auto or a number of acts") from None
        check(self, count=ONE_OR_MORE, twice=NOT_NEGATIVE)


METRICS: dict[str, Metric] = {}
"""nothing is minimised step by step; `acts.json` has what was measured"""


def train(
    c: Config,
    dialogues: Sequence[Dialogue],
    embed: Any,
    seed: int,
    done: Callable[[str], None] = lambda what: None,
) -> Built:
    """Codebooks of logged conversations; `embed` makes vectors of texts, None for sparse words.

    `done` is told of each step that has ended.
    """
    from turnwise.data.acts.build import build_codes

    return build_codes(
        dialogues,
        c.agent_acts,
        c.partner_acts,
        embed=embed,
        embed_name=c.embed,
        count=None if c.count == "auto" else int(c.count),
        seed=seed,
        done=done,
    )
