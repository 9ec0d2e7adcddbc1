"""What a run gives: a policy that converses, an agent that acts, a reward model that judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.acts.talks import ActLogs, Codes, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.data.files.feedback import prompt_of
from turnwise.envs.dialogue import Message, Reference
from turnwise.exact.learning.live import live_returns
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.planner import Planner
from turnwise.exact.learning.truth import LANES
from turnwise.recipes.environments import Environment, find_environment
from turnwise.recipes.held_out import HeldOut
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.agent import Agent
from turnwise.rollout.partners.fitted import FittedPartner
from turnwise.rollout.partners.fitted_task import FittedTask
from turnwise.rollout.reward_classifier import ClassifierScorer
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.rollout.step_agent import Player, StepAgent
from turnwise.run.errors import InputError
from turnwise.run.folder import read_config

IN_MEMORY = "a policy in memory"
WORLD = ("model.npz", "planned.npz", "plan.npz")
"""files of a learnt world: its model, the model that was planned in, the plan"""


@dataclass(frozen=True)
class Policy:
    """A language model that converses, maybe guided by a critic."""

    agent: Agent = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the run came to: metrics, sizes, and what was measured."""
    held: HeldOut | None = field(default=None, repr=False)
    """What the run held out of its logs, if it learnt from logs."""

    @property
    def name(self) -> str:
        """How a later run records it."""
        return IN_MEMORY if self.folder is None else str(self.folder)

    @property
    def task(self) -> str | None:
        """The task that it learnt from logs of, as one types it; None if its logs name none."""
        return self.result.get("task") or (read_config(self.folder).get("task") if self.folder else None)

    def reply(self, messages: Sequence[Mapping[str, str] | Message], seed: int | None = None) -> str:
        """What the policy says next in a conversation of `{"role": ..., "content": ...}`.

        The same `seed` gives the same reply; None draws anew. InputError for messages that make no
        conversation, or one that fills the model's context.
        """
        return self.agent.reply(messages, seed=seed)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `transformers` loads, a critic beside the language model."""
        self.agent.save(Path(folder))


@dataclass(frozen=True)
class ActPolicy:
    """An agent that converses by choosing what to mean, an act, and wording it."""

    agent: ActAgent = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the run came to: metrics, sizes, and what was measured."""
    held: HeldOut | None = field(default=None, repr=False)
    """What the run held out of its logs."""

    @property
    def name(self) -> str:
        """How a later run records it."""
        return IN_MEMORY if self.folder is None else str(self.folder)

    @property
    def task(self) -> str | None:
        """The task that it learnt from logs of, as one types it; None if its logs name none."""
        return self.result.get("task") or (read_config(self.folder).get("task") if self.folder else None)

    def reply(self, messages: Sequence[Mapping[str, str] | Message], seed: int | None = None) -> str:
        """What the agent says next in a conversation of `{"role": ..., "content": ...}`.

        The same `seed` gives the same reply; None draws anew. InputError for messages that make no
        conversation.
        """
        return self.agent.reply(messages, seed=seed)

    def save(self, folder: str | Path) -> None:
        """Write codebooks, sentences and what chooses, which `load` reads."""
        from turnwise.rollout.acts.files import save_act_agent

        save_act_agent(self.agent, Path(folder))


@dataclass(frozen=True)
class Counterpart:
    """The other side of logged conversations, to talk with: a task wherever one is asked for."""

    fitted: FittedPartner = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the run came to: metrics, sizes, and how well it tells what was held out."""
    held: HeldOut | None = field(default=None, repr=False)
    """What the run held out of its logs."""

    @property
    def name(self) -> str:
        """How a later run records it."""
        return "a partner in memory" if self.folder is None else str(self.folder)

    def live(self) -> FittedTask:
        """A task to talk with. What its logs earned stands beside what is earned."""
        earned = self.result.get("logged")
        note = "what the logs that it was learnt from earned"
        known = [Reference("its logs", "baseline", note=note, **earned)] if earned else []
        return FittedTask(self.fitted, known)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` reads."""
        self.fitted.save(Path(folder))


