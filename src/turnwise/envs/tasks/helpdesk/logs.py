"""The scripted support desk that acts by whim, and the conversations it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import pick, read_answer, wordings

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


def helpdesk_logs(conversations: int, seed: int) -> Iterator[dict[str, Any]]:
    """Conversations of the whimsical desk in the log format, one dict each.

    Agent messages carry `reward` and `behavior_logp`, the log of the probability of the act under the
    whole mixture of whims times that of its wording; every sentence has one meaning, so this is the
    probability of that very message. `fault` and `success` are metadata, not for the agent's eyes.
    The first n conversations are the same whatever the number asked for.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    desk = HelpDesk()
    for i, (task_seed, desk_seed) in enumerate(seeds.tolist()):
        messages, success = _converse(desk, task_seed, np.random.default_rng(desk_seed))
        truth = {"fault": desk.hidden(0)["fault"], "success": success}
        yield {"id": f"h-{i + 1:06d}", "messages": messages, "terminated": True, **truth}


def _converse(desk: HelpDesk, task_seed: int, rng: np.random.Generator) -> tuple[list[dict[str, Any]], bool]:
    (opening,) = desk.reset([0], [task_seed])
    messages: list[dict[str, Any]] = [{"role": m.role, "content": m.content} for m in opening]
    net, last = [0] * len(PARTS), None
    while True:
        probabilities = behavior_probabilities(net, last)
        chosen = _draw(probabilities, rng)
        act, options = ACTS[chosen], wordings(ACTS[chosen])
        text = pick(options, rng)
        (response,) = desk.step([0], [text])
        said = {"role": "assistant", "content": text, "reward": response.reward}
        messages.append(said | {"behavior_logp": math.log(probabilities[chosen] / len(options))})
        messages += [{"role": m.role, "content": m.content} for m in response.messages]
        if response.terminated:
            return messages, response.info["success"]
        last = act.part
        for message in response.messages:
            if (heard := read_answer(message.content)) is not None:
                net[heard[0]] += 1 if heard[1] else -1


def _draw(probabilities: Sequence[float], rng: np.random.Generator) -> int:
    left = rng.random() * math.fsum(probabilities)
    for i, p in enumerate(probabilities):
        left -= p
        if left < 0:
            return i
    return len(probabilities) - 1  # rounding left a remainder
