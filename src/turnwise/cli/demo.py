"""turnwise demo: the main job on a built-in task, as a preset of the public verbs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
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

PROMPT = "$ "
ONE_AFTER_THE_OTHER = f"""
import json, sys
from turnwise.cli import main
for words in json.loads(sys.argv[1]):
    print({PROMPT!r} + "turnwise " + " ".join(words), flush=True)
    if code := main(words):
        sys.exit(code)
"""
"""a program: verbs by one process, which loads the libraries once"""


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
    _run_chain("", first, a, began)
    with ThreadPoolExecutor(a.workers) as pool:
        names = _chosen(a)[1:]
        waiting = [
            pool.submit(_run_chain, m.run, chain, a, began) for m, chain in zip(names, chains, strict=True)
        ]
        for job in waiting:
            job.result()
    found = _compare(a)
    out.print(comparison_table(found))
    from turnwise.evaluation.report import write_report

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


def _run_chain(name: str, chain: Sequence[Sequence[str]], a: Demo, began: float) -> None:
    """Run verbs one after the other in a process of their own; what they say is shown with their name."""
    left = [
        [*words, "--resume"] if words[0] == "train" and a.resume else list(words)
        for words in chain
        if not _done(a, words)
    ]
    if not left:
        return
    verb = ""
    with subprocess.Popen(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, json.dumps(left)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(PROMPT):
                verb = line.removeprefix(PROMPT).rstrip()
                notice(f"[{_clock(time.monotonic() - began)}] {verb}")
            else:
                notice(f"  {name:<11}{line.rstrip()}" if name else f"  {line.rstrip()}")
    if process.returncode == 130:
        raise Interrupted(f"stopped in {verb}")
    if process.returncode:
        raise InputError(f"{verb}: failed (exit code {process.returncode})")


def _done(a: Demo, words: Sequence[str]) -> bool:
    """Whether an interrupted demo has this step behind it."""
    if words[:2] == ["data", "make"]:
        return (a.out / "logs.jsonl").exists()
    if words[0] == "train":
        return Path(words[words.index("--out") + 1], "result.json").exists()
    return words[0] == "evaluate" and Path(words[words.index("--run") + 1], "evaluation.json").exists()


def _compare(a: Demo) -> dict[str, Any]:
    """comparison.json of the folder."""
    from turnwise.cli.tasks import find_task
    from turnwise.evaluation.comparison import comparison, row

    task = find_task("helpdesk")
    card = json.loads((a.out / "bc" / "card.json").read_text(encoding="utf-8"))
    logged = card["return"]
    rows = [row(m.name, a.out / m.run, a.out, m.note) for m in _chosen(a)]
    found = comparison(
        title=TITLE,
        asked=ASKED.format(conversations=a.conversations),
        command=f"turnwise demo --out {a.out} --conversations {a.conversations} --seed {a.seed}",
        task="helpdesk",
        rows=rows,
        references=[
            {"name": "exact optimum", "mean": task.optimum(), "note": "computed by backward induction"},
            {
                "name": "behaviour policy",
                "mean": logged["mean"],
                "low": logged["low"],
                "high": logged["high"],
                "episodes": card["conversations"],
                "note": f"the desk that wrote the logs; exactly {task.behavior():.4f}",
            },
        ],
        selection=SELECTION.format(validation=a.validation_episodes),
    )
    write_json(a.out / "comparison.json", found)
    return found


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
