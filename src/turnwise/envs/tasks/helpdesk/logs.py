"""The scripted support desk that acts by whim, and the conversations it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.customer import Customer
from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS
from turnwise.envs.tasks.helpdesk.words import Phrasebook, pick, read_answer, wordings

# The whims and their probabilities: each turn the desk acts by one of them, drawn anew.
TEST_ANY = 0.75  # test a part drawn uniformly
FIX_ANY = 0.08  # fix a part drawn uniformly
FIX_LIKELIEST = 0.12  # fix the likeliest part given the answers so far, ties drawn uniformly
TEST_AGAIN = 0.05  # test the part tested last; one drawn uniformly if there is none


def behavior_probabilities(net: Sequence[int], last: int | None) -> list[float]:
    """The probability of each of `ACTS` (tests, then fixes), summed over all whims that lead to it.

    `net[k]` is the number of answers "part k is broken" less the number of "part k is fine": the
    posterior of part k is proportional to (0.85/0.15)^net[k], so the likeliest part has the largest net.
    `last` is the part tested last.
    """
    n = len(PARTS)
    best = max(net)
    tied = sum(c == best for c in net)
    any_test = (TEST_ANY + (TEST_AGAIN if last is None else 0.0)) / n
    tests = [any_test + (TEST_AGAIN if k == last else 0.0) for k in range(n)]
    fixes = [FIX_ANY / n + (FIX_LIKELIEST / tied if c == best else 0.0) for c in net]
    return tests + fixes


def helpdesk_logs(
    conversations: int, seed: int, *, halved: bool = False, outcome_at_end: bool = False, acts: bool = False
) -> Iterator[dict[str, Any]]:
    """Conversations of the whimsical desk in the log format, one dict each.

    Agent messages carry `reward` and `behavior_logp`, the log of the probability of the act under the
    whole mixture of whims times that of its wording; every sentence has one meaning, so this is the
    probability of that very message. `fault` and `success` are metadata, not for the agent's eyes.
    The first n conversations are the same whatever the number asked for.

    `halved`: the customer speaks with half of its wordings. `outcome_at_end`: the sum of the rewards is the
    `outcome` of the row, and messages carry none. `acts`: every message carries its act, and the agent's
    ones `act_logp`, the log of the act's probability under the whole mixture, whatever its wording.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    customer = Customer(Phrasebook(halved))
    for i, (task_seed, desk_seed) in enumerate(seeds.tolist()):
        messages, success = talk_by_whim(customer, task_seed, np.random.default_rng(desk_seed))
        truth = {"fault": customer.hidden(0)["fault"], "success": success}
        row: dict[str, Any] = {"id": f"h-{i + 1:06d}", "messages": messages, "terminated": True}
        if outcome_at_end:
            row["outcome"] = math.fsum(m.pop("reward") for m in messages if m["role"] == "assistant")
        if not acts:
            for message in messages:
                del message["act"]
                message.pop("act_logp", None)
        yield row | truth


def talk_by_whim(
    customer: Customer, task_seed: int, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], bool]:
    """One conversation of the whimsical desk with the customer of that seed: its messages, with acts and
    exact probabilities, and whether the right part was fixed. `rng` draws the desk's whims and wordings."""
    (opening,) = customer.reset([0], [task_seed])
    messages: list[dict[str, Any]] = [_as_dict(m) for m in opening]
    net, last = [0] * len(PARTS), None
    while True:
        probabilities = behavior_probabilities(net, last)
        chosen = _draw(probabilities, rng)
        act, options = ACTS[chosen], wordings(ACTS[chosen])
        text = pick(options, rng)
        (response,) = customer.step([0], [text])
        said = {"role": "assistant", "content": text, "act": str(act), "reward": response.reward}
        p = probabilities[chosen]
        messages.append(said | {"act_logp": math.log(p), "behavior_logp": math.log(p / len(options))})
        messages += [_as_dict(m) for m in response.messages]
        if response.terminated:
            return messages, response.info["success"]
        last = act.part
        for message in response.messages:
            if (heard := read_answer(message.content)) is not None:
                net[heard[0]] += 1 if heard[1] else -1


def _as_dict(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, "act": message.act}


def _draw(probabilities: Sequence[float], rng: np.random.Generator) -> int:
    left = rng.random() * math.fsum(probabilities)
    for i, p in enumerate(probabilities):
        left -= p
        if left < 0:
            return i
    return len(probabilities) - 1  # rounding left a remainder
