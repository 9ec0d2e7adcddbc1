"""Warnings about what words still tell come where there is something, and not where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator, default_rng

from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.playbook.overlooked import measure_overlooked
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.exact.learning.model import LearntModel

POLITE, RUDE = "Would you kindly check the lamp", "Check that lamp now"
CALM, CROSS = "It is dark I think", "It is dark damn it"


class Nothing:
    """Values of a model without rewards: nothing is asked of them here."""

    model = LearntModel(
        start=np.ones(1),
        firsts=np.ones((1, 1)),
        transitions=np.ones((2, 1, 1)),
        emissions=np.tile([0.0, 0.5, 0.5], (2, 1, 1)),
        ends=np.zeros((2, 1)),
        lasts=np.tile([1.0, 0.0, 0.0], (2, 2, 1, 1)),
    )

    def q(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """No action is worth anything."""
        return np.zeros((len(beliefs), 2))


def logs(rng: Generator, *, wording: bool, dropped: bool, talks: int = 150) -> tuple[ActLogs, list[Dialogue]]:
    """Talks of three turns: is a rude question answered differently, does a cross answer change the act?"""
    found, dialogues = [], []
    for i in range(talks):
        acts, answers, messages = [], [], [Message("user", "hello")]
        cross = False
        for _ in range(3):
            acts.append(int(rng.random() < (0.9 if cross and dropped else 0.5)))
            rude = rng.random() < 0.5
            messages.append(Message("assistant", RUDE if rude else POLITE))
            answers.append(1 + int(rng.random() < (0.9 if rude and wording else 0.5)))
            cross = rng.random() < 0.5
            messages.append(Message("user", CROSS if cross else CALM))
        none = np.full(3, np.nan)
        found.append(ActTalk(0, np.array(acts), np.array(answers), np.zeros(3), False, none, none, str(i)))
        dialogues.append(Dialogue(tuple(messages), terminated=False, id=str(i)))
    names = ("(nothing)", "x", "y")
    return ActLogs(tuple(found), ("a", "b"), names, ("o",)), dialogues


@pytest.mark.parametrize("wording", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_warning_applies_where_words_tell_more_than_acts(wording: bool, dropped: bool) -> None:
    """Words that move a coin from .5 to .9 in half of the cases tell up to .18 nats of ln 2 = .69."""
    acted, dialogues = logs(default_rng(3), wording=wording, dropped=dropped)
    found = {
        w["kind"]: w["gain"] for w in measure_overlooked(Plan(Nothing()), acted, dialogues, default_rng(0))
    }
    for kind, there in (("wording", wording), ("dropped", dropped)):
        gain = found[kind]  # type: ignore[index]
        assert gain["low"] is not None
        assert (gain["low"] > 0.02) == there
        assert gain["mean"] < 0.25


def test_nothing_is_measured_on_a_handful_of_conversations() -> None:
    acted, dialogues = logs(default_rng(0), wording=True, dropped=True, talks=10)
    assert measure_overlooked(Plan(Nothing()), acted, dialogues, default_rng(0)) == []
