"""Conversations in a few arrays and one long string of bytes, made into `Dialogue`s when somebody asks.

A million short conversations as objects take several gigabytes; here they take little more than their text. A
choice of some of them copies none. Large texts lie in a file without a name in the system's temporary folder,
mapped into memory, which is gone with the process.
"""

from __future__ import annotations

import marshal
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self, cast, overload

import numpy as np

from turnwise.data.dialogue import Dialogue, RatedBy
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.run.files.trouble import named

IN_MEMORY = 8 << 20
"""bytes of text that are held in memory; beyond that they go to a file"""
RATED: tuple[RatedBy, ...] = ("outcome", "rewards", "nothing")
_VERSION = 2  # of marshal's format: the last one without references, so that equal values are equal bytes
_JSON = (str, int, float, bool, type(None))


class CompactDialogues(Sequence[Dialogue]):
    """Conversations in a fixed order. `dialogues[i]` is made anew each time, and equal each time."""

    returns: np.ndarray
    """Undiscounted return of each, in the units of the task."""
    terminated: np.ndarray
    """Whether each came to a true end."""
    rated_by: np.ndarray
    """Where the rewards of each come from, as places in `RATED`."""

    def __init__(self, store: _Store, chosen: np.ndarray | None = None) -> None:
        """`chosen`: which conversations of the store, in which order; None: all."""
        self._store = store
        self._chosen = np.arange(len(store.starts) - 1) if chosen is None else chosen
        self.returns, self.terminated, self.rated_by = (
            known[self._chosen] for known in (store.returns, store.terminated, store.rated_by)
        )

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
            return self.select(np.arange(len(self))[index])
        return self._store.dialogue(int(self._chosen[index]))

    def __iter__(self) -> Iterator[Dialogue]:
        return (self._store.dialogue(i) for i in self._chosen.tolist())

    def select(self, places: np.ndarray) -> Self:
        """The conversations at these places, in this order."""
        return type(self)(self._store, self._chosen[places])

    def records(self) -> Iterator[bytes]:
        """What each says and earned as bytes, equal for equal conversations."""
        return (self._store.record(i) for i in self._chosen.tolist())


class _Store:
    """What all selections share."""

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        self.odd: dict[int, Dialogue] = {}  # those with metadata that JSON does not have, kept as they are
        ends, returns = array("q", [0]), array("d")
        terminated, rated_by = bytearray(), bytearray()
        with _Text() as text:
            for i, d in enumerate(dialogues):
                record = packed(d)
                if record is None:
                    self.odd[i], record = d, b""
                ends.append(text.add(record))
                returns.append(d.undiscounted_return())
                terminated.append(d.terminated)
                rated_by.append(RATED.index(d.rated_by))
            self.text = text.whole()
        self.starts = np.array(ends)
        self.returns = np.array(returns)
        self.terminated = np.frombuffer(bytes(terminated), bool)
        self.rated_by = np.frombuffer(bytes(rated_by), np.uint8)

    def record(self, i: int) -> bytes:
        found = self.odd.get(i)
        if found is not None:
            return repr(found).encode(errors="surrogatepass")
        return self.text[self.starts[i] : self.starts[i + 1]].tobytes()

    def dialogue(self, i: int) -> Dialogue:
        found = self.odd.get(i)
        return _unpacked(self.text[self.starts[i] : self.starts[i + 1]].data) if found is None else found


class _Text:
    """One long string of bytes that grows, in memory or in a file, which is open inside its `with`."""

    def __init__(self) -> None:
        self._parts, self._waiting, self._size = list[bytes](), 0, 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> _Text:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, part: bytes) -> int:
        """Append; where the next part will begin."""
        self._parts.append(part)
        self._waiting += len(part)
        self._size += len(part)
        if self._waiting > IN_MEMORY:
            self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 (`__exit__` closes it)
            with named(Path(tempfile.gettempdir())):  # the file has no name, but its folder may be full
                self._file.write(b"".join(self._parts))
            self._parts, self._waiting = [], 0
        return self._size

    def whole(self) -> np.ndarray:
        """All of it, uint8."""
        rest = b"".join(self._parts)
        if self._file is None:
            return np.frombuffer(rest, np.uint8)
        with named(Path(tempfile.gettempdir())):
            self._file.write(rest)
            self._file.flush()
        return np.memmap(self._file, np.uint8, "r", shape=(self._size,)).view(np.ndarray)


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
