"""Folders of Parquet of ten thousand to ten million conversations: memory and time of reading and training.

    python benchmarks/large_logs.py [--sizes 10000 1000000 10000000] [--folder DIR] [--json FILE]

Each size is a folder of Parquet files of a million rows at most, written first unless it is there: one
message of the user and one of the agent, three to six words each, drawn from 5,000 by Zipf's law, and an
outcome. Each command then runs in a process of its own, with one thread:

    check      `turnwise data check --logs FOLDER`
    bc         `turnwise train bc --logs FOLDER`: read, check, split, encode, 100 steps of 32 rows, measure
    resumed    the same, stopped by Ctrl-C after 50 steps and resumed: are its last weights those of `bc`?

Memory is the peak of what the process held resident, as the system counts it when it ends (`ru_maxrss` of
that child): what is mapped into memory counts too. Seconds are of the processor, and of the clock, which
others may share.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS, FILE, GROUP = 5_000, 1_000_000, 50_000
STEPS, ROWS = 100, 32


def write_folder(folder: Path, n: int, seed: int = 0) -> None:
    """Conversations as files of Parquet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in [*"bcdfghjklmnprstvwz", "st", "tr"] for b in [*"aeiou", "ai", "ou"]]
    words = np.array(
        ["".join(rng.choice(syllables, size=rng.integers(1, 4))) + str(i % 7 or "") for i in range(WORDS)]
    )
    chances = 1 / (np.arange(WORDS) + 2.7)
    roles = pa.array(["user", "assistant"])
    for first in range(0, n, FILE):
        writer = None
        for at in range(first, min(n, first + FILE), GROUP):
            count = min(GROUP, n - at, first + FILE - at)
            lengths = rng.integers(3, 7, 2 * count)
            drawn = words[rng.choice(WORDS, int(lengths.sum()), p=chances / chances.sum())].tolist()
            ends = np.cumsum(lengths).tolist()
            said = [" ".join(drawn[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
            messages = pa.StructArray.from_arrays(
                [roles.take(pa.array(np.tile([0, 1], count))), pa.array(said)], ["role", "content"]
            )
            talks = pa.ListArray.from_arrays(
                pa.array(np.arange(0, 2 * count + 1, 2, dtype=np.int32)), messages
            )
            table = pa.table({"messages": talks, "outcome": pa.array(rng.random(count).round(2))})
            writer = writer or pq.ParquetWriter(folder / f"part-{first // FILE:03}.parquet", table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def measured(*words: str, stop_at: Path | None = None) -> dict[str, Any]:
    """One command: its peak memory in MB, its seconds. `stop_at`: metrics, in which step 48 stops it."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "turnwise.cli", *words],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        while stop_at is not None and child.poll() is None:
            time.sleep(0.02)
            if stop_at.exists() and '"step": 48' in stop_at.read_text():
                child.send_signal(signal.SIGINT)
                break
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in ((0,) if stop_at is None else (0, 130)):
            out.seek(0)
            raise SystemExit(f"{' '.join(words)} failed:\n{out.read()[-3000:]}")
    return {
        "peak_mb": used.ru_maxrss / 1024,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "seconds": time.perf_counter() - began,
    }


def weights(run: Path) -> bytes:
    return (run / "policy" / "model.safetensors").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--ways", nargs="+", default=["check", "bc", "resumed"])
    parser.add_argument("--folder", type=Path, help="where the data lie, and stay; none: a temporary folder")
    parser.add_argument("--json", type=Path, help="file to write, beside what it has")
    a = parser.parse_args()
    base = a.folder or Path(tempfile.mkdtemp())
    found = json.loads(a.json.read_text()) if a.json is not None and a.json.exists() else {}
    try:
        for n in a.sizes:
            logs = base / f"logs-{n}"
            if not logs.exists():
                # In a process of its own: what this one ever held counts as a peak of those that it starts.
                writer = multiprocessing.get_context("spawn").Process(target=write_folder, args=(logs, n))
                writer.start()
                writer.join()
            here = found.setdefault(str(n), {})
            here["parquet_mb"] = sum(f.stat().st_size for f in logs.iterdir()) / 1e6
            runs = [base / f"run-{n}-{name}" for name in ("whole", "resumed")]
            for run in runs:
                if "bc" in a.ways or run.name.endswith("resumed"):
                    shutil.rmtree(run, ignore_errors=True)
            # An epoch has 95 of 100 conversations: a twentieth is held out.
            train = ["train", "bc", "--logs", str(logs), "--batch-size", str(ROWS), "--log-every", "7"]
            train += ["--epochs", repr(STEPS / (0.95 * n / ROWS)), "--checkpoint-every", "1000"]
            for way in a.ways:
                if way == "check":
                    here[way] = measured("data", "check", "--logs", str(logs))
                elif way == "bc":
                    here[way] = measured(*train, "--out", str(runs[0]))
                else:
                    measured(*train, "--out", str(runs[1]), stop_at=runs[1] / "metrics.jsonl")
                    here[way] = measured(*train, "--out", str(runs[1]), "--resume")
                    here[way]["equal"] = weights(runs[0]) == weights(runs[1])
                print(n, way, here[way], flush=True)
                if a.json is not None:
                    a.json.write_text(json.dumps(found, indent=1) + "\n")
    finally:
        if a.folder is None:
            shutil.rmtree(base)


if __name__ == "__main__":
    main()
