"""A step from the logged agent towards a policy of acts, as a policy that can talk.

    mixed     step(a) = (1 - t) before(a) + t policy(a)        a coin at each turn
    tilted    step(a) ~ before(a)^(1 - t) policy(a)^t          the geometric mean

`before` is the mean of clones of the logged agent. What such steps are worth, logs can say where they cannot
say it of the policy (`evaluation/estimates/step_curve.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, Chooser, Prefix, draw

Way = Literal["tilted", "mixed"]
POLICY, BEFORE = "policy", "logged agent"
"""who chose, in the trace of a mixed step"""
VALUES = ("v", "q", "chosen_q", "values")
"""entries of a trace that say what the policy expects of itself"""


@dataclass(frozen=True)
class StepChooser:
    """Chooses as the step `t` does, from the mean of `before` (0) to `policy` (1)."""

    before: tuple[Chooser, ...]
    policy: Chooser
    t: float
    way: Way = "mixed"

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """The next act in each talk, drawn; what the policy could make nothing of is strange here too."""
        if not talks:
            return []
        wanted = self.policy.choose(talks, rngs)
        clones = [clone.choose(talks, rngs) for clone in self.before]
        known = [c.probabilities for choices in clones for c in choices if c.probabilities is not None]
        size = len(known[0]) if known else max(c.act for x in (wanted, *clones) for c in x) + 1
        before = np.mean([[_chances(c, size) for c in choices] for choices in clones], axis=0)  # [N, A]
        policy = np.stack([_chances(c, size) for c in wanted])
        p = between(before, policy, np.full(len(talks), self.t), self.way)
        found = []
        for i, (choice, rng) in enumerate(zip(wanted, rngs, strict=True)):
            # Values are those of the policy, and promise nothing of a step.
            trace: dict[str, Any] = {k: x for k, x in choice.trace.items() if k not in VALUES}
            if self.way == "tilted":
                act = draw(p[i], rng)
            else:
                taken = rng.random() < self.t
                act = choice.act if taken else draw(before[i], rng)
                trace["chosen_by"] = POLICY if taken else BEFORE
            found.append(replace(choice, act=act, probabilities=p[i], trace=trace))
        return found


def step_of(agent: ActAgent, before: tuple[Chooser, ...], t: float, way: Way) -> ActAgent:
    """The agent that goes the step `t` towards `agent` at every turn, those of its fallback included.

    ValueError for a step that is none, and for no clone.
    """
    if not 0 <= t <= 1 or not before:
        raise ValueError(f"t is {t}, with {len(before)} clones; expected a number from 0 to 1, and a clone")
    fallback = None if agent.fallback is None else StepChooser(before, agent.fallback, t, way)
    return replace(agent, chooser=StepChooser(before, agent.chooser, t, way), fallback=fallback)


def towards(agent: ActAgent) -> ActAgent:
    """The agent that a step goes to. TypeError for one that is no step."""
    if not isinstance(agent.chooser, StepChooser):
        raise TypeError(f"{type(agent.chooser).__name__} is no step")
    fallback = agent.fallback.policy if isinstance(agent.fallback, StepChooser) else agent.fallback
    return replace(agent, chooser=agent.chooser.policy, fallback=fallback)


def between(before: np.ndarray, policy: np.ndarray, t: np.ndarray, way: Way) -> np.ndarray:
    """[N, K], the step t [N] between two sets of probabilities."""
    t = t[:, None]
    mixed = (1 - t) * before + t * policy
    if way == "mixed":
        return mixed
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(t == 0, 0.0, t * np.log(policy)) + np.where(t == 1, 0.0, (1 - t) * np.log(before))
        p = np.exp(logs - logs.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
    return np.where(np.isfinite(p).all(1, keepdims=True), p, mixed)  # nothing in common: a coin


def _chances(choice: Choice, size: int) -> np.ndarray:
    """[A], those that a choice was drawn with; 1 for the act itself if there are none."""
    if choice.probabilities is None:
        return np.eye(size)[choice.act]
    return np.asarray(choice.probabilities, np.float64)
