"""A language model as servers read it: a folder of its weights, or of its adapters alone.

Many models have one matrix for the embedding and for the output layer. A server may have made a copy for the
output layer (vLLM packs weights anew on CPUs), and forgets it where weights are replaced. So what is written
here has an output layer of its own, which is the same function. A server that was started with a tied matrix
passes that over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from turnwise.models.lm.pretrained import save_lm, share_files, without_bars
from turnwise.run.files.digests import digest_of
from turnwise.run.files.whole import whole_folder


def is_adapted(lm: Any) -> bool:
    """Whether it is a base with adapters, of which the adapters alone change."""
    return hasattr(lm, "peft_config")


def is_tied(lm: Any) -> bool:
    """Whether the output layer is the embedding's matrix."""
    return lm.get_output_embeddings().weight is lm.get_input_embeddings().weight


def version_of(lm: Any) -> str:
    """A digest of the weights that change: of all of them, or of the adapters."""
    if not is_adapted(lm):
        return digest_of(lm)
    from peft import get_peft_model_state_dict

    return digest_of(*(x for pair in sorted(get_peft_model_state_dict(lm).items()) for x in pair))


def write_served(folder: Path, lm: Any, tokenizer: Any = None) -> None:
    """Write the weights, or the adapters, so that a server may read them: whole or not at all.

    With a tokenizer a server can be started from the folder.
    """
    without_bars()
    if is_adapted(lm):
        with whole_folder(folder, "adapter_config.json") as part:
            lm.save_pretrained(part)
            share_files(part)
        return
    with whole_folder(folder, "config.json") as part, _untied(lm):
        if tokenizer is None:
            lm.save_pretrained(part)
            share_files(part)
        else:
            save_lm(part, lm, tokenizer)


@contextlib.contextmanager
def _untied(lm: Any) -> Iterator[None]:
    """Let the output layer have a matrix of its own meanwhile. What learns keeps its parameters."""
    if not is_tied(lm):
        yield
        return
    head, config = lm.get_output_embeddings(), lm.config.get_text_config()
    shared = head.weight
    head.weight = nn.Parameter(shared.detach().clone(), requires_grad=shared.requires_grad)
    config.tie_word_embeddings = False
    try:
        yield
    finally:
        head.weight = shared
        config.tie_word_embeddings = True
