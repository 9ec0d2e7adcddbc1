"""The lane loop of agents of acts: conversations side by side, each lane refilled as soon as its own ends.

It is `rollout/conversations.py` one level up: what is submitted and collected are messages, not tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import DialogueTask, Message, Response
from turnwise.rollout.acts.agent import ActAgent, Turn
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.reading import read_talks
from turnwise.rollout.conversations import Conversation, episode_seed

LONGEST = 200
"""turns after which a conversation that nobody ends is cut"""


@dataclass
class _Lane:
    """A conversation under way. `heard` are its messages without acts: what they mean has to be read."""

    episode: int
    seed: int
    heard: list[Message]
    messages: list[Message]
    prefix: Prefix | None = None
    turns: list[Mapping[str, Any]] = field(default_factory=list)


def converse_in_acts(
    agent: ActAgent,
    task: DialogueTask,
    *,
    episodes: Sequence[int],
    seed: int,
    lanes: int,
    progress: Callable[[int], None] | None = None,
) -> list[Conversation]:
    """Hold the conversations `episodes`, `lanes` at a time; results in the order of `episodes`.

    The partners are those that `converse` meets with the same seed. A conversation of `LONGEST` turns is cut.
    """
    queue = list(reversed(episodes))
    under_way: dict[int, _Lane] = {}
    done: dict[int, Conversation] = {}
    free: Sequence[int] = range(min(lanes, len(queue)))
    while queue or under_way:
        starting = [(lane, queue.pop()) for lane in free if queue]
        if starting:
            openings = task.reset(
                [lane for lane, _ in starting], [episode_seed(seed, e, 1) for _, e in starting]
            )
            for (lane, e), messages in zip(starting, openings, strict=True):
                own = episode_seed(seed, e, 0)
                under_way[lane] = _Lane(e, own, list(messages), list(messages))
        free = []
        now = sorted(under_way)
        places = [under_way[lane] for lane in now]
        read = read_talks(agent.codes, [x.heard for x in places], [x.prefix for x in places])
        turns = agent.speak([x.heard for x in places], read, [x.seed for x in places])
        responses = task.step(now, [turn.text for turn in turns])
        for lane, x, prefix, turn, response in zip(now, places, read, turns, responses, strict=True):
            x.prefix = prefix
            _take(agent, x, turn, response)
            if response.terminated or response.truncated or len(x.turns) >= LONGEST:
                del under_way[lane]
                free.append(lane)
                done[x.episode] = _finished(x, response, dict(task.hidden(lane)))
                if progress is not None:
                    progress(len(done))
    return [done[e] for e in episodes]


def _take(agent: ActAgent, x: _Lane, turn: Turn, response: Response) -> None:
    """Record a turn and what it was answered."""
    act = None if turn.act is None else agent.codes.acts[turn.act]
    x.heard += [Message("assistant", turn.text, response.reward), *response.messages]
    x.messages += [Message("assistant", turn.text, response.reward, act=act), *response.messages]
    # The task's own parser, where it has one, says whether and as what it understood the words.
    parsed = {k: response.info[k] for k in ("act", "read") if k in response.info}
    x.turns.append({**turn.trace, **({"parsed": parsed} if parsed else {})})


def _finished(x: _Lane, response: Response, hidden: Mapping[str, Any]) -> Conversation:
    return Conversation(
        episode=x.episode,
        dialogue=Dialogue(tuple(x.messages), response.terminated, id=str(x.episode)),
        tokens=None,
        info=response.info,
        hidden=hidden,
        turns=tuple(x.turns),
        failed=response.failed,
    )
