"""How well a clone predicts what the logged agent said: beside tables of words that know no history.

A loss in nats a token says nothing by itself. A uniform guess, the frequencies of tokens, and those of a
token after the one before it are what any language model has to beat; on few logs many do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.batch import pack_tokens
from turnwise.data.order import chunks
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.intervals import widened
from turnwise.losses.policy import action_logp
from turnwise.models.lm.policies import LmPolicy

READ = 32
"""rows that the model reads at a time"""
TABLES = ("uniform", "unigram", "bigram")
"""what a clone has to beat, the weakest first"""
RESAMPLES = 2000
COUNTED = 50_000
"""rows that the tables are counted in, at most: more would change them in the third digit only"""


class Ngrams:
    """Frequencies of the agent's tokens, alone and after the token before; smoothed by Witten and Bell 1991.

        p(w)     = (c(w) + T / V) / (c + T)              T: different tokens that were counted
        p(w | u) = (c(u, w) + T(u) p(w)) / (c(u) + T(u))   T(u): different tokens after u

    V is the vocabulary. The token before may be anybody's: the agent's first word follows its header.
    """

    def __init__(self, rows: Sequence[Tokens], vocab: int):
        self.vocab = vocab
        # Evenly spread over the rows where they are many, which come in the order of the file.
        chosen = rows if len(rows) <= COUNTED else [rows[i * len(rows) // COUNTED] for i in range(COUNTED)]
        pairs = [_spoken(row) for row in chosen]
        before = np.concatenate([u for u, _ in pairs])
        tokens = np.concatenate([w for _, w in pairs])
        count = np.bincount(tokens, minlength=vocab)  # [V]
        types = int((count > 0).sum())
        self.unigram = (count + types / vocab) / (count.sum() + types)  # [V]
        # A table of V x V would not fit: the pairs that occur, in order, with their counts.
        self._pairs, self._counts = np.unique(before * vocab + tokens, return_counts=True)
        self._after = np.bincount(before, minlength=vocab)  # [V], c(u)
        self._types_after = np.bincount(self._pairs // vocab, minlength=vocab)  # [V], T(u)

    def nats(self, row: Tokens) -> dict[str, float]:
        """Sum of -log p over the tokens of the row that are learnt from, by each table."""
        before, tokens = _spoken(row)
        unigram = self.unigram[tokens]
        wanted = before * self.vocab + tokens
        at = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        seen = np.where(self._pairs[at] == wanted, self._counts[at], 0)
        types = self._types_after[before]
        # A token that was never seen in front of the agent's says nothing: then p(w) it is.
        bigram = (seen + np.maximum(types, 1) * unigram) / (self._after[before] + np.maximum(types, 1))
        return {
            "uniform": len(tokens) * math.log(self.vocab),
            "unigram": float(-np.log(unigram).sum()),
            "bigram": float(-np.log(bigram).sum()),
        }


@torch.inference_mode()
def measure_wording(policy: LmPolicy, rows: Sequence[Tokens], heldout: Sequence[Tokens]) -> dict[str, Any]:
    """Nats a token of the agent in held-out conversations, by the clone and by the tables of `rows`.

    `nats`: mean, low and high of `clone`, `uniform`, `unigram`, `bigram`, with 95% bootstrap intervals over
    conversations (none if only one is held out); `perplexity`: e to the clone's mean; `ahead`: nats a token
    by which the clone is ahead of the bigram, conversation by conversation; `verdict`: what follows, as a
    sentence; `beaten`: whether the bigram predicts better, the interval of the difference excluding 0.
    Empty if nothing is held out.
    """
    vocab = int(policy.lm.config.vocab_size)
    spoken = [row for row in heldout if len(_spoken(row)[1])]
    if not spoken or not rows:
        return {}
    tables = Ngrams(rows, vocab)
    by_row = {name: np.array([tables.nats(row)[name] for row in spoken]) for name in TABLES}
    by_row["clone"] = np.concatenate([_clone_nats(policy, part) for part in chunks(spoken, READ)])
    tokens = np.array([len(_spoken(row)[1]) for row in spoken])
    # Segments of one conversation are one draw: together they go into a resample, or stay out.
    _, talk = np.unique([row.id for row in spoken], return_inverse=True)
    sums = {name: np.bincount(talk, weights=x) for name, x in by_row.items()}  # [conversations]
    size = np.bincount(talk, weights=tokens)
    sums["ahead"] = sums["bigram"] - sums["clone"]
    found = _ratios(sums, size)
    ahead = found.pop("ahead")
    # A single conversation has no interval: its mean has to do.
    beaten = (ahead["mean"] if ahead["high"] is None else ahead["high"]) < 0
    return {
        "conversations": len(size),
        "tokens": int(size.sum()),
        "nats": found,
        "perplexity": math.exp(found["clone"]["mean"]),
        "ahead": ahead,
        "beaten": beaten,
        "verdict": _verdict(ahead, found),
    }


def _verdict(ahead: dict[str, Any], nats: dict[str, dict[str, Any]]) -> str:
    clone, bigram = nats["clone"]["mean"], nats["bigram"]["mean"]
    figures = f"{clone:.2f} against {bigram:.2f} nats a token"
    low, high = ahead["low"], ahead["high"]
    if low is not None and low > 0:
        return f"The clone predicts the agent's words better than a bigram table ({figures})."
    if high is not None and high < 0:
        return (
            f"The clone predicts the agent's words worse than a bigram table ({figures}), which knows only "
            "the token before. More conversations, a pretrained model or a few more passes may help."
        )
    return f"Whether the clone predicts the agent's words better than a bigram table is open ({figures})."


def _ratios(sums: dict[str, np.ndarray], size: np.ndarray) -> dict[str, dict[str, Any]]:
    """Means per token with bootstrap intervals over conversations, all of them on the same resamples."""
    n, rng = len(size), np.random.default_rng(0)
    means = {name: float(x.sum() / size.sum()) for name, x in sums.items()}
    if n < 2:
        return {name: {"mean": mean, "low": None, "high": None} for name, mean in means.items()}
    draws = {name: np.empty(RESAMPLES) for name in sums}
    for i in range(RESAMPLES):
        weight = np.bincount(rng.integers(0, n, n), minlength=n)
        total = weight @ size
        for name, x in sums.items():
            draws[name][i] = weight @ x / total
    found = {}
    for name, mean in means.items():
        low, high = widened(np.quantile(draws[name], [0.025, 0.975]), mean, n)
        found[name] = {"mean": mean, "low": low, "high": high}
    return found


def _clone_nats(policy: LmPolicy, rows: Sequence[Tokens]) -> np.ndarray:
    """[B] sums of -log pi over the tokens of each row that are learnt from."""
    batch = pack_tokens(rows, gamma=1.0).to(policy.device)
    assert batch.actions is not None
    logp = action_logp(policy(batch.inputs, batch.decisions), batch.actions)  # [B, A]
    return -(logp * batch.loss_mask).sum(1).double().cpu().numpy()


def _spoken(row: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """[A] the tokens before, and [A] the agent's tokens that are learnt from in this row."""
    at = row.decisions
    if not row.next_known:  # the last action is read and not learnt from, as in a batch
        at = at[:-1]
    at = at[at >= row.learn_from]
    return row.ids[at], row.ids[at + 1]
