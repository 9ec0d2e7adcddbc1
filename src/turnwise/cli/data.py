"""turnwise data make | check | show | convert | talk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from turnwise.cli.say import console, parse, styled
from turnwise.cli.words import split_words
from turnwise.recipes.settings.train import FeedbackReading, LogReading
from turnwise.run.checks import NOT_NEGATIVE, ONE_OR_MORE, SEED, SHARE, check_choice
from turnwise.run.checks import check as check_numbers
from turnwise.run.errors import InputError, SettingError
from turnwise.run.rehearsal import at_most

REHEARSED = 60
"""conversations, or rows of feedback, of a rehearsal"""
Kind = Literal["pairs", "rankings", "likes", "scores"]


@dataclass(frozen=True)
class Make:
    """Write the logs of a task, or feedback on its replies."""

    out: Path
    """File to write, .jsonl or .jsonl.gz."""
    task: str = "helpdesk"
    """A built-in task (dealer, helpdesk, maze, negotiation, postcards, travel, twenty), or your own as
    package.module:Task."""
    task_settings: tuple[str, ...] = ()
    """Settings of the task, each as KEY=VALUE."""
    conversations: int = 20_000
    """Number of conversations, or of rows of feedback."""
    feedback: Literal["none", "pairs", "rankings", "likes", "scores"] = "none"
    """Kind of feedback by simulated annotators, for a task that has it (postcards); none: logs."""
    seed: int = 0
    """The same seed writes the same file."""
    overwrite: bool = False
    """Replace an existing file."""
    json: bool = False
    """Print one result object on stdout."""

    def __post_init__(self) -> None:
        check_numbers(self, conversations=ONE_OR_MORE, seed=SEED)


@dataclass(frozen=True)
class CheckSource:
    """What is read."""

    logs: str | None = None
    """File of conversations (JSONL, JSON, CSV, Parquet), a folder of them, or a datasets name or folder."""
    feedback: str | None = None
    """The same with pairs, rankings, likes or scores of replies."""
    kind: Kind | None = None
    """Kind of the feedback; none: its columns tell."""
    model: str | None = None
    """Run folder, model folder or name: how long the conversations are for it, and what does not fit."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Check:
    """Read logs, or feedback, and say what is in them, or what is wrong where."""

    source: CheckSource = CheckSource()
    reading: LogReading = field(default_factory=LogReading)


@dataclass(frozen=True)
class ShowSource:
    """Which conversation is shown, and how."""

    logs: str
    """File of conversations (JSONL, JSON, CSV, Parquet), a folder of them, or a datasets name or folder."""
    index: int = 0
    """Which conversation, counted from 0."""
    id: str | None = None
    """Which conversation, by its id."""
    model: str | None = None
    """Run folder, model folder or name whose tokenizer and chat template are used; none: words."""
    gamma: float = 1.0
    """Discount per turn."""
    gamma_within_turn: float = 1.0
    """Discount between two tokens of a turn."""
    per: str = "token"
    """token or turn: where decisions are taken."""
    json: bool = False
    """Print one result object on stdout."""

    def __post_init__(self) -> None:
        check_numbers(self, index=NOT_NEGATIVE, gamma=SHARE, gamma_within_turn=SHARE)
        check_choice(self, per=("token", "turn"))


@dataclass(frozen=True)
class Show:
    """One conversation, token by token: roles, what is an action, rewards, discounts."""

    source: ShowSource
    reading: LogReading = field(default_factory=LogReading)


@dataclass(frozen=True)
class ConvertSource:
    """What is read, and where it is written."""

    source: str
    """JSONL, JSON, CSV or Parquet file of logs or feedback, a folder, or a datasets name or folder; or a
    language model in a .gguf file."""
    out: Path
    """File to write, .jsonl or .jsonl.gz; for a .gguf file, the folder of the model."""
    kind: Kind | None = None
    """Kind of the feedback; none: the columns tell, and whether it is feedback at all."""
    overwrite: bool = False
    """Replace an existing file."""
    json: bool = False
    """Print one result object on stdout."""


@dataclass(frozen=True)
class Convert:
    """Logs or feedback of any form into the one that Turnwise writes; a .gguf file into a model folder."""

    source: ConvertSource
    reading: LogReading = field(default_factory=LogReading)


def run(topic: str, args: Sequence[str]) -> dict[str, Any]:
    """One of the five."""
    if topic == "talk":
        from turnwise.cli import spoken_logs

        return spoken_logs.run(args)
    kind, verb, alone = {
        "make": (Make, make, ()),
        "check": (Check, check, ("logs",)),
        "show": (Show, show, ("logs",)),
        "convert": (Convert, convert_file, ("source", "out")),
    }[topic]
    if topic == "check" and not {"-h", "--help"} & set(args):
        words = split_words(Check, args)
        if len(words.alone) == 1 and not {"logs", "feedback"} & set(words.flags):
            from turnwise.data.files.feedback import holds_feedback

            if "kind" in words.flags or holds_feedback(words.alone[0]):
                args = ["--feedback", *words.alone, *words.rest]
    return verb(parse(kind, args, f"data {topic}", kind.__doc__ or "", alone))


