"""The `turnwise` command: one verb, one file, imported only when it is asked for."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

VERBS = {
    "demo": "the main job on a built-in task: logs in, a better policy and a report page out",
    "train": "learn a policy: from logged conversations (bc, mc, ilql, turn-iql), or by acting (ppo, ...)",
    "evaluate": "measure a trained policy in a live task, or a trained agent in its environment",
    "solve": "optimal value of a POMDP with bounds, a policy, and what information is worth",
    "data": "logs: make (of a built-in task), check, show; feedback: check",
    "report": "write the report page of a run or of a comparison of runs",
}
TOPICS = {
    "train": {
        "bc": "behaviour cloning, of all conversations or of the best only",
        "mc": "Monte-Carlo values per token",
        "ilql": "implicit language Q-learning per token",
        "turn-iql": "implicit Q-learning per turn, choosing among sampled utterances",
        "ppo": "an agent with memory, by proximal policy optimisation in an environment",
        "a2c": "the same by advantage actor-critic",
        "reinforce": "the same by REINFORCE, from whole episodes",
        "r2d2": "the same by Q-learning on histories, from replay",
        "sac": "the same by discrete soft actor-critic, from replay",
        "reward": "a reward model, from pairs, rankings, likes or scores",
        "dpo": "a policy from pairs or rankings: DPO, IPO, conservative, robust, ranking",
        "kto": "a policy from likes and dislikes",
        "simpo": "a policy from pairs, without a reference",
        "orpo": "the same, cloning what was chosen",
        "rloo": "a policy from its own replies, judged by a reward: leave-one-out REINFORCE",
        "grpo": "the same, by group relative policy optimisation",
        "token-ppo": "the same, by PPO with a critic of tokens",
        "reply-reinforce": "the same, by REINFORCE with a baseline",
        "online-dpo": "the same, by DPO on its best and worst replies",
        "best-of-n": "the same, by cloning its best replies (rejection sampling)",
    },
    "data": {
        "make": "write the logs of a built-in task",
        "check": "read logs or feedback, count what is in them, say what is wrong where",
        "show": "one conversation with roles, masks, rewards and discounts",
    },
}
AGENTS = ("ppo", "a2c", "reinforce", "r2d2", "sac")
"""topics of `train` that act while they learn"""
PLACES = (
    dict.fromkeys(AGENTS, "train_agents")
    | dict.fromkeys(("dpo", "kto", "simpo", "orpo"), "train_preferences")
    | dict.fromkeys(
        ("rloo", "grpo", "token-ppo", "reply-reinforce", "online-dpo", "best-of-n"), "train_replies"
    )
    | {"reward": "train_reward"}
)
"""files of topics that are not their verb's"""


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
    if verb in TOPICS:
        if not rest or rest[0] in ("-h", "--help"):
            print(_topics(verb))
            return 0 if rest else 2
        topic, rest = rest[0], rest[1:]
        if topic not in TOPICS[verb]:
            return _complain(f"there is no {verb} {topic!r}; expected one of {', '.join(TOPICS[verb])}")
    return _run(verb, topic, rest)


def _run(verb: str, topic: str | None, rest: list[str]) -> int:
    from turnwise.run.errors import InputError, Interrupted, SettingError

    try:
        module = importlib.import_module(f"turnwise.cli.{PLACES.get(topic or '', verb)}")
        result = module.run(rest) if topic is None else module.run(topic, rest)
    except InputError as e:
        return _complain(e.as_flag() if isinstance(e, SettingError) else str(e))
    except Interrupted as e:
        resume = "" if "--resume" in rest else " --resume"
        words = " ".join(["turnwise", verb, *([topic] if topic else []), *rest])
        print(f"turnwise: {e}; go on with: {words}{resume}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("turnwise: interrupted", file=sys.stderr)
        return 130
    if "--json" in rest and os.environ.get("RANK", "0") == "0":
        print(json.dumps(result, ensure_ascii=False, allow_nan=False))
    return int(result.get("exit", 0)) if isinstance(result, dict) else 0


def _complain(message: str) -> int:
    print(f"turnwise: error: {message}", file=sys.stderr)
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
        "  turnwise evaluate --run runs/ilql --task helpdesk --episodes 2000\n"
        "  turnwise solve tiger --simulate 1000 --out runs/tiger\n\n"
        "turnwise VERB --help tells every option; --json prints one result object on stdout."
    )


def _topics(verb: str) -> str:
    width = max(map(len, TOPICS[verb])) + 2
    rows = "\n".join(f"  {name:<{width}}{what}" for name, what in TOPICS[verb].items())
    tell = f"turnwise {verb} NAME --help tells every option."
    return f"usage: turnwise {verb} NAME [options]\n\n{VERBS[verb]}\n\n{rows}\n\n{tell}"
