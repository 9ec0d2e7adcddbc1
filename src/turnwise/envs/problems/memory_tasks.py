"""Tasks that measure memory, each with a maximum that is known exactly: the right answer depends on the past.

    env = repeat_previous(k=4)         # 52 cards; say the suit that was shown 3 steps ago
    env.maximum, env.random            # 1.0, -0.5

Rules and scale follow POPGym (Morad et al. 2023, "POPGym: Benchmarking partially observable reinforcement
learning"): the rewards of an episode sum to 1 for perfect play, and to -1 if every answer is wrong. The
defaults are its Easy sizes. Differences, and what an agent without memory gets, are in docs/tasks/memory.md.
One of them matters in code: a task that is over has *terminated*, as nothing can be earned after it.

Actions change rewards, never what is shown. So an episode is drawn as a whole when it begins, and a step of N
lanes is two look-ups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from turnwise.envs.clock import Clock
from turnwise.envs.protocol import Discrete, LaneEnv, Step

Dealt = tuple[np.ndarray, np.ndarray]
"""n episodes: the symbols shown, [n, T+1] int64, and the right answer to each step, [n, T] int64"""
Deal = Callable[[np.random.Generator, int], Dealt]
"""deals n episodes"""


@dataclass(frozen=True)
class Rules:
    """The numbers of one task, and how its episodes are dealt."""

    symbols: int
    """observations are 0 .. symbols-1"""
    answers: int
    """actions are 0 .. answers-1"""
    worth: np.ndarray
    """[T], the worth of each answer: added if right, subtracted if wrong, 0 if nothing is asked; sums to 1"""
    deal: Deal


class MemoryTask:
    """N lanes of one task. A lane that ended has to begin anew (`reset_lanes`) before the next step."""

    def __init__(self, rules: Rules, horizon: int | None = None) -> None:
        """`horizon`: steps after which an episode is truncated, if the task is not over earlier."""
        self.rules = rules
        self._clock = Clock(horizon)

    @property
    def observation_space(self) -> Discrete:
        """The symbols."""
        return Discrete(self.rules.symbols)

    @property
    def action_space(self) -> Discrete:
        """The answers."""
        return Discrete(self.rules.answers)

    @property
    def state_space(self) -> None:
        """None: the hidden state is the whole deal, which is no symbol or vector of fixed size."""
        return None

    @property
    def states(self) -> None:
        """None."""
        return None

    autoresets = False
    """False: lanes begin anew by `reset_lanes`."""
    resumes = True
    """See `Resumable`."""

    def state(self) -> dict[str, Any]:
        """Where the lanes stand."""
        return self._clock.state(shown=self._shown, right=self._right)

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand there, and draw from `rng` from now on."""
        arrays = self._clock.load(state, rng)
        self._lanes = np.arange(len(state["ages"]))
        self._shown, self._right = arrays["shown"], arrays["right"]

    @property
    def length(self) -> int:
        """Steps of an episode."""
        T = len(self.rules.worth)
        return T if self._clock.horizon is None else min(T, self._clock.horizon)

    @property
    def maximum(self) -> float:
        """Return of perfect play in every episode, undiscounted: 1, or less if the horizon cuts."""
        return float(self.rules.worth[: self.length].sum())

    @property
    def random(self) -> float:
        """Expected return of answers drawn at random, undiscounted."""
        return self.maximum * (2 / self.rules.answers - 1)

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes, drawing from `rng` until the next reset. Observations [N]."""
        self._clock.begin(rng, lanes)
        self._lanes = np.arange(lanes)
        self._shown, self._right = self.rules.deal(rng, lanes)
        return self._shown[:, 0].copy()

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. Observations of those lanes, in order."""
        where = self._clock.begin_lanes(mask)
        self._shown[where], self._right[where] = self.rules.deal(self._clock.rng, len(where))
        return self._shown[where, 0]

    def step(self, actions: np.ndarray) -> Step:
        """Answer, [N] integers."""
        actions, t = self._clock.check(actions, self.action_space), self._clock.ages
        rewards = self.rules.worth[t]  # [N], a copy
        rewards[self._right[self._lanes, t] != actions] *= -1
        terminated = t + 1 == len(self.rules.worth)
        truncated = self._clock.tick(terminated)
        return Step(self._shown[self._lanes, self._clock.ages], rewards, terminated, truncated)


def _shuffled(rng: np.random.Generator, n: int, cards: int, kinds: int) -> np.ndarray:
    """[n, cards], decks with as many cards of each kind, in random order."""
    return rng.permuted(np.tile(np.arange(cards) % kinds, (n, 1)), axis=1)


def _check_deck(cards: int, kinds: int) -> None:
    if kinds < 2 or cards < kinds or cards % kinds:
        raise ValueError(f"{cards} cards of {kinds} kinds; expected two kinds or more, as many cards of each")


def _repeat_previous(k: int, cards: int, suits: int, rng: np.random.Generator, n: int) -> Dealt:
    deck = _shuffled(rng, n, cards, suits)
    right = np.zeros((n, cards - 1), np.int64)
    right[:, k - 1 :] = deck[:, : cards - k]
    return deck, right


def repeat_previous(k: int = 4, cards: int = 52, suits: int = 4, *, horizon: int | None = None) -> MemoryTask:
    """Say the k-th last suit, the one that is shown now being the first: k = 4 is three steps ago.

    A shuffled deck is shown card by card, cards - 1 steps; answers count once k cards were seen. What it
    takes: the last k suits, overwritten at every step. Off by one is worth about -0.5.
    POPGym: Easy 4 of 52 cards, Medium 32 of 104, Hard 64 of 156.
    """
    _check_deck(cards, suits)
    if not 1 <= k < cards:
        raise ValueError(f"k is {k} with {cards} cards; expected 1 to {cards - 1}")
    deal = partial(_repeat_previous, k, cards, suits)
    worth = np.where(np.arange(cards - 1) < k - 1, 0.0, 1 / (cards - k))
    return MemoryTask(Rules(suits, suits, worth, deal), horizon)


