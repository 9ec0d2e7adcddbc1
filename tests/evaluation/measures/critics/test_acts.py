"""What values of acts know: perfect ones have an R2 of 1, and cut conversations are left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from turnwise.data.batch import Batch
from turnwise.data.dialogue import Dialogue
from turnwise.data.episode import Episode
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.critics.acts import measure_act_critic
from turnwise.models.agents.act_critic import ActValues


class Knows(nn.Module):
    """Q of two acts, 0 and 3, wherever they are taken; V is half of that."""

    def forward(self, batch: Batch) -> ActValues:
        q = torch.tensor([0.0, 3.0]).expand(1, *batch.decisions.shape, 2)
        return ActValues(q[0], q, torch.full(batch.decisions.shape, 1.5))


def talk(i: int, act: int, terminated: bool = True) -> tuple[Dialogue, Episode]:
    """One turn, worth 3 if the act is 1; the words say the act only now and then."""
    reward = 3.0 * act
    said = Message("assistant", f"word {i % 7}", reward)
    e = Episode(np.array([2, 0]), np.array([act]), np.array([reward]), terminated, not terminated)
    return Dialogue((Message("user", "hello"), said), terminated, id=str(i)), e


def test_values_that_are_right_explain_all_and_those_of_states_nothing() -> None:
    """Q is what is earned: R2 is 1. V is the mean whatever is done: R2 is 0, as a constant's."""
    talks = [talk(i, i % 2) for i in range(40)] + [talk(99, 1, terminated=False)]
    part = [d for d, _ in talks], [e for _, e in talks]
    found = measure_act_critic(Knows(), part, part, gamma=1.0, improved=False, std=1.5)  # type: ignore[arg-type]
    assert (found["heldout"], found["cut"], found["judged_by"]) == (40, 1, "r2")
    assert found["q"]["all"]["critic"]["r2"]["value"] == pytest.approx(1)
    assert found["v"]["all"]["critic"]["r2"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["q"]["all"]["words"]["r2"]["value"] < 0.5 and found["knows"] is True


def test_too_few_conversations_say_nothing() -> None:
    part = [talk(i, i % 2)[0] for i in range(5)], [talk(i, i % 2)[1] for i in range(5)]
    found = measure_act_critic(Knows(), part, part, gamma=1.0, improved=True, std=1.0)  # type: ignore[arg-type]
    assert found["knows"] is None and "q" not in found
