"""The lane loop of speakers: conversations side by side, of which messages are the record.

It is `rollout/conversations.py` without ids: whoever answers messages with a message can talk here, however
it came to its words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import DialogueTask, Message, Response
from turnwise.envs.tasks.table import Speaker
from turnwise.rollout.conversations import Conversation, episode_seed
from turnwise.run.errors import InputError

LONGEST = 200
"""turns after which a conversation that nobody ends is cut"""


@dataclass
class _Lane:
    """A conversation under way."""

    episode: int
    messages: list[Message]
    turns: int = 0


def converse_in_messages(
    speaker: Speaker,
    task: DialogueTask,
    *,
    episodes: Sequence[int],
    seed: int,
    lanes: int,
    progress: Callable[[int], None] | None = None,
) -> list[Conversation]:
    """Hold the conversations `episodes`, `lanes` at a time; results in the order of `episodes`.

    The partners are those that `converse` meets with the same seed. A conversation of `LONGEST` turns is cut,
    and so is one in which the speaker cannot go on. InputError if it cannot begin.
    """
    queue = list(reversed(episodes))
    under_way: dict[int, _Lane] = {}
    done: dict[int, Conversation] = {}
    free: Sequence[int] = range(min(lanes, len(queue)))
    while queue or under_way:
        starting = [(lane, queue.pop()) for lane in free if queue]
        if starting:
            fresh = [lane for lane, _ in starting]
            openings = task.reset(fresh, [episode_seed(seed, e, 1) for _, e in starting])
            speaker.reset(fresh, [episode_seed(seed, e, 0) for _, e in starting])
            for (lane, e), messages in zip(starting, openings, strict=True):
                under_way[lane] = _Lane(e, list(messages))
        now = sorted(under_way)
        said = speaker.answer(now, [under_way[lane].messages for lane in now])
        words = {lane: text for lane, text in zip(now, said, strict=True) if text is not None}
        if any(not under_way[lane].turns for lane in now if lane not in words):
            raise InputError("the speaker has no word for the opening of a conversation")
        responses = dict(zip(words, task.step(list(words), list(words.values())), strict=True))
        free = []
        for lane in now:
            x, response = under_way[lane], responses.get(lane, Response((), 0.0, truncated=True))
            if lane in words:
                x.messages += [Message("assistant", words[lane], response.reward), *response.messages]
                x.turns += 1
            if response.terminated or response.truncated or x.turns >= LONGEST:
                del under_way[lane]
                free.append(lane)
                done[x.episode] = Conversation(
                    episode=x.episode,
                    dialogue=Dialogue(tuple(x.messages), response.terminated, id=str(x.episode)),
                    tokens=None,
                    info=response.info,
                    hidden=dict(task.hidden(lane)),
                    failed=response.failed,
                )
                if progress is not None:
                    progress(len(done))
    return [done[e] for e in episodes]
