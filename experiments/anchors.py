"""Advantages of acts from groups at equal states, beside the exact ones.

    python experiments/anchors.py           every part (seconds each)
    python experiments/anchors.py --table   merge what is there: .json, .md

The scripted desk of HelpDesk talks with n customers, or with n / 8 customers eight times each. Its advantage
A(b, a) at each turn is known exactly. Estimates are made from returns alone, without a critic:

- *episode*: the return less the mean return of the other conversations (with the same customer, if there are
any); - *equal states*: the return-to-go less its mean over other conversations at an equal state, and the
episode's
  advantage where there is none: unbiased, whatever stands for a state;
- *sum*: the episode's advantage and the one at equal states added, as GiGPO does with weight 1;
- *one step*: r + b' - b, with b the mean return-to-go of other conversations at an equal state and b' that at
the
  next turn, as GAGPO does with lambda 0. Where there is no other, the conversation's own return-to-go stands
  for it.

What stands for a state is the text so far, the acts and answers so far, or the belief: the turn and the
posterior over faults. The last row of each block has the exact V(b) in place of means: what a perfect critic
makes of it. *shared* is the share of turns with another conversation at an equal state. Each cell is the
correlation with A(b, a) over all turns, and in brackets the mean squared error by the variance of A(b, a): an
estimate of 0 would have 1. All are means over 20 sets of conversations.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from common import make_part, options, parse, read_part, story_of, write_page, write_results
from torch import Tensor

from turnwise.envs.tasks.helpdesk.customer import Customer
from turnwise.envs.tasks.helpdesk.exact import Game, PolicyValues, behavior_acts
from turnwise.envs.tasks.helpdesk.logs import talk_by_whim
from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS
from turnwise.envs.tasks.helpdesk.words import Phrasebook, read_act, read_answer
from turnwise.losses.groups import anchored_baselines, leave_one_out
from turnwise.run.rehearsal import at_most

SIZES, GROUP, REPEATS = (64, 256, 1024), 8, 20
KEYS = ("text", "acts", "belief")


def turns_of(messages: list[dict[str, Any]], exact: PolicyValues) -> list[dict[str, Any]]:
    """What each turn of the desk saw, by each key; what it earned; its exact value and advantage."""
    net, last, turn = [0] * len(PARTS), None, 0
    text, acts, found = [], [], []
    for m in messages:
        if m["role"] != "assistant":
            text.append(m["content"])
            heard = read_answer(m["content"])
            if heard is not None:
                net[heard[0]] += 1 if heard[1] else -1
                acts.append(heard)
            continue
        act, state = ACTS.index(read_act(m["content"])), tuple(net)
        q = exact.action_values(state, last, turn)
        v = sum(p * x for p, x in zip(behavior_acts(state, last, turn), q, strict=True))
        keys = {"text": tuple(text), "acts": tuple(acts), "belief": (turn, tuple(n - min(net) for n in net))}
        found.append(keys | {"a": q[act] - v, "v": v, "r": m["reward"]})
        text.append(m["content"])
        acts.append(act)
        last, turn = (act if act < len(PARTS) else last), turn + 1
    return found


def measured(n: int, group: int, seed: int) -> dict[str, Any]:
    """Means over sets of n conversations, `group` with each customer."""
    exact, customer = PolicyValues(Game(), behavior_acts), Customer(Phrasebook(False))
    rows = []
    for repeat in range(at_most(2, REPEATS)):
        rng = np.random.default_rng((seed, n, group, repeat))
        customers = rng.integers(2**63, size=n // group).repeat(group).tolist()
        desks = [np.random.default_rng(s) for s in rng.integers(2**63, size=n).tolist()]
        talks = [
            turns_of(talk_by_whim(customer, c, desk)[0], exact)
            for c, desk in zip(customers, desks, strict=True)
        ]
        rows.append(estimates(talks, group if group > 1 else n))
    return {k: {x: float(np.mean([r[k][x] for r in rows])) for x in rows[0][k]} for k in rows[0]}


def estimates(talks: list[list[dict[str, Any]]], group: int) -> dict[str, dict[str, float]]:
    """Of one set of conversations: the share of shared states, and how good each estimate is."""
    turns = [x for t in talks for x in t]
    owner = torch.arange(len(talks)).repeat_interleave(torch.tensor([len(t) for t in talks]))
    last = torch.cat([owner[1:] != owner[:-1], torch.tensor([True])])
    r, v, truth = (torch.tensor([x[name] for x in turns], dtype=torch.float64) for name in ("r", "v", "a"))
    to_go = torch.cat([x.flip(0).cumsum(0).flip(0) for x in r.split([len(t) for t in talks])])
    whole = torch.zeros(len(talks), dtype=torch.float64).index_add(0, owner, r)
    episode = leave_one_out(whole.view(-1, group)).flatten()[owner]
    found = {
        "episode": scores(episode, truth),
        "exact": scores(to_go - v, truth),
        "exact, one step": scores(r + after(v, last) - v, truth),
    }
    for key in KEYS:
        places: dict[Any, int] = {}
        anchors = torch.tensor([places.setdefault(x[key], len(places)) for x in turns])
        baselines, shared = anchored_baselines(to_go, anchors, owner)
        here = torch.where(shared, to_go - baselines, 0.0)
        known = torch.where(shared, baselines, to_go)
        found[key] = scores(torch.where(shared, here, episode), truth)
        found[key]["shared"] = float(shared.double().mean())
        found[f"{key}, sum"] = scores(episode + here, truth)
        found[f"{key}, one step"] = scores(r + after(known, last) - known, truth)
    return found


def after(values: Tensor, last: Tensor) -> Tensor:
    """What stands at the next turn of the same conversation; 0 behind the last."""
    return torch.where(last, 0.0, values.roll(-1))


def scores(estimate: Tensor, truth: Tensor) -> dict[str, float]:
    """Correlation with the truth, and the mean squared error by the truth's variance."""
    r = torch.corrcoef(torch.stack([estimate, truth]))[0, 1]
    return {"correlation": float(r), "error": float(((estimate - truth) ** 2).mean() / truth.var())}


