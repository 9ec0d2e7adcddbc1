"""The worth of a postcard: the gold preference, a fixed and smooth rule over words.

    gold = worth of the words + fluency + frame + zeal + length + cost of stray and of unknown words

No annotator, no model and no noise is in it. `docs/tasks/postcards.md` has the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from turnwise.envs.tasks.postcards.words import KIND_OF, KINDS, UNKNOWN, WORDS, Ask, wanted

TERMS: tuple[str, ...] = ("fitting", "strange", "frame", "fluency", "zeal", "length", "unknown")

STEP = 0.1  # what a good or a bad neighbourhood of two words adds or takes
FITS: dict[str, float] = {"name": 0.4, "noun": 0.45, "verb": 0.45, "tone": 0.3}
"""worth of a word of the prompt's place, addressee or tone, at its first use"""
STRANGE: dict[str, float] = {"name": -0.25, "noun": -0.2, "verb": -0.2, "tone": -0.15}
"""worth of a word of another, at every use"""
FADE = 1 / 3  # a further use of a word that fits is worth this much of the use before
FRAME_FITS, FRAME_STRANGE = 0.4, 0.15  # a greeting that is the first word, a closing that is the last
STRAY = 0.3  # what a greeting or closing costs anywhere else
OUTSIDE = 0.35  # what a word costs that is not in the lexicon
ZEAL_UP, ZEAL_DOWN = 0.4, 0.1  # z words of zeal: 0.4 z - 0.1 z^2, most at two
IDEAL, LENGTH_COST = 10, 0.03  # n words: -0.03 (n - 10)^2

_TABLE = """
greeting - + - - . . . - . -
name     - - - - . . + . + .
noun     - - - . - . - + . +
verb     - - . - . . + + - +
tone     - . + - - - - . - -
zeal     - . + - + - - . - .
article  - . + - + + - - - -
joint    - . + . + + + - + -
subject  - - - + - - - - - -
closing  - - - - - - - - - -
"""
FOLLOWS: dict[tuple[str, str], float] = {
    (row.split()[0], kind): {"+": STEP, ".": 0.0, "-": -STEP}[sign]
    for row in _TABLE.strip().splitlines()
    for kind, sign in zip(KINDS, row.split()[1:], strict=True)
}
"""the fluency of two neighbours: a word of the first kind, then one of the second"""


def worths(ask: Ask) -> dict[str, float]:
    """The worth of each word of the lexicon at its first use; a greeting's and a closing's in its place."""
    fitting = {word for words in wanted(ask).values() for word in words}
    worth = dict.fromkeys(WORDS, 0.0)
    for word, kind in KIND_OF.items():
        if kind in ("greeting", "closing"):
            worth[word] = FRAME_FITS if word in fitting else FRAME_STRANGE
        elif kind in FITS:
            worth[word] = FITS[kind] if word in fitting else STRANGE[kind]
    return worth


def zeal_worth(count: int) -> float:
    """Zeal helps up to two words, and hurts from five."""
    return ZEAL_UP * count - ZEAL_DOWN * count * count


def length_worth(words: int) -> float:
    """A parabola around ten words."""
    return -LENGTH_COST * (words - IDEAL) ** 2


def terms_of(words: Sequence[str], worth: Mapping[str, float]) -> dict[str, float]:
    """The parts of gold for these words, where `worth` is what each is worth (`worths`).

    fitting   words that fit: worth * (1 + 1/3 + 1/9 + ...) over a word's uses
    strange   words of another place, addressee or tone, at every use
    frame     a greeting first, a closing last; less what stray ones cost
    fluency   the sum of `FOLLOWS` over neighbours; next to an unknown word the worst of it
    zeal, length, unknown
    """
    kinds = [KIND_OF.get(word, UNKNOWN) for word in words]
    terms = dict.fromkeys(TERMS, 0.0)
    left: dict[str, float] = {}
    last = len(words) - 1
    for i, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        if i:
            terms["fluency"] += FOLLOWS.get((kinds[i - 1], kind), -STEP)
        if kind in FITS:
            now = left.get(word, worth[word])
            terms["fitting" if now > 0 else "strange"] += now
            left[word] = now * FADE if now > 0 else now
        elif kind == "greeting" or kind == "closing":
            home = i == (0 if kind == "greeting" else last)
            terms["frame"] += worth[word] if home else -STRAY
        elif kind == UNKNOWN:
            terms["unknown"] -= OUTSIDE
    terms["zeal"] = zeal_worth(kinds.count("zeal"))
    terms["length"] = length_worth(len(words))
    return terms
