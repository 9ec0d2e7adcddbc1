"""Token rows of logs in compact columns on disk, made into `Tokens` when a batch needs them.

A million conversations as `Tokens` would be some ten million arrays and objects in memory. Here what is more
than a little lies in files without names in the system's temporary folder (`disk/columns.py`), which are read
where a row is made and are gone with the process, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, overload

import numpy as np

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.columns import Column, Records
from turnwise.data.disk.places import Places
from turnwise.data.tokens import Tokens, Written, segments
from turnwise.run.errors import InputError

ACTION, TURN_END = 1, 2
"""bits of a token: the agent chose it, it ends a turn"""
TERMINATED, NEXT_KNOWN, CONTINUES = 1, 2, 4
"""bits of a row"""
_TOLD = 256
"""conversations between two words on progress"""
_BUFFER = 1 << 16  # tokens that are held as Python's numbers before they are written


def token_rows(
    dialogues: Iterable[Dialogue],
    chat: ChatFormat,
    context: int,
    progress: Callable[[int], None] | None = None,
) -> TokenRows:
    """Rows of at most `context` positions; a longer conversation becomes several neighbouring rows.

    Every text is encoded once. `progress` is called with the number of conversations that are encoded.
    """
    writer, done = _Writer(len(chat.tokenizer), context), 0
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


_ROW = np.dtype(
    [
        ("start", np.int64),  # where the tokens of the row begin, among all tokens
        ("marks", np.int64),  # where its marks begin, among all marks
        ("length", np.int32),
        ("marked", np.int32),
        ("learn_from", np.int32),
        ("decisions", np.int32),
        ("turns", np.int32),
        ("bits", np.uint8),  # TERMINATED, NEXT_KNOWN, CONTINUES
        ("conversation", np.int64),
    ]
)
_MARK = np.dtype([("at", np.int32), ("reward", np.float64), ("message_logp", np.float64)])


class _Store(NamedTuple):
    """What all selections of rows share. R rows of C conversations, N tokens in all, M of them with marks."""

    tokens: Column  # [N] ids and ACTION and TURN_END, as one record: what is read together lies together
    rows: Column  # [R] what is known of each row
    marks: Column  # [M] positions, counted from the row's first, that carry a reward or a log-probability
    first_rows: Column  # [C+1] where the rows of a conversation begin
    names: Records  # [C]
    conversation_lengths: Column  # [C] tokens of each before anything was cut


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

    `cuts`: what was cut of all conversations that were encoded.
    """

    def __init__(self, store: _Store, cuts: Cuts, chosen: Places | None = None) -> None:
        """`chosen`: which rows, in which order; None: all."""
        self._store, self.cuts = store, cuts
        self._chosen = Places.first(len(store.rows)) if chosen is None else chosen

    @property
    def conversation_lengths(self) -> Column:
        """Tokens of every conversation that was encoded, before anything was cut."""
        return self._store.conversation_lengths

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> Tokens | TokenRows:
        if isinstance(index, slice):
            return TokenRows(self._store, self.cuts, self._chosen.slice(index))
        return self._made(self._store.rows[self._chosen[index]].item())

    def __iter__(self) -> Iterator[Tokens]:
        return (self._made(row) for known in self._known() for row in known.tolist())

    def of(self, conversations: range | np.ndarray | Places) -> TokenRows:
        """The rows of some conversations, given by their places among all that were encoded."""
        first, places = self._store.first_rows, Places.of(conversations)
        if isinstance(places.found, range):
            neighbours = range(int(first[places.found.start]), int(first[places.found.stop]))
            return TokenRows(self._store, self.cuts, Places(neighbours))

        def rows() -> Iterator[np.ndarray]:
            for block in places.blocks():
                starts = first.take(block)
                counts = first.take(block + 1) - starts  # of rows
                before = np.cumsum(counts) - counts  # rows of the conversations of the block before this one
                yield np.arange(counts.sum()) + np.repeat(starts - before, counts)

        return TokenRows(self._store, self.cuts, Places(Column.joined(rows(), np.int64)))

    @property
    def lengths(self) -> Column:
        """Positions of each row."""
        return self._column("length")

    @property
    def decision_counts(self) -> Column:
        """Actions of each row."""
        return self._column("decisions")

    @property
    def turn_counts(self) -> Column:
        """Ends of turns of each row."""
        return self._column("turns")

    @property
    def continues(self) -> np.ndarray:
        """Whether each row goes on in the next one."""
        found = [(known["bits"] & CONTINUES) > 0 for known in self._known()]
        return np.concatenate(found) if found else np.zeros(0, bool)

    def _known(self) -> Iterator[np.ndarray]:
        return (self._store.rows.take(places) for places in self._chosen.blocks(_TOLD * 4))

    def _column(self, name: str) -> Column:
        return Column.joined((known[name] for known in self._known()), np.int32)

    def _made(self, row: tuple[int, ...]) -> Tokens:
        """`row`: the numbers of `_ROW`."""
        start, marks, T, count, learn_from, _, _, here, conversation = row
        said = self._store.tokens.read(start, start + T)
        marked = self._store.marks.read(marks, marks + count)
        rewards, message_logp = np.zeros(T), np.full(T, np.nan)
        rewards[marked["at"]] = marked["reward"]
        message_logp[marked["at"]] = marked["message_logp"]
        bits = said["bits"]
        return Tokens(
            ids=said["id"].astype(np.int64),
            action=(bits & ACTION) > 0,
            turn_end=(bits & TURN_END) > 0,
            rewards=rewards,
            message_logp=message_logp,
            token_logp=np.full(T, np.nan),  # logs have none
            terminated=bool(here & TERMINATED),
            learn_from=learn_from,
            next_known=bool(here & NEXT_KNOWN),
            continues=bool(here & CONTINUES),
            id=self._store.names[conversation].decode(errors="surrogatepass"),
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


def lengths(rows: Sequence[Tokens]) -> Column:
    """Positions of each row."""
    return _known(rows, "lengths", len)


def decision_counts(rows: Sequence[Tokens]) -> Column:
    """Actions of each row."""
    return _known(rows, "decision_counts", lambda t: len(t.decisions))


def turn_counts(rows: Sequence[Tokens]) -> Column:
    """Ends of the agent's turns of each row."""
    return _known(rows, "turn_counts", lambda t: int(t.turn_end.sum()))


def continues(rows: Sequence[Tokens]) -> np.ndarray:
    """Whether each row goes on in the next one."""
    on_disk = _stored(rows)
    return np.array([t.continues for t in rows], bool) if on_disk is None else on_disk.continues


def _known(rows: Sequence[Tokens], name: str, count: Callable[[Tokens], int]) -> Column:
    """What rows on disk know of themselves, and what has to be counted of others."""
    on_disk = _stored(rows)
    return Column.of([count(t) for t in rows], np.int32) if on_disk is None else getattr(on_disk, name)


def _stored(rows: Sequence[Tokens]) -> TokenRows | None:
    while isinstance(rows, ChangedRows):
        rows = rows._rows
    return rows if isinstance(rows, TokenRows) else None


class _Writer:
    """Appends rows to the columns."""

    def __init__(self, vocab: int, context: int) -> None:
        self._context = context
        self._id = np.uint16 if vocab <= 1 << 16 else np.int32
        self._tokens = Column(np.dtype([("id", self._id), ("bits", np.uint8)]))
        self._rows, self._marks, self._names = Column(_ROW), Column(_MARK), Records()
        self._first_rows, self._conversation_lengths = Column(np.int64), Column(np.int32)
        self._first_rows.extend([0])
        self._said = self._marked = self._made = 0  # tokens, marks and rows so far
        self._waiting_ids, self._spans = list[int](), list[tuple[int, int, bool]]()
        self._waiting_marks, self._waiting_rows = list[tuple[int, float, float]](), list[tuple[int, ...]]()
        self._waiting_lengths, self._waiting_firsts = list[int](), list[int]()
        self._cuts = Cuts(shortest_opening=1 << 62)

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
            self._tokens.extend(self._token(t.ids, ACTION * t.action + TURN_END * t.turn_end))
            marks = np.empty(len(marked), _MARK)
            marks["at"], marks["reward"] = marked, t.rewards[marked]
            marks["message_logp"] = t.message_logp[marked]
            self._marks.extend(marks)
            bits = TERMINATED * t.terminated | NEXT_KNOWN * t.next_known | CONTINUES * t.continues
            self._row(len(t), len(marked), t.learn_from, bits, len(t.decisions), int(t.turn_end.sum()))
        self._conversation(written)
        if written.opening > self._context // 4:  # `segments` reads no more of it again
            self._cuts = replace(self._cuts, systems=self._cuts.systems + 1)

    def _token(self, ids: Sequence[int] | np.ndarray, bits: np.ndarray) -> np.ndarray:
        found = np.empty(len(bits), self._tokens.dtype)
        found["id"], found["bits"] = ids, bits
        return found

    def _row(self, length: int, marks: int, learn_from: int, bits: int, decisions: int, turns: int) -> None:
        row = (self._said, self._marked, length, marks, learn_from, decisions, turns, bits)
        self._waiting_rows.append((*row, len(self._names)))
        self._said += length
        self._marked += marks
        self._made += 1

    def _conversation(self, written: Written) -> None:
        self._waiting_firsts.append(self._made)
        self._waiting_lengths.append(len(written.ids) + written.unread)
        self._names.add(written.id.encode(errors="surrogatepass"))
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
        self._rows.extend(np.array(self._waiting_rows, _ROW))
        self._first_rows.extend(self._waiting_firsts)
        self._conversation_lengths.extend(self._waiting_lengths)
        self._waiting_rows, self._waiting_firsts, self._waiting_lengths = [], [], []
        if not self._waiting_ids:
            return
        spans = np.array(self._spans, np.int64).reshape(-1, 3)  # start, stop, complete
        # +1 where a turn begins and -1 behind its end: the running sum is 1 inside turns, which never
        # overlap.
        steps = np.zeros(len(self._waiting_ids) + 1, np.int8)
        steps[spans[:, 0]] += 1
        steps[spans[:, 1]] -= 1
        bits = np.cumsum(steps[:-1], dtype=np.int8).astype(np.uint8) * ACTION
        bits[spans[:, 1] - 1] |= (TURN_END * spans[:, 2]).astype(np.uint8)
        self._tokens.extend(self._token(self._waiting_ids, bits))
        self._marks.extend(np.array(self._waiting_marks, _MARK))
        self._waiting_ids, self._spans, self._waiting_marks = [], [], []

    def rows(self) -> TokenRows:
        """All rows that were added."""
        self._flush()
        store = _Store(
            tokens=self._tokens,
            rows=self._rows,
            marks=self._marks,
            first_rows=self._first_rows,
            names=self._names,
            conversation_lengths=self._conversation_lengths,
        )
        return TokenRows(store, self._cuts)
