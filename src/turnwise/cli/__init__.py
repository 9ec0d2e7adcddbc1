"""The `turnwise` command: one verb, one file, imported only when it is asked for."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

VERBS = {
    "demo": "the main job on a built-in task: logs in, a better policy and a report page out",
    "train": "learn a policy, a reward model or an agent",
    "evaluate": "measure a trained policy in live conversations, or a trained agent in its environment",
    "talk": "answer a trained policy in the terminal",
    "solve": "optimal value of a POMDP with bounds, a policy, and what information is worth",
    "data": "make, check and show logs and feedback",
    "report": "write the report page of a run or of a comparison of runs",
}
DATA = {
    "make": "write the logs of a task, or feedback on its replies",
    "check": "read logs or feedback, count what is in them, say what is wrong where",
    "show": "one conversation with roles, masks, rewards and discounts",
}


def topics() -> dict[str, dict[str, str]]:
    """What the verbs with topics take, each with a phrase about it."""
    from turnwise.recipes.catalogue import ALGORITHMS

    return {"train": {name: row.what for name, row in ALGORITHMS.items()}, "data": DATA}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    # Spinning OpenMP threads starve whatever else runs on the machine; this must be set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = list(sys.argv[1:] if argv is None else argv)
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
    if verb in ("train", "data"):
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

    try:
        module = importlib.import_module(f"turnwise.cli.{verb}")
        result = module.run(rest) if topic is None else module.run(topic, rest)
    except InputError as e:
        return _complain(e.as_flag() if isinstance(e, SettingError) else str(e), *getattr(e, "__notes__", ()))
    except Interrupted as e:
        resume = "" if "--resume" in rest else " --resume"
        words = " ".join(["turnwise", verb, *([topic] if topic else []), *rest])
        print(f"turnwise: {e}; go on with: {words}{resume}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("turnwise: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `turnwise ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if "--json" in rest and os.environ.get("RANK", "0") == "0":
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
    return int(result.get("exit", 0)) if isinstance(result, dict) else 0


def _complain(message: str, *notes: str) -> int:
    print(f"turnwise: error: {message}", *notes, sep="\nturnwise: ", file=sys.stderr)
    return 2


def _overview() -> str:
    rows = "\n".join(f"  {name:<10}{what}" for name, what in VERBS.items())
    return (
        "usage: turnwise VERB [options]\n\n"
        "Trains agents that act on a history. In: logged conversations with outcomes. Out: a policy that\n"
        "does better, an honest estimate of how much, and a page that shows why.\n\n"
        f"verbs:\n{rows}\n\n"
        "examples:\n"
        "  turnwise demo --out demo\n"
        "  turnwise data check --logs logs.jsonl\n"
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
