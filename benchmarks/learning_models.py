"""A million conversations of 8 turns: how long 20 iterations of EM take for a model of 8 hidden states.

    python benchmarks/learning_models.py [--conversations N] [--json FILE]

32 acts, 50 answers, drawn by a model of 8 states with random tables; a third of the conversations ends early,
the others at the eighth turn. The same call as everywhere (`exact.learning.fit`): one start on a sample of
the data, then 20 iterations on all of it. Seconds are of the clock and of the processor, memory is the peak
of what the process holds resident, the data included. One thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.exact.learning.fit import Effort, fit
from turnwise.exact.learning.sequences import Sequences
from turnwise.run.files.whole import whole_file
from turnwise.run.progress import Progress

STATES, ACTS, ANSWERS, TURNS, ITERATIONS = 8, 32, 50, 8, 20


def conversations(n: int, rng: np.random.Generator) -> Sequences:
    """N conversations: a fixed hidden state each, in which every act has answers of its own."""
    answers = rng.dirichlet(np.full(ANSWERS, 0.3), (ACTS, STATES)).cumsum(-1)
    state = rng.integers(STATES, size=n)
    lengths = np.where(rng.random(n) < 1 / 3, rng.integers(1, TURNS, n), TURNS)
    offsets = np.append(0, np.cumsum(lengths))
    acts = rng.integers(ACTS, size=offsets[-1])
    held = np.repeat(state, lengths)
    seen = np.empty(offsets[-1], np.int32)
    for begin in range(0, len(acts), 100_000):
        part = slice(begin, begin + 100_000)
        drawn = rng.random((len(acts[part]), 1))
        seen[part] = np.minimum((answers[acts[part], held[part]] < drawn).sum(1), ANSWERS - 1)
    rewards = np.zeros(offsets[-1])
    rewards[offsets[1:] - 1] = np.where(acts[offsets[1:] - 1] % STATES == state, 1.0, -1.0)
    return Sequences(acts, seen, rewards, offsets, np.ones(n, bool), np.zeros(n), ACTS, ANSWERS)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    a = parser.parse_args()
    data = conversations(a.conversations, np.random.default_rng(0))
    effort = Effort(starts=1, early=40, iterations=ITERATIONS, tolerance=0.0)
    began, used = time.perf_counter(), time.process_time()
    looks = 0
    with Progress("learning", ITERATIONS) as progress:

        def watch(what: str, nats: float) -> None:
            nonlocal looks
            if what.startswith("fit"):
                looks += 1
                progress.at(looks, {"nats per step": nats})

        fit(data, STATES, np.random.default_rng(0), effort=effort, watch=watch)
    found: dict[str, Any] = {
        "conversations": a.conversations,
        "turns": len(data.actions),
        "states": STATES,
        "answers": ANSWERS,
        "iterations": looks,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(found))
    if a.json is not None:
        with whole_file(a.json) as part:
            part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
