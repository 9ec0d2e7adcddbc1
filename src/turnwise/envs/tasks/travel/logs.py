"""The scripted travel desk that acts by whim, and the conversations it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.grammar import draw
from turnwise.envs.tasks.travel.desk import DESK
from turnwise.envs.tasks.travel.rules import ACTS, ANSWERS, ASK_PACE, ASK_PLACE, OFFERS
from turnwise.envs.tasks.travel.task import TravelDesk

# The whims and their probabilities: each turn the desk acts by one of them, drawn anew.
ASK_ANY = 0.55  # ask about place or pace, at random
SOOTHE_WHIM = 0.2  # say something soothing
OFFER_ANY = 0.09  # make one of the four offers, at random
OFFER_LIKELIEST = 0.11  # make the offer that is likeliest given the answers so far, ties at random
ASK_AGAIN = 0.05  # ask what was asked last; at random if nothing was


def behavior_probabilities(net: Sequence[int], last: int | None) -> list[float]:
    """The probability of each of `ACTS`, summed over all whims that lead to it.

    `net` are the answers "sea" less those "hills", and "quiet" less "lively". `last` is what was asked last:
    0 place, 1 pace, None nothing yet.
    """
    any_ask = (ASK_ANY + (ASK_AGAIN if last is None else 0.0)) / 2
    asks = [any_ask + (ASK_AGAIN if k == last else 0.0) for k in range(2)]
    likely = [
        float(all(n == 0 or (n > 0) == (value == 0) for n, value in zip(net, offer[1:], strict=True)))
        for offer in OFFERS
    ]
    offers = [OFFER_ANY / len(OFFERS) + OFFER_LIKELIEST * x / sum(likely) for x in likely]
    return [*asks, SOOTHE_WHIM, *offers]


def travel_logs(conversations: int, seed: int, *, acts: bool = False) -> Iterator[dict[str, Any]]:
    """Conversations of the whimsical desk in the log format, one dict each.

    What was earned is the `outcome` of the row. Agent messages carry `behavior_logp`, the exact
    log-probability of the very message: of its act under the mixture of whims, and of its wording. `place`,
    `pace` and `success` are metadata, not for the agent's eyes. `acts`: every message carries its act, and
    the agent's ones `act_logp`, the log of the act's probability under the mixture, whatever its wording.
    The first n conversations are the same whatever the number asked for.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    guest = TravelDesk(acts=True)
    for i, (task_seed, desk_seed) in enumerate(seeds.tolist()):
        row = _converse(guest, task_seed, np.random.default_rng(desk_seed))
        if not acts:
            for message in row["messages"]:
                del message["act"]
                message.pop("act_logp", None)
        yield {"id": f"t-{i + 1:06d}", **row}


def _converse(guest: TravelDesk, task_seed: int, rng: np.random.Generator) -> dict[str, Any]:
    (opening,) = guest.reset([0], [task_seed])
    truth = guest.hidden(0)
    messages: list[dict[str, Any]] = [_as_dict(m) for m in opening]
    net, last = [0, 0], None
    while True:
        probabilities = behavior_probabilities(net, last)
        chosen = draw(probabilities, rng)
        act = ACTS[chosen]
        said = DESK.say(str(act), rng)
        (response,) = guest.step([0], [said.text])
        act_logp = math.log(probabilities[chosen])
        row = {"role": "assistant", "content": said.text, "act": str(act), "act_logp": act_logp}
        messages.append(row | {"behavior_logp": act_logp + said.logp})
        messages += [_as_dict(m) for m in response.messages]
        if response.terminated:
            return {
                "messages": messages,
                "terminated": True,
                "outcome": response.reward,
                "place": truth["place"],
                "pace": truth["pace"],
                "success": response.info["success"],
            }
        if act in (ASK_PLACE, ASK_PACE):
            last = ACTS.index(act)
        heard = ANSWERS.index(response.messages[0].act or "")
        if heard < 4:
            net[heard // 2] += 1 if heard % 2 == 0 else -1


def _as_dict(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, "act": message.act}
