"""Token rows of logs in compact arrays on disk, made into `Tokens` when a batch needs them.

A million conversations as `Tokens` would be some ten million arrays and objects in memory. Here they are a
few files without names in the system's temporary folder (the environment variable TMPDIR says which), mapped
into memory: the operating system reads what is used and forgets it when memory is short, and the files are
gone with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.tokens import Tokens, Written, segments
from turnwise.run.errors import InputError
from turnwise.run.files.trouble import named

ACTION, TURN_END = 1, 2
"""bits of a token: the agent chose it, it ends a turn"""
TERMINATED, NEXT_KNOWN, CONTINUES = 1, 2, 4
"""bits of a row"""
_TOLD = 256
"""conversations between two words on progress"""
_BUFFER = 1 << 20  # tokens that are held as Python's numbers before they are written


def token_rows(
    dialogues: Iterable[Dialogue],
    chat: ChatFormat,
    context: int,
    progress: Callable[[int], None] | None = None,
) -> TokenRows:
    """Rows of at most `context` positions; a longer conversation becomes several neighbouring rows.

    Every text is encoded once. `progress` is called with the number of conversations that are encoded.
    """
    with _Writer(len(chat.tokenizer), context) as writer:
        done = 0
        # Half the context for what partners say between two turns leaves room for the turn itself.
        for done, written in enumerate(chat.write(dialogues, context // 2), start=1):
            if len(written.ids) <= context:
                writer.add(written)
            else:
                writer.add_segments(segments(written.tokens(), context, written.opening), written)
            if progress is not None and done % _TOLD == 0:
                progress(done)
        if progress is not None:
            progress(done)
        return writer.rows()


class _Arrays(NamedTuple):
    """What all selections of rows share. R rows of C conversations, N tokens in all, M of them with marks."""

    ids: np.ndarray  # [N] token ids, in as few bytes as the vocabulary needs
    bits: np.ndarray  # [N] ACTION and TURN_END
    starts: np.ndarray  # [R+1] where the tokens of a row begin
    mark_at: np.ndarray  # [M] positions, counted from the row's first, that carry what follows
    rewards: np.ndarray  # [M]
    message_logp: np.ndarray  # [M]
    mark_starts: np.ndarray  # [R+1]
    learn_from: np.ndarray  # [R]
    row_bits: np.ndarray  # [R] TERMINATED, NEXT_KNOWN, CONTINUES
    decisions: np.ndarray  # [R]
    turns: np.ndarray  # [R]
    first_rows: np.ndarray  # [C+1] where the rows of a conversation begin
    names: tuple[str, ...]  # [C]


@dataclass(frozen=True)
class Cuts:
    """What of conversations does not fit the context and is not read."""

    conversations: int = 0
    """conversations that lost words"""
    messages: int = 0
    """messages that lost words"""
    tokens: int = 0
    """tokens that were lost"""
    systems: int = 0
    """conversations of several rows whose later ones read the first part of the system message alone"""
    openings: int = 0
    """conversations that say more before the agent's first turn than the context holds"""
    shortest_opening: int = 0
    """tokens before the agent's first turn, at the least"""

    def expect_room(self, context: int) -> None:
        """InputError if no conversation leaves room for the agent's first turn: a policy could never act."""
        if self.shortest_opening >= context:
            raise InputError(
                f"at least {self.shortest_opening:,} tokens stand before the agent's first turn, and the "
                f"model reads {context:,}: a policy could never act in such conversations; expected shorter "
                "openings, or a model with a larger context"
            )


