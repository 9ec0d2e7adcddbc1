"""Whether values predict returns on conversations that were not learnt from, whatever the values are of.

Each is held against the returns that followed, beside a constant (the mean of the training conversations) and
a ridge regression on bags of words (`measures/words.py`) that learnt from the same conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import evenly
from turnwise.evaluation.measures.critics.scores import Score, with_interval
from turnwise.evaluation.measures.words import bags, fit_words

ENOUGH = 30
"""held-out conversations from which on something is said of a critic"""
MEASURED = 1000
"""held-out conversations that are read at most"""
LEARNT = 20_000
"""training conversations that the regression learns from at most"""
SEEN = 0.005
"""what an end of an interval has to reach: below it a person reads 0.00, and who says nearly the same of all
conversations may be surely better than a constant by a millionth"""
PLACES = ("first", "last", "all")
"""turns over which figures are taken: each conversation's first, its last, and all of them; and by position,
"2" for the second turn of those that have two, and so on"""
POSITIONS = 12
"""the latest turn that has figures of its own"""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Turns:
    """All turns of several conversations, one after the other; arrays are [n]."""

    conversation: np.ndarray
    """Number of the conversation that the turn is of."""
    returns: dict[str, np.ndarray]
    """What followed: `v` from the state before the turn on, `q` from its last token on."""
    values: dict[str, np.ndarray]
    """What was predicted, `v` and `q`."""

    def at(self, place: str) -> np.ndarray:
        """Indices of the turns at a place: one of `PLACES`, or a number counted from 1."""
        starts = np.flatnonzero(np.diff(self.conversation, prepend=-1))
        if place == "all":
            return np.arange(len(self.conversation))
        last = np.append(starts[1:], len(self.conversation)) - 1
        if place in PLACES:
            return starts if place == "first" else last
        turn = starts + int(place) - 1
        return turn[turn <= last]

    def positions(self) -> tuple[str, ...]:
        """From the second turn on, those that enough conversations have for something to be said of them."""
        numbers = map(str, range(2, POSITIONS + 1))
        return tuple(x for x in numbers if len(self.at(x)) >= ENOUGH)


@dataclass(frozen=True)
class Judged:
    """A conversation that came to its end: what followed each of its K turns, and what was predicted."""

    dialogue: Dialogue
    returns: tuple[np.ndarray, np.ndarray]
    """[K] from the state before each turn on, and [K] from the end of the turn on"""
    values: tuple[np.ndarray, np.ndarray] | None = None
    """V before each turn [K], and Q of the turn [K]; None if nobody predicted anything"""


def ended(dialogues: Sequence[Dialogue], most: int) -> np.ndarray:
    """Places of those that came to a true end, `most` of them at most, evenly spread.

    What would have followed a cut is unknown.
    """
    found = np.flatnonzero([d.terminated for d in dialogues])
    return found[evenly(len(found), most)]


def measure_values(
    trained: Sequence[Judged],
    unseen: Sequence[Judged],
    *,
    estimates: dict[str, Any],
    improved: bool,
    cut: int,
    std: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Predicted values against the returns of held-out conversations, as plain JSON values.

    `estimates` says what the values are of, and `improved` whether that is a better policy than the logged
    one; `cut` is how many held-out conversations were cut, `std` the deviation of the returns that were
    learnt from. `unseen` has values, unless they are fewer than `ENOUGH`. See `docs/how-to/critics.md` for
    every entry.
    """
    found: dict[str, Any] = {
        "estimates": estimates,
        "heldout": len(unseen),
        "cut": cut,
        "learnt": len(trained),
        "judged_by": "calibrated_r2" if improved else "r2",
    }
    totals = np.array([x.dialogue.undiscounted_return() for x in trained] or [0.0])
    low, high = np.quantile(totals, (0.05, 0.95))
    found["returns"] = {
        "mean": float(totals.mean()), "std": std, "low": float(low), "high": float(high)
    }  # fmt: skip
    if len(unseen) >= ENOUGH and trained:
        # All figures are of the same resamples, so that a difference of two of them has an interval too.
        counts = np.random.default_rng(seed).multinomial(
            len(unseen), np.full(len(unseen), 1 / len(unseen)), size=_RESAMPLES
        )
        critic, words, constants = _predictions(trained, unseen)
        found |= _figures(critic, words, constants, counts, found["judged_by"])
    return found | verdict(found)


