"""The asker that asks by whim, and the conversations it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.grammar import draw, halved
from turnwise.envs.tasks.twenty.game import Games
from turnwise.envs.tasks.twenty.rules import ACTS, ATTRIBUTES, NAMES, TRUE
from turnwise.envs.tasks.twenty.words import ANSWERER, ASKER

# The whims and their probabilities: each turn the asker acts by one of them, drawn anew.
ASK_ANY = 0.65  # ask for an attribute drawn uniformly, also for one that was asked for
GUESS_LIKELIEST = 0.2  # guess one of the objects that fewest answers contradict, drawn uniformly
GUESS_ANY = 0.15  # guess an object drawn uniformly


def contradicted(heard: Sequence[tuple[int, bool]]) -> list[int]:
    """How many answers (attribute, yes) speak against each object; wrong guesses are forgotten."""
    return [sum(TRUE[o][k] != yes for k, yes in heard) for o in range(len(NAMES))]


def behavior_probabilities(against: Sequence[int]) -> list[float]:
    """The probability of each of `ACTS`, summed over all whims, after so many answers against each object."""
    least = min(against)
    tied = against.count(least)
    asks = [ASK_ANY / len(ATTRIBUTES)] * len(ATTRIBUTES)
    guesses = [GUESS_ANY / len(NAMES) + (GUESS_LIKELIEST / tied if n == least else 0.0) for n in against]
    return asks + guesses


def twenty_logs(
    conversations: int, seed: int, *, noisy: bool = False, halved_wordings: bool = False, acts: bool = False
) -> Iterator[dict[str, Any]]:
    """Conversations of the whimsical asker in the log format, one dict each.

    Agent messages carry `reward` and `behavior_logp`, the exact log-probability of the very message: of its
    act under the whole mixture of whims, and of its wording. `object` and `success` are metadata, not for the
    agent's eyes. `halved_wordings`: the other side speaks with half of its wordings. `acts`: every message
    carries its act, and the agent's ones `act_logp`, the log of the act's probability, whatever its wording.
    The first n conversations are the same whatever the number asked for.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    games = Games(halved(ANSWERER) if halved_wordings else ANSWERER, noisy)
    for i, (game_seed, asker_seed) in enumerate(seeds.tolist()):
        row = _converse(games, game_seed, np.random.default_rng(asker_seed))
        if not acts:
            for message in row["messages"]:
                del message["act"]
                message.pop("act_logp", None)
        yield {"id": f"q-{i + 1:06d}", **row}


def _converse(games: Games, game_seed: int, rng: np.random.Generator) -> dict[str, Any]:
    (opening,) = games.reset([0], [game_seed])
    messages: list[dict[str, Any]] = [_as_dict(m) for m in opening]
    heard: list[tuple[int, bool]] = []
    while True:
        probabilities = behavior_probabilities(contradicted(heard))
        chosen = draw(probabilities, rng)
        act = ACTS[chosen]
        said = ASKER.say(str(act), rng)
        (response,) = games.step([0], [said.text])
        logp = math.log(probabilities[chosen])
        row = {"role": "assistant", "content": said.text, "act": str(act), "reward": response.reward}
        messages.append(row | {"act_logp": logp, "behavior_logp": logp + said.logp})
        messages += [_as_dict(m) for m in response.messages]
        if response.terminated:
            truth = {"object": NAMES[games.thing(0)], "success": response.info["success"]}
            return {"messages": messages, "terminated": True, **truth}
        if act.kind == "ask":
            heard.append((act.which, response.messages[0].act == "yes"))


def _as_dict(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, "act": message.act}