@dataclass(frozen=True)
class Actor:
    """An agent with memory that acts in an environment."""

    saved: StepAgent = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the run came to."""
    env: Any = field(default=None, repr=False)
    """The environment that it learnt in: a name, or what was given."""

    def player(self, lanes: int | None = None, *, greedy: bool = False) -> Player:
        """Something that acts: `player.act(observation, reward)`, in one episode or in `lanes` at a time."""
        return Player(self.saved, lanes, greedy=greedy)

    def save(self, folder: str | Path) -> None:
        """Write settings and weights, which `load` reads."""
        self.saved.save(Path(folder))


@dataclass(frozen=True)
class World:
    """A POMDP learnt from episodes of an environment, and a plan in it."""

    model: LearntModel = field(repr=False)
    """The main model; the plan may be in a mixture of several, `planner.model`."""
    planner: Planner = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the run came to."""
    env: Any = field(default=None, repr=False)
    """The environment that it learnt in: a name, or what was given."""

    def live_returns(self, episodes: int = 1000, seed: int = 0) -> np.ndarray:
        """[episodes], discounted returns of the plan in the environment, on the learnt belief."""
        env = self.env if isinstance(self.env, Environment) else find_environment(self.env, LANES, None)
        rng = np.random.default_rng((seed, 7))
        return live_returns(
            env.lanes, self.planner.model, self.planner.best, episodes, self.planner.discount, rng
        )

    def save(self, folder: str | Path) -> None:
        """Write the model, the model that is planned in, and the plan, which `load` reads."""
        self.model.save(Path(folder) / WORLD[0])
        self.planner.model.save(Path(folder) / WORLD[1])
        self.planner.save(Path(folder) / WORLD[2])


@dataclass(frozen=True)
class Judge:
    """A reward model."""

    scorer: RewardScorer | ClassifierScorer = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """What the run came to: its accuracy on held-out feedback among it."""

    def score(self, prompt: str | Sequence[Mapping[str, str]], replies: Sequence[str]) -> np.ndarray:
        """[n], the reward of each reply to a prompt (text, or messages); the mean of its members.

        A prompt that is too long is read without its earliest messages. InputError if a reply does not fit
        the model's context even with the last message alone.
        """
        if isinstance(replies, str):  # each of its letters would pass for a reply
            raise InputError(f"replies is {replies[:40]!r}; expected a list of texts")
        asked = prompt_of({"prompt": prompt}, "score")
        if not len(replies):
            return np.zeros(0)
        rows = [self.scorer.text.reply(asked, text) for text in replies]
        for row, text in zip(rows, replies, strict=True):
            if row is None:
                expected = (
                    f"prompt and reply within the reward model's context of {self.scorer.context} tokens"
                )
                raise InputError(f"reply {text[:40]!r}: expected {expected}")
        return self.scorer.score([row for row in rows if row is not None]).mean(0)

    def save(self, folder: str | Path) -> None:
        """Write what `AutoModelForSequenceClassification` loads."""
        self.scorer.save(Path(folder))


@dataclass(frozen=True)
class Codebooks:
    """Acts of logged conversations: what each message means."""

    codes: Codes = field(repr=False)
    folder: Path | None = None
    """The run folder; None if the run was a temporary one."""
    result: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What the run came to."""
    held: HeldOut | None = field(default=None, repr=False)
    """What the run held out of its logs."""

    @property
    def name(self) -> str:
        """How a later run records it."""
        return "codebooks in memory" if self.folder is None else str(self.folder)

    def read(self, messages: Sequence[Mapping[str, str] | Message]) -> list[str]:
        """Names of what a conversation means so far: the opening, then each act and the answer to it."""
        given = [m if isinstance(m, Message) else Message(m["role"], m["content"]) for m in messages]
        (first,), (acts,), (answers,) = self.codes.read([cut_turns(given)])
        turns = zip(acts, answers, strict=True)
        spoken = [name for a, o in turns for name in (self.codes.acts[a], self.codes.answers[o])]
        return [self.codes.openings[first], *spoken]

    def talks(self, logs: Sequence[Dialogue]) -> ActLogs:
        """Whole conversations as acts."""
        return self.codes.talks(logs)

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` reads."""
        from turnwise.data.acts.files import save_codes

        save_codes(self.codes, folder)