def verdict(found: dict[str, Any]) -> dict[str, Any]:
    """`knows` (True, False, or None: nobody can tell), `beside_words`, and `sentence`, which says both."""
    n = found["heldout"]
    figures = found.get("q", {}).get("all")
    if figures is None:
        some = f"only {n} of them" if n else "none of them"
        text = (
            f"Nothing can be said of this critic: it takes {ENOUGH} conversations that are held out and "
            f"came to an end, and there are {some}. Its colours say nothing yet."
        )
        return {"knows": None, "beside_words": None, "sentence": text}
    by = found["judged_by"]
    own, words = figures["critic"][by], figures["words"][by]
    if own is None:
        text = (
            f"Nothing can be said of this critic: all {n} held-out conversations have the same return. Its "
            "colours say nothing yet."
        )
        return {"knows": None, "beside_words": None, "sentence": text}
    shown = f"R² of Q{' after calibration' if by == 'calibrated_r2' else ''} {_interval(own)}"
    theirs = f"{words['value']:.2f}"
    if own["low"] < SEEN:
        text = (
            f"This critic does not beat a constant on {n} conversations that it has not seen ({shown}): its "
            "colours say nothing yet."
        )
        if words["low"] >= SEEN:
            text += f" A regression on words does ({theirs}): there is something here to be learnt."
        else:
            text += f" Nor does a regression on words ({_interval(words)})."
        ordered = figures["critic"].get("calibrated_r2")
        if by == "r2" and ordered is not None and ordered["low"] >= SEEN:
            text += f" Its order is no chance (R² after calibration {_interval(ordered)}): it exaggerates."
        return {"knows": False, "beside_words": None, "sentence": text}
    gain = found["gain"]["over_words"]
    beside = "better" if gain["low"] >= SEEN else "worse" if gain["high"] <= -SEEN else "equal"
    than = {
        "better": f"beats a regression on words ({theirs})",
        "equal": f"does as well as a regression on words ({theirs})",
        "worse": f"does worse than a regression on words ({theirs})",
    }[beside]
    text = f"On {n} conversations that it has not seen, this critic beats a constant ({shown}) and {than}."
    if found["gain"]["q_over_v"]["low"] < SEEN:
        text += " Its Q does not predict better than its V: what it says of single replies is in doubt."
    return {"knows": True, "beside_words": beside, "sentence": text}


def _interval(x: dict[str, float]) -> str:
    return f"{x['value']:.2f}, {x['low']:.2f} to {x['high']:.2f}"


def _predictions(
    trained: Sequence[Judged], unseen: Sequence[Judged]
) -> tuple[Turns, Turns, dict[str, dict[str, float]]]:
    """The critic's values of the unseen turns, the regression's, and the training means by place."""
    before = [x.returns for x in trained]
    critic = _turns([x.returns for x in unseen], [x.values for x in unseen if x.values is not None])
    known = _turns(before, before)
    heard, asked = ([list(bags(x.dialogue)) for x in part] for part in (trained, unseen))
    guesses, constants = {}, {}
    for i, name in enumerate(("v", "q")):
        learnt_bags = [pair[i] for bag in heard for pair in bag]
        model = fit_words(learnt_bags, known.returns[name], known.conversation)
        guesses[name] = model.predict([pair[i] for bag in asked for pair in bag])
        # A place that no training conversation has gets the constant of all turns.
        constants[name] = {
            p: float(known.returns[name][known.at(p) if len(known.at(p)) else known.at("all")].mean())
            for p in (*PLACES, *critic.positions())
        }
    return critic, Turns(critic.conversation, critic.returns, guesses), constants


def _turns(returns: Sequence[tuple], values: Sequence[tuple]) -> Turns:
    which = np.repeat(np.arange(len(returns)), [len(v) for v, _ in returns])
    found = [{name: np.concatenate([x[i] for x in pairs]) for i, name in enumerate(("v", "q"))}
             for pairs in (returns, values)]  # fmt: skip
    return Turns(which, *found)


def _figures(
    critic: Turns, words: Turns, constants: dict[str, dict[str, float]], counts: np.ndarray, by: str
) -> dict[str, Any]:
    """Figures of V and Q at every place, of the critic and of the regression; and what Q gains."""
    found: dict[str, Any] = {}
    shares = {}
    for name in ("v", "q"):
        found[name] = {}
        for place in (*PLACES, *critic.positions()):
            at, constant = critic.at(place), constants[name][place]
            entry: dict[str, Any] = {"turns": len(at), "constant": constant}
            for who, turns in (("critic", critic), ("words", words)):
                score = Score(
                    turns.values[name][at],
                    critic.returns[name][at],
                    critic.conversation[at],
                    constant,
                    counts,
                )
                entry[who] = score.summary()
                shares[who, name, place] = score.shares[by]
            found[name][place] = entry
    own, theirs, before = (shares[k] for k in (("critic", "q", "all"), ("words", "q", "all"),
                                               ("critic", "v", "all")))  # fmt: skip
    n = counts.shape[1]
    found["gain"] = {
        "over_words": with_interval(own - theirs, n), "q_over_v": with_interval(own - before, n)
    }  # fmt: skip
    return found
