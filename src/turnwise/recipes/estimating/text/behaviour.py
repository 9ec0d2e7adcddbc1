"""How probable the logged messages were for the agent that wrote them: as logs say, or as clones of it do.

A clone is a small language model that has learnt from one half of the conversations and speaks of the other.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.algorithms.logs import bc
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import spoken
from turnwise.data.rows import TokenRows
from turnwise.data.splits.choices import evenly
from turnwise.evaluation.estimates.cross_fit import dealt
from turnwise.evaluation.measures.calibration import Bin, calibration_error, reliability
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.estimating.text.speakers import encoded, spoken_in
from turnwise.recipes.estimating.text.steps import TurnSteps
from turnwise.recipes.settings.train import Start
from turnwise.recipes.training.language_model import begin, fresh
from turnwise.rollout.engines.decoding import POLICYS_OWN
from turnwise.run.errors import SettingError
from turnwise.run.training import TrainingRun

LOGGED, CLONE = "the logs", "a language model cloned from the other half of the logs"
LEARNT = 10_000
"""conversations, at most, that a clone learns from"""
EPOCHS, ROWS, MOST = 3.0, 1500, 10.0
"""passes of a clone; few rows are passed over so often that they make so many, but no oftener than `MOST`"""


@dataclass(frozen=True)
class MessageBehaviour:
    """The agent that talked in the logs."""

    logp: np.ndarray
    """[B, A], of each logged message; 0 behind the end"""
    facts: dict[str, Any]
    """what a result says of it"""


def message_behaviour(
    steps: TurnSteps, clusters: np.ndarray | None, *, seed: int, quiet: bool
) -> MessageBehaviour:
    """As the logs say it, and where they do not, as clones say it."""
    known = steps.mask & ~np.isnan(steps.message_logp)
    missing = int((steps.mask & ~known).sum())
    logged_nats = -float(steps.message_logp[known].mean()) if known.any() else None
    facts: dict[str, Any] = {"source": "logged", "model": LOGGED, "nats": {}, "logged_nats": logged_nats}
    facts |= {"calibration": [], "calibration_error": None, "missing": missing}
    logp = np.where(known, steps.message_logp, 0.0)
    if not missing:
        return MessageBehaviour(logp, facts)
    tokens, bins = _cloned(steps, clusters, None, seed, quiet)
    guessed = steps.padded(np.array([x.sum() for x in tokens]))
    facts |= _of_clones(guessed[steps.mask], bins) | {"besides": len(steps.besides)}
    facts["source"] = "partly logged" if known.any() else "estimated"
    return MessageBehaviour(np.where(known | ~steps.mask, logp, guessed), facts)


def token_behaviour(
    steps: TurnSteps, tokenizer: Any, clusters: np.ndarray | None, *, seed: int, quiet: bool
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """ln P of the tokens of each logged message, M of them, as clones with this tokenizer say it; and what a
    result says of that.

    What the logs say of whole messages is of no use here: nobody knows how it is shared out among tokens, and
    a share that looks at the end of the message is no policy. SettingError if they say it.
    """
    known = steps.mask & ~np.isnan(steps.message_logp)
    if known.any():
        raise SettingError(
            "per",
            "token",
            "turn: these logs say how probable whole messages were (behavior_logp), which is used as it is "
            "per turn, and not how probable each of their tokens was",
        )
    tokens, bins = _cloned(steps, clusters, tokenizer, seed, quiet)
    facts: dict[str, Any] = {"source": "estimated", "logged_nats": None, "missing": int(steps.mask.sum())}
    facts |= {"besides": len(steps.besides)}
    return tokens, facts | _of_clones(np.array([x.sum() for x in tokens]), bins)


def _of_clones(logp: np.ndarray, bins: list[Bin]) -> dict[str, Any]:
    """What a result says of clones that give messages these log-probabilities [M]."""
    return {
        "model": CLONE,
        "nats": {CLONE: -float(logp.mean())},
        "calibration": [vars(b) for b in bins],
        "calibration_error": calibration_error(bins),
    }


def _cloned(
    steps: TurnSteps, clusters: np.ndarray | None, tokenizer: Any, seed: int, quiet: bool
) -> tuple[list[np.ndarray], list[Bin]]:
    """ln P of the tokens of each message, M of them, each half by a clone of the other; and how often the
    likeliest token was said. A single conversation (or cluster) is told by a clone of itself. Without a
    `tokenizer` one is made of the words of the logs. What is there besides teaches both clones."""
    everything = [*steps.dialogues, *steps.besides]
    B, M = len(steps.mask), int(steps.mask.sum())
    groups = B if clusters is None else len(np.unique(clusters))
    fold = np.zeros(B, np.int64) if groups < 2 else dealt(B, folds=2, seed=seed, groups=clusters)
    start = Start()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tokenizer is None:
            lm, tokenizer = begin(start, (spoken(m) for d in everything for m in d.messages))
        else:
            lm = fresh(start, tokenizer)
    rows = encoded(everything, ChatFormat(tokenizer), start.context, quiet=quiet)
    besides = np.arange(B, len(everything))
    weights = {name: x.clone() for name, x in lm.state_dict().items()}
    found, top, hit = [np.zeros(0)] * M, [], []
    number = steps.padded(np.arange(M))
    for part in np.unique(fold).tolist():
        here = np.flatnonzero(fold == part)
        others = np.append(here if len(here) == B else np.flatnonzero(fold != part), besides)
        lm.load_state_dict(weights)
        policy = _learnt(LmPolicy(lm), rows.of(others[evenly(len(others), LEARNT)]), seed, quiet)
        said = spoken_in(policy, POLICYS_OWN, rows.of(here), "scoring the clone", quiet=quiet)
        mine = number[here][steps.mask[here]].tolist()
        for m, logp in zip(mine, said.parted(np.minimum(said.logp, 0.0)), strict=True):
            found[m] = logp
        top.append(said.top)
        hit.append(said.hit)
    return found, reliability(np.concatenate(top), np.concatenate(hit))


def _learnt(policy: LmPolicy, rows: TokenRows, seed: int, quiet: bool) -> LmPolicy:
    """The policy after it has learnt from rows."""
    config = bc.Config(epochs=min(MOST, max(EPOCHS, ROWS / len(rows))))
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        run = TrainingRun(Path(folder), what="cloning the logged agent", quiet=quiet)
        with run:
            bc.train(config, rows, [], policy, run, seed)
    return policy
