"""What each way of taking less memory saves, and what it costs in time: a step of cloning with adapters.

    python benchmarks/less_memory.py                        the table, benchmarks/less_memory.md and .json

Four layers of SmolLM2's sizes (576 features, a vocabulary of 49,152, fresh weights), adapters of rank 8, 16
rows of 30 to 330 tokens of which two fifths are the agent's. Memory: one step in a process of its own, the
highest resident memory above that before the model was there. Time: CPU seconds of a step, the median of
three rounds in which all ways take their step in turn, in one process with one thread.

    plain      all rows in one padded block, logits of all the agent's tokens at once
    chunks     logits 16 million numbers at a time, as every verb has it
    parts      gradients added up over micro-batches of four rows of like lengths, so that less is padding
    again      gradient checkpointing
    packed     rows one after another, without padding
    all        all four

`tests/invariants/test_less_memory.py` and `tests/models/lm/test_chunks.py`: losses and gradients stay as they
were.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.chunks import MOST
from turnwise.models.lm.learning.packing import pack_rows_
from turnwise.models.lm.learning.recompute import recompute_layers_
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.replies import actions_logp
from turnwise.run.distributed import World
from turnwise.run.passes import Passes

ROWS, VOCAB, LAYERS = 16, 49_152, 4
WAYS: dict[str, frozenset[str]] = {
    "plain": frozenset(),
    "chunks": frozenset({"chunks"}),
    "parts": frozenset({"parts"}),
    "again": frozenset({"again"}),
    "packed": frozenset({"packed"}),
    "all": frozenset({"chunks", "parts", "again", "packed"}),
}


def rows() -> list[Tokens]:
    """Turns of a partner, 6 to 30 tokens, and of the agent, two thirds as long."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(ROWS):
        writer, length = TokenWriter(), 30 + 20 * i
        while len(writer.ids) < length:
            n = min(int(rng.integers(6, 31)), length - len(writer.ids))
            writer.read(rng.integers(10, VOCAB, n).tolist())
            writer.act(rng.integers(10, VOCAB, max(1, 2 * n // 3)).tolist(), 0.0, None)
        found.append(writer.tokens(terminated=True, next_known=True, id=str(i)))
    return found


def step_of(way: str) -> Callable[[list[Tokens]], float]:
    """A step forward and back; gives the length of the gradient."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}
    sizes |= {"num_key_value_heads": 3, "num_hidden_layers": LAYERS, "vocab_size": VOCAB}
    config = LlamaConfig(**sizes, max_position_embeddings=1024, tie_word_embeddings=True)
    lm = with_lora(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval(), 8)
    how = WAYS[way]
    if "packed" in how:
        pack_rows_(trunk_of(lm))
    if "again" in how:
        recompute_layers_(trunk_of(lm))
    passes = Passes(rows=4 if "parts" in how else None)
    learning = [p for p in lm.parameters() if p.requires_grad]

    def step(each: list[Tokens]) -> float:
        for p in learning:
            p.grad = None
        longest, world = max(map(len, each)), World()
        for part in passes.parts(sorted(each, key=len), longest, world):
            batch = pack_tokens(part, gamma=1.0)
            logp = actions_logp(lm, batch, most_logits=MOST if "chunks" in how else 2**62)
            (-logp.sum() / 1000).backward()
        return float(torch.nn.utils.clip_grad_norm_(learning, 1e9))

    return step


def peak() -> float:
    """The highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(way: str) -> dict[str, float]:
    """One step in this process."""
    import peft  # noqa: F401  # libraries load what they load
    import transformers.models.llama.modeling_llama  # noqa: F401

    each, before = rows(), peak()
    norm = step_of(way)(each)
    return {"peak_mib": peak() - before, "gradient": norm}


def times(rounds: int = 3) -> dict[str, float]:
    """CPU seconds of a step of each way; a first round warms up."""
    each, steps = rows(), {way: step_of(way) for way in WAYS}
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for i in range(rounds + 1):
        for way, step in steps.items():
            began = time.process_time()
            step(each)
            if i:
                taken[way].append(time.process_time() - began)
    return {way: statistics.median(x) for way, x in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="the memory of this one alone, in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.way:
        print(json.dumps(memory(a.way)))
        return
    found: dict[str, dict[str, float]] = {}
    for way in WAYS:
        words = [sys.executable, __file__, "--way", way]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    for way, seconds in times().items():
        found[way]["seconds"] = seconds
    plain, lengths = found["plain"], [len(t) for t in rows()]
    lines = [
        "# Ways of taking less memory",
        "",
        "| way | peak, MiB | of plain | CPU seconds of a step | of plain | length of the gradient |",
        "|---|---|---|---|---|---|",
    ]
    for way, x in found.items():
        more = (x["peak_mib"] / plain["peak_mib"], x["seconds"] / plain["seconds"])
        lines.append(
            f"| {way} | {x['peak_mib']:,.0f} | {more[0]:.2f} | {x['seconds']:.2f} | {more[1]:.2f} "
            f"| {x['gradient']:.6g} |"
        )
    text = sum(lengths) / (len(lengths) * max(lengths))
    about = (__doc__ or "").split("\n\n", 2)[2].strip()
    said = (
        f"{text:.0%} of the padded block is text. torch {torch.__version__}, load {os.getloadavg()[0]:.1f}."
    )
    a.out.write_text("\n".join([*lines, "", said, "", about]) + "\n")
    a.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
