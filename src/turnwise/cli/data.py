"""turnwise data make | check | show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape

from turnwise.cli.say import console, parse
from turnwise.data.cards.feedback import describe_feedback, feedback_card, feedback_warnings
from turnwise.data.cards.logs import data_card, describe, warnings
from turnwise.data.files.feedback import read_feedback
from turnwise.data.files.logs import read_logs, write_jsonl
from turnwise.recipes.tasks import TASKS, find_task, parse_settings
from turnwise.run.errors import InputError, SettingError


@dataclass(frozen=True)
class Make:
    """Write the logs of a task, or feedback on its replies."""

    out: Path
    """file to write, .jsonl or .jsonl.gz"""
    task: str = "helpdesk"
    """a built-in task (helpdesk, negotiation, postcards), or your own as package.module:Task"""
    task_settings: tuple[str, ...] = ()
    """settings of the task, as KEY=VALUE"""
    conversations: int = 20_000
    """number of conversations, or of rows of feedback"""
    feedback: Literal["none", "pairs", "rankings", "likes", "scores"] = "none"
    """kind of feedback by simulated annotators, for a task that has it (postcards); none: logs"""
    seed: int = 0
    """the same seed writes the same file"""
    overwrite: bool = False
    """replace an existing file"""
    json: bool = False
    """print one result object on stdout"""


@dataclass(frozen=True)
class Check:
    """Read logs, or feedback, and say what is in them, or what is wrong where."""

    logs: str | None = None
    """JSONL or Parquet file, a folder of them, or a datasets name or folder"""
    feedback: str | None = None
    """the same with pairs, rankings, likes or scores of replies"""
    kind: Literal["pairs", "rankings", "likes", "scores"] | None = None
    """of the feedback; none: what its columns tell"""
    agent_role: str = "assistant"
    """of logs: whose messages are the agent's"""
    credit_partner_rewards: bool = False
    """of logs: give rewards on partners' messages to the agent's message before"""
    json: bool = False
    """print one result object on stdout"""


@dataclass(frozen=True)
class Show:
    """One conversation, token by token: roles, what is an action, rewards, discounts."""

    logs: str
    """JSONL or Parquet file, a folder of them, or a datasets name or folder"""
    index: int = 0
    """which conversation, counted from 0"""
    id: str | None = None
    """which conversation, by its id"""
    model: str | None = None
    """run folder, model folder or name whose tokenizer and chat template are used; none: words"""
    gamma: float = 1.0
    """discount per turn"""
    gamma_within_turn: float = 1.0
    """discount between two tokens of a turn"""
    per: str = "token"
    """token or turn: where decisions are taken"""
    agent_role: str = "assistant"
    """whose messages are the agent's"""
    credit_partner_rewards: bool = False
    """give rewards on partners' messages to the agent's message before"""
    json: bool = False
    """print one result object on stdout"""


def run(topic: str, args: Sequence[str]) -> dict[str, Any]:
    """One of the three."""
    kind, verb = {"make": (Make, make), "check": (Check, check), "show": (Show, show)}[topic]
    return verb(parse(kind, args, f"data {topic}", kind.__doc__ or ""))


def make(a: Make) -> dict[str, Any]:
    """Write logs, or feedback."""
    if not a.out.name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingError("out", a.out, "a name that ends in .jsonl or .jsonl.gz")
    task = find_task(a.task, parse_settings(a.task_settings))
    logs = a.feedback == "none"
    rows = (
        task.rows(a.conversations, a.seed)
        if logs
        else task.feedback_rows(a.feedback, a.conversations, a.seed)
    )
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
    if a.feedback is not None:
        return _check_feedback(a, a.feedback)
    if a.logs is None:
        raise InputError("expected --logs or --feedback, with what is to be read; found neither")
    if a.kind is not None:
        raise InputError(f"--kind {a.kind}: expected --feedback with it; found --logs")
    dialogues = read_logs(a.logs, agent_role=a.agent_role, credit_partner_rewards=a.credit_partner_rewards)
    card = data_card(dialogues, file=a.logs)
    return _tell(card, describe(card), warnings(card, dialogues), a.json)


def _check_feedback(a: Check, path: str) -> dict[str, Any]:
    if a.logs is not None:
        raise InputError("expected either --logs or --feedback; found both")
    if a.agent_role != "assistant" or a.credit_partner_rewards:
        raise InputError(
            "--agent-role, --credit-partner-rewards: expected --logs with them; found --feedback"
        )
    card = {"file": path, **feedback_card(read_feedback(path, a.kind))}
    return _tell(card, [("File", path), *describe_feedback(card)], feedback_warnings(card), a.json)


def _tell(
    card: dict[str, Any], lines: Sequence[tuple[str, str]], hints: list[str], json: bool
) -> dict[str, Any]:
    out = console(json)
    for label, value in lines:
        out.print(f"  [bold]{label:<24}[/bold]{escape(value)}", soft_wrap=True)
    for hint in hints:
        out.print(f"  [yellow]mind[/yellow] {escape(hint)}", soft_wrap=True)
    return {**card, "warnings": hints}


def show(a: Show) -> dict[str, Any]:
    """Print one conversation as it will be learnt from."""
    from turnwise.cli.show import print_conversation

    dialogues = read_logs(a.logs, agent_role=a.agent_role, credit_partner_rewards=a.credit_partner_rewards)
    if a.per not in ("token", "turn"):
        raise InputError(f"--per {a.per}: expected token or turn")
    if a.id is not None:
        chosen = [d for d in dialogues if d.id == a.id]
        if not chosen:
            raise InputError(f"--id {a.id}: {a.logs} has no conversation of that id")
    elif not 0 <= a.index < len(dialogues):
        raise InputError(f"--index {a.index}: {a.logs} has {len(dialogues)} conversations, counted from 0")
    else:
        chosen = [dialogues[a.index]]
    return print_conversation(
        chosen[0],
        console(a.json),
        corpus=dialogues[:2000],
        model=a.model,
        gamma=a.gamma,
        gamma_within_turn=a.gamma_within_turn,
        per=a.per,
    )