def shown(x: dict[str, float]) -> str:
    """A cell."""
    return f"{x['correlation']:.2f} ({x['error']:.1f})"


def page(found: dict[str, Any]) -> str:
    """One table for each kind of partners."""
    lines = [f"# {(__doc__ or '').splitlines()[0].rstrip('.')}", "", story_of(__doc__), ""]
    for group in (1, GROUP):
        who = "a customer each" if group == 1 else f"{group} with each customer"
        lines += [f"## Conversations with {who}", ""]
        lines += ["| n | state | shared | equal states | sum | one step |", "|---|---|---|---|---|---|"]
        for n in SIZES:
            part = found[f"{n}-{group}"]
            lines.append(f"| {n:,} | one for all (episode) | | {shown(part['episode'])} | | |")
            for key in KEYS:
                cells = " | ".join(shown(part[key + how]) for how in ("", ", sum", ", one step"))
                lines.append(f"| | {key} | {part[key]['shared']:.0%} | {cells} |")
            best = shown(part["exact"]), shown(part["exact, one step"])
            lines.append(f"| | exact V(b) | | {best[0]} | | {best[1]} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def main() -> None:
    """Make the parts that are missing, and merge."""
    a = parse(options(__doc__, "anchors"))
    if not a.table:
        for n, group in product(SIZES, (1, GROUP)):
            make_part(a.runs / f"{n}-{group}.json", lambda n=n, group=group: measured(n, group, 0))
    parts = {f.stem: read_part(f) for f in sorted(a.runs.glob("*.json"))}
    write_results(a.runs, "anchors", parts)
    write_page(a.runs, "anchors", page(parts))


if __name__ == "__main__":
    main()
