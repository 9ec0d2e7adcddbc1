"""Acts, answers and states of a playbook in words: as sentences where there are some."""

from __future__ import annotations

from turnwise.evaluation.measures.playbook.schema import Phrase, Playbook, Trait
from turnwise.evaluation.pictures.states import percent
from turnwise.evaluation.pictures.style import number

_LONGEST = 160  # letters of a sentence; the rest is cut with an ellipsis


class Phrases:
    """How the acts, answers and openings of one playbook are said."""

    def __init__(self, book: Playbook):
        self.acts = [_said(p, f"act {i + 1}") for i, p in enumerate(book["acts"])]
        self.answers = [_said(p, f"answer {i}") for i, p in enumerate(book["answers"])]
        self.openings = [_said(p, f"opening {i + 1}") for i, p in enumerate(book["openings"])]

    def trait(self, trait: Trait) -> tuple[str, str]:
        """What sets a state apart, and by how much it does."""
        shares = f"{percent(trait['here'])} here, {percent(trait['elsewhere'])} elsewhere"
        after = "" if trait["after"] is None else quoted(self.acts[trait["after"]])
        match trait["kind"]:
            case "answer":
                return f"to {after} the answer is {quoted(self.answers[trait['symbol'] or 0])}", shares
            case "opening":
                return f"it begins with {quoted(self.openings[trait['symbol'] or 0])}", shares
            case "ends":
                return f"the conversation ends after {after}", shares
        here, there = (number(x, 2, signed=True) for x in (trait["here"], trait["elsewhere"]))
        return f"{after} earns", f"{here} here, {there} elsewhere"


def quoted(text: str) -> str:
    """A sentence in quotation marks; a name in brackets, such as (nothing), stands as it is."""
    return text if text.startswith("(") and text.endswith(")") else f"“{text}”"


def _said(phrase: Phrase, blank: str) -> str:
    """A typical sentence, else the name, else what number it is."""
    if phrase.get("other"):
        return "(something else)"
    text = " ".join((phrase["sentence"] or "").split()) or " ".join((phrase["name"] or "").split())
    text = text or f"({blank})"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
