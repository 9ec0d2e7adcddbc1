"""What a killed run leaves: SIGKILL at every file event, flipped bits, and what becomes of them.

    python benchmarks/crash_points.py                              all algorithms, all events
    python benchmarks/crash_points.py --only bc dpo --every 10     to try it

A tiny run of each algorithm is carried out once whole. Then, for every n, it is begun anew in a process that
kills itself at the n-th file event: before a file is opened to be written, renamed, removed or forced to the
disk, and before a folder is made or removed. What is left is looked at as people do: `tw.load` must either
say that the run has not ended, or give what the whole run gave. Then the run is resumed, or begun again by
the same call where it died before it was a run. It must come to the same bits: all files of the trained
model, the state in the last checkpoint, the metrics and the result, but for the seconds that they took.

Then single bits are flipped, at random places of a checkpoint and of the trained model's weights. Resuming
and loading must refuse each.

Every trial is a fork of one process that has imported and once done everything, so that it costs little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import turnwise as tw
from turnwise.recipes.trained import Policy
from turnwise.run.errors import InputError
from turnwise.run.files.checkpoint import Checkpoints

ALGORITHMS = ("bc", "turn-iql", "dpo", "ppo", "reward")
EVENTS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
TINY = {"width": 16, "layers": 1, "heads": 2, "context": 128}
COLOURS = ("red", "green", "blue")
FLIPS = 25


class Row(NamedTuple):
    """The trials of one algorithm."""

    algorithm: str
    events: int
    """file events of a whole run"""
    tried: int
    unfinished: int
    """kills after which the run said that it had not ended, or had not begun"""
    ended: int
    """kills after which the run had ended already, with the whole run's result"""
    same: int
    """runs that came to the same bits when they were resumed"""
    wrong: list[str]
    """what else happened"""


def prepare(place: Path) -> None:
    """Logs and pairs."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "logs.jsonl").open("w", encoding="utf-8") as logs:
        for i in range(12):
            said = COLOURS[i % 3 if i % 4 else 0]
            messages = [{"role": "user", "content": f"say {COLOURS[i % 3]}"}]
            messages.append({"role": "assistant", "content": said})
            logs.write(json.dumps({"id": str(i), "messages": messages, "outcome": float(i % 4 > 0)}) + "\n")
    with (place / "pairs.jsonl").open("w", encoding="utf-8") as pairs:
        for i in range(12):
            row = {"prompt": f"say {COLOURS[i % 3]} {i}", "chosen": "yes", "rejected": COLOURS[i % 3]}
            pairs.write(json.dumps(row) + "\n")


def train(algorithm: str, place: Path, out: Path, *, resume: bool = False) -> Any:
    """One tiny run: six steps or so, a checkpoint after every second one."""
    clone, logs, pairs = (str(place / name) for name in ("clone", "logs.jsonl", "pairs.jsonl"))
    if algorithm in ("turn-iql", "dpo") and not Path(clone).exists():  # what they begin with
        tw.fit(tw.BC(batch_size=4), logs, out=clone, quiet=True, **TINY)
    run: dict[str, Any] = {"out": out, "resume": resume, "quiet": True, "checkpoint_every": 2}
    if algorithm == "bc":
        return tw.fit(tw.BC(epochs=2.0, batch_size=4), logs, **run, **TINY)
    if algorithm == "turn-iql":
        return tw.fit(tw.TurnIQL(epochs=2.0, batch_size=4), logs, policy=clone, **run)
    if algorithm == "dpo":
        return tw.fit(tw.DPO(epochs=2.0, batch_size=4), pairs, policy=clone, max_new_tokens=4, **run)
    if algorithm == "reward":
        return tw.fit(tw.RewardModel(epochs=2.0, batch_size=4), pairs, **run, **TINY)
    config = tw.PPO(steps=6 * 2 * 8, lanes=2, rollout=8, epochs=1, minibatches=1)
    return tw.fit(config, "tiger", memory="gru", width=8, **run)


def forked(do: Callable[[], Any]) -> tuple[str, Any]:
    """("ended", what `do` returned), ("refused", words), ("killed", "") or ("failed", words)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            answer = ["ended", do()]
        except InputError as e:
            answer = ["refused", str(e)]
        except BaseException as e:
            answer = ["failed", repr(e)]
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return ("killed", "") if os.WTERMSIG(status) == signal.SIGKILL else ("failed", f"status {status}")
    kind, value = json.loads(said)
    return kind, value


def watch(folder: Path, at: int | None) -> list[str]:
    """Count file events below `folder` from now on, and die at the one numbered `at`."""
    seen: list[str] = []
    begins, fsync = str(folder), os.fsync

    def event(name: str, place: Any) -> None:
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(f"{name} {Path(str(place)).name}")

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == "open":
            path, mode, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else set(str(mode)) & set("wax+")
            if writes and str(path).startswith(begins):
                event("open", path)
        elif name in EVENTS and str(args[0]).startswith(begins):
            event(name, args[0])

    def forced(opened: int) -> None:
        path = os.readlink(f"/proc/self/fd/{opened}")
        if path.startswith(begins):
            event("fsync", path)
        fsync(opened)

    sys.addaudithook(hook)
    os.fsync = forced
    return seen


