"""The noisy guessing game: a strong asker, and what it and the asker of the logs earn, by simulation.

What is known is the posterior of 32 objects, a continuum. The expert guesses once an object is likely enough,
and else asks for what tells most about the object: a strong player, of which no more is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from turnwise.envs.dialogue import Message, Reference, Role
from turnwise.envs.tasks.twenty.exact import follow
from turnwise.envs.tasks.twenty.logs import ASK_ANY, GUESS_LIKELIEST, contradicted
from turnwise.envs.tasks.twenty.rules import ASKS, ATTRIBUTES, GUESSES, HORIZON, NAMES, NOISE, TRUE, Act

SURE = 0.2
"""the posterior from which the expert guesses: of .1 to .7 what earns most"""
SIMULATED = 20_000
"""games by which a player is valued"""
_TRUE = np.array(TRUE)  # [object, attribute]
_SAYS_YES = np.where(_TRUE, 1 - NOISE, NOISE)
_ODDS = NOISE / (1 - NOISE)


class Expert:
    """Plays the noisy game from the text alone."""

    def act(self, history: Sequence[Message]) -> Act:
        """The act after a conversation so far (all its messages, text and nothing else)."""
        heard, guessed, turns = follow(history)
        missed = np.zeros((1, len(NAMES)), dtype=bool)
        missed[0, list(guessed)] = True
        asks, which = expert_acts(np.array([contradicted(heard)]), missed, HORIZON - turns)
        return (ASKS if asks[0] else GUESSES)[int(which[0])]


def expert_acts(against: np.ndarray, missed: np.ndarray, left: int) -> tuple[np.ndarray, np.ndarray]:
    """(whether it asks, index of attribute or object) of the expert, in many games at once.

    `against` [n, objects] counts the answers that speak against each, `missed` are wrong guesses. Information
    about the object is the entropy of an answer less the one that noise makes, which is a constant.
    """
    p = np.where(missed, 0.0, _ODDS**against)
    p /= p.sum(-1, keepdims=True)
    yes = p @ _SAYS_YES  # [n, attributes]
    entropy = -(yes * np.log(yes) + (1 - yes) * np.log(1 - yes))
    asks = (p.max(-1) < SURE) & (left > 1)
    return asks, np.where(asks, entropy.argmax(-1), p.argmax(-1))


def whimsical_acts(against: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(whether it asks, index of attribute or object) of the asker of the logs, in many games at once."""
    n = len(against)
    whim = rng.random(n)
    asks = whim < ASK_ANY
    tied = against == against.min(-1, keepdims=True)
    likeliest = np.where(tied, rng.random(tied.shape), -1.0).argmax(-1)  # one of them, uniformly
    guess = np.where(whim < ASK_ANY + GUESS_LIKELIEST, likeliest, rng.integers(len(NAMES), size=n))
    return asks, np.where(asks, rng.integers(len(ATTRIBUTES), size=n), guess)


def simulated(expertly: bool, games: int, seed: int) -> np.ndarray:
    """[games] returns of the expert, or of the whimsical asker, without a word being said."""
    rng = np.random.default_rng(seed)
    thing = rng.integers(len(NAMES), size=games)
    rows = np.arange(games)
    against = np.zeros((games, len(NAMES)), dtype=int)
    missed = np.zeros((games, len(NAMES)), dtype=bool)
    returns, going = np.zeros(games), np.ones(games, dtype=bool)
    for turn in range(HORIZON):
        chosen = expert_acts(against, missed, HORIZON - turn) if expertly else whimsical_acts(against, rng)
        asks, which = chosen
        going &= asks | (which != thing)
        returns -= going
        attribute = np.where(asks, which, 0)
        says_yes = rng.random(games) < _SAYS_YES[thing, attribute]
        against += (asks[:, None]) & (_TRUE.T[attribute] != says_yes[:, None])
        missed[rows[going & ~asks], which[going & ~asks]] = True
    return returns


@cache
def noisy_references() -> tuple[Reference, ...]:
    """What the expert and the whimsical asker earn, each with a 95% interval over 20,000 games."""
    players: tuple[tuple[str, Role, str], ...] = (
        ("expert", "baseline", "asks for what tells most"),
        ("behaviour", "behaviour", "the asker that wrote the logs"),
    )
    found = []
    for name, role, note in players:
        returns = simulated(name == "expert", SIMULATED, seed=0)
        mean, error = float(returns.mean()), 1.96 * float(returns.std(ddof=1)) / math.sqrt(SIMULATED)
        found.append(Reference(name, role, mean, mean - error, mean + error, f"{note}; {SIMULATED:,} games"))
    return tuple(found)
