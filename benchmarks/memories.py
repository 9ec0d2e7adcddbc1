"""What memories cost: an update on rows of 512 steps, and acting as the history that they hold grows.

    python benchmarks/memories.py --json memories.json

*Update*: forward and backward of one layer over B = 8 rows of T = 512 positions, width 128, one thread. The
transformer attends to all of the row. `GRU, loop` folds the same cell in Python, which is what a memory
without a kernel or a scan costs. *Acting*: one step of N = 64 lanes without gradients. A window holds its
history as k inputs, a transformer as its context. The state of a recurrence has one size for any history.
States are noise: what a step costs does not depend on what is remembered.

Ways alternate within a repeat, so that a busy machine disturbs all alike. Ratios are formed within a repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from turnwise.models.memory.attention import CausalTransformer
from turnwise.models.memory.base import Core
from turnwise.models.memory.linear_recurrence import LinearRecurrence
from turnwise.models.memory.recurrent import GRU, LSTM
from turnwise.models.memory.window import Window

BAR = 0.6
"""the share of a GRU's time that an update of the linear recurrence may take at most"""
HISTORIES = (8, 32, 128, 512, 2048, 4096)


def folded(core: Core, x: Tensor) -> Tensor:
    """[B, T, D], the rows read step by step."""
    state, found = x.new_zeros(len(x), core.state_size), []
    for now in x.unbind(1):
        y, state = core.step(now, state)
        found.append(y)
    return torch.stack(found, 1)


def interleaved(ways: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, alternating; the first round only warms up."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if repeat:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def updates(width: int, rows: int, length: int, repeats: int) -> list[dict[str, Any]]:
    """Forward and backward of each memory, against the GRU's."""
    gru = GRU(width)
    cores: dict[str, Core] = {
        "GRU": gru,
        "LSTM": LSTM(width),
        "linear recurrence": LinearRecurrence(width),
        "transformer": CausalTransformer(width, layers=1, context=length),
    }
    x = torch.randn(rows, length, width, requires_grad=True)
    ways: dict[str, Callable[[], None]] = {
        name: lambda core=core: core.unroll(x).sum().backward() for name, core in cores.items()
    }
    ways["GRU, loop"] = lambda: folded(gru, x).sum().backward()
    cores["GRU, loop"] = gru
    seconds = interleaved(ways, repeats)
    return [
        {
            "memory": name,
            "parameters": sum(p.numel() for p in cores[name].parameters()),
            **summary(seconds[name], seconds["GRU"]),
        }
        for name in ways
    ]


def acting(width: int, lanes: int, histories: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """One step of each memory that holds each length of history, against the GRU's beside it."""
    found = []
    for held in histories:
        cores: dict[str, Core] = {
            "GRU": GRU(width),
            "LSTM": LSTM(width),
            "linear recurrence": LinearRecurrence(width),
            "window": Window(width, held),
            "transformer": CausalTransformer(width, layers=1, context=held),
        }
        x = torch.randn(lanes, width)
        states = {name: torch.rand(lanes, core.state_size) for name, core in cores.items()}

        def steps(name: str, cores: Any = cores, states: Any = states, x: Tensor = x) -> None:
            for _ in range(4):
                cores[name].step(x, states[name])

        with torch.no_grad():
            seconds = interleaved({name: lambda name=name: steps(name) for name in cores}, repeats)
        one = {name: [t / 4 for t in ts] for name, ts in seconds.items()}
        found += [
            {
                "memory": name,
                "history": held,
                "bytes_per_lane": 4 * core.state_size,
                **summary(one[name], one["GRU"]),
            }
            for name, core in cores.items()
        ]
    return found


def summary(seconds: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Median seconds, and the ratio to `base` of the same repeats: median, lowest, highest."""
    ratios = [a / b for a, b in zip(seconds, base, strict=True)]
    return {
        "seconds": list(seconds),
        "median": statistics.median(seconds),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    print(f"update: B={a.rows}, T={a.length}, width {a.width}, medians of {a.repeats}, ratio to the GRU")
    update = updates(a.width, a.rows, a.length, a.repeats)
    for r in update:
        spread = f"{r['ratio']:5.2f} [{r['ratio_min']:.2f}, {r['ratio_max']:.2f}]"
        print(f"  {r['memory']:18} {1e3 * r['median']:8.1f} ms  {spread:20} {r['parameters']:8,} parameters")
    ratio = next(r["ratio"] for r in update if r["memory"] == "linear recurrence")
    print(f"  linear recurrence / GRU = {ratio:.2f}, bar {BAR}: {'met' if ratio <= BAR else 'NOT met'}")

    print(f"acting: N={a.lanes} lanes, a step in ms (KiB of state per lane), by the length of the history")
    act = acting(a.width, a.lanes, HISTORIES, a.repeats)
    names = list(dict.fromkeys(r["memory"] for r in act))
    print(f"  {'history':>7}" + "".join(f"{name:>24}" for name in names))
    for held in HISTORIES:
        rows = [next(r for r in act if (r["memory"], r["history"]) == (name, held)) for name in names]
        cells = [f"{1e3 * r['median']:.3f} ({r['bytes_per_lane'] / 1024:.1f})" for r in rows]
        print(f"  {held:7}" + "".join(f"{cell:>24}" for cell in cells), flush=True)

    if a.json is not None:
        machine = {"cores": os.cpu_count(), "torch": torch.__version__, "threads": 1}
        settings = {k: v for k, v in vars(a).items() if k != "json"}
        found = {"bar": BAR, "machine": machine, "settings": settings, "update": update, "acting": act}
        a.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
