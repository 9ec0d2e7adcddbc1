"""How well a partner from logs tells what the other side did in conversations that were held out.

Three things, each beside what it must beat: its words, beside tables of tokens; whether the conversation was
over behind a turn, beside the share of turns that end one; and what was earned, beside the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.order import chunks
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.intervals import widened
from turnwise.evaluation.measures.wording import READ, TABLES, Ngrams
from turnwise.losses.value import ending_loss
from turnwise.models.lm.partner import PartnerModel, minibatch

RESAMPLES = 2000


def measure_telling(model: PartnerModel, rows: Sequence[Tokens], heldout: Sequence[Tokens]) -> dict[str, Any]:
    """Figures on held-out rows, each with a 95% bootstrap interval over conversations.

    `token` and `message`: nats a token and a turn of the other side, by the `partner` and by the tables that
    were counted in `rows`; `ahead`: nats a turn by which it is ahead of the bigram table. `end`: nats a turn
    of whether the conversation was over, by the `partner` and by the `share` of turns in `rows` that end one.
    `reward`: R2 of what a turn earned, and of what a whole conversation earned (`return`). Empty if nothing
    is held out.
    """
    if not len(heldout) or not len(rows):
        return {}
    tables = Ngrams(rows, int(model.policy.lm.config.vocab_size))
    sums = [_told(model, part) for part in chunks(heldout, READ)]
    found = {k: np.concatenate([s[k] for s in sums]) for k in sums[0]}
    by_table = [tables.nats(row) for row in heldout]
    found |= {name: np.array([x[name] for x in by_table]) for name in TABLES}
    _, talk = np.unique([row.id or str(i) for i, row in enumerate(heldout)], return_inverse=True)
    per = {k: np.bincount(talk, weights=x) for k, x in found.items()}  # segments of a conversation together
    share = _share_of_ends(rows)
    per["constant"] = -(per["ends"] * np.log(share) + (per["turns"] - per["ends"]) * np.log(1 - share))
    per["ahead"] = per["bigram"] - per["partner"]
    names, earned = ("partner", *TABLES), per["reward"]
    return {
        "conversations": len(per["turns"]),
        "turns": int(per["turns"].sum()),
        "tokens": int(per["tokens"].sum()),
        "token": {k: ratio(per[k], per["tokens"]) for k in names},
        "message": {k: ratio(per[k], per["turns"]) for k in names},
        "ahead": ratio(per["ahead"], per["turns"]),
        "end": {"partner": ratio(per["end"], per["turns"]), "share": ratio(per["constant"], per["turns"])},
        "reward": {
            "turn": _r2(per["wrong"], per["reward"], per["squared"], per["turns"]),
            "return": _r2((per["said"] - earned) ** 2, earned, earned**2, np.ones_like(earned)),
        },
    }


@torch.inference_mode()
def _told(model: PartnerModel, rows: Sequence[Tokens]) -> dict[str, np.ndarray]:
    """[B] sums over the turns of each row."""
    x = minibatch(rows)
    b = x.batch.to(model.policy.device)
    told, turns = model(b), (x.stops & x.batch.loss_mask).to(b.mask.device)
    over = b.mask & (b.discounts == 0)
    paid = model.paid(told.reward)
    terms = {
        "partner": (-told.logp, b.loss_mask),
        "tokens": (torch.ones_like(told.logp), b.loss_mask),
        "turns": (torch.ones_like(told.logp), turns),
        "ends": (over.to(told.logp.dtype), turns),
        "end": (ending_loss(told.end, over), turns),
        "reward": (b.rewards, turns),
        "squared": (b.rewards**2, turns),
        "said": (paid, turns),
        "wrong": ((paid - b.rewards) ** 2, turns),
    }
    return {k: v.masked_fill(~mask, 0.0).sum(1).double().cpu().numpy() for k, (v, mask) in terms.items()}


def _share_of_ends(rows: Sequence[Tokens]) -> float:
    """Of the turns in the rows that end a conversation; one more of each kind, so that none is impossible."""
    chosen = [rows[i * len(rows) // min(len(rows), 5000)] for i in range(min(len(rows), 5000))]
    turns = sum(int(row.turn_end.sum()) for row in chosen)
    return (sum(row.terminated for row in chosen) + 1) / (turns + 2)


def ratio(x: np.ndarray, size: np.ndarray) -> dict[str, float | None]:
    """Sum of x by sum of size, with its interval by resampling both together."""
    return _interval(lambda w: (w @ x) / (w @ size), len(x))


def _r2(wrong: np.ndarray, y: np.ndarray, squared: np.ndarray, n: np.ndarray) -> dict[str, float | None]:
    """1 - squared errors by the spread about the mean of the resample; None if nothing varies."""

    def r2(w: np.ndarray) -> np.ndarray:
        spread = w @ squared - (w @ y) ** 2 / (w @ n)
        return 1 - (w @ wrong) / np.where(spread > 1e-12, spread, np.nan)

    return _interval(r2, len(y))


def _interval(of: Any, n: int) -> dict[str, float | None]:
    mean = float(of(np.ones((1, n)))[0])
    if not np.isfinite(mean):
        return {"mean": None, "low": None, "high": None}
    if n < 2:
        return {"mean": mean, "low": None, "high": None}
    rng = np.random.default_rng(0)
    draws = np.concatenate(
        [of(rng.multinomial(n, np.full(n, 1 / n), size=100).astype(float)) for _ in range(RESAMPLES // 100)]
    )
    low, high = widened(np.nanquantile(draws, [0.025, 0.975]), mean, n)
    return {"mean": mean, "low": low, "high": high}


def sentences(found: dict[str, Any]) -> list[str]:
    """The figures in words; none if nothing was held out."""
    if not found:
        return []
    m, e, r = found["message"], found["end"], found["reward"]
    lines = [
        f"words: {_words(m['partner'])} nats a message, {found['token']['partner']['mean']:.3f} a token; "
        f"a bigram table {m['bigram']['mean']:.3f} and {found['token']['bigram']['mean']:.3f}",
        f"end of the talk: {_words(e['partner'])} nats a message; its share alone {e['share']['mean']:.3f}",
    ]
    paid = [f"{_words(r[k])} of {what}" for k, what in (("turn", "a turn"), ("return", "a conversation"))
            if r[k]["mean"] is not None]  # fmt: skip
    lines.append(f"what was earned: R² {', '.join(paid)}; the mean has 0" if paid else
                 "what was earned: always the same, so that nothing is to be told")  # fmt: skip
    return lines


def _words(x: dict[str, Any]) -> str:
    return f"{x['mean']:.3f}" + ("" if x["low"] is None else f" ({x['low']:.3f} to {x['high']:.3f})")
