"""A policy that writes its own words, per token: a decision is a token of the agent, stop tokens included.

What a message earned follows its last token. Whole-conversation and per-decision importance sampling are
therefore what they are per turn, whatever is known of single tokens: no reward comes in mid-message. The
other estimates weigh and value what lies within messages too. Steps towards the policy, and what the logs
hold of them, are those of whole messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.evaluation.estimates.fitted_v import fitted_v
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.step_curve import STEPS, logged_distance, mixed, mixed_messages
from turnwise.models.lm.parts import context_of
from turnwise.recipes.estimating.answer import Answer
from turnwise.recipes.estimating.curve import curve_of
from turnwise.recipes.estimating.estimators import Sampling
from turnwise.recipes.estimating.folds import folds_of
from turnwise.recipes.estimating.text.behaviour import token_behaviour
from turnwise.recipes.estimating.text.sentences import Sentences, spelt
from turnwise.recipes.estimating.text.speakers import LmSpeaker, Spoken, encoded
from turnwise.recipes.estimating.text.steps import TurnSteps, turn_steps
from turnwise.recipes.estimating.text.turns import WORDS, Held, evidence_at, messages, warnings_of

ALONE = (
    "importance sampling, weighted or not, and its per-decision form are per token what they are per turn; "
    "the other estimates lean on how probable each token was for the logged agent"
)


@dataclass(frozen=True)
class TokenSteps:
    """Logged tokens on the decision axis: B conversations of up to A tokens of the agent, N in all."""

    logged: Logged
    """without values"""
    turn: np.ndarray
    """[N] int, the number of each token's message in its conversation"""
    first: np.ndarray
    """[B, A] bool, where a message begins"""

    @classmethod
    def of(
        cls, steps: TurnSteps, said: Spoken, behavior: np.ndarray, discount: float, *, same: bool
    ) -> TokenSteps:
        """`said` are the tokens as the policy would say them, `behavior` [N] as the logged agent did; `same`:
        both are one. The discount is per message: rewards are as they are worth at the beginning."""
        episode, turn = (x[said.turn] for x in np.nonzero(steps.mask))  # [N] each
        sizes = np.bincount(episode, minlength=len(steps.mask))
        mask = np.arange(sizes.max()) < sizes[:, None]
        earned = np.where(said.last, steps.rewards[episode, turn] * float(discount) ** turn, 0.0)
        logp = behavior if same else np.minimum(said.logp, 0.0)
        rewards, logp, behavior, first = (_padded(x, mask) for x in (earned, logp, behavior, said.place == 0))
        return cls(Logged(rewards, mask, 1.0, logp, behavior), turn, first)

    def padded(self, flat: np.ndarray) -> np.ndarray:
        """Numbers of all tokens [N] as [B, A], 0 behind the end."""
        return _padded(flat, self.logged.mask)


def _padded(flat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    found = np.zeros(mask.shape, flat.dtype)
    found[mask] = flat
    return found


def token_answer(
    speaker: LmSpeaker,
    dialogues: Sequence[Dialogue],
    sampling: Sampling,
    *,
    discount: float,
    quiet: bool,
    besides: Sequence[Dialogue] = (),
) -> Answer:
    """All estimates of a policy that writes, by its tokens. `sampling.within` is taken as it is; `besides`:
    see `TurnSteps`."""
    agent, seed, clusters = speaker.agent, sampling.seed, sampling.clusters
    steps = turn_steps(dialogues, besides)
    behavior, facts = token_behaviour(steps, agent.tokenizer, clusters, seed=seed, quiet=quiet)
    rows = encoded(dialogues, agent.chat, context_of(agent.lm), quiet=quiet)
    said, notes = speaker.tokens(rows, quiet=quiet)
    own, logged_own = said.by_turn, np.array([x.sum() for x in behavior])  # [M] each
    whole, same = messages(steps, steps.padded(np.minimum(own, 0.0)), steps.padded(logged_own), discount)
    tokens = TokenSteps.of(steps, said, np.concatenate(behavior), discount, same=same)
    sentences = Sentences.of(steps)
    stage = tokens.padded(said.place + (int(said.place.max()) + 1) * tokens.turn)
    keys = [tokens.padded(x) for x in spelt(sentences.histories, said.parted(said.ids), steps.mask)]
    v = fitted_v(keys, tokens.logged, folds_of(len(dialogues), clusters, seed), stage=stage)
    logged = replace(tokens.logged, q=v, v=v)
    held = None if same else Held.of(speaker, steps, sentences, whole, seed, quiet)
    wholes = [mixed(whole, t) for t in STEPS]
    ways = [mixed_messages(logged, t, tokens.first) for t in STEPS]
    distances = np.array([logged_distance(x) for x in wholes])
    return Answer(
        per="token",
        logged=logged,
        sampling=sampling,
        behaviour=facts,
        curve=curve_of("mixed", STEPS, ways, distances, evidence_at(wholes, held, clusters), sampling),
        names=sentences.names,
        warnings=[*notes, *warnings_of(steps, facts), ALONE],
        words=WORDS,
        support={"sampled_turns": 0 if held is None else len(held.at)},
        messages=whole,
    )
