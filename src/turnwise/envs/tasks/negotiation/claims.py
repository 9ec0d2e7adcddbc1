"""What an utterance in Deal or No Deal claims for whom, by a scan of its words from left to right.

The scan is rough on purpose. It is right about plain offers; the fitted reading (`reading`) weighs what the
scan leaves open or gets wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

REST = 3  # item of a claim on all that is not named ("the rest", "everything else")
ALL = 99  # amount: all there are (beyond every count)
HALF = -1  # amount: half of them each

SPEAKER, UNSAID, LISTENER = 1, 0, -1  # who gets it


class Claim(NamedTuple):
    """Who gets how many of an item (an index into ITEMS, or `REST`), and how it was said.

    `amount` may exceed the count (`ALL`, or a slip of the speaker). `negated`: a "not" precedes it in its
    clause. `verb` is the verb before it, "carried" where the receiver comes from an earlier sentence.
    `at` is its position among the words.
    """

    item: int
    side: int
    amount: int
    negated: bool
    verb: str
    at: int


def word_set(text: str) -> frozenset[str]:
    """The words of a text, separated by spaces."""
    return frozenset(text.split())


def _numbered(*texts: str) -> dict[str, int]:
    return {word: n for n, text in enumerate(texts) for word in text.split()}


ITEM_WORDS = _numbered(
    "book books novel novels boos",
    "hat hats cap caps",
    "ball balls bals basketball basketballs basket baskets",
)
_AMOUNT = _numbered(
    "zero no none nothing", "a an one single", "two couple pair both", "three", "four", "five", "six"
)
_REST = word_set("rest else everything remaining others remainder leftover leftovers")
_EXCEPT = word_set("but except minus")
_I = word_set("i me my mine i'll ill i'd id im i'm ive i've gimme lemme myself")
_YOU = word_set("you your yours you'll youll you'd u ya yourself you're youre ur")
_GIVE = word_set("give giving gave offer trade exchange swap part cede leave let")
_TAKE = word_set(
    "want need have has take taking keep keeping get getting got gets like love split value do throw"
)
_NOT = word_set("not don't dont can't cant cannot won't wont no never doesn't without nope isn't")
_BEFORE_A_NOUN = word_set("final best my an the last your counter original first")  # "my final offer"
_BEFORE_AN_IMPERATIVE = word_set(". , ; ok okay fine well sure please then deal") | {""}
# Words that may stand between an amount and its item: "2 of the other hats".
_FILLERS = word_set("the of other your those these my only just more and at least atleast any")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+|[.?!,;]")


@dataclass
class _Scan:
    side: int = UNSAID  # who gets what is named next
    carried: int = UNSAID  # who got it in the sentence before
    amount: int | None = None
    negated: bool = False
    halved: bool = False
    given: bool = False  # the receiver is an object: "give me"
    verb: str = ""
    clause: int = 0  # the first claim of the clause
    claims: list[Claim] = field(default_factory=list)

    def claim(self, item: int, amount: int, at: int) -> None:
        self.claims.append(Claim(item, self.side, amount, self.negated, self.verb, at))

    def person(self, side: int, behind: bool) -> None:
        """A pronoun: the receiver of what follows, or, after "for", "to", of what was just named."""
        if behind and len(self.claims) > self.clause:
            open_ones = [i for i in range(self.clause, len(self.claims)) if not self.claims[i].side]
            for i in open_ones or [len(self.claims) - 1]:
                self.claims[i] = self.claims[i]._replace(side=side)
        else:
            self.side, self.negated, self.halved = side, False, False
        self.clause = len(self.claims)

    def stop(self) -> None:
        """End of a sentence: claims for nobody fall to the receiver of the sentence before."""
        self.carried = self.side or self.carried
        for i in range(self.clause, len(self.claims)):
            if not self.claims[i].side and self.carried:
                self.claims[i] = self.claims[i]._replace(side=self.carried, verb="carried")
        self.side, self.halved, self.clause = UNSAID, False, len(self.claims)


def read_claims(text: str) -> tuple[list[str], list[Claim]]:
    """The words of an utterance (lower case, punctuation of its own) and its claims in order."""
    words = _WORD.findall(text.lower().replace("`", "'"))
    scan = _Scan()
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        after = words[at + 1] if at + 1 < len(words) else ""
        _receiver(scan, word, before, after)
        _what(scan, word, before, after, at)
    scan.stop()
    return words, scan.claims


def _receiver(scan: _Scan, word: str, before: str, after: str) -> None:
    if word in _I or word in _YOU:
        behind = (before in ("for", "to") and after != "to") or word in ("mine", "yours")
        scan.given = before in _GIVE or word == "gimme"
        scan.person(SPEAKER if word in _I else LISTENER, behind)
    elif word in _GIVE and after != "it" and before not in _BEFORE_A_NOUN:
        scan.side, scan.verb = -scan.side, word  # what I give, you get; an object ("give me") overrides
    elif word == "for" and scan.verb in _GIVE:
        scan.side = -scan.side  # "i trade you the hat for the books"
    elif word in _EXCEPT and scan.claims and scan.claims[-1].item == REST:
        scan.side = -scan.claims[-1].side  # "everything but the hat"
    elif word in ("take", "keep", "have") and (
        before in _BEFORE_AN_IMPERATIVE or (scan.given and before == "and")
    ):
        scan.side = LISTENER  # "take the hats", "give me the ball and take the rest"
    elif word in ("split", "share"):
        scan.halved = True
    elif word in (".", ";", "?", "!"):
        scan.stop()
    if word in _NOT and not (word == "no" and after in ITEM_WORDS):
        scan.negated = True
    elif word in (".", ";", "?", "!", "but", "so", "if"):
        scan.negated = False


def _what(scan: _Scan, word: str, before: str, after: str, at: int) -> None:
    if word.isdigit():
        scan.amount = min(int(word[:3]), ALL)
    elif word in ("all", "every") and after not in _EXCEPT:
        scan.amount = ALL
    elif word in _AMOUNT and (word != "no" or after in ITEM_WORDS):
        scan.amount = _AMOUNT[word]
    elif word in ITEM_WORDS:
        bare = ALL if word.endswith("s") else 1
        scan.claim(
            ITEM_WORDS[word], HALF if scan.halved else bare if scan.amount is None else scan.amount, at
        )
        scan.amount = None
    elif word in _REST or (word == "all" and after in _EXCEPT):
        scan.claim(REST, ALL, at)
        scan.amount = None
    elif word == "each" and before == "of" and scan.amount is not None:
        for item in range(REST):
            scan.claim(item, scan.amount, at)
        scan.amount = None
    elif word not in _FILLERS:
        if scan.amount != ALL:
            scan.amount = None
        if word in _TAKE:
            scan.verb = word
