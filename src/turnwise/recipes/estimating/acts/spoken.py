"""A policy that writes its own words, per act: it replies at the logged turns, and a codebook reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from turnwise.data.acts.codebook import Utterance
from turnwise.data.acts.talks import ActLogs, Codes
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.models.lm.parts import context_of
from turnwise.recipes.estimating.acts.steps import ActSteps, expect_act_logp, steps_of, taught
from turnwise.recipes.estimating.text.speakers import encoded
from turnwise.rollout.acts.meant import STRANGER, histories_of, meant
from turnwise.rollout.agent import Agent
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

AGREE = 0.99
"""of logged messages, that must be read by their words alone as the log names them for nothing to be said"""
READ = 5000
"""different logged messages by which that is judged"""


def spoken_steps(
    agent: Agent,
    codes: Codes,
    dialogues: Sequence[Dialogue],
    *,
    seed: int,
    samples: int,
    quiet: bool,
    besides: Sequence[Dialogue] = (),
) -> tuple[ActSteps, list[str]]:
    """What the policy would mean at each logged decision, and what people should know of it; `besides` as of
    `act_steps`.

    InputError for a log-probability above 0, by the conversation's id.
    """
    logs = codes.talks(dialogues)
    expect_act_logp(logs)
    samples = at_most(4, samples)
    rows = encoded(dialogues, agent.chat, context_of(agent.lm), quiet=quiet)
    turns = sum(map(len, logs))
    histories = histories_of(rows)
    with Progress("sampling the policy", sum(h.replies(samples) for h in histories), quiet=quiet) as bar:
        found = meant(agent, codes, dialogues, histories, seed=seed, samples=samples, progress=bar.at)
    notes = [
        f"what the policy means is counted in {found.replies:,} of its replies, {samples} or more at each of "
        f"{turns:,} turns"
    ]
    p, without = found.chances.probabilities, found.without
    strange = float(p[:, :, -1].sum() / turns)
    if strange:
        logs = replace(logs, acts=(*logs.acts, STRANGER))
        notes.append(
            f"{strange:.1%} of what the policy says is like nothing that the codebook has seen: no logged "
            "act stands for it"
        )
    else:
        p, without = p[:, :, :-1], tuple(x[:, :, :-1] for x in without)
    notes += _misread(codes, dialogues, logs)
    steps = steps_of(dialogues, logs, replace(found.chances, probabilities=p), without)
    return taught(steps, codes, besides), notes


def _misread(codes: Codes, dialogues: Sequence[Dialogue], logs: ActLogs) -> list[str]:
    """A word on logged messages that mean one act as the log has them, and another by their words alone:
    replies are read by their words."""
    pairs: dict[tuple[str, int], tuple[int, Utterance]] = {}
    for d, t in zip(dialogues, logs, strict=True):
        places = [i for i, m in enumerate(d.messages) if m.role == d.agent_role]
        for at, act in zip(places, t.acts.tolist(), strict=True):
            text = spoken(d.messages[at])
            count, first = pairs.get((text, act), (0, None))
            pairs[text, act] = (count + 1, first or Utterance(text, (None,), d.messages[:at]))
    most = sorted(pairs.items(), key=lambda pair: -pair[1][0])[:READ]
    read = codes.agent.read([first for _, (_, first) in most]).acts
    counts = np.array([count for _, (count, _) in most])
    same = float(counts @ (read == [act for (_, act), _ in most]) / counts.sum())
    if same >= AGREE:
        return []
    return [
        f"the codebook reads {1 - same:.1%} of the logged messages, by their words alone, as another act "
        "than the logs name: replies are read by their words, and the estimate is off by what that does"
    ]