def _repeat_first(cards: int, suits: int, rng: np.random.Generator, n: int) -> Dealt:
    deck = _shuffled(rng, n, cards, suits)
    return deck, np.repeat(deck[:, :1], cards - 1, axis=1)


def repeat_first(cards: int = 52, suits: int = 4, *, horizon: int | None = None) -> MemoryTask:
    """Say the suit that was shown first, at every step, while a shuffled deck goes by; cards - 1 steps.

    What it takes: one suit, kept. An agent that sees its own last action needs no other memory: it repeats
    itself. POPGym: Easy 52 cards, Medium 416, Hard 832.
    """
    _check_deck(cards, suits)
    deal = partial(_repeat_first, cards, suits)
    return MemoryTask(Rules(suits, suits, np.full(cards - 1, 1 / (cards - 1)), deal), horizon)


def _autoencode(cards: int, suits: int, rng: np.random.Generator, n: int) -> Dealt:
    deck = _shuffled(rng, n, cards, suits)
    shown = np.full((n, 2 * cards), 2 * suits)
    shown[:, :cards] = deck
    shown[:, cards - 1] += suits  # the last card is marked: the first answer is due
    right = np.zeros((n, 2 * cards - 1), np.int64)
    right[:, cards - 1 :] = deck[:, ::-1]
    return shown, right


def autoencode(cards: int = 52, suits: int = 4, *, horizon: int | None = None) -> MemoryTask:
    """Watch a shuffled deck, then say its suits from the last to the first; 2 cards - 1 steps.

    Shown are suit s while watching, suits + s for the last card, at which the first answer is due, and
    2 suits ("go on") from then on. What it takes: the whole sequence, as a stack.
    POPGym: Easy 52 cards, Medium 104, Hard 156; it shows suit 0 where "go on" stands here.
    """
    _check_deck(cards, suits)
    deal = partial(_autoencode, cards, suits)
    worth = np.where(np.arange(2 * cards - 1) < cards - 1, 0.0, 1 / cards)
    return MemoryTask(Rules(2 * suits + 1, suits, worth, deal), horizon)


def _count_recall(cards: int, kinds: int, rng: np.random.Generator, n: int) -> Dealt:
    values, asked = _shuffled(rng, n, cards, kinds), _shuffled(rng, n, cards, kinds)
    counts = np.cumsum(values[:, :, None] == np.arange(kinds), axis=1)
    right = np.take_along_axis(counts, asked[:, :, None], axis=2)[:, :-1, 0]
    return values * kinds + asked, right


def count_recall(cards: int = 52, kinds: int = 2, *, horizon: int | None = None) -> MemoryTask:
    """At each step a card of kind v is shown and kind q asked for: how often was q shown, now included?

    Seen is v * kinds + q. Cards and questions come from a shuffled deck each; answers are 0 to cards / kinds;
    cards - 1 steps. What it takes: a counter for each kind.
    POPGym: Easy 52 cards of 2 kinds, Medium 104 of 4, Hard 208 of 13. It lacks the answer cards / kinds, so
    that a question can be one that nobody can answer; here all can be.
    """
    _check_deck(cards, kinds)
    deal = partial(_count_recall, cards, kinds)
    worth = np.full(cards - 1, 1 / (cards - 1))
    return MemoryTask(Rules(kinds * kinds, cards // kinds + 1, worth, deal), horizon)


def _cue_recall(delay: int, cues: int, distractors: int, rng: np.random.Generator, n: int) -> Dealt:
    shown = rng.integers(cues, cues + distractors, (n, delay + 3))
    shown[:, 0] = rng.integers(cues, size=n)
    shown[:, delay + 1 :] = cues + distractors
    right = np.zeros((n, delay + 2), np.int64)
    right[:, -1] = 1 + shown[:, 0]
    return shown, right


def cue_recall(
    delay: int = 20, cues: int = 2, distractors: int = 2, *, horizon: int | None = None
) -> MemoryTask:
    """A cue is shown first, then `delay` distractors, then a question: which cue was it? delay + 2 steps.

    Symbols: cues, distractors, the question. Answers: 0 waits, 1 + c says cue c. The last answer is worth one
    half; the other half is for waiting until then, so that an agent that sees its own last action cannot
    carry the cue in its actions at a profit. What it takes: one of `cues`, kept for delay + 1 steps.
    """
    if delay < 0 or cues < 2 or distractors < 1:
        raise ValueError(
            f"delay {delay}, {cues} cues, {distractors} distractors; expected at least 0, 2 and 1"
        )
    deal = partial(_cue_recall, delay, cues, distractors)
    worth = np.append(np.full(delay + 1, 0.5 / (delay + 1)), 0.5)
    return MemoryTask(Rules(cues + distractors + 1, cues + 1, worth, deal), horizon)


MEMORY_TASKS: dict[str, Callable[..., LaneEnv]] = {
    "repeat-previous": repeat_previous,
    "repeat-previous-32": partial(repeat_previous, 32, 104),
    "repeat-first": repeat_first,
    "autoencode": autoencode,
    "autoencode-8": partial(autoencode, 8),
    "count-recall": count_recall,
    "count-recall-8": partial(count_recall, 8),
    "cue-recall": cue_recall,
    "cue-recall-100": partial(cue_recall, 100),
}
"""names for the command line; `horizon` and the sizes are arguments"""
