"""Who a policy of acts talks with while it learns: models learnt from logs, or a task that answers live.

Both give whole talks as episodes of acts, each with the log-probability of the act under the policy that
chose it. What they are a function of is the policy and a seed, so that a run goes on wherever it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from turnwise.data.episode import Episode
from turnwise.envs.dialogue import DialogueTask
from turnwise.exact.learning.model import LearntModel
from turnwise.models.agents.act_critic import ActClone
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, Chooser, Prefix
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.acts.facts import HiddenFacts
from turnwise.rollout.acts.network import NetworkChooser
from turnwise.rollout.acts.simulated import talks_with
from turnwise.rollout.conversations import Conversation
from turnwise.run.errors import InputError

LANES = 256
"""live conversations at a time"""


class Partner(Protocol):
    """Who answers: a task, or models that were learnt of one."""

    def talks(self, policy: ActClone, count: int, seed: tuple[int, ...]) -> tuple[list[Episode], int]:
        """`count` talks with the policy, which says the log-probability of each of its acts; and how many
        more were held that nobody can learn from. The same for the same seed."""
        ...


@dataclass(frozen=True)
class ModelPartner:
    """Models that were learnt from logs. Each talk is with one of them: nobody knows which of them is right.

    `chooser` has the symbols and the acts that may be chosen; its network is replaced by the policy that
    talks.
    """

    models: tuple[LearntModel, ...]
    chooser: NetworkChooser

    def talks(self, policy: ActClone, count: int, seed: tuple[int, ...]) -> tuple[list[Episode], int]:
        """As many with each model, to within one."""
        rng = np.random.default_rng(seed)
        chooser = replace(self.chooser, module=policy)

        def chances(talks: Sequence[Prefix], _: np.ndarray) -> np.ndarray:
            logits, values = chooser.read(talks)
            return chooser.probabilities(logits, values).double().numpy()

        shares = np.bincount(np.arange(count) % len(self.models), minlength=len(self.models))
        # Of talks that do not divide evenly, no model has the odd one always.
        shares = np.roll(shares, int(rng.integers(len(self.models))))
        symbols, found = self.chooser.symbols, list[Episode]()
        for model, n in zip(self.models, shares.tolist(), strict=True):
            for x in talks_with(model, chances, n, rng) if n else ():
                observations = symbols.observations(x.talk.first, x.talk.answers)
                found.append(_episode(observations, x.talk.acts, x.talk.rewards, x.logp, x.terminated))
        return found, 0


@dataclass(frozen=True)
class LivePartner:
    """A task. Acts are worded by the agent's voice, and answers are read by its codebooks.

    A talk in which something else than the policy chose (its words were not understood, an act had no words),
    or whose partner failed, is held, and nothing is learnt from it.
    """

    task: DialogueTask
    agent: ActAgent
    chooser: NetworkChooser
    facts: HiddenFacts | None = None
    """what the episodes hold as their states, for V alone"""

    def talks(self, policy: ActClone, count: int, seed: tuple[int, ...]) -> tuple[list[Episode], int]:
        """Conversations of other partners for every seed."""
        agent = replace(self.agent, chooser=_Noting(replace(self.chooser, module=policy)))
        own = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 2)
        held = converse_in_acts(agent, self.task, episodes=range(count), seed=own, lanes=LANES)
        found = [c for c in held if not c.failed and all(t["by"] == "chooser" for t in c.turns)]
        if not found:
            raise InputError(
                f"nothing can be learnt from any of {count:,} conversations: the partner failed in "
                f"{sum(c.failed for c in held):,}, and in the others something else than the policy chose"
            )
        read = self.agent.codes.talks([c.dialogue for c in found])
        symbols = self.chooser.symbols
        return [
            _of_live(c, symbols.observations(x.first, x.answers), self.agent, self.facts)
            for c, x in zip(found, read, strict=True)
        ], len(held) - len(found)


@dataclass(frozen=True)
class _Noting:
    """A chooser that notes how probable its act was."""

    chooser: Chooser

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        found = self.chooser.choose(talks, rngs)
        return [
            replace(c, trace={**c.trace, "logp": float(np.log(c.probabilities[c.act]))})
            for c in found
            if c.probabilities is not None
        ]


def _of_live(
    c: Conversation, observations: np.ndarray, agent: ActAgent, facts: HiddenFacts | None
) -> Episode:
    names = {name: i for i, name in enumerate(agent.codes.acts)}
    acts = np.array([names[t["act"]] for t in c.turns], np.int64)
    rewards = np.array([m.reward for m in c.dialogue.turns])
    logp = np.array([t["logp"] for t in c.turns])
    found = _episode(observations, acts, rewards, logp, c.dialogue.terminated)
    if facts is None:
        return found
    return replace(found, states=np.tile(facts.numbers(c.hidden), (len(observations), 1)))


def _episode(
    observations: np.ndarray, acts: np.ndarray, rewards: np.ndarray, logp: np.ndarray, terminated: bool
) -> Episode:
    return Episode(
        observations=observations,
        actions=np.asarray(acts, np.int64),
        rewards=np.asarray(rewards, np.float64),
        terminated=terminated,
        truncated=not terminated,
        behavior_logp=logp,
    )
