"""HelpDesk: where a trained policy loses what the optimum earns, and how far its values are from exact ones.

    python experiments/helpdesk_regret.py runs/helpdesk/seed0/ilql [more runs] --betas 16 32

The regret of one act is V*(history) - Q*(history, act), both exact. The expected sum of regrets over a
conversation is the gap between the optimum and the policy (performance difference lemma, Kakade & Langford
2002). So the columns sum to the gap, and `optimum - regret` estimates the mean return with less noise than
returns do.

    early fix   named a fix while a test was worth more        late test   tested while a fix was worth more
    wrong fix   another part was likelier                      wrong test  another test was worth more
    unread      said something that the customer could not read

Values are compared on logged conversations that nothing was learnt from. Q of the first token of a message
stands beside the best exact value among acts of its kind, Q of its last token (or of the turn) beside that of
the act. No table is made of these conversations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.exact import OptimalDesk, net_answers
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.envs.tasks.helpdesk.rules import ACTS, NONE
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import read_act
from turnwise.evaluation.measures.conversations import hold_conversations
from turnwise.rollout.agent import Agent
from turnwise.rollout.conversations import Conversation
from turnwise.rollout.load import load_agent
from turnwise.run.rehearsal import at_most

SEED = 555
KINDS = ("early fix", "late test", "wrong fix", "wrong test", "unread")


def regrets(conversations: list[Conversation], desk: OptimalDesk) -> dict[str, float]:
    """Mean regret per conversation, by kind."""
    total = dict.fromkeys(KINDS, 0.0)
    for c in conversations:
        messages = c.dialogue.messages
        spoken = [i for i, m in enumerate(messages) if m.role == "assistant"]
        for turn, i in enumerate(spoken):
            act, net = read_act(messages[i].content), net_answers(messages[:i])
            q = desk.action_values(net, turn)
            test, fix = max(q[:4]), max(q[4:])
            if act == NONE:
                total["unread"] += max(q) + desk.test_cost - desk.value(net, turn + 1)
            elif act.kind == "fix":
                total["early fix"] += max(0.0, test - fix)
                total["wrong fix"] += fix - q[ACTS.index(act)]
            else:
                total["late test"] += max(0.0, fix - test)
                total["wrong test"] += test - q[ACTS.index(act)]
    return {k: v / len(conversations) for k, v in total.items()}


def value_errors(agent: Agent, logs: list[Dialogue], desk: OptimalDesk) -> dict[str, np.ndarray]:
    """Pairs [n, 2] of a learnt and an exact value, by what is compared."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for d, t in zip(logs, agent.chat.encode(logs), strict=True):
        found = agent.values(t)
        q, v = found["q"], found["v"]
        spoken = [i for i, m in enumerate(d.messages) if m.role == "assistant"]
        # A critic of tokens has a value for each of them, a critic of turns one for a message.
        last = np.flatnonzero(t.turn_end[t.decisions + 1]) if len(q) > len(spoken) else np.arange(len(spoken))
        first = np.append(0, last[:-1] + 1)
        for turn, i in enumerate(spoken):
            act = read_act(d.messages[i].content)
            exact = desk.action_values(net_answers(d.messages[:i]), turn)
            best = max(exact[4:] if act.kind == "fix" else exact[:4])
            pairs.setdefault("V, turn", []).append((v[first[turn]], max(exact)))
            if first[turn] < last[turn]:
                pairs.setdefault(f"Q, {act.kind}, first token", []).append((q[first[turn]], best))
            pairs.setdefault(f"Q, {act.kind}, last token", []).append((q[last[turn]], exact[ACTS.index(act)]))
    return {k: np.array(x) for k, x in sorted(pairs.items())}


def report(run: Path, betas: list[float], episodes: int) -> None:
    """Print regrets, and errors of values, for one run."""
    agent, desk = load_agent(run), OptimalDesk()
    for beta in betas if agent.critic is not None else [0.0]:
        held = hold_conversations(
            agent.with_acting(beta=beta), HelpDesk(), episodes=at_most(4, episodes), seed=SEED
        )
        lost = regrets(held, desk)
        parts = "  ".join(f"{k} {v:.3f}" for k, v in lost.items())
        mean = np.mean([c.dialogue.undiscounted_return() for c in held])
        worth = desk.value() - sum(lost.values())
        print(f"{run} beta {beta:g}: return {mean:.3f}, optimum - regret {worth:.3f}: {parts}")
    if agent.critic is not None:
        logs = [
            Dialogue(tuple(Message(m["role"], m["content"]) for m in row["messages"]))
            for row in helpdesk_logs(at_most(60, 1500), SEED)
        ]
        for name, x in value_errors(agent, logs, desk).items():
            error = x[:, 0] - x[:, 1]
            print(
                f"  {name:<22} correlation {np.corrcoef(x.T)[0, 1]:.3f}  bias {error.mean():+.3f}  "
                f"rmse {np.sqrt((error**2).mean()):.3f}"
            )


def main() -> None:
    """Report on every run that is named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of policies")
    parser.add_argument(
        "--betas", nargs="+", type=float, default=[14.0, 28.0], help="strengths of the critic"
    )
    parser.add_argument("--episodes", type=int, default=600, help="conversations with each beta")
    a = parser.parse_args()
    torch.set_num_threads(1)
    for run in a.runs:
        report(run, a.betas, a.episodes)


if __name__ == "__main__":
    main()
