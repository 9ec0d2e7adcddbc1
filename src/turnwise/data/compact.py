"""Conversations as strings of bytes and a few columns, made into `Dialogue`s when somebody asks.

A million short conversations as objects take several gigabytes. Here what is more than a little lies in files
without names in the system's temporary folder (`disk/columns.py`), and ten million take no more memory than
ten thousand. A choice of some of them copies none.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self, cast, overload

import numpy as np

from turnwise.data.dialogue import Dialogue, RatedBy
from turnwise.data.disk.columns import BLOCK, Column, Records
from turnwise.data.disk.places import Places
from turnwise.envs.dialogue import Message, ToolCall

RATED: tuple[RatedBy, ...] = ("outcome", "rewards", "nothing")
_VERSION = 2  # of marshal's format: the last one without references, so that equal values are equal bytes
_JSON = (str, int, float, bool, type(None))
_TOGETHER = 1024  # conversations whose bytes are read at a time


class CompactDialogues(Sequence[Dialogue]):
    """Conversations in a fixed order. `dialogues[i]` is made anew each time, and equal each time."""

    def __init__(self, store: _Store, chosen: Places | None = None) -> None:
        """`chosen`: which conversations of the store, in which order; None: all."""
        self._store = store
        self._chosen = Places.first(len(store)) if chosen is None else chosen

    @classmethod
    def of(cls, dialogues: Iterable[Dialogue]) -> Self:
        """All of `dialogues`, read one after the other."""
        if isinstance(dialogues, cls):
            return dialogues
        return cls(_Store(dialogues))

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Dialogue | Self:
        if isinstance(index, slice):
            return type(self)(self._store, self._chosen.slice(index))
        return self._store.dialogue(self._chosen[index])

    def __iter__(self) -> Iterator[Dialogue]:
        for places in self._chosen.blocks(_TOGETHER):
            yield from self._store.dialogues(places)

    def select(self, places: Places | range | Column | np.ndarray) -> Self:
        """The conversations at these places, in this order."""
        return type(self)(self._store, self._chosen.within(places))

    def records(self) -> Iterator[bytes]:
        """What each says and earned as bytes, equal for equal conversations."""
        for places in self._chosen.blocks(_TOGETHER):
            yield from self._store.records(places)

    def known(self) -> Iterator[Known]:
        """The numbers of all of them, some at a time."""
        for places in self._chosen.blocks():
            yield self._store.known(places)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted return of each, in the units of the task, all in memory."""
        return _joined([known.returns for known in self.known()], np.float64)

    @property
    def terminated(self) -> np.ndarray:
        """Whether each came to a true end, all in memory."""
        return _joined([known.terminated for known in self.known()], bool)

    @property
    def rated_by(self) -> np.ndarray:
        """Where the rewards of each come from, as places in `RATED`, all in memory."""
        return _joined([known.rated_by for known in self.known()], np.uint8)


def _joined(blocks: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype)


class Known(NamedTuple):
    """What is known of some neighbours without making them."""

    returns: np.ndarray
    """Undiscounted return of each, in the units of the task."""
    terminated: np.ndarray
    """Whether each came to a true end."""
    rated_by: np.ndarray
    """Where the rewards of each come from, as places in `RATED`."""


