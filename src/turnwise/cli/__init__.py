"""The `turnwise` command: one verb, one file, imported only when it is asked for."""

from __future__ import annotations

import importlib
import io
import json
import os
import shlex
import sys
from collections.abc import Sequence

VERBS = {
    "demo": "the main job on a built-in task: logs in, a better policy and a report page out",
    "improve": "logs in, a better policy out, or the word that there is none, and the page that says why",
    "train": "learn a policy, a reward model or an agent",
    "sweep": "train several settings and seeds, and set them side by side",
    "evaluate": "measure a trained policy live or from logs alone, or a trained agent in its environment",
    "compare": "rank trained policies by what logged conversations say of them, and name the safe one",
    "talk": "answer a trained policy in the terminal",
    "solve": "optimal value of a POMDP with bounds, a policy, and what information is worth",
    "plan": "act in a POMDP by simulations from what is believed, beside the best value's bounds",
    "watch": "see episodes of a trained agent: a film, each step in words, or step by step by hand",
    "export": "write a trained agent as a program for other run times, ONNX or torch.export",
    "bench": "every method on every task with every seed, in one table",
    "data": "make, check, show, convert and speak logs and feedback",
    "report": "write the report page of a run or of a comparison of runs",
}
TOPICS = ("train", "sweep", "data")
"""verbs that a further word follows"""
DATA = {
    "make": "write the logs of a task, or feedback on its replies",
    "check": "read logs or feedback, count what is in them, say what is wrong where",
    "show": "one conversation with roles, masks, rewards and discounts",
    "convert": "logs or feedback of any form into one JSONL file",
    "talk": "conversations of a policy with a task, a partner from logs or a plan's models, as new logs",
}


def topics() -> dict[str, dict[str, str]]:
    """What the verbs with topics take, each with a phrase about it."""
    from turnwise.recipes.catalogue import ALGORITHMS

    algorithms = {name: row.what for name, row in ALGORITHMS.items()}
    return {"train": algorithms, "sweep": algorithms, "data": DATA}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0 done, 1 failed, 2 wrong input, 130 interrupted, 141 if nobody reads what it prints."""
    # Spinning OpenMP threads starve whatever else runs on the machine; this must be set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # a terminal without a sign for a character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, since a pipe that breaks at the interpreter's end cannot be answered
        return code
    except BrokenPipeError:  # `turnwise ... | head` has read enough
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141


def _main(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0 if args else 2
    if args[0] == "--version":
        from turnwise import __version__

        print(__version__)
        return 0
    verb, rest = args[0], args[1:]
    if verb not in VERBS:
        return _complain(f"there is no verb {verb!r}; expected one of {', '.join(VERBS)}")
    topic = None
    if verb in TOPICS:
        known = topics()[verb]
        if not rest or rest[0] in ("-h", "--help"):
            print(_topics(verb))
            return 0 if rest else 2
        topic, rest = rest[0], rest[1:]
        if topic not in known:
            return _complain(f"there is no {verb} {topic!r}; expected one of {', '.join(known)}")
    return _run(verb, topic, rest)


def _run(verb: str, topic: str | None, rest: list[str]) -> int:
    from turnwise.run.errors import InputError, Interrupted, SettingError
    from turnwise.run.files.trouble import in_words
    from turnwise.run.terminal import say, visible_json

    try:
        module = importlib.import_module(f"turnwise.cli.{verb}")
        result = module.run(rest) if topic is None else module.run(topic, rest)
    except InputError as e:
        return _complain(e.as_flag() if isinstance(e, SettingError) else str(e), *_notes(e))
    except Interrupted as e:
        resume = [] if "--resume" in rest else ["--resume"]
        words = shlex.join(["turnwise", verb, *([topic] if topic else []), *rest, *resume])
        say(f"turnwise: {e}; go on with: {words}")
        return 130
    except KeyboardInterrupt:
        say("turnwise: interrupted")
        return 130
    except OSError as e:
        words = None if isinstance(e, BrokenPipeError) else in_words(e)
        if words is None:
            raise
        return _complain(words, *_notes(e), code=1)
    if "--json" in rest and os.environ.get("RANK", "0") == "0":
        print(visible_json(json.dumps(result, ensure_ascii=False, allow_nan=False)))
    return int(result.get("exit", 0)) if isinstance(result, dict) else 0


def _complain(message: str, *notes: str, code: int = 2) -> int:
    from turnwise.run.terminal import say

    say("\nturnwise: ".join([f"turnwise: error: {message}", *notes]))
    return code


def _notes(e: BaseException) -> Sequence[str]:
    """What a run adds to an error: the step, and where it can go on."""
    return getattr(e, "__notes__", ())


def _overview() -> str:
    rows = "\n".join(f"  {name:<10}{what}" for name, what in VERBS.items())
    return (
        "usage: turnwise VERB [options]\n\n"
        "Trains agents that act on a history. In: logged conversations with outcomes. Out: a policy that\n"
        "does better, an honest estimate of how much, and a page that shows why.\n\n"
        f"verbs:\n{rows}\n\n"
        "examples:\n"
        "  turnwise demo --out demo\n"
        "  turnwise data check logs.jsonl\n"
        "  turnwise train bc --logs logs.jsonl --out runs/bc\n"
        "  turnwise train ilql --logs logs.jsonl --policy runs/bc --out runs/ilql\n"
        "  turnwise evaluate runs/ilql --task helpdesk --episodes 2000\n"
        "  turnwise solve tiger --simulate 1000 --out runs/tiger\n\n"
        "turnwise VERB --help lists every option; --json prints one result object on stdout."
    )


def _topics(verb: str) -> str:
    lines = [f"usage: turnwise {verb} NAME [options]", "", VERBS[verb]]
    known = topics()[verb]
    width = max(map(len, known)) + 2
    for title, names in _groups(verb):
        lines += ["", f"{title}:"] if title else [""]
        lines += [f"  {name:<{width}}{known[name]}" for name in names]
    return "\n".join([*lines, "", f"turnwise {verb} NAME --help lists every option."])


def _groups(verb: str) -> list[tuple[str, list[str]]]:
    """Topics under a title: algorithms by what they learn from."""
    if verb != "train":
        return [("", list(topics()[verb]))]
    from turnwise.recipes.catalogue import ALGORITHMS, FAMILIES

    return [
        (what, [name for name, row in ALGORITHMS.items() if row.family == family])
        for family, what in FAMILIES.items()
    ]
