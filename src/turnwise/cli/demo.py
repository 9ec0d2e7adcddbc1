"""turnwise demo: the main job on a built-in task, as a preset of the public verbs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from turnwise.cli.say import comparison_table, console, notice, parse
from turnwise.run.errors import InputError, Interrupted
from turnwise.run.folder import write_config, write_json

TITLE = "HelpDesk: a better support desk from logged conversations"
ASKED = (
    "Learn a better support desk from {conversations:,} logged conversations of one that acts by whim, "
    "and measure it against a live simulated customer and the exact optimum."
)
SELECTION = (
    "beta was picked on {validation} validation conversations of another seed; the rest is the preset's"
)

DONE = "$ exit code "
VERBS = f"""
import json, sys
from turnwise.cli import main
code = 0
try:
    for words in map(json.loads, sys.stdin):
        code = main(words)
        print("{DONE}%d" % code, flush=True)
        if code == 130:
            break
except KeyboardInterrupt:
    code = 130
sys.exit(code)
"""
"""a program: the verbs that it is told, until Ctrl-C; the libraries are loaded once"""


@dataclass(frozen=True)
class Demo:
    """Write logs, learn from them by six methods, measure each against a live customer, write the page."""

    out: Path = Path("demo")
    """folder to write"""
    conversations: int = 8000
    """logged conversations to learn from"""
    episodes: int = 1000
    """live conversations to measure each policy with"""
    validation_episodes: int = 200
    """live conversations, of another seed, to choose each beta with"""
    seed: int = 0
    """of logs, weights, data order and customers"""
    methods: tuple[str, ...] = ("ilql", "mc", "turn-iql", "bc-success", "bc-top")
    """runs to compare with the clone, by their folder"""
    workers: int = 2
    """methods trained at a time, one CPU thread each"""
    resume: bool = False
    """go on where an interrupted demo stopped"""
    dry_run: bool = False
    """print the verbs that would run"""
    json: bool = False
    """print one result object on stdout"""


@dataclass(frozen=True)
class Method:
    """A line of the demo's table."""

    name: str
    run: str
    algorithm: str
    options: tuple[str, ...] = ()
    betas: tuple[str, ...] = ()
    note: str = ""


METHODS = (
    Method("BC", "bc", "bc", ("--width", "64", "--layers", "2", "--partner-weight", "0.5", "--epochs", "9"),
           note="imitates every logged message"),
    Method("ILQL", "ilql", "ilql", ("--policy", "{out}/bc", "--epochs", "8"), ("16", "32", "64"),
           note="log π + β(Q − V), Q and V learnt per token by bootstrapping"),
    Method("Monte-Carlo Q", "mc", "mc", ("--policy", "{out}/bc"), ("16", "32", "64"),
           note="log π + β(Q − V), Q fitted to the returns that followed"),
    Method("turn-level IQL", "turn-iql", "turn-iql", ("--policy", "{out}/bc"), ("8", "32"),
           note="8 utterances of BC proposed, one chosen by a critic of turns"),
    Method("BC, success only", "bc-success", "bc", ("--model", "{out}/bc", "--min-return", "0", "--epochs", "1"),  # noqa: E501
           note="imitates the conversations that ended with the right fix"),
    Method("BC, top 10%", "bc-top", "bc", ("--model", "{out}/bc", "--keep-top", "0.1", "--epochs", "2"),
           note="imitates the tenth of the conversations with the highest return"),
)  # fmt: skip


def run(args: Sequence[str]) -> dict[str, Any]:
    """Run every verb in turn, then the table and the page."""
    a = parse(Demo, args, "demo", Demo.__doc__ or "")
    first, chains = _verbs(a)
    out = console(a.json)
    if a.dry_run:
        verbs = [*first, *(words for chain in chains for words in chain)]
        for words in verbs:
            out.print("turnwise " + " ".join(words))
        return {"verbs": verbs}
    if a.out.exists() and any(a.out.iterdir()) and not a.resume:
        raise InputError(f"--out {a.out}: the folder holds other files; expected a new folder, or --resume")
    decisive = ("conversations", "seed", "episodes", "validation_episodes")
    write_config(a.out, {"algorithm": "demo"} | {k: getattr(a, k) for k in decisive}, resume=a.resume)
    began = time.monotonic()
    with ExitStack() as stack, ThreadPoolExecutor(a.workers) as pool:
        idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
        for _ in range(min(a.workers, max(1, len(chains)))):
            idle.put(stack.enter_context(_process()))
        _run_chain("", first, a, idle, began)
        names = _chosen(a)[1:]
        waiting = [
            pool.submit(_run_chain, m.run, chain, a, idle, began)
            for m, chain in zip(names, chains, strict=True)
        ]
        for job in waiting:
            job.result()
    found = _compare(a)
    out.print(comparison_table(found))
    from turnwise.evaluation.pages.report import write_report

    page = write_report(a.out)
    seconds = time.monotonic() - began
    out.print(f"report: {page.resolve()}  ({_clock(seconds)})")
    return {"report": str(page), "seconds": round(seconds, 1), **found}