class TokenRows(Sequence[Tokens]):
    """Rows in a fixed order; `rows[i]` makes one anew, and a slice or a choice of rows copies none.

    `conversation_lengths`: tokens of every conversation that was encoded, before anything was cut. `cuts`:
    what was, of all of them.
    """

    def __init__(
        self,
        arrays: _Arrays,
        conversation_lengths: np.ndarray,
        cuts: Cuts,
        chosen: np.ndarray | None = None,
    ) -> None:
        """`chosen`: which rows, in which order; None: all."""
        self._arrays = arrays
        self.conversation_lengths = conversation_lengths
        self.cuts = cuts
        self._chosen = np.arange(len(arrays.starts) - 1) if chosen is None else chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> Tokens | TokenRows:
        if isinstance(index, slice):
            return TokenRows(self._arrays, self.conversation_lengths, self.cuts, self._chosen[index])
        return self._made(int(self._chosen[index]))

    def __iter__(self) -> Iterator[Tokens]:
        return (self._made(int(r)) for r in self._chosen)

    def of(self, conversations: np.ndarray) -> TokenRows:
        """The rows of some conversations, given by their places among all that were encoded."""
        first = self._arrays.first_rows
        counts = first[conversations + 1] - first[conversations]  # of rows
        before = np.cumsum(counts) - counts  # rows of the chosen conversations before this one
        chosen = np.arange(counts.sum()) + np.repeat(first[conversations] - before, counts)
        return TokenRows(self._arrays, self.conversation_lengths, self.cuts, chosen)

    @property
    def lengths(self) -> np.ndarray:
        """Positions of each row."""
        return np.diff(self._arrays.starts)[self._chosen]

    @property
    def decision_counts(self) -> np.ndarray:
        """Actions of each row."""
        return self._arrays.decisions[self._chosen]

    @property
    def turn_counts(self) -> np.ndarray:
        """Ends of turns of each row."""
        return self._arrays.turns[self._chosen]

    @property
    def continues(self) -> np.ndarray:
        """Whether each row goes on in the next one."""
        return (self._arrays.row_bits[self._chosen] & CONTINUES) > 0

    def _made(self, r: int) -> Tokens:
        a = self._arrays
        here = slice(a.starts[r], a.starts[r + 1])
        marks = slice(a.mark_starts[r], a.mark_starts[r + 1])
        bits, T = a.bits[here], int(a.starts[r + 1] - a.starts[r])
        rewards, message_logp = np.zeros(T), np.full(T, np.nan)
        rewards[a.mark_at[marks]] = a.rewards[marks]
        message_logp[a.mark_at[marks]] = a.message_logp[marks]
        row = int(a.row_bits[r])
        return Tokens(
            ids=a.ids[here].astype(np.int64),
            action=(bits & ACTION) > 0,
            turn_end=(bits & TURN_END) > 0,
            rewards=rewards,
            message_logp=message_logp,
            token_logp=np.full(T, np.nan),  # logs have none
            terminated=bool(row & TERMINATED),
            learn_from=int(a.learn_from[r]),
            next_known=bool(row & NEXT_KNOWN),
            continues=bool(row & CONTINUES),
            id=a.names[int(np.searchsorted(a.first_rows, r, side="right")) - 1],
        )


class ChangedRows(Sequence[Tokens]):
    """Rows that are changed when they are made: `change(i, row)` gives row i with other rewards or end.

    What a row reads and where the agent decides stays as it is.
    """

    def __init__(self, rows: Sequence[Tokens], change: Callable[[int, Tokens], Tokens]) -> None:
        self._rows, self._change = rows, change

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]  # from the end, if it is negative
        return self._change(index, self._rows[index])


def rescaled(rows: Sequence[Tokens], factor: float) -> ChangedRows:
    """The same rows with all rewards times `factor`: the same experience in another unit."""
    return ChangedRows(rows, lambda _, row: replace(row, rewards=row.rewards * factor))


def lengths(rows: Sequence[Tokens]) -> np.ndarray:
    """Positions of each row."""
    return _known(rows, "lengths", len)


def decision_counts(rows: Sequence[Tokens]) -> np.ndarray:
    """Actions of each row."""
    return _known(rows, "decision_counts", lambda t: len(t.decisions))


def turn_counts(rows: Sequence[Tokens]) -> np.ndarray:
    """Ends of the agent's turns of each row."""
    return _known(rows, "turn_counts", lambda t: int(t.turn_end.sum()))


def continues(rows: Sequence[Tokens]) -> np.ndarray:
    """Whether each row goes on in the next one."""
    return _known(rows, "continues", lambda t: t.continues).astype(bool)


def _known(rows: Sequence[Tokens], name: str, count: Callable[[Tokens], Any]) -> np.ndarray:
    """What rows on disk know of themselves, and what has to be counted of others."""
    while isinstance(rows, ChangedRows):
        rows = rows._rows
    if isinstance(rows, TokenRows):
        return getattr(rows, name)
    return np.array([count(t) for t in rows], np.int64)


class _Column:
    """Numbers of one type in a file without a name, which goes with the process."""

    def __init__(self, dtype: Any, files: contextlib.ExitStack) -> None:
        """`files` closes the file; what was mapped before stays readable."""
        self._dtype = np.dtype(dtype)
        self._file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 (`files` closes it)
        self._size = 0

    def extend(self, values: Sequence[float] | np.ndarray) -> None:
        found = np.asarray(values, self._dtype)
        with named(Path(tempfile.gettempdir())):  # the file has no name, but its folder may be full
            self._file.write(found.tobytes())
        self._size += len(found)

    def mapped(self) -> np.ndarray:
        """All of them, as an array that is read from the file where it is used."""
        if not self._size:
            return np.zeros(0, self._dtype)
        with named(Path(tempfile.gettempdir())):
            self._file.flush()
        # A plain view: slices of a memmap are objects of their own, and slow to make.
        return np.memmap(self._file, self._dtype, "r", shape=(self._size,)).view(np.ndarray)


