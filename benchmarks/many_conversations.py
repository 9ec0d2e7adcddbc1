"""A million short conversations: how long until the first step of `turnwise train bc` is done.

    python benchmarks/many_conversations.py [--conversations N] [--logs FILE] [--json FILE]

The file is written first, unless `--logs` names one: three turns a conversation, messages of 4 to 14 words
drawn from 5,000 by Zipf's law, every message another one, an outcome and a column. Each way of reading it
then runs in a process of its own:

    turnwise   `turnwise train bc --logs FILE` with its defaults, stopped once its first step is done
    datasets   `load_dataset("json", data_files=FILE)`, with an empty cache: a table of text and no step
    json       `json.loads` of each line, which is kept nowhere: the floor of what reads the file in Python

Seconds are of the clock, imports included, and of the processor (all threads). Where others use the machine,
the latter say more. Memory is the peak of what the process holds resident, and the anonymous part of it at
the end: the rest are files that are mapped into memory, which the system takes back when memory is short.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from turnwise.data.files.logs import write_jsonl

TURNS, WORDS = 3, 5_000

REPORT = """
import json, re, resource, sys, time
began = time.time()
def report(**found):
    status = open("/proc/self/status").read()
    held = lambda name: int(re.search(name + r":\\s+(\\d+)", status)[1]) / 1024
    usage = resource.getrusage(resource.RUSAGE_SELF)
    found |= {"seconds": time.time() - began, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    found |= {"peak_mb": held("VmHWM"), "anonymous_mb": held("RssAnon")}
    print("FOUND " + json.dumps(found), flush=True)
"""

TURNWISE = """
from turnwise.run.training import TrainingRun
whole = TrainingRun.report
def first_step(run, *args, **kwargs):
    whole(run, *args, **kwargs)
    report(steps=run.total)
    raise SystemExit
TrainingRun.report = first_step
from turnwise.cli import main
main(["train", "bc", "--logs", sys.argv[1], "--out", sys.argv[2] + "/run"])
"""

DATASETS = """
import datasets
data = datasets.load_dataset("json", data_files=sys.argv[1], cache_dir=sys.argv[2], split="train")
report(rows=len(data))
"""

JSON = """
for number, line in enumerate(open(sys.argv[1], "rb"), start=1):
    json.loads(line)
report(rows=number)
"""

WAYS = {"turnwise": TURNWISE, "datasets": DATASETS, "json": JSON}


def conversations(n: int, seed: int = 0) -> Any:
    """Rows of the log format; words of one to three syllables."""
    rng = random.Random(seed)
    consonants = [*"bcdfghjklmnprstvwz", "st", "tr", "pl"]
    vowels = [*"aeiou", "ai", "ou", "ea"]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        syllables = rng.choice([1, 1, 2, 2, 3])
        words["".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(syllables))] = None
    known, weights, total = list(words), list[float](), 0.0
    for rank in range(WORDS):
        total += 1 / (rank + 2.7)
        weights.append(total)
    for i in range(n):
        messages = []
        for role in ("user", "assistant") * TURNS:
            said = rng.choices(known, cum_weights=weights, k=rng.randint(4, 14))
            messages.append({"role": role, "content": " ".join(said).capitalize() + "."})
        yield {
            "id": f"talk-{i}",
            "messages": messages,
            "outcome": round(rng.random(), 2),
            "customer": rng.randint(1, n // 3 + 1),
        }


def measured(way: str, logs: Path) -> dict[str, float]:
    """What one way takes, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", REPORT + WAYS[way], str(logs), folder], stdout=subprocess.PIPE, text=True
        )
    found = [line.removeprefix("FOUND ") for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if not found:
        raise SystemExit(f"{way} came to no end: see above")
    return json.loads(found[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--logs", type=Path, help="a file of conversations that exists")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = a.logs
        if logs is None:
            logs = Path(folder) / "logs.jsonl"
            write_jsonl(logs, conversations(a.conversations))
        found: dict[str, Any] = {"file_mb": logs.stat().st_size / 1e6}
        print(f"{found['file_mb']:,.0f} MB of text")
        for way in a.ways:
            m = found[way] = measured(way, logs)
            print(
                f"{way:>9}: {m['seconds']:6.0f} s ({m['cpu_seconds']:.0f} s of the processor), peak "
                f"{m['peak_mb']:,.0f} MB, of which anonymous at the end {m['anonymous_mb']:,.0f} MB",
                flush=True,
            )
            if a.json is not None:
                a.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
