"""What is said in the guessing game: every sentence of both sides, and how sentences are read.

A wording is drawn independently of the object and of everything else. An answer says yes or no and nothing
more: what it means depends on the question before it.
"""

from __future__ import annotations

import re

from turnwise.envs.tasks.grammar import Grammar, weighed
from turnwise.envs.tasks.twenty.rules import ACTS, ATTRIBUTES, NAMES, NONE, Act

ASKER_STARTS = ("", "Tell me, ", "Well, ", "I wonder, ", "Next question, ", "Hmm, ")
QUESTIONS = ("{q}?", "{q}, yes or no?", "{q}, would you say?")
GUESS_WORDINGS = (
    "is it the {o}?",
    "could it be a {o}?",
    "my guess is the {o}.",
    "then it must be a {o}.",
    "I think of a {o}.",
)
CLAUSES: dict[str, tuple[str, ...]] = {
    "grows": ("does it grow", "is it something that grows", "has it grown by itself"),
    "animal": ("is it an animal", "is it some kind of animal", "does it belong to the animals"),
    "four legs": ("does it have four legs", "does it stand on four legs", "are there four legs to it"),
    "flies": ("can it fly", "does it fly", "do you see it fly about"),
    "water": ("is it found in water", "does it belong on or in the water", "would you look for it in water"),
    "eaten": ("do people eat it", "is it eaten", "could one eat it for lunch"),
    "large": ("is it larger than a person", "is it bigger than you and me", "is it really large"),
    "metal": ("is it made of metal", "is it mostly metal", "is there much metal in it"),
    "wood": ("is it made of wood", "is it mostly wood", "is there much wood in it"),
    "carries": ("can it carry a person", "does it carry people", "would it carry you and me"),
    "eggs": ("does it lay eggs", "are there eggs of it", "does it come out of eggs"),
    "power": ("does it need fuel or power", "does it run on power", "is it dead without power"),
    "pocket": ("does it fit into a pocket", "could you put it in your pocket", "is it of pocket size"),
    "kitchen": ("is it found in a kitchen", "does it belong in the kitchen", "is its place the kitchen"),
}
ANSWER_STARTS = ("", "Let me think, ", "Oh, ", "Well, ", "Hm, ")
YES = ("yes.", "yes, it is so.", "that is right.", "indeed.", "certainly.", "I would say yes.")
NO = ("no.", "no, not at all.", "that is wrong.", "by no means.", "certainly not.", "I would say no.")
OPENINGS = (
    "I am thinking of something, what is it?",
    "guess what I have in mind!",
    "I have something in mind, ask me.",
    "find out what I am thinking of!",
    "there is a thing in my head, which one?",
    "ask what you like, I have chosen my thing.",
)
RIGHT = ("yes, you have found it!", "you got it, well done!", "that is it, congratulations!", "found, bravo!")
OVER = (
    "no more turns, it stays my secret.",
    "that was your last turn, goodbye.",
    "we stop here, better luck next time.",
    "time is up, thank you for playing.",
)
CONFUSED = (
    "I have no answer to that.",
    "please ask or guess, I do not understand.",
    "sorry, what do you mean?",
    "one question at a time, please.",
)

_QUESTIONS = {
    str(act): weighed([(1.0, QUESTIONS)], {"q": CLAUSES[ATTRIBUTES[act.which]]})
    if act.kind == "ask"
    else weighed([(1.0, GUESS_WORDINGS)], {"o": (NAMES[act.which],)})
    for act in ACTS
}
ASKER = Grammar(ASKER_STARTS, _QUESTIONS)
"""what the asker of the logs says"""
ANSWERER = Grammar(
    ANSWER_STARTS,
    {
        "yes": weighed([(1.0, YES)], {}),
        "no": weighed([(1.0, NO)], {}),
        "right": weighed([(1.0, RIGHT)], {}),
        "over": weighed([(1.0, OVER)], {}),
        "confused": weighed([(1.0, CONFUSED)], {}),
        "opening": weighed([(1.0, OPENINGS)], {}),
    },
)
"""what the other side says; "over" is its last word if nothing was found"""

_OBJECT = re.compile("|".join(rf"\b({re.escape(name)})s?\b" for name in NAMES))
# One group for each attribute, in the order of ATTRIBUTES.
_ATTRIBUTE = re.compile(
    r"\b(?:(grow(?:s|n|ing)?|grew)|(animals?)|((?:four|4) legs|(?:four|4)[- ]legged)|(fly|flies|flying|flown)"
    r"|(water|underwater)|(eat(?:s|en|ing)?|edible)|(large|larger|big|bigger|huge)|(metal|metallic)"
    r"|(wood|wooden)|(carry|carries|carried|carrying)|(eggs?)|(power|powered|fuel|electricity)"
    r"|(pockets?)|(kitchens?))\b"
)
_NEGATION = re.compile(r"\b(?:no|not|never|neither|nor|without|cannot|dont|cant|isnt|doesnt|\w+n['’]t)\b")
_NO_NEGATION = re.compile(r"\byes or no\b|\bor not\b|\bdead without power\b")


def read_act(text: str) -> Act:
    """The act that a message is, or `NONE` if that is not plain.

    A message is plain if it names exactly one object and no attribute (a guess), or exactly one attribute and
    no object (a question), and negates nothing. Case and punctuation do not matter. The reader is total: it
    has an answer for any string.
    """
    # A question that can be answered by no is no negation.
    text = _NO_NEGATION.sub(lambda m: "power" if "power" in m[0] else " ", text.lower())
    objects = {(m.lastindex or 0) - 1 for m in _OBJECT.finditer(text)}
    attributes = {(m.lastindex or 0) - 1 for m in _ATTRIBUTE.finditer(text)}
    if len(objects) + len(attributes) != 1 or _NEGATION.search(text):
        return NONE
    return Act("guess", objects.pop()) if objects else Act("ask", attributes.pop())