def bits(out: Path) -> dict[str, str]:
    """Digests of all that a run came to, without the seconds that it took."""
    found = {}
    for folder in ("policy", "reward"):
        for file in sorted((out / folder).rglob("*")):
            if file.is_file():
                found[str(file.relative_to(out))] = hashlib.sha256(file.read_bytes()).hexdigest()
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    timeless = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    result["metrics"].pop("seconds")
    state = Checkpoints(out).latest()
    state.pop("seconds")
    for name, part in (("metrics", timeless), ("result", result), ("checkpoint", _plain(state))):
        found[name] = hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()
    return found


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    if hasattr(x, "tolist"):
        return [str(x.dtype), x.tolist()]
    return x


def crash(algorithm: str, place: Path, every: int, most: int | None = None) -> Row:
    """Kill a run at every `every`-th file event (at most so many of them), and resume what is left."""
    train(algorithm, place, place / algorithm / "first")  # what it reads and compiles, the forks have
    whole = place / algorithm / "whole"
    kind, seen = forked(lambda: _watched(algorithm, place, whole, None))
    if kind != "ended":
        raise RuntimeError(f"{algorithm}: the whole run {kind}: {seen}")
    expected = bits(whole)
    counts: Counter[str] = Counter()
    wrong = []
    points = list(range(0, len(seen), every))
    if most is not None:
        points = points[:: -(-len(points) // most)]
    for n in points:
        out = place / algorithm / "killed"
        shutil.rmtree(out, ignore_errors=True)
        kind, words = forked(lambda n=n, out=out: _watched(algorithm, place, out, n))
        if kind != "killed":
            wrong.append(f"event {n}: {kind}: {words}")
            continue
        counts["tried"] += 1
        state, words = _looked_at(out)
        counts[state] += 1
        begun = (out / "config.yaml").exists()
        if state == "wrong":
            wrong.append(f"killed before event {n} ({seen[n]}), then loaded: {words}")
        kind, words = forked(lambda out=out, begun=begun: train(algorithm, place, out, resume=begun) and None)
        left = [f.name for f in out.rglob("*") if f.name.endswith((".part", ".old", ".lock"))]
        if kind == "ended" and not left and bits(out) == expected:
            counts["same"] += 1
        else:
            differ = [k for k, v in bits(out).items() if expected.get(k) != v] if kind == "ended" else words
            wrong.append(f"killed before event {n} ({seen[n]}), then resumed: {kind} {differ} {left}")
    return Row(
        algorithm, len(seen), counts["tried"], counts["unfinished"], counts["ended"], counts["same"], wrong
    )


def _watched(algorithm: str, place: Path, out: Path, at: int | None) -> list[str]:
    seen = watch(out, at)
    train(algorithm, place, out)
    return list(seen)


def _looked_at(out: Path) -> tuple[str, str]:
    """What a person sees who loads what is left."""
    if not (out / "config.yaml").exists():
        return "unfinished", "it has not begun"
    kind, words = forked(lambda: tw.load(out) and None)
    if kind == "refused" and "this run has not ended; resume it" in words:
        return "unfinished", words
    return ("ended", words) if kind == "ended" and (out / "result.json").exists() else ("wrong", words)


def flips(algorithm: str, place: Path, count: int = FLIPS) -> tuple[int, int]:
    """(flips that resuming refused, flips that loading refused), of `count` each, in random places."""
    rng, whole = random.Random(0), place / algorithm / "whole"
    stopped = place / algorithm / "stopped"
    shutil.rmtree(stopped, ignore_errors=True)
    shutil.copytree(whole, stopped)
    (stopped / "result.json").unlink()
    steps = Checkpoints(stopped).steps()
    Checkpoints(stopped).path(steps[-1]).unlink()
    weights = next(whole.glob("*/model.safetensors"))
    resume = lambda: train(algorithm, place, stopped, resume=True) and None  # noqa: E731
    checked = ((Checkpoints(stopped).path(steps[-2]), resume), (weights, lambda: tw.load(whole) and None))
    refused = []
    for file, use in checked:
        content, found = file.read_bytes(), 0
        for _ in range(count):
            changed = bytearray(content)
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
            file.write_bytes(changed)
            kind, words = forked(use)
            found += kind == "refused" and ("damaged" in words or "has changed since" in words)
        file.write_bytes(content)
        refused.append(found)
    return refused[0], refused[1]


def main() -> int:
    """Print the table; 1 if a trial came to anything else than it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=ALGORITHMS, default=ALGORITHMS)
    parser.add_argument("--every", type=int, default=1, help="kill at every so many events (1)")
    parser.add_argument("--flips", type=int, default=FLIPS, help=f"bits to flip ({FLIPS})")
    a = parser.parse_args()
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place)
        print(
            "| run | file events | killed at | said that it had not ended | had ended | came to the same "
            "bits | flipped bits refused: checkpoint, model | seconds |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for algorithm in a.only:
            began = time.monotonic()
            row = crash(algorithm, place, a.every)
            checkpoint, model = flips(algorithm, place, a.flips)
            print(
                f"| {algorithm} | {row.events} | {row.tried} | {row.unfinished} | {row.ended} | {row.same} | "
                f"{checkpoint} of {a.flips}, {model} of {a.flips} | {time.monotonic() - began:.0f} |",
                flush=True,
            )
            for words in row.wrong:
                print(f"  WRONG {algorithm}: {words}", file=sys.stderr)
            failed += bool(row.wrong) or row.same < row.tried or min(checkpoint, model) < a.flips
    return min(failed, 1)


assert Policy  # imported before the first fork, with all that it imports

if __name__ == "__main__":
    sys.exit(main())
