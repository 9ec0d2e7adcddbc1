"""How logs fit a model, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dataset import Logs
from turnwise.data.rows import token_rows
from turnwise.models.lm.pretrained import load_tokenizer


def fit_of(logs: Logs, model: str | Path) -> dict[str, Any]:
    """What `data_card` says of lengths: tokens of every conversation, the context, and what does not fit it.

    `model`: a run folder, a model folder or a name. Of it only the tokenizer is read, and the size of the
    context. InputError for a conversation that its chat template does not take.
    """
    policy = Path(model) / "policy"
    tokenizer, context = load_tokenizer(str(policy if policy.is_dir() else model))
    rows = token_rows(logs, ChatFormat(tokenizer), context)
    return {"lengths": rows.conversation_lengths, "context": context, "cuts": rows.cuts}