class _Store:
    """What all selections share."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self.odd: dict[int, Dialogue] = {}  # those with metadata that JSON does not have, kept as they are
        self._texts, self._returns, self._facts = Records(), Column(np.float64), Column(np.uint8)
        returns, facts = list[float](), bytearray()
        for i, d in enumerate(dialogues):
            record = packed(d)
            if record is None:
                self.odd[i], record = d, b""
            self._texts.add(record)
            returns.append(d.undiscounted_return())
            facts.append(2 * RATED.index(d.rated_by) + d.terminated)
            if len(facts) == BLOCK:
                self._keep(returns, facts)
                returns, facts = list[float](), bytearray()
        self._keep(returns, facts)

    def _keep(self, returns: list[float], facts: bytearray) -> None:
        self._returns.extend(returns)
        self._facts.extend(np.frombuffer(bytes(facts), np.uint8))

    def __len__(self) -> int:
        return len(self._facts)

    def known(self, places: np.ndarray) -> Known:
        facts = self._facts.take(places)
        return Known(self._returns.take(places), (facts & 1) > 0, facts >> 1)

    def records(self, places: np.ndarray) -> Iterator[bytes]:
        if not self.odd:
            yield from self._texts.at(places)
            return
        for i, record in zip(places.tolist(), self._texts.at(places), strict=True):
            found = self.odd.get(i)
            yield record if found is None else repr(found).encode(errors="surrogatepass")

    def dialogue(self, i: int) -> Dialogue:
        found = self.odd.get(i)
        return _unpacked(self._texts[i]) if found is None else found

    def dialogues(self, places: np.ndarray) -> Iterator[Dialogue]:
        for i, record in zip(places.tolist(), self._texts.at(places), strict=True):
            yield self.odd[i] if i in self.odd else _unpacked(record)


def packed(d: Dialogue) -> bytes | None:
    """A conversation as bytes; None if its metadata hold what JSON does not have."""
    metadata = d.metadata
    if type(metadata) is not dict or not _is_json(metadata) or type(d) is not Dialogue:
        return None
    if (
        {type(d.id), type(d.agent_role)} != {str}
        or type(d.terminated) is not bool
        or not all(map(_is_plain, d.messages))
    ):
        return None
    messages = [_fields(m) for m in d.messages]
    return marshal.dumps(
        (d.id, d.terminated, d.agent_role, RATED.index(d.rated_by), messages, metadata), _VERSION
    )


def _is_plain(m: Message) -> bool:
    """Whether the fields of a message are of Python's own types, and not of numpy's, say."""
    if type(m.role) is not str or type(m.content) is not str or type(m.reward) not in (float, int):
        return False
    if _is_bare(m):
        return True
    texts = (m.name, m.tool_call_id, m.act, *(text for call in m.tool_calls or () for text in call))
    if not {type(m.behavior_logp), type(m.act_logp)} <= {float, int, type(None)}:
        return False
    return all(type(x) in (str, type(None)) for x in texts)


def _is_bare(m: Message) -> bool:
    """Whether it has a role, words and a reward, and nothing else."""
    return (
        m.behavior_logp is None
        and m.name is None
        and m.tool_calls is None
        and m.tool_call_id is None
        and m.act is None
        and m.act_logp is None
    )


def _fields(m: Message) -> tuple[Any, ...]:
    """The fields of a message, without those at its end that are as in most messages."""
    if _is_bare(m):
        return (m.role, m.content, m.reward) if m.reward else (m.role, m.content)
    calls = None if m.tool_calls is None else tuple(map(tuple, m.tool_calls))
    fields = (m.role, m.content, m.reward, m.behavior_logp, m.name, calls, m.tool_call_id, m.act)
    return fields if m.act_logp is None else (*fields, m.act_logp)


def _unpacked(record: Any) -> Dialogue:
    id_, terminated, agent_role, rated, messages, metadata = marshal.loads(record)
    made = tuple(_message(*fields) for fields in messages)
    # Not through the constructor, which would check again what was checked when it was packed.
    d = cast(Dialogue, object.__new__(Dialogue))
    d.__dict__.update(
        messages=made,
        terminated=terminated,
        id=id_,
        agent_role=agent_role,
        metadata=metadata,
        rated_by=RATED[rated],
    )
    return d


def _message(role: str, content: str, reward: float = 0.0, *rest: Any) -> Message:
    if not rest:
        return Message(role, content, reward)
    logp, name, calls, call_id, act, *act_logp = rest
    calls = None if calls is None else tuple(ToolCall(*call) for call in calls)
    return Message(role, content, reward, logp, name, calls, call_id, act, *act_logp)


def _is_json(value: Any) -> bool:
    """Whether a value is of JSON's types exactly, so that it comes back as it was."""
    if type(value) is dict:
        return all(type(k) is str and _is_json(v) for k, v in value.items())
    return all(map(_is_json, value)) if type(value) is list else type(value) in _JSON
