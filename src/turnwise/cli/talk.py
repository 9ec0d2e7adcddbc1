"""turnwise talk."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from turnwise.cli.say import console, notice, parse, styled
from turnwise.run.checks import SEED, check
from turnwise.run.errors import InputError

if TYPE_CHECKING:
    from turnwise.recipes.trained import ActPolicy, Policy

HELP = "An empty line or Ctrl-D ends it, /new begins again, /undo takes back the last exchange."


@dataclass(frozen=True)
class Talk:
    """Answer a trained policy in the terminal, message by message."""

    run: str
    """Run folder of a policy, or any language model by folder or name."""
    system: str | None = None
    """System message that the conversation begins with."""
    agent_first: bool = False
    """Let the policy speak first, as it does if the agent of its logs did."""
    seed: int = 0
    """The same seed and the same words give the same replies."""
    json: bool = False
    """Print the conversation as one row of a log on stdout."""

    def __post_init__(self) -> None:
        check(self, seed=SEED)


def run(args: Sequence[str]) -> dict[str, Any]:
    """Talk until there is nothing more to read."""
    a = parse(Talk, args, "talk", Talk.__doc__ or "", alone="run")
    from turnwise.recipes.opened import load
    from turnwise.recipes.trained import ActPolicy, Policy

    policy = load(a.run)
    if not isinstance(policy, Policy | ActPolicy):
        raise InputError(f"{a.run}: expected a policy that speaks; found {type(policy).__name__.lower()}")
    begun = [{"role": "system", "content": a.system}] if a.system else []
    return {"messages": _talk(policy, begun, a)}


def _talk(policy: Policy | ActPolicy, begun: list[dict[str, str]], a: Talk) -> list[dict[str, str]]:
    """The messages of the conversation, once nothing more is typed."""
    out, typed = console(a.json), sys.stdin.isatty()
    if typed:
        notice(HELP)
    messages = list(begun)
    while True:
        if a.agent_first and len(messages) == len(begun):
            said = None
        else:
            said = _typed("you: " if typed else "")
            if not said:
                return messages
            if said == "/new":
                messages = list(begun)
                notice("(a new conversation)")
                continue
            if said == "/undo":
                del messages[max(len(begun), len(messages) - 2) :]
                notice("(the last exchange is taken back)")
                continue
        heard = [*messages, {"role": "user", "content": said}] if said is not None else messages
        try:
            reply = policy.reply(heard, seed=a.seed + len(heard))
        except InputError as error:  # the context is full, for one; what was said stays
            notice(f"{error} (/new begins again)")
            if not typed:
                raise
            continue
        messages = [*heard, {"role": "assistant", "content": reply}]
        if not typed and said is not None:
            out.print(styled("[dim]you:[/dim] {}", said))
        out.print(
            styled("[bold]agent:[/bold] {}", reply) if reply else styled("[bold]agent:[/bold] (nothing)")
        )


def _typed(prompt: str) -> str:
    """A line without its end; empty at the end of the input."""
    try:
        if prompt:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        return sys.stdin.readline().strip()
    except UnicodeDecodeError as error:
        raise InputError(
            f"what was typed is not text in this terminal's encoding: {json.dumps(str(error))}"
        ) from None
