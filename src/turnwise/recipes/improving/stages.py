"""The stages from logs to policies: what each is, what it needs, what it takes.

logs ─► acts ─┬► POMDP, plan ──► practice with its models
              ├► clone, Monte-Carlo values, IQL, of acts
              └► the second model, of the conversations that the others have not seen
     └► clone of words ─► values of words                                   (preset: all)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from turnwise.recipes.settings.improve import ImproveSettings

ACTS, PLAN, CLONE, SECOND = "acts", "plan", "act-clone", "second-model"
"""folders that others speak of"""


@dataclass(frozen=True)
class Stage:
    """A run of an algorithm."""

    name: str
    """its folder"""
    title: str
    about: str
    """what it is for, one phrase"""
    algorithm: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """fields of the algorithm's `Config`"""
    needs: Mapping[str, str] = field(default_factory=dict)
    """keywords of `fit` that are folders of other stages"""
    learns: Literal["learnt", "held", "nothing"] = "learnt"
    """the part of the logs that it learns from; nothing: it talks with the models of its `partner`"""
    partner: str | None = None
    """folder of the stage whose models it talks with"""
    candidate: bool = True
    """whether it is a policy to choose from"""
    critic: bool = False
    """whether it is tried at several strengths"""
    per_thousand: float = 0.0
    """seconds for a thousand turns of the agent, measured on HelpDesk (two acts a part, sentences found) on
    one core of a laptop: a first guess, and what has been done corrects it"""
    fixed: float = 4.0
    """seconds beside: what it takes to start, and to write the page"""

    @property
    def after(self) -> frozenset[str]:
        """Stages that must be done before."""
        return frozenset([*self.needs.values(), *([] if self.partner is None else [self.partner])])


def stages_of(s: ImproveSettings) -> list[Stage]:
    """Those of a preset, in the order in which they are best begun."""
    acts = {"acts": ACTS}
    found = [
        Stage(ACTS, "acts", "what messages mean, so that what was meant can be counted", "acts",
              candidate=False, per_thousand=3.3),
        Stage(PLAN, "plan in a learnt model",
              "a model of the conversation's hidden state, learnt by EM, and the best plan in it", "pomdp",
              needs=acts, per_thousand=3.5),
        Stage(SECOND, "second model", "the same, learnt from the conversations that judge: it knows nothing "
              "of what the others have learnt, and says what they would earn", "pomdp",
              needs=acts, learns="held", candidate=False, per_thousand=3.5),
        Stage(CLONE, "clone", "what the logged agent would do next", "act-bc", needs=acts, per_thousand=0.8),
        Stage("act-mc", "Monte-Carlo values", "what each act was worth, by what followed", "act-mc",
              needs=acts, critic=True, per_thousand=1.1),
        Stage("act-iql", "IQL", "what each act would be worth, if better ones followed", "act-iql",
              needs=acts, critic=True, per_thousand=1.4),
    ]  # fmt: skip
    if s.preset == "all" and s.practice:
        found.append(
            Stage("practice", "practice", "the clone, improved by talking with the plan's models", "act-ppo",
                  {"talks": s.practice}, {"policy": CLONE}, "nothing", PLAN,
                  fixed=4 + s.practice / 600)
        )  # fmt: skip
    if s.preset == "all":
        found += [
            Stage("clone", "clone of words", "what the logged agent would say next", "bc", per_thousand=25),
            Stage("ilql", "ILQL", "values of words", "ilql", needs={"policy": "clone"}, critic=True,
                  per_thousand=40),
        ]  # fmt: skip
    return found