def _chosen(a: Demo) -> list[Method]:
    """The clone, which the others need, and the methods asked for."""
    unknown = set(a.methods) - {m.run for m in METHODS[1:]}
    if unknown:
        known = ", ".join(m.run for m in METHODS[1:])
        raise InputError(f"--methods {' '.join(sorted(unknown))}: expected some of {known}")
    return [METHODS[0], *(m for m in METHODS[1:] if m.run in a.methods)]


def _verbs(a: Demo) -> tuple[list[list[str]], list[list[list[str]]]]:
    """The demo as commands that anybody could type: what comes first, then a chain per other method."""
    o, logs = str(a.out), f"{a.out}/logs.jsonl"
    seed = ["--seed", str(a.seed)]
    first = [
        ["data", "make", "--out", logs, "--task", "helpdesk", "--conversations", str(a.conversations), *seed],
        ["data", "check", "--logs", logs],
    ]
    chains = []
    for m in _chosen(a):
        options = [x.format(out=o) for x in m.options]
        betas = ["--betas", *m.betas, "--validation-episodes", str(a.validation_episodes)] if m.betas else []
        chains.append([
            ["train", m.algorithm, "--logs", logs, "--out", f"{o}/{m.run}", *options, *seed],
            ["evaluate", "--run", f"{o}/{m.run}", "--episodes", str(a.episodes), *betas, *seed],
        ])  # fmt: skip
    return [*first, *chains[0]], chains[1:]


@contextmanager
def _process() -> Iterator[subprocess.Popen[str]]:
    """A process that runs verbs; at the end it has finished the one that it was at."""
    process = subprocess.Popen(
        [sys.executable, "-c", VERBS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate()


def _run_chain(
    name: str, chain: Sequence[Sequence[str]], a: Demo, idle: SimpleQueue[subprocess.Popen[str]], began: float
) -> None:
    """Run verbs one after the other in an idle process; what they say is shown with their name."""
    process = idle.get()
    try:
        for words in chain:
            if not _done(a, words):
                resume = ["--resume"] if words[0] == "train" and a.resume else []
                _run_verb(name, [*words, *resume], process, began)
    finally:
        idle.put(process)


def _run_verb(name: str, words: Sequence[str], process: subprocess.Popen[str], began: float) -> None:
    """Run one verb in a process."""
    assert process.stdin is not None and process.stdout is not None
    verb = "turnwise " + " ".join(words)
    code = ""
    if process.poll() is None:
        notice(f"[{_clock(time.monotonic() - began)}] {verb}")
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            if line.startswith(DONE):
                code = line.removeprefix(DONE).strip()
                break
            notice(f"  {name:<11}{line.rstrip()}" if name else f"  {line.rstrip()}")
    code = int(code or process.wait())
    if code == 130:
        process.wait()
        raise Interrupted(f"stopped in {verb}")
    if code:
        raise InputError(f"{verb}: failed (exit code {code})")


def _done(a: Demo, words: Sequence[str]) -> bool:
    """Whether an interrupted demo has this step behind it."""
    if words[:2] == ["data", "make"]:
        return (a.out / "logs.jsonl").exists()
    if words[0] == "train":
        return Path(words[words.index("--out") + 1], "result.json").exists()
    return words[0] == "evaluate" and Path(words[words.index("--run") + 1], "evaluation.json").exists()


def _compare(a: Demo) -> dict[str, Any]:
    """comparison.json of the folder."""
    from turnwise.evaluation.pages.comparison import comparison, row
    from turnwise.recipes.tasks import find_task

    task = find_task("helpdesk")
    card = json.loads((a.out / "bc" / "card.json").read_text(encoding="utf-8"))
    logged = card["return"]
    rows = [
        row(m.name, a.out / m.run, a.out, m.note, "baseline" if m is METHODS[0] else "method")
        for m in _chosen(a)
    ]
    found = comparison(
        title=TITLE,
        aim=ASKED.format(conversations=a.conversations),
        command=f"turnwise demo --out {a.out} --conversations {a.conversations} --seed {a.seed}",
        task="helpdesk",
        rows=rows,
        references=[
            {
                "name": "exact optimum",
                "role": "optimum",
                "mean": task.known("optimum"),
                "note": "computed by backward induction",
            },
            {
                "name": "behaviour policy",
                "role": "behaviour",
                "mean": logged["mean"],
                "low": logged["low"],
                "high": logged["high"],
                "episodes": card["conversations"],
                "note": f"the desk that wrote the logs; exactly {task.known('behaviour'):.4f}",
            },
        ],
        selection=SELECTION.format(validation=a.validation_episodes),
    )
    write_json(a.out / "comparison.json", found)
    return found


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