class _Writer:
    """Appends rows to the files, which are open inside its `with`."""

    def __init__(self, vocab: int, context: int) -> None:
        self._context = context
        self._files = contextlib.ExitStack()
        self._ids = self._column(np.uint16 if vocab <= 1 << 16 else np.int32)
        self._bits, self._mark_at = self._column(np.uint8), self._column(np.int32)
        self._rewards, self._message_logp = self._column(np.float64), self._column(np.float64)
        self._lengths, self._marks, self._learn_from = list[int](), list[int](), list[int]()
        self._row_bits, self._first_rows = bytearray(), [0]
        self._decisions, self._turns = list[int](), list[int]()
        self._conversation_lengths, self._names = list[int](), list[str]()
        self._waiting_ids, self._spans = list[int](), list[tuple[int, int, bool]]()
        self._waiting_marks = list[tuple[int, float, float]]()
        self._cuts = Cuts(shortest_opening=1 << 62)

    def _column(self, dtype: Any) -> _Column:
        return _Column(dtype, self._files)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def add(self, written: Written) -> None:
        """A conversation that is one row: its turns are known, so that no array is made of it alone."""
        before, decisions, turns = len(self._waiting_ids), 0, 0
        self._waiting_ids += written.ids
        for start, stop, complete, reward, message_logp, _ in written.turns:
            self._spans.append((before + start, before + stop, complete))
            self._waiting_marks.append((stop - 1, reward, message_logp))
            decisions += stop - start
            turns += complete
        bits = TERMINATED * written.terminated | NEXT_KNOWN * written.next_known
        self._row(len(written.ids), len(written.turns), 0, bits, decisions, turns)
        self._conversation(written)
        if len(self._waiting_ids) > _BUFFER:
            self._flush()

    def add_segments(self, rows: Iterable[Tokens], written: Written) -> None:
        """The rows of a conversation that is longer than the context."""
        self._flush()
        for t in rows:
            marked = np.flatnonzero((t.rewards != 0) | ~np.isnan(t.message_logp))
            self._ids.extend(t.ids)
            self._bits.extend(ACTION * t.action + TURN_END * t.turn_end)
            self._mark_at.extend(marked)
            self._rewards.extend(t.rewards[marked])
            self._message_logp.extend(t.message_logp[marked])
            bits = TERMINATED * t.terminated | NEXT_KNOWN * t.next_known | CONTINUES * t.continues
            self._row(len(t), len(marked), t.learn_from, bits, len(t.decisions), int(t.turn_end.sum()))
        self._conversation(written)
        if written.opening > self._context // 4:  # `segments` reads no more of it again
            self._cuts = replace(self._cuts, systems=self._cuts.systems + 1)

    def _row(self, length: int, marks: int, learn_from: int, bits: int, decisions: int, turns: int) -> None:
        self._lengths.append(length)
        self._marks.append(marks)
        self._learn_from.append(learn_from)
        self._row_bits.append(bits)
        self._decisions.append(decisions)
        self._turns.append(turns)

    def _conversation(self, written: Written) -> None:
        self._first_rows.append(len(self._lengths))
        self._conversation_lengths.append(len(written.ids) + written.unread)
        self._names.append(written.id)
        c = self._cuts
        if written.unread or written.first_wait < c.shortest_opening or written.first_wait >= self._context:
            self._cuts = replace(
                c,
                conversations=c.conversations + (written.unread > 0),
                messages=c.messages + written.shortened,
                tokens=c.tokens + written.unread,
                openings=c.openings + (written.first_wait >= self._context),
                shortest_opening=min(c.shortest_opening, written.first_wait),
            )

    def _flush(self) -> None:
        if not self._waiting_ids:
            return
        self._ids.extend(self._waiting_ids)
        spans = np.array(self._spans, np.int64).reshape(-1, 3)  # start, stop, complete
        # +1 where a turn begins and -1 behind its end: the running sum is 1 inside turns, which never
        # overlap.
        steps = np.zeros(len(self._waiting_ids) + 1, np.int8)
        steps[spans[:, 0]] += 1
        steps[spans[:, 1]] -= 1
        bits = np.cumsum(steps[:-1], dtype=np.int8).astype(np.uint8) * ACTION
        bits[spans[:, 1] - 1] |= (TURN_END * spans[:, 2]).astype(np.uint8)
        self._bits.extend(bits)
        self._mark_at.extend([at for at, _, _ in self._waiting_marks])
        self._rewards.extend([reward for _, reward, _ in self._waiting_marks])
        self._message_logp.extend([logp for _, _, logp in self._waiting_marks])
        self._waiting_ids, self._spans, self._waiting_marks = [], [], []

    def rows(self) -> TokenRows:
        """All rows that were added."""
        self._flush()
        arrays = _Arrays(
            ids=self._ids.mapped(),
            bits=self._bits.mapped(),
            starts=_starts(self._lengths),
            mark_at=self._mark_at.mapped(),
            rewards=self._rewards.mapped(),
            message_logp=self._message_logp.mapped(),
            mark_starts=_starts(self._marks),
            learn_from=np.array(self._learn_from, np.int32),
            row_bits=np.frombuffer(bytes(self._row_bits), np.uint8),
            decisions=np.array(self._decisions, np.int32),
            turns=np.array(self._turns, np.int32),
            first_rows=np.array(self._first_rows),
            names=tuple(self._names),
        )
        return TokenRows(arrays, np.array(self._conversation_lengths, np.int64), self._cuts)


def _starts(sizes: Sequence[int]) -> np.ndarray:
    """Where each of several neighbours begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))])