def make(a: Make) -> dict[str, Any]:
    """Write logs, or feedback."""
    if not a.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingError("out", str(a.out), "a name that ends in .jsonl or .jsonl.gz")
    from turnwise.data.files.writing import write_jsonl
    from turnwise.recipes.settings.words import parse_settings
    from turnwise.recipes.tasks import TASKS, find_task

    task = find_task(a.task, parse_settings(a.task_settings))
    logs = a.feedback == "none"
    n = at_most(REHEARSED, a.conversations)
    rows = task.rows(n, a.seed) if logs else task.feedback_rows(a.feedback, n, a.seed)
    count = write_jsonl(a.out, rows, overwrite=a.overwrite)
    what = "conversations" if logs else a.feedback
    console(a.json).print(f"{count:,} {what} of {a.task} written to {a.out}")
    return {
        "file": str(a.out),
        "conversations": count,
        "task": a.task,
        "seed": a.seed,
        "tasks": sorted(TASKS),
    }


def check(a: Check) -> dict[str, Any]:
    """Count what is there."""
    s = a.source
    if s.feedback is not None:
        return _check_feedback(a, s.feedback)
    if s.logs is None:
        raise InputError("expected what is to be read: a path by itself, or after --logs or --feedback")
    if s.kind is not None:
        raise InputError(f"--kind {s.kind}: expected --feedback with it; found --logs")
    from turnwise.data.cards.logs import data_card, describe, warnings
    from turnwise.data.files.logs import read_logs

    logs = read_logs(s.logs, **vars(a.reading))
    fit: dict[str, Any] = {}
    if s.model is not None:
        from turnwise.recipes.fitting import fit_of

        fit = fit_of(logs, s.model)
    card = data_card(logs, file=s.logs, **fit)
    return _print_card(card, describe(card), warnings(card, logs), s.json)


def _check_feedback(a: Check, path: str) -> dict[str, Any]:
    if a.source.logs is not None:
        raise InputError("expected either --logs or --feedback; found both")
    if a.source.model is not None:
        raise InputError(f"--model {a.source.model}: expected --logs with it; found --feedback")
    reading = feedback_reading(a.reading)
    from turnwise.data.cards.feedback import describe_feedback, feedback_card, feedback_warnings
    from turnwise.data.files.feedback import read_feedback

    found = read_feedback(path, a.source.kind, **vars(reading))
    card = {"file": path, **feedback_card(found), "reading": found.reading.notes()}
    lines = [("File", path), *describe_feedback(card)]
    return _print_card(card, lines, feedback_warnings(card), a.source.json)


def feedback_reading(reading: LogReading) -> FeedbackReading:
    """What of the settings feedback knows. InputError for one that it does not."""
    for f in fields(reading):
        if f.name not in ("map_role", "skip_bad") and getattr(reading, f.name) != f.default:
            raise InputError(f"--{f.name.replace('_', '-')}: expected logs with it; found feedback")
    return FeedbackReading(reading.map_role, reading.skip_bad)


def convert_file(a: Convert) -> dict[str, Any]:
    """Read, and write."""
    from turnwise.data.files.convert import convert
    from turnwise.data.files.feedback import holds_feedback

    s, reading = a.source, vars(a.reading)
    if s.source.endswith(".gguf"):
        return _convert_model(a)
    if s.kind is not None or holds_feedback(s.source):
        reading = {**vars(feedback_reading(a.reading)), "kind": s.kind}
    read = convert(s.source, s.out, overwrite=s.overwrite, **reading)
    out = console(s.json)
    out.print(f"{len(read):,} {getattr(read, 'kind', 'conversations')} written to {s.out}", markup=False)
    for note in read.reading.notes():
        out.print(note, markup=False)
    return {"file": str(s.out), "rows": len(read), "reading": read.reading.notes()}


def _convert_model(a: Convert) -> dict[str, Any]:
    s = a.source
    if s.kind is not None or a.reading != LogReading():
        raise InputError(f"{s.source}: a model; expected --out and --overwrite alone with it")
    from turnwise.models.lm.gguf import model_folder

    folder = model_folder(s.source, s.out, overwrite=s.overwrite)
    console(s.json).print(f"model written to {folder}", markup=False)
    return {"folder": str(folder)}


def _print_card(
    card: dict[str, Any], lines: Sequence[tuple[str, str]], found: list[str], json: bool
) -> dict[str, Any]:
    out = console(json)
    for label, value in lines:
        out.print(styled("  [bold]{}[/bold]{}", f"{label:<24}", value), soft_wrap=True)
    for text in found:
        out.print(styled("  [yellow]warning[/yellow] {}", text), soft_wrap=True)
    return {**card, "warnings": found}


def show(a: Show) -> dict[str, Any]:
    """Print one conversation as it will be learnt from."""
    from turnwise.cli.show import print_conversation
    from turnwise.data.files.logs import read_logs

    s = a.source
    logs = read_logs(s.logs, **vars(a.reading))
    if s.id is not None:
        chosen = [d for d in logs if d.id == s.id]
        if not chosen:
            raise SettingError("id", s.id, f"the id of a conversation of {s.logs}; it has none of that id")
    elif s.index >= len(logs):
        expected = f"a number below {len(logs)}: {s.logs} has so many conversations, counted from 0"
        raise SettingError("index", s.index, expected)
    else:
        chosen = [logs[s.index]]
    return print_conversation(
        chosen[0],
        console(s.json),
        corpus=logs[:2000],
        model=s.model,
        gamma=s.gamma,
        gamma_within_turn=s.gamma_within_turn,
        per=s.per,
    )
