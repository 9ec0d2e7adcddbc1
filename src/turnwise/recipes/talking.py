"""Conversations of a policy with a partner as new logs, which a policy of another kind can learn from.

A plan chooses acts, and its models of the logs answer it: what they say to each other is text with rewards,
and a language model that clones it takes over the plan. Nobody real is talked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.files.logs import write_logs
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.recipes.measuring.act_conversations import SET_IN_TRAINING
from turnwise.recipes.measuring.conversations import partner_of
from turnwise.recipes.opened import load
from turnwise.recipes.settings.measure import TalkSettings
from turnwise.recipes.tasks import Task
from turnwise.recipes.trained import ActPolicy, Policy
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.conversations import Conversation, converse
from turnwise.run.errors import InputError, SettingError
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

AT_A_TIME = 16
"""conversations per lane that are held before they are written: memory does not grow with their number"""
REHEARSED = 60
"""conversations of a rehearsal"""
Hold = Callable[[Any, range, Callable[[int], None]], list[Conversation]]


@dataclass(frozen=True)
class Talked:
    """Logs that were spoken: where they are, and what they earned."""

    file: str
    conversations: int
    failed: int
    """Conversations in which the partner broke down, which were left out."""
    mean: float
    """Mean undiscounted return."""
    low: float | None
    high: float | None
    """Its 95% interval, a bootstrap over conversations; one alone has none."""
    spoken_with: str
    """The partner, as one types it."""

    def __str__(self) -> str:
        """All of it in a line."""
        said = f"{self.conversations:,} conversations with {self.spoken_with} written to {self.file}"
        if self.failed:
            said += f" ({self.failed:,} more were left out: the partner failed)"
        interval = "" if self.low is None else f" ({self.low:.4g} to {self.high:.4g}, 95%)"
        return f"{said}; mean return {self.mean:.4g}{interval}"


def write_talk(
    speaker: Any,
    partner: Any,
    out: str | Path,
    *,
    task_settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Talked:
    """Hold conversations and write them in the log format, whole or not at all.

    `speaker` is what `fit` or `load` returned, or a run folder, of a policy that converses. `partner` is a
    task, its name, or the run (folder) of a partner from logs or of a plan, whose learnt models then answer;
    None is the task that the speaker's logs come from. `settings` are fields of `TalkSettings`
    (`conversations`, `seed`, `lanes`, `temperature`). Each row says `spoken_by` and `spoken_with`. It names
    no task, since what the task's own logs earned is no yardstick for these. InputError if `speaker` does not
    converse, or if the partner failed in all conversations.
    """
    a = TalkSettings(**settings)
    if isinstance(speaker, str | Path):
        speaker = load(speaker)
    if not isinstance(speaker, Policy | ActPolicy):
        raise InputError(f"{getattr(speaker, 'name', speaker)}: expected a policy that converses")
    row = partner_of(speaker, partner, task_settings)
    about, tally = {"spoken_by": speaker.name, "spoken_with": row.words}, _Tally()
    with Progress("talking", at_most(REHEARSED, a.conversations), quiet=quiet) as bar:
        held = _held(_holding(speaker, a), row, a, bar.at)
        rows = (replace(d, metadata={**d.metadata, **about}) for d in tally.kept(held))
        write_logs(out, rows, overwrite=overwrite)
    earned = np.array(tally.returns)
    rng = np.random.default_rng(a.seed)
    low, high = (None, None) if len(earned) == 1 else bootstrap_interval(earned, rng=rng)
    return Talked(str(out), len(earned), tally.failed, float(earned.mean()), low, high, row.words)


@dataclass
class _Tally:
    """What went by on the way to the file."""

    returns: list[float] = field(default_factory=list)
    failed: int = 0

    def kept(self, held: Iterator[Conversation]) -> Iterator[Dialogue]:
        """The conversations that nobody broke down in. InputError if there is none."""
        for c in held:
            if c.failed:
                self.failed += 1
                continue
            self.returns.append(c.dialogue.undiscounted_return())
            yield c.dialogue
        if not self.returns:
            raise InputError(f"the partner failed in all {self.failed:,} conversations: nothing is written")


def _held(hold: Hold, row: Task, a: TalkSettings, progress: Callable[[int], None]) -> Iterator[Conversation]:
    """The conversations in order, some at a time."""
    task, n, size = row.live(), at_most(REHEARSED, a.conversations), a.lanes * AT_A_TIME
    for begin in range(0, n, size):
        yield from hold(
            task, range(begin, min(begin + size, n)), lambda done, begin=begin: progress(begin + done)
        )


def _holding(speaker: Policy | ActPolicy, a: TalkSettings) -> Hold:
    """What holds conversations. SettingError for a temperature of an agent that chooses no words."""
    if isinstance(speaker, ActPolicy):
        if a.temperature != 1.0:
            raise SettingError("temperature", a.temperature, SET_IN_TRAINING)
        return lambda task, part, progress: converse_in_acts(
            speaker.agent,
            task,
            episodes=part,
            seed=a.seed,
            lanes=min(a.lanes, len(part)),
            progress=progress,
        )
    agent = speaker.agent.with_acting(temperature=a.temperature)
    lanes = min(a.lanes, a.conversations)
    model = agent.lane_model(lanes, agent.chat.stop, None)
    return lambda task, part, progress: converse(
        model,
        task,
        agent.chat,
        episodes=part,
        seed=a.seed,
        lanes=min(lanes, len(part)),
        progress=progress,
    )
