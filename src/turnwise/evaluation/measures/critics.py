"""Whether a critic's values predict returns on conversations that it has not seen.

Each is held against the returns that followed, beside a constant (the mean of the training conversations) and
a ridge regression on bags of words (`words.py`) that learnt from the same conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import continues
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.intervals import widened
from turnwise.evaluation.measures.words import bags, fit_words
from turnwise.models.lm.critics import Estimand, TurnCritic
from turnwise.rollout.agent import Agent

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
_RESAMPLES, _FOLDS, _TAILS = 1000, 5, (0.025, 0.975)


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


def measure_critic(
    agent: Agent,
    estimand: Estimand,
    learnt: tuple[Sequence[Dialogue], Sequence[Tokens]],
    held: tuple[Sequence[Dialogue], Sequence[Tokens]],
    seed: int = 0,
) -> dict[str, Any]:
    """The critic of `agent` against the returns of held-out conversations, as plain JSON values.

    `learnt` and `held` are conversations and their token rows, in the same order. A conversation that was cut
    is left out: what would have followed is unknown. See `docs/how-to/critics.md` for every entry.
    """
    trained = _ended(learnt, LEARNT)
    unseen = _ended(held, MEASURED)
    found: dict[str, Any] = {
        "estimates": vars(estimand),
        "heldout": len(unseen),
        "cut": sum(not d.terminated for d in held[0]),
        "learnt": len(trained),
        "judged_by": "calibrated_r2" if estimand.improved else "r2",
    }
    totals = np.array([d.undiscounted_return() for d, _ in trained] or [0.0])
    low, high = np.quantile(totals, (0.05, 0.95))
    found["returns"] = {
        "mean": float(totals.mean()), "std": agent.acting.return_std, "low": float(low), "high": float(high)
    }  # fmt: skip
    if len(unseen) >= ENOUGH and trained:
        # All figures are of the same resamples, so that a difference of two of them has an interval too.
        counts = np.random.default_rng(seed).multinomial(
            len(unseen), np.full(len(unseen), 1 / len(unseen)), size=_RESAMPLES
        )
        critic, words, constants = _predictions(agent, estimand, trained, unseen)
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


def returns_of(parts: Sequence[Tokens], e: Estimand) -> tuple[np.ndarray, np.ndarray]:
    """Returns of a whole conversation: [K] from the state before each turn, and [K] from its last token on.

    G_k = r_k + d_k G_{k+1} over the agent's tokens, with the discounts of `e`. The two differ only by
    `gamma_within_turn`.
    """
    rewards, ends, opens = [], [], []
    for row in parts:
        chosen = np.flatnonzero(row.action[1:]) + 1
        chosen = chosen[chosen > row.learn_from]  # what comes before was learnt from in an earlier part
        rewards.append(row.rewards[chosen])
        ends.append(row.turn_end[chosen])
        opens.append(~row.action[chosen - 1] | row.turn_end[chosen - 1])
    reward, end, first = (np.concatenate(x) for x in (rewards, ends, opens))
    discount = np.where(end, e.gamma, e.gamma_within_turn)
    returns, after = np.zeros(len(reward)), 0.0
    for k in range(len(reward) - 1, -1, -1):
        returns[k] = after = reward[k] + discount[k] * after
    return returns[first], returns[end]


def values_of(agent: Agent, parts: Sequence[Tokens]) -> tuple[np.ndarray, np.ndarray]:
    """The critic's values of a whole conversation: V before each turn [K], and Q after its last token [K]."""
    pack: Any = pack_turns if isinstance(agent.critic, TurnCritic) else pack_tokens
    v, q = [], []
    for row in parts:
        batch, values = pack([row], gamma=1.0), agent.values(row)
        before, after = batch.decisions[0, :-1].numpy(), batch.ends[0].numpy()
        learnt = before >= row.learn_from
        v.append(values["v"][learnt & (~row.action[before] | row.turn_end[before])])
        q.append(values["q"][learnt & row.turn_end[after]])
    return np.concatenate(v).astype(np.float64), np.concatenate(q).astype(np.float64)


def _ended(
    conversations: tuple[Sequence[Dialogue], Sequence[Tokens]], most: int
) -> list[tuple[Dialogue, list[Tokens]]]:
    """Those that came to a true end with their rows (segments of one are neighbours), evenly spread."""
    dialogues, rows = conversations
    stops = np.flatnonzero(~continues(rows)) + 1
    starts = np.append(0, stops[:-1])
    ended = np.flatnonzero([d.terminated for d in dialogues])
    chosen = ended[np.unique(np.linspace(0, len(ended) - 1, min(most, len(ended))).astype(int))]
    return [(dialogues[c], [rows[i] for i in range(starts[c], stops[c])]) for c in map(int, chosen)]


