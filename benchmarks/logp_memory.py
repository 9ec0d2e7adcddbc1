"""Peak memory of the log-probabilities of replies: all logits at once, and in chunks.

    python benchmarks/logp_memory.py --json logp_memory.json

A Llama of 64 features with a vocabulary of 32,768 reads 32 rows of 64 + 64 tokens. Measured are
log-probability and entropy of the 2,048 reply tokens, forward and backward: the highest resident memory above
that after loading, and the time. Each way runs in a process of its own. `naive` forms logits [B, T, V] at
every position, prompts included, as most trainers do. `decisions` forms them at the replies alone. `chunks`
is what `score_replies` does: 2^24 numbers at a time, so that it forms logits twice.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from turnwise.data.batch import Batch
from turnwise.losses.policy import action_logp, entropy
from turnwise.models.decisions import at_decisions
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.replies import score_replies

ROWS, PROMPT, REPLY, VOCAB = 32, 64, 64, 32_768
WAYS = ("naive", "decisions", "chunks")


def peak() -> float:
    """The highest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(way: str) -> dict[str, Any]:
    """One way, once, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lm = llama(VOCAB, width=64, layers=2, heads=4, context=256, eos=1, pad=0)
    ids = torch.randint(2, VOCAB, (ROWS, PROMPT + REPLY))
    decisions = torch.arange(PROMPT - 1, PROMPT + REPLY).expand(ROWS, -1)
    actions, mask = ids[:, PROMPT:], torch.ones(ROWS, REPLY, dtype=torch.bool)
    lm(input_ids=ids[:1, :2]).logits.sum().backward()  # libraries load what they load
    before, began = peak(), time.perf_counter()
    if way == "naive":
        logits = lm(input_ids=ids).logits
        chosen = at_decisions(logits, decisions[:, :-1])
        total = action_logp(chosen, actions).sum() + entropy(chosen).sum()
    else:
        nothing = torch.zeros(mask.shape)
        batch = Batch(ids, decisions, decisions[:, :-1], actions, nothing, nothing, mask, mask)
        most = 2**24 if way == "chunks" else 2**40
        out = score_replies(lm, batch, most_logits=most)
        total = out.logp.sum() + out.entropy.sum()
    total.backward()
    return {"way": way, "peak_mib": peak() - before, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--way", choices=WAYS, help="this one alone, in this process")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    if a.way:
        print(json.dumps(measure(a.way)))
        return
    found = []
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, __file__, "--way", way], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{way:>10}: {found[-1]['peak_mib']:,.0f} MiB, {found[-1]['seconds']:.1f} s", flush=True)
    if a.json:
        a.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
