"""Clones of the logged agent's acts: a regression on what was exchanged, a network, a recurrent one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities
from turnwise.evaluation.measures.exchange_network import exchange_network
from turnwise.evaluation.measures.exchanges import exchange_acts
from turnwise.evaluation.measures.next_acts import recurrent_clone
from turnwise.rollout.acts.chooser import Prefix, draw
from turnwise.rollout.acts.imitation.frequencies import timed_acts
from turnwise.rollout.acts.logged import chances


def test_an_agent_that_goes_by_counts_is_cloned_from_few_talks() -> None:
    """The scripted desk takes each act by what was answered so far: 400 talks come within .06 nats of the
    truth on others, where frequencies after the last answer stay .07 away."""
    rng = np.random.default_rng(0)
    talks = [desk_talk(rng) for _ in range(800)]
    names = [tuple(f"{side}{i}" for i in range(n)) for side, n in (("a", 8), ("o", 9))]
    logs = ActLogs(tuple(t for t, _ in talks), names[0], names[1], ("hello",))
    learnt, held = logs.talks[:400], logs.talks[400:]
    true = np.concatenate([p for _, p in talks[400:]])
    prefixes = [Prefix.of(0, t.acts[:k], t.answers[:k]) for t in held for k in range(len(t))]

    def divergence(chooser: object) -> float:
        p = chances(chooser, prefixes, 8)  # type: ignore[arg-type]
        np.testing.assert_allclose(p.sum(1), 1)
        return float((true * np.log(true / p)).sum(1).mean())

    read, again = (exchange_network(logs, learnt, seed=s) for s in (0, 0))
    assert divergence(read) < 0.06
    np.testing.assert_array_equal(
        chances(read, prefixes, 8), chances(again, prefixes, 8)
    )  # of the seed alone
    found = exchange_acts(logs, learnt)
    assert found.symbols == ActSymbols(8, 9, 1)
    assert divergence(found) < 0.06 and divergence(timed_acts(logs, learnt)) > 0.07


def desk_talk(rng: np.random.Generator) -> tuple[ActTalk, np.ndarray]:
    """A talk with the scripted desk of HelpDesk, and its probabilities [K, 8]."""
    fault, net, last = int(rng.integers(4)), [0] * 4, None
    acts, answers, chance = list[int](), list[int](), list[list[float]]()
    for _ in range(8):
        p = behavior_probabilities(net, last)
        a = draw(np.array(p), rng)
        acts.append(a)
        chance.append(p)
        if a >= 4:
            answers.append(0)
            break
        broken = (a == fault) == (rng.random() < 0.85)
        net[a] += 1 if broken else -1
        answers.append(1 + 2 * a + int(broken))
        last = a
    return act_talk(acts, answers), np.array(chance)


def act_talk(acts: Sequence[int], answers: Sequence[int]) -> ActTalk:
    nan = np.full(len(acts), np.nan)
    return ActTalk(0, np.array(acts), np.array(answers), np.zeros(len(acts)), True, nan, nan)


def test_a_network_knows_which_count_leads() -> None:
    """The agent does 2, in nine of ten talks, if "yes" came oftener after act 0 than after act 1, else 3. A
    network comes within .05 of that, where a regression on the same counts stays further away."""
    rng, nan, talks = np.random.default_rng(0), np.full(7, np.nan), []
    for _ in range(3500):
        acts, answers = rng.integers(2, size=6), rng.integers(1, 3, size=6)
        lead = ((acts == 0) & (answers == 2)).sum() > ((acts == 1) & (answers == 2)).sum()
        last = 2 if lead == (rng.random() < 0.9) else 3
        talks.append(ActTalk(0, np.append(acts, last), np.append(answers, 0), np.zeros(7), True, nan, nan))
    logs = ActLogs(tuple(talks), ("a", "b", "c", "d"), ("(nothing)", "no", "yes"), ("hello",))
    held = talks[3000:]
    true = [
        ((t.acts[:6] == 0) & (t.answers[:6] == 2)).sum() > ((t.acts[:6] == 1) & (t.answers[:6] == 2)).sum()
        for t in held
    ]
    prefixes = [Prefix.of(0, t.acts[:6], t.answers[:6]) for t in held]
    away = [
        np.abs(chances(c, prefixes, 4)[:, 2] - np.where(true, 0.9, 0.1)).mean()
        for c in (exchange_network(logs, talks[:3000]), exchange_acts(logs, talks[:3000]))
    ]
    assert away[0] < 0.05 < away[1], away


def test_it_remembers_what_frequencies_forget() -> None:
    """The agent does at its third turn what it did at its first, with .9, and act 2 between them. 300 talks
    are enough to know that to .1."""
    rng, nan, talks = np.random.default_rng(0), np.full(3, np.nan), []
    for _ in range(300):
        first = int(rng.integers(2))
        acts = np.array([first, 2, first if rng.random() < 0.9 else 1 - first])
        talks.append(ActTalk(0, acts, np.array([1, 1, 0]), np.zeros(3), True, nan, nan))
    logs = ActLogs(tuple(talks), ("a", "b", "c"), ("(nothing)", "yes"), ("hello",))
    found = recurrent_clone(logs, logs.talks)
    p = chances(found, [Prefix.of(0, [a, 2], [1, 1]) for a in (0, 1)], 3)
    np.testing.assert_allclose(p, [[0.9, 0.1, 0], [0.1, 0.9, 0]], atol=0.1)
