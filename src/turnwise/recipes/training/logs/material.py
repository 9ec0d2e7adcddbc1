"""What learns from logs, from which rows, and how an agent is made of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.columns import Column
from turnwise.data.rows import Cuts, TokenRows, token_rows
from turnwise.data.splits.choices import chosen, evenly
from turnwise.data.tokens import Tokens
from turnwise.models.lm.parts import parameter_count
from turnwise.recipes.training.critic import OpenedCritic
from turnwise.recipes.training.logs.frozen import FrozenFeatures
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Agent

MEASURED = 10_000
"""held-out conversations, at most, that losses and other figures are measured on: their intervals are narrow
by then, and a model would read millions of them longer than it learns"""


@dataclass(frozen=True)
class Material:
    """What learns from which rows, and how an agent is made of it."""

    chat: ChatFormat
    context: int
    module: nn.Module
    trunk: Any
    """what reads the rows; None if everything has been read"""
    vocab: int
    rows: Sequence[Tokens]
    heldout: Sequence[Tokens]
    lengths: Column
    """tokens of every conversation, those that are not learnt from included"""
    cuts: Cuts
    """what of them does not fit the context"""
    agent: Callable[[nn.Module], Agent]
    begun_from: Any
    """what config.yaml records about the starting model"""
    content: Mapping[str, str]
    """digest of the starting model, if there is one, by the name of the setting that says where it lies"""
    judge: Callable[[Agent], dict[str, Any]]
    """what was learnt, as entries of the result: how a clone speaks, what a critic knows"""
    warnings: Sequence[str] = ()
    under: OpenedCritic | None = None
    """the critic that says which of the rows are good, if the algorithm learns under one"""
    features: FrozenFeatures | None = None
    """what a frozen trunk is to read before anything learns"""
    beside: Sequence[nn.Module] = ()
    """models that are held beside what learns"""

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are, and numbers that learn from them."""
        return {"rows": len(self.rows), "parameters": parameter_count(self.module)}

    def notes_on(self, logs: Logs) -> list[str]:
        """What whoever brings the logs should know of how they are read."""
        return [*self.chat.notes_on(logs), *self.warnings]


def encoded(
    learnt: Sequence[Dialogue], held: Sequence[Dialogue], chat: ChatFormat, context: int, m: Machine
) -> tuple[TokenRows, TokenRows]:
    """Rows to learn from, and held-out rows to measure on: everything is encoded here, once."""
    n = len(learnt) + len(held)
    with m.progress("encoding", n) as bar:
        rows = token_rows(itertools.chain(learnt, held), chat, context, bar.at)
    return rows.of(range(len(learnt))), rows.of(len(learnt) + evenly(len(held), MEASURED))


def measured(held: Sequence[Dialogue]) -> Sequence[Dialogue]:
    """The held-out conversations whose rows `encoded` gives."""
    return chosen(held, evenly(len(held), MEASURED))
