"""What a training reads and what it begins with, as flags: a dataclass for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SOURCES = ("logs", "feedback", "prompts", "env", "partner", "task")
"""flags that say what is read, as `fit` takes it as its data"""


@dataclass(frozen=True)
class LogSource:
    """The logged conversations."""

    logs: str
    """JSONL or Parquet file, a folder of them, or a datasets name or folder."""


@dataclass(frozen=True)
class LogOrEnvironment:
    """What is learnt from: one of the two."""

    logs: str | None = None
    """JSONL or Parquet file, a folder of them, or a datasets name or folder."""
    env: str | None = None
    """An environment, of which random episodes are drawn: one of ours (tiger, cheese, ...), a .pomdp file, or
    an id of Gymnasium or a module:Class whose observations and actions can be counted."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, each as KEY=VALUE or all as one JSON object."""


@dataclass(frozen=True)
class PolicySource:
    """The policy to begin with."""

    policy: str
    """Run folder of a cloned policy (turnwise train bc), any language model by folder or name, or the folder
    of an adapter (peft)."""


@dataclass(frozen=True)
class PolicyBeside:
    """A policy that helps out."""

    policy: str | None = None
    """Run folder of a cloned policy (turnwise train bc): it speaks if the plan is lost, and words acts if
    voice is model."""


@dataclass(frozen=True)
class AgentSource:
    """The agent to begin with."""

    policy: str | None = None
    """Run folder of an agent for the same observations and actions, which goes on learning from its weights;
    its memory comes along. none: a fresh agent."""


@dataclass(frozen=True)
class ActSource:
    """The acts."""

    acts: str | None = None
    """Folder of codebooks, or of the run that made them; none: they are made of the logs that are learnt
    from."""


@dataclass(frozen=True)
class PartnerSource:
    """Whom the agent talks with."""

    partner: str
    """A task (helpdesk, ..., module:Task), the run of a plan (turnwise train pomdp), whose learnt models
    answer, or that of a partner from logs (turnwise train partner)."""


@dataclass(frozen=True)
class TalkerSource:
    """The agent to begin with."""

    policy: str | None = None
    """Run folder of an agent of acts with a network (act-bc, act-mc, act-iql, act-cql): it goes on from the
    weights of its clone, and from V of its critic. none: a fresh agent."""
    acts: str | None = None
    """Folder of codebooks, or of the run that made them, by which a fresh agent speaks; none: those of the
    plan that it talks with."""


@dataclass(frozen=True)
class TaskSource:
    """Whom the policy talks with."""

    task: str
    """A task, with its settings in the same words: helpdesk, "helpdesk unseen_wordings=true", module:Task; or
    the run of a partner from logs (turnwise train partner), or of a plan (turnwise train pomdp)."""


@dataclass(frozen=True)
class CriticBeside:
    """A critic of logs."""

    critic: str | None = None
    """Run folder of a critic that was learnt on this policy (mc, ilql, turn-iql): V begins as its V.
    Optimizer, schedule and step count begin anew. none: V begins at the mean return."""


@dataclass(frozen=True)
class LogsBeside:
    """Logged conversations that a critic learns from beside live ones."""

    replay_logs: str | None = None
    """JSONL or Parquet file, a folder of them, or a datasets name or folder: best the logs of the policy's
    clone. none: the critic learns from live conversations alone."""


@dataclass(frozen=True)
class CriticSource:
    """The critic that says what was good."""

    critic: str
    """Run folder of a critic of tokens or turns that was learnt on this policy (mc, ilql, turn-iql)."""


@dataclass(frozen=True)
class BeliefBeside:
    """What stands for a state."""

    belief: str | None = None
    """Run of a plan with the same acts (turnwise train pomdp): conversations with the same turn and belief,
    to one decimal, are at an equal state. none: those with the same acts and answers so far."""


@dataclass(frozen=True)
class FeedbackSource:
    """The feedback."""

    feedback: str
    """JSONL or Parquet file of pairs, rankings, likes or scores, a folder, or a datasets name or folder."""
    kind: Literal["pairs", "rankings", "likes", "scores"] | None = None
    """Kind of the feedback; none: its columns tell."""


@dataclass(frozen=True)
class PromptSource:
    """The prompts, and who judges the replies to them."""

    prompts: str
    """JSONL or Parquet file with a column prompt, a datasets name or folder, or postcards."""
    reward: tuple[str, ...]
    """Run folder of a reward model (turnwise train reward), any sequence classifier of one label by folder or
    name, module:function as TRL calls it, or postcards. Several add up, each with a weight: a b=0.5."""


@dataclass(frozen=True)
class MeasuringReward:
    """Who judges what the policy says before and after training."""

    reward: tuple[str, ...] = ()
    """Judges of replies, as for rloo. Nothing is learnt from them; without any, replies are only shown."""


@dataclass(frozen=True)
class EnvironmentSource:
    """The environment."""

    env: str
    """One of ours (tiger, cheese, repeat-previous, ...), a .pomdp file, an id of Gymnasium, module:ID for one
    that a module registers, or your own class as module:Class."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, each as KEY=VALUE or all as one JSON object: is_slippery=false."""
