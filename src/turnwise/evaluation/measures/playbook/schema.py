"""What `playbook.json` holds: a plan over acts, and the model that it was made in, for people to read.

Acts, answers, openings and states are named by index. `acts[i]`, `answers[i]` and `openings[i]` say how each
was worded; answer 0 is silence. Beliefs are probabilities of the states, in their order. Money, time and
likelihood keep apart: values are in the units of the rewards, seconds are seconds, nats are nats. What is not
known is None or an empty list, and the page names it.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Figure(TypedDict):
    """A mean with its interval (95% unless the document says otherwise); None where there is none."""

    mean: float
    low: float | None
    high: float | None
    n: NotRequired[int | None]
    """how many independent things it is the mean of"""


class Worth(Figure):
    """One line of what the plan is worth beside what it must beat.

    `predicted`: what the plan earns in the model that it was made in; its interval is over models that were
    fitted on resampled logs. `true`: what it earned in conversations that were held. `logged`, `clone` and
    `optimum` are what it is compared with. Other lines (the same plan in other models, another agent) have
    the role `other`.
    """

    role: Literal["predicted", "true", "logged", "clone", "optimum", "other"]
    name: str
    note: NotRequired[str]


class Bounds(TypedDict):
    """How well the model was solved: bounds on the best plan's worth *in the model*."""

    lower: float
    upper: float
    seconds: float
    stopped: NotRequired[str | None]
    """gap, deadline or interrupted"""


class Phrase(TypedDict):
    """An act, an answer or an opening, in words."""

    name: str
    """as its codebook calls it"""
    sentence: str | None
    """a typical sentence; None if none is known"""
    count: NotRequired[int | None]
    """how often it was logged"""
    examples: NotRequired[list[str]]
    """more sentences, the most frequent first"""
    other: NotRequired[bool]
    """whether it stands for whatever is rare or like nothing"""


class Trait(TypedDict):
    """Something that sets a state apart from the others.

    `answer`: P(this answer | the act `after`, the state). `opening`: P(this opening | the state). `ends`:
    P(the conversation ends | the act `after`, the state). `reward`: expected reward of the act `after`.
    """

    kind: Literal["answer", "opening", "ends", "reward"]
    symbol: int | None
    """index of the answer or opening; None for the other kinds"""
    after: int | None
    """index of the act; None for an opening"""
    here: float
    elsewhere: float
    """the same in the other states, averaged by how common they are"""


class State(TypedDict):
    """A hidden state."""

    name: str
    """A, B, C, ..."""
    start: float
    """how likely it is before anything is said"""
    share: float | None
    """how much of the logged turns the model places in it"""
    traits: list[Trait]
    """what sets it apart, the most telling first"""


class Act(Phrase):
    """An act of the agent."""

    logged_return: Figure | None
    """mean return of logged conversations from this act on. Confounded: the agent chose it for a reason"""
    q: float | None
    """the model's worth of the act if the plan follows, averaged over the beliefs at which it was logged"""
    q_start: float | None
    """the same at the belief before anything is said"""
    planned: float | None
    """how often the plan uses it, per conversation, in the model"""


class Seen(TypedDict):
    """What an answer does to the belief."""

    answer: int
    probability: float
    """of hearing it and going on"""
    after: list[float]
    """[S]"""


class Look(TypedDict):
    """What the answers to an act tell at one belief."""

    act: int
    before: list[float]
    information: float
    """nats that the answer tells about the state, on average"""
    answers: list[Seen]
    """the likely ones, the most likely first"""
    ends: float
    """probability that the conversation ends with the act"""
    rest: float
    """probability of going on with an answer that is not listed"""


class Node(TypedDict):
    """A place in the plan: conversations at a turn in which it says the same with about the same belief."""

    turn: int
    """from 0"""
    act: int
    probability: float
    """of coming here, from the start of a conversation, in the model"""
    belief: list[float]


class Edge(TypedDict):
    """From a place to the place that follows these answers."""

    source: int
    target: int
    answers: list[int]
    """the most likely first"""
    probability: float
    """of the answers, given that the conversation is at the source"""


class Graph(TypedDict):
    """The likely part of the plan."""

    nodes: list[Node]
    edges: list[Edge]
    ends: list[float]
    """for each node, probability that the conversation ends with its act"""
    openings: list[list[tuple[int, float]]]
    """for each node of turn 0, the openings that lead to it with their probabilities; else empty"""
    left_out: float
    """share of these turns, in the model, that are at places that are not here"""
    longest: int | None
    """turns that are shown, if conversations may be longer; None if these are all"""


class Turn(TypedDict):
    """One decision in a conversation. Beliefs and probabilities are the model's."""

    said: str
    act: int
    distance: float | None
    """of what was said from what its act stands for; 1 or more is *other*"""
    planned: NotRequired[int | None]
    """the act that the plan would take here"""
    heard: str | None
    answer: int
    heard_distance: float | None
    probability: float | None
    """of this answer, before it was heard; None if the conversation had ended"""
    impossible: NotRequired[bool]
    """whether the model holds the answer for impossible or as good as that"""
    fallback: NotRequired[bool]
    """whether the clone spoke here because the model had lost track"""
    reward: float | None
    belief: list[float] | None
    """after the answer; None if the conversation ended"""


class Talk(TypedDict):
    """A conversation with the belief from turn to turn."""

    id: str
    source: Literal["log", "live"]
    opening: str
    first: int
    first_belief: list[float]
    """before the first act"""
    turns: list[Turn]
    worth: float | None
    """its return"""
    ended: str | None
    hidden: NotRequired[dict[str, object] | None]
    """what the agent could not see"""


class Predictor(Figure):
    """How well something predicts held-out conversations, in nats per symbol; lower is better."""

    kind: Literal["model", "one-step", "n-gram", "gru", "true", "other"]
    name: str


class Choice(Figure):
    """Held-out nats per step of a model with so many states, rewards among what is predicted.

    The interval is of its difference to the best of all models: conversations are the same for all.
    """

    states: int
    phases: NotRequired[int]
    """states of one class, which a conversation never leaves: 1 if states never change; missing: all"""


class Fit(TypedDict):
    """How well the model predicts."""

    predictors: list[Predictor]
    choices: list[Choice]
    chosen: int | None
    """number of states; None if it was given"""
    phases: NotRequired[int | None]
    """states of one class of the chosen model"""
    conversations: int | None
    """held-out conversations"""


class Warned(TypedDict):
    """A warning that was measured, whether or not it applies.

    `wording`: nats per answer by which the words of the agent improve the prediction of the answer, given act
    and belief. `dropped`: nats per act by which text that the codebook dropped improves the prediction of
    what the logged agent did next. An interval above 0 is a warning.
    """

    kind: Literal["wording", "dropped"]
    gain: Figure
    note: NotRequired[str]


class Playbook(TypedDict):
    """The whole document. Its page: `evaluation/pages/playbook`."""

    title: str
    unit: str
    """of the rewards, in words; "" if nobody said"""
    confidence: float
    worth: list[Worth]
    bounds: Bounds | None
    states: list[State]
    acts: list[Act]
    answers: list[Phrase]
    openings: list[Phrase]
    looks: list[Look]
    graph: Graph | None
    talks: list[Talk]
    fit: Fit | None
    warnings: list[Warned]
