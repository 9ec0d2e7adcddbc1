"""Feedback from anyone's files or from memory: pairs, rankings, likes and scores; and back to JSONL.

Columns are those of TRL's data sets (`prompt, chosen, rejected`; `prompt, completion, label`), with rankings
and scores beside them; OpenAI's pairs are read too. `docs/how-to/feedback.md` has the format and all errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from turnwise.data.dataset import FeedbackSet
from turnwise.data.dialogue import chat_message
from turnwise.data.feedback import Feedback, Kind, Like, Pair, Prompt, Ranking, Score, kind_of
from turnwise.data.files.faults import Faults, Names, items_of
from turnwise.data.files.fields import read_flag, read_name, read_number, unexpected, without_nulls
from turnwise.data.files.formats import Row
from turnwise.data.files.messages import MESSAGES, MapRole, Roles, listed
from turnwise.data.files.replies import PROMPT, read_prompt, split_replies
from turnwise.data.files.sources import Source, name_of, read_rows
from turnwise.data.files.writing import write_jsonl
from turnwise.run.errors import InputError, SettingError

COMMON = ("id", "prompt", "annotator")
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected", "margin", "tie"),
    "rankings": ("completions", "ranks"),
    "likes": ("completion", "label"),
    "scores": ("completion", "score"),
}
OPENAI = ("input", "preferred_output", "non_preferred_output")
_REPLIES = ("chosen", "rejected", "completions", "completion", *OPENAI[1:])

_KINDS = (
    "the columns of pairs (prompt, chosen, rejected), rankings (prompt, completions), "
    "likes (prompt, completion, label) or scores (prompt, completion, score)"
)


def read_feedback(
    source: Source,
    kind: Kind | None = None,
    *,
    map_role: MapRole = (),
    skip_bad: bool = False,
    quiet: bool = False,
) -> FeedbackSet:
    """All judgements of a path, or of rows in memory.

    `source` is a file, a folder of files, a `datasets` folder or name (`name:split`); or any iterable of
    rows: dicts with the columns of a file, or values of `Pair`, `Ranking`, `Like`, `Score`, which are taken
    as they are. A source holds one kind. Without `kind` the columns of each row must tell the same one; with
    it, columns of other kinds are metadata. `map_role`, `skip_bad` and `quiet` are those of `read_logs`.
    Anything wrong is an `InputError`: `file:line: field: expected ...; found ...`, or `row 3: field: ...`
    with rows in memory counted from 0; it tells the first ten faults and how many there are.
    """
    if kind is not None and kind not in COLUMNS:
        raise SettingError("kind", kind, f"one of {', '.join(COLUMNS)}")
    known = None if kind is None else _Known(kind, "")
    roles, text = Roles(map_role), True

    def parse(row: Row) -> Feedback:
        nonlocal known, text
        if isinstance(row.value, Feedback):
            text, known = False, _as_known(kind_of(row.value), row.where, known)
            return row.value
        if not isinstance(row.value, dict):
            raise unexpected(row.where, "", "a dict, which is one judgement", row.value)
        if kind is None:
            known = _kind_by_columns(row.value, row.where, known)
        item = _item(row, kind or known.kind, roles)  # pyright: ignore[reportOptionalMemberAccess]
        text &= isinstance(row.value.get("prompt"), str) and len(item.prompt) == 1  # a transcript is a chat
        return item

    faults, names = Faults(name_of(source), "judgement"), Names()
    items = tuple(items_of(read_rows(source, quiet=quiet), parse, faults, names))
    twice = set(names.repeated(lambda i: items[i].id, faults).tolist())
    items = tuple(item for i, item in enumerate(items) if i not in twice) if twice else items
    faults.judge(len(items), skip_bad)
    return FeedbackSet(items, faults.name, faults.reading(source), text=text)


def holds_feedback(source: Source) -> bool:
    """Whether the first row of a source has replies to a prompt, and no conversation."""
    first = next(read_rows(source, quiet=True), None)
    if first is None or not isinstance(first.value, Mapping):
        return isinstance(first and first.value, Feedback)
    columns = {name for name, value in first.value.items() if value is not None}
    return not columns.isdisjoint(_REPLIES) and columns.isdisjoint(MESSAGES)


def prompt_of(row: Mapping[str, Any], where: str, roles: Roles | None = None) -> Prompt:
    """The prompt of a row: its column `prompt`, or what the replies of a row of feedback begin with."""
    roles = roles or Roles()
    if row.get("prompt") is not None:
        return read_prompt(row["prompt"], where, "prompt", roles)
    columns = {name for name, value in row.items() if value is not None}
    if columns.isdisjoint(_REPLIES):
        raise unexpected(where, "prompt", PROMPT, None)
    return _item(Row(where, where, row), _kind_by_columns(row, where, None).kind, roles).prompt


def to_row(feedback: Feedback) -> dict[str, Any]:
    """The row that `read_feedback` turns into `feedback` again: prompt and replies as lists of messages.

    Raises ValueError if a metadata key is a field of
    the format.
    """
    kind = kind_of(feedback)
    clash = sorted(set(feedback.metadata) & {*COMMON, *COLUMNS[kind]})
    if clash:
        raise ValueError(f"metadata keys {clash} are fields of the format of {kind}")
    row: dict[str, Any] = {"id": feedback.id} if feedback.id else {}
    row["prompt"] = [chat_message(m) for m in feedback.prompt]
    replies = [[{"role": "assistant", "content": reply}] for reply in feedback.replies]
    if isinstance(feedback, Pair):
        row |= {"chosen": replies[0], "rejected": replies[1]}
        row |= {} if feedback.margin is None else {"margin": feedback.margin}
        row |= {"tie": True} if feedback.tie else {}
    elif isinstance(feedback, Ranking):
        row |= {"completions": replies, "ranks": list(feedback.ranks)}
    elif isinstance(feedback, Like):
        row |= {"completion": replies[0], "label": feedback.liked}
    else:
        row |= {"completion": replies[0], "score": feedback.score}
    if feedback.annotator is not None:
        row["annotator"] = feedback.annotator
    return row | dict(feedback.metadata)


def write_feedback(path: str | Path, items: Iterable[Feedback], *, overwrite: bool = False) -> int:
    """Write one item a line, whole or not at all (see `write_jsonl`), and return how many.

    Raises ValueError for items that could not be read back: two kinds, or an id twice.
    """
    return write_jsonl(path, _rows(items), overwrite=overwrite)


def _rows(items: Iterable[Feedback]) -> Iterator[dict[str, Any]]:
    kind, ids = None, set()
    for item in items:
        kind = kind or kind_of(item)
        if kind_of(item) != kind:
            raise ValueError(f"a file holds one kind; got {kind} and {kind_of(item)}")
        if item.id and item.id in ids:
            raise ValueError(f"two items have the id {item.id!r}")
        ids.add(item.id)
        yield to_row(item)


# --- which kind ---------------------------------------------------------------------------------------


class _Known(NamedTuple):
    kind: Kind
    where: str
    """The row that told it first; empty if the caller named the kind."""


def _kind_by_columns(row: Mapping[str, Any], where: str, known: _Known | None) -> _Known:
    """The kind that the columns of a row tell, which must be the one that is known if one is."""
    columns = [name for name, value in row.items() if value is not None]
    kinds: list[Kind] = []
    if not {"chosen", "rejected", *OPENAI[1:]}.isdisjoint(columns):
        kinds.append("pairs")
    if "completions" in columns:
        kinds.append("rankings")
    if "completion" in columns:
        if "label" in columns:
            kinds.append("likes")
        if "score" in columns:
            kinds.append("scores")
    if len(kinds) > 1:
        found = f"found those of {' and '.join(kinds)}"
        raise InputError(
            f"{where}: expected columns of one kind, or the setting kind to say which is meant; {found}"
        )
    if kinds:
        return _as_known(kinds[0], where, known)
    if known is None:
        raise InputError(f"{where}: expected {_KINDS}; found {_names(columns)}")
    return known  # such a row lacks a column, which its parser says


def _as_known(kind: Kind, where: str, known: _Known | None) -> _Known:
    if known is None:
        return _Known(kind, where)
    if kind != known.kind:
        as_in = f", as in {known.where}" if known.where else ""
        raise InputError(f"{where}: expected {known.kind}{as_in}; found {kind}")
    return known


def _names(columns: Sequence[Any]) -> str:
    """Names of columns, shortened if they are many or long, and printable."""
    shown = ", ".join(ascii(name)[1:-1][:20] for name in columns[:6]) + (", ..." if len(columns) > 6 else "")
    return shown or "no columns"


# --- one judgement ------------------------------------------------------------------------------------


def _item(found: Row, kind: Kind, roles: Roles) -> Feedback:
    where, row = found.where, found.value
    columns = {*COMMON, *COLUMNS[kind]}
    openai = kind == "pairs" and row.get("chosen") is None and row.get("rejected") is None
    openai = openai and not (row.get(OPENAI[1]) is None and row.get(OPENAI[2]) is None)
    if openai:
        columns |= set(OPENAI)
    annotator = read_name(row.get("annotator"), where, "annotator")
    shared = {
        "annotator": annotator,
        "id": read_name(row.get("id"), where, "id") or found.id,
        "metadata": {k: without_nulls(v) for k, v in row.items() if v is not None and k not in columns},
    }
    if openai:
        return _openai_pair(row, where, shared, roles)
    prompt = None if row.get("prompt") is None else read_prompt(row["prompt"], where, "prompt", roles)
    if kind == "pairs":
        sides = {side: row.get(side) for side in ("chosen", "rejected")}
        return _pair(row, *split_replies(prompt, sides, where, roles), ("chosen", "rejected"), where, shared)
    if kind == "rankings":
        return _ranking(row, prompt, where, shared, roles)
    prompt, (completion,) = split_replies(prompt, {"completion": row.get("completion")}, where, roles)
    if kind == "likes":
        return Like(prompt, completion, read_flag(row.get("label"), where, "label"), **shared)
    return Score(prompt, completion, read_number(row.get("score"), where, "score"), **shared)


def _openai_pair(row: Mapping[str, Any], where: str, shared: dict[str, Any], roles: Roles) -> Pair:
    given = row.get("input")
    if not isinstance(given, dict):
        raise unexpected(where, "input", "an object with messages", given)
    prompt = read_prompt(given.get("messages"), where, "input.messages", roles)
    rest = {k: without_nulls(v) for k, v in given.items() if v is not None and k != "messages"}
    if rest:
        shared["metadata"]["input"] = rest
    sides = {side: row.get(side) for side in OPENAI[1:]}
    return _pair(row, *split_replies(prompt, sides, where, roles), OPENAI[1:], where, shared)


def _pair(
    row: Mapping[str, Any],
    prompt: Prompt,
    replies: Sequence[str],
    sides: Sequence[str],
    where: str,
    shared: dict[str, Any],
) -> Pair:
    margin = None if row.get("margin") is None else read_number(row["margin"], where, "margin")
    tie = row.get("tie") is not None and read_flag(row["tie"], where, "tie")
    if replies[0] == replies[1] and not tie:
        raise unexpected(where, sides[1], f"another reply than {sides[0]}, or a tie", replies[1])
    return Pair(prompt, replies[0], replies[1], margin, tie, **shared)


def _ranking(
    row: Mapping[str, Any], prompt: Prompt | None, where: str, shared: dict[str, Any], roles: Roles
) -> Ranking:
    given, ranks = listed(row.get("completions")), listed(row.get("ranks"))
    if isinstance(row.get("labels"), list) and ranks is None:
        raise unexpected(where, "ranks", "ranks of the completions (labels of steps are not read)", ranks)
    if not isinstance(given, list) or len(given) < 2:
        raise unexpected(where, "completions", "a list of two or more replies", given)
    prompt, replies = split_replies(
        prompt, {f"completions[{i}]": reply for i, reply in enumerate(given)}, where, roles
    )
    if ranks is None:
        ranks = list(range(1, len(given) + 1))
    if not isinstance(ranks, list) or len(ranks) != len(given):
        raise unexpected(where, "ranks", f"a list of {len(given)} whole numbers, one for each reply", ranks)
    first: dict[str, int] = {}
    for i, (reply, rank) in enumerate(zip(replies, ranks, strict=True)):
        if isinstance(rank, bool) or not isinstance(rank, int):
            raise unexpected(where, f"ranks[{i}]", "a whole number, the smaller the better", rank)
        if ranks[first.setdefault(reply, i)] != rank:
            expected = f"another reply than completions[{first[reply]}], or the same rank"
            raise unexpected(where, f"completions[{i}]", expected, reply)
    return Ranking(prompt, replies, tuple(ranks), **shared)
