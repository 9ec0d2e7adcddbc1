"""One conversation as a model reads it, in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from turnwise.cli.say import styled
from turnwise.data.batch import Batch, pack_tokens, pack_turns
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.tokens import Tokens
from turnwise.models.lm.fresh import train_tokenizer
from turnwise.models.lm.pretrained import load_lm
from turnwise.run.terminal import visible

ROLE_STYLE = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}


def print_conversation(
    d: Dialogue,
    out: Console,
    *,
    corpus: Sequence[Dialogue],
    model: str | None,
    gamma: float,
    gamma_within_turn: float,
    per: str,
) -> dict[str, Any]:
    """Messages with their rewards, then every decision: position, action, reward, discount."""
    chat = ChatFormat(_tokenizer(corpus, model))
    row = chat.encode([d])[0]
    batch = (
        pack_tokens([row], gamma=gamma, gamma_within_turn=gamma_within_turn)
        if per == "token"
        else pack_turns([row], gamma=gamma)
    )
    end = "a true end" if d.terminated else "cut, its value goes on"
    rated = d.rated_by != "nothing"
    worth = f"return {d.undiscounted_return():g}" if rated else "without an outcome"
    out.print(styled("[bold]{}[/bold]  {}, ended: {}", d.id or "conversation", worth, end))
    for m in d.messages:
        line = Text(f"{m.role:>10}  ", style=ROLE_STYLE.get(m.role, ""))
        line.append(visible(spoken(m)), style="bold" if m.role == d.agent_role else "")
        if m.role == d.agent_role:
            line.append(f"   reward {m.reward:g}", style="red" if m.reward < 0 else "green")
            if m.behavior_logp is not None:
                line.append(f"   behaviour log-prob {m.behavior_logp:.3f}", style="dim")
        out.print(line)
    out.print(
        styled("\n[bold]as {} tokens[/bold] (the agent's actions in [reverse]reverse[/reverse])", len(row))
    )
    out.print(_tokens_line(chat, row))
    out.print(styled("\n[bold]decisions per {}[/bold]", per))
    rows = _decisions(chat, row, batch)
    for r in rows:
        out.print(
            f"  {r['decision']:>3}  from position {r['position']:>4}  {r['action']!r:<28} "
            f"reward {r['reward']:>7.3f}  discount {r['discount']:.3f}  "
            f"{'learnt from' if r['learnt'] else 'read, not learnt from'}",
            markup=False,
        )
    return {
        "id": d.id,
        "return": d.undiscounted_return() if rated else None,
        "terminated": d.terminated,
        "ids": row.ids.tolist(),
        "action": row.action.tolist(),
        "decisions": rows,
    }


def _tokens_line(chat: ChatFormat, row: Tokens) -> Text:
    line = Text()
    for piece, action in zip(chat.pieces(row.ids), row.action, strict=True):
        line.append(visible(piece).replace("\n", "⏎"), style="reverse green" if action else "dim")
        line.append("·", style="dim")
    return line


def _decisions(chat: ChatFormat, row: Tokens, batch: Batch) -> list[dict[str, Any]]:
    found = []
    for k in range(int(batch.mask.sum())):
        start, end = int(batch.decisions[0, k]) + 1, int(batch.ends[0, k])
        found.append(
            {
                "decision": k,
                "position": start - 1,
                "action": "".join(chat.pieces(row.ids[start : end + 1])),
                "reward": float(batch.rewards[0, k]),
                "discount": float(batch.discounts[0, k]),
                "learnt": bool(batch.loss_mask[0, k]),
            }
        )
    return found


def _tokenizer(corpus: Sequence[Dialogue], model: str | None) -> Any:
    if model is None:
        return train_tokenizer((spoken(m) for d in corpus for m in d.messages), 1024, 512)
    from pathlib import Path

    policy = Path(model) / "policy"
    return load_lm(str(policy if policy.is_dir() else model))[1]
