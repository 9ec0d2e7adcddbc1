"""A policy that writes its own words, per turn: a decision is a message, its stop token included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.evaluation.estimates.fitted_v import fitted_v
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.sampled_coverage import Places, places, sampled_coverage
from turnwise.evaluation.estimates.step_curve import STEPS, logged_distance, mixed
from turnwise.evaluation.estimates.support import Coverage, Evidence, evenness, shares
from turnwise.recipes.estimating.answer import Answer
from turnwise.recipes.estimating.curve import curve_of
from turnwise.recipes.estimating.estimators import Sampling
from turnwise.recipes.estimating.folds import folds_of
from turnwise.recipes.estimating.text.behaviour import message_behaviour
from turnwise.recipes.estimating.text.sentences import Sentences
from turnwise.recipes.estimating.text.speakers import Speaker, before
from turnwise.recipes.estimating.text.steps import TurnSteps, turn_steps
from turnwise.run.rehearsal import at_most

SAME = 1e-3
"""nats between log-probabilities of one message that are one: recorded ones and computed ones differ by
rounding"""
SAMPLED = 200
"""turns at which the policy is let speak, to see what of it the logs hold"""
FINE = 0.8
"""of what the logged agent did that must be held in like situations for these to be told apart finely"""
WORDS = {
    "fqe": "fitted values of histories, uncorrected",
    "magic": "MAGIC: fitted values for the far future, logs for the near one",
}


def turn_answer(
    speaker: Speaker,
    dialogues: Sequence[Dialogue],
    sampling: Sampling,
    *,
    discount: float,
    quiet: bool,
    besides: Sequence[Dialogue] = (),
) -> Answer:
    """All estimates of a policy that writes, by whole messages. `sampling.within` is taken as it is;
    `besides`: see `TurnSteps`."""
    steps, seed, clusters = turn_steps(dialogues, besides), sampling.seed, sampling.clusters
    scores, notes = speaker.score(dialogues, seed=seed, quiet=quiet)
    target = steps.padded(np.minimum(scores, 0.0))
    behaviour = message_behaviour(steps, clusters, seed=seed, quiet=quiet)
    logged, same = messages(steps, target, behaviour.logp, discount)
    sentences = Sentences.of(steps)
    v = fitted_v(sentences.histories, logged, folds_of(len(dialogues), clusters, seed))
    logged = replace(logged, q=v, v=v)
    held = None if same else Held.of(speaker, steps, sentences, logged, seed, quiet)
    ways = [mixed(logged, t) for t in STEPS]
    distances = np.array([logged_distance(x) for x in ways])
    return Answer(
        per="turn",
        logged=logged,
        sampling=sampling,
        behaviour=behaviour.facts,
        curve=curve_of("mixed", STEPS, ways, distances, evidence_at(ways, held, clusters), sampling),
        names=sentences.names,
        warnings=[*notes, *warnings_of(steps, behaviour.facts)],
        words=WORDS,
        support={"sampled_turns": 0 if held is None else len(held.at)},
    )


def messages(
    steps: TurnSteps, target: np.ndarray, behavior: np.ndarray, discount: float
) -> tuple[Logged, bool]:
    """Messages with their log-probabilities [B, A]; and whether policy and logged agent are one."""
    same = np.allclose(target[steps.mask], behavior[steps.mask], rtol=0, atol=SAME)
    logp = behavior if same else target
    return Logged(steps.rewards, steps.mask, discount, logp, behavior), same


def evidence_at(
    ways: Sequence[Logged], held: Held | None, clusters: np.ndarray | None
) -> Callable[[int, tuple[float, float]], Evidence]:
    """What the logs hold of each step, by whole messages; `held` None: all of it."""

    def found(i: int, interval: tuple[float, float]) -> Evidence:
        x = ways[i]
        return Evidence(
            conversations=len(x.mask) if clusters is None else len(np.unique(clusters)),
            evenness=evenness(x.log_weights, clusters),
            coverage=_whole(x) if held is None else held.covered(x, STEPS[i], clusters),
            interval=(float(interval[0]), float(interval[1])),
            returns=(float(x.returns.min()), float(x.returns.max())),
            unit="conversation" if clusters is None else "cluster",
        )

    return found


@dataclass(frozen=True)
class Held:
    """Where a policy was let speak, and what of it the logs hold."""

    at: Places
    drawn: np.ndarray
    """numbers of the sentences that it said there"""
    sentences: Sentences

    @classmethod
    def of(
        cls, speaker: Speaker, steps: TurnSteps, sentences: Sentences, logged: Logged, seed: int, quiet: bool
    ) -> Held:
        """Let it speak at some `SAMPLED` turns."""
        rng = np.random.default_rng((seed, 8))
        count = min(at_most(10, SAMPLED), 4 * int(steps.mask.sum()))
        at = places(steps.mask, logged.log_ratios, count, rng)
        turns = zip(at.episode.tolist(), at.decision.tolist(), strict=True)
        talks = [before(steps.dialogues[b], k) for b, k in turns]
        said = speaker.say(talks, rng.integers(2**63, size=len(at)).tolist(), quiet=quiet)
        spoke = np.array([x is not None for x in said])
        return cls(at.some(spoke), sentences.read([x for x in said if x is not None]), sentences)

    def covered(self, logged: Logged, step: float, clusters: np.ndarray | None) -> Coverage:
        """In situations as finely told apart as the logs allow."""
        found = None
        for histories in self.sentences.histories:
            found = sampled_coverage(
                self.at,
                self.drawn,
                self.sentences.said,
                histories,
                logged.mask,
                log_ratios=logged.log_ratios,
                step=step,
                clusters=clusters,
            )
            if found.of_logged >= FINE:
                break
        assert found is not None
        return found


def _whole(logged: Logged) -> Coverage:
    """Of a policy that the logs cannot tell from the logged agent: all of it is there."""
    _, running = shares(logged.mask, None)
    ones = np.ones(len(running))
    return Coverage(1.0, ones, running, 1.0, ones, 0.0, ())


def warnings_of(steps: TurnSteps, facts: dict) -> list[str]:
    """What people should know of the probabilities of logged messages, and of cuts."""
    found, turns = [], int(steps.mask.sum())
    if facts["source"] == "partly logged":
        b = int(np.argmax((steps.mask & np.isnan(steps.message_logp)).any(1)))
        found.append(
            f"{facts['missing']:,} of {turns:,} messages of the agent have no behavior_logp, the first in "
            f"conversation {steps.dialogues[b].id!r}: how probable they were is estimated"
        )
    if facts["source"] != "logged":
        found.append(
            "the logs do not say how probable all of the agent's messages were (behavior_logp): that is "
            "estimated, and the error of it is not in the intervals"
        )
    if steps.cut:
        found.append(f"{steps.cut:,} conversations were cut: returns count what was earned until then")
    return found