def _predictions(
    agent: Agent,
    e: Estimand,
    trained: Sequence[tuple[Dialogue, list[Tokens]]],
    unseen: Sequence[tuple[Dialogue, list[Tokens]]],
) -> tuple[Turns, Turns, dict[str, dict[str, float]]]:
    """The critic's values of the unseen turns, the regression's, and the training means by place."""
    before, unseen_before = ([returns_of(parts, e) for _, parts in part] for part in (trained, unseen))
    critic = _turns(unseen_before, [values_of(agent, parts) for _, parts in unseen])
    known = _turns(before, before)
    heard, asked = ([list(bags(d)) for d, _ in part] for part in (trained, unseen))
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
        "over_words": _with_interval(own - theirs, n), "q_over_v": _with_interval(own - before, n)
    }  # fmt: skip
    return found


class Score:
    """Predictions [n] against returns [n]; intervals by bootstrap over conversations.

    Every figure is a function of sums over turns, so that a resample of conversations is a product of
    `counts` [R, C] (how often each conversation is drawn) with each conversation's sums [C, k].
    """

    def __init__(
        self, f: np.ndarray, g: np.ndarray, conversation: np.ndarray, constant: float, counts: np.ndarray
    ):
        self.n = counts.shape[1]
        self._draws = np.vstack([np.ones(self.n), counts])  # the first one is the sample itself
        self._of = conversation
        fitted, middle = _cross_fitted(f, g, conversation)
        self.shares = {
            "r2": self._share((g - f) ** 2, (g - constant) ** 2),
            "calibrated_r2": self._share((g - fitted) ** 2, (g - middle) ** 2),
        }
        """by kind: [1 + R], 1 - (squared errors) / (those of a constant)"""
        self._f, self._g = f, g

    def summary(self) -> dict[str, Any]:
        """Both kinds of R², the rank correlation, and the line of returns over predictions."""
        slope, intercept, _ = self._line(self._f, self._g)
        # Ranks are those of the whole sample: a resample draws them with the turns.
        _, _, spearman = self._line(rankdata(self._f), rankdata(self._g))
        found = {**self.shares, "spearman": spearman, "slope": slope, "intercept": intercept}
        return {name: _with_interval(x, self.n) for name, x in found.items()}

    def _sums(self, x: np.ndarray) -> np.ndarray:
        return self._draws @ np.bincount(self._of, x, minlength=self.n)

    def _share(self, errors: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - self._sums(errors) / self._sums(baseline)

    def _line(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Slope, intercept and correlation of y over x; 0, mean and 0 where x does not vary."""
        x0, y0 = x.mean(), y.mean()  # sums about the means lose fewer digits
        x, y = x - x0, y - y0
        n, sx, sy, sxx, syy, sxy = (self._sums(z) for z in (np.ones(len(x)), x, y, x * x, y * y, x * y))
        vx, vy, c = sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n
        tiny = 1e-12 * (1 + x0 * x0) * n
        slope = np.where(vx > tiny, c / np.where(vx > tiny, vx, 1), 0.0)
        both = np.sqrt(vx.clip(min=0) * vy.clip(min=0))
        correlation = np.where(both > tiny, c / np.where(both > tiny, both, 1), 0.0)
        return slope, y0 + sy / n - slope * (x0 + sx / n), correlation


def _cross_fitted(f: np.ndarray, g: np.ndarray, conversation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A rising function of f, and a mean of g, both fitted to the *other* parts of the conversations.

    Isotonic regression (Barlow et al. 1972), linear between the values that it was fitted to. A level, a
    scale and a bend are forgiven, and an order is not. A function fitted to all of them would explain a part
    of anything.
    """
    risen, middle = np.empty(len(f)), np.empty(len(f))
    # Conversations were drawn at random, so that every fifth one is a part at random too.
    part = np.unique(conversation, return_inverse=True)[1] % _FOLDS
    for k in range(_FOLDS):
        inside, others = part == k, part != k
        x, which, counts = np.unique(f[others], return_inverse=True, return_counts=True)
        y = np.bincount(which, g[others]) / counts
        risen[inside] = np.interp(f[inside], x, isotonic_regression(y, weights=counts).x)
        middle[inside] = g[others].mean()
    return risen, middle


def _with_interval(draws: np.ndarray, n: int) -> dict[str, float] | None:
    """The sample's figure and its 95% interval; None where the returns do not vary."""
    value, resampled = float(draws[0]), draws[1:]
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return None
    low, high = widened(np.quantile(resampled, _TAILS), value, n)
    return {"value": value, "low": low, "high": high}
