"""What an estimate comes to, however the policy was asked: by its acts, its messages or its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from turnwise.evaluation.estimates.foretelling.questions import Foretold
from turnwise.evaluation.estimates.logged import Logged
from turnwise.recipes.estimating.curve import Curve, Promises
from turnwise.recipes.estimating.estimators import Others, Sampling
from turnwise.rollout.acts.chooser import Chooser

Per = Literal["act", "turn", "token"]


@dataclass(frozen=True)
class Ground:
    """What steps of acts are made of that can talk."""

    clones: tuple[Chooser, ...]
    """of the logged agent"""
    acts: np.ndarray
    """[K], how often the logged agent means each act, as the clones say"""
    curve: Callable[[], Curve]
    """what the logs say of steps from the clones, which takes a while"""


@dataclass(frozen=True)
class Answer:
    """Everything that is measured of one policy, before it is written down."""

    per: Per
    """what a decision is"""
    logged: Logged
    sampling: Sampling
    behaviour: Mapping[str, Any]
    """what is known of the policy that talked, as a result says it"""
    curve: Curve
    names: Sequence[str]
    """what the policy may mean or say, by its number"""
    warnings: Sequence[str]
    promises: Promises | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    """of estimates that are made in another way than their name says, by name"""
    support: Mapping[str, Any] = field(default_factory=dict)
    """what else is said of the support"""
    partings: Sequence[Mapping[str, Any]] = ()
    """where the policy parts ways with the logged agent, if that is known"""
    messages: Logged | None = None
    """the same by whole messages, if decisions are tokens: hidden confounding is of what an agent means"""
    others: Others = field(default_factory=Others)
    """the same logs as they might be seen, if probabilities are estimated or counted"""
    final: str = ""
    """why nothing here can tell, whatever the verdict; nothing if there is no such reason"""
    told: Foretold = field(default_factory=Foretold)
    """what acts and models leave out, as far as that was asked"""
    ground: Ground | None = None
    """of which steps are made that can talk; None for a policy that writes its own words"""
