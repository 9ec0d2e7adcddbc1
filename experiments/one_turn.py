"""One turn on postcards: every method from the same clone and the same labels, held against gold.

    python experiments/one_turn.py                                   all that is missing, run by run
    python experiments/one_turn.py --methods rloo grpo --seeds 0     some of it
    python experiments/one_turn.py --labels 100 1000 --seeds 0       points of the figure of labels
    python experiments/one_turn.py --table                           merge what is there: .json, .md, .svg

For each seed: a clone of the writer (SFT, 4,000 cards), comparisons of two of his cards by the panel of
annotators, a reward model learnt from them (Bradley-Terry, on the clone's trunk), standardised on the clone's
own replies. Each method starts at the clone and gets about as much computing (see the seconds). Those that
sample learn from the reward model. DPO, IPO, SimPO and KTO learn from the comparisons themselves (KTO from a
like and a dislike for each). 16 replies to each of 48 prompts are measured, from which nothing was learnt:
gold with a 95% interval over prompts, the proxy reward, KL to the clone. Nothing is learnt from gold.
Settings were chosen on seed 10, which is in no table.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    pyplot,
    read_part,
    story_of,
    write_figure,
    write_page,
    write_results,
)

from turnwise.algorithms.feedback import dpo, kto, reward, simpo
from turnwise.algorithms.logs import bc
from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import comparison_rows, feedback_rows, reply_rows
from turnwise.data.feedback import Like, Pair
from turnwise.envs.tasks.annotators import label
from turnwise.envs.tasks.postcards.task import Postcards
from turnwise.evaluation.measures.replies import measure_replies
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.reward_model import RewardModel
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import Reply, sample_replies
from turnwise.rollout.reward_scorer import scorer
from turnwise.rollout.rewards import ModelReward
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import AdamW
from turnwise.run.training import TrainingRun

CARDS, LABELS, CONTEXT, REPLY = 4000, 5000, 96, 24
FEW = 60
"""cards, and labels, of a rehearsal"""
POINTS = (100, 300, 1000, 3000, 10_000)
TASK = Postcards()
PROMPTS, HELDOUT_PROMPTS = TASK.split()

STEPS, BETA = 100, 0.05
METHODS: dict[str, tuple[Any, Any]] = {
    "RLOO": (rloo, rloo.Config(steps=STEPS, prompts_per_step=16, group=8, beta=BETA)),
    "GRPO": (grpo, grpo.Config(steps=STEPS, prompts_per_step=16, group=8, beta=BETA)),
    "PPO": (token_ppo, token_ppo.Config(steps=STEPS // 2, prompts_per_step=128, beta=BETA)),
    "REINFORCE": (reply_reinforce, reply_reinforce.Config(steps=STEPS, prompts_per_step=128, beta=BETA)),
    "online DPO": (online_dpo, online_dpo.Config(steps=STEPS, prompts_per_step=16, group=8)),
    "rejection sampling": (best_of_n, best_of_n.Config(steps=STEPS, prompts_per_step=16, group=8)),
    "DPO": (dpo, dpo.Config(epochs=2.0)),
    "IPO": (dpo, dpo.Config(epochs=2.0, formula="ipo", beta=1.0)),
    "SimPO": (simpo, simpo.Config(epochs=2.0, optimizer=AdamW(lr=1e-4, warmup=0.05))),
    "KTO": (kto, kto.Config(epochs=2.0)),
}
UNTRAINED = {"SFT": 1, "best of 16": 16}
"""the clone, and the best of n of its replies by the reward model"""


class Truth:
    """The gold reward of replies: it is measured and recorded, and never learnt from."""

    def __call__(self, replies: Sequence[Reply]) -> np.ndarray:
        """[n], in units of gold."""
        return np.array([TASK.gold(r.prompt, r.text) for r in replies])


def training_run(folder: Path, what: str) -> TrainingRun:
    """A run that saves and logs more often than usual, as it is short."""
    return TrainingRun(folder, what=what, checkpoint_every=50, log_every=5)


def clone(seed: int, folder: Path) -> tuple[LmPolicy, ChatFormat]:
    """SFT: a small Llama that writes as the writer does; kept in the folder."""
    rng = np.random.default_rng((seed, 1))
    prompts = [PROMPTS[int(i)] for i in rng.integers(len(PROMPTS), size=at_most(FEW, CARDS))]
    texts = [TASK.write(p, rng) for p in prompts]
    tokenizer = train_tokenizer([m.content for p in PROMPTS for m in p] + texts, 512, CONTEXT)
    chat = ChatFormat(tokenizer)
    torch.manual_seed(seed)
    lm = llama(
        len(tokenizer),
        width=64,
        layers=2,
        heads=4,
        context=CONTEXT,
        eos=chat.stop,
        pad=tokenizer.pad_token_id,
    )
    policy = LmPolicy(lm)
    rows = [chat.reply(p, t, id=str(i)) for i, (p, t) in enumerate(zip(prompts, texts, strict=True))]
    done = folder / "sft.pt"
    if done.exists():
        policy.load_state_dict(torch.load(done))
    else:
        bc.train(bc.Config(epochs=6.0), rows, [], policy, training_run(folder / "sft", f"SFT {seed}"), seed)
        torch.save(policy.state_dict(), done)
    return policy, chat


def comparisons(seed: int, n: int) -> list[Pair]:
    """The first n labels of the panel: those of a smaller n are among those of a larger one."""
    rows = label(TASK, "pairs", at_most(FEW, n), np.random.default_rng((seed, 2)))
    found = []
    for row in rows:
        text = {side: row[side][0]["content"] for side in ("chosen", "rejected")}
        prompt = next(p for p in PROMPTS if p[0].content == row["prompt"][0]["content"])
        found.append(Pair(prompt, text["chosen"], text["rejected"], annotator=row["annotator"], id=row["id"]))
    return found


def proxy(
    seed: int, n: int, policy: LmPolicy, chat: ChatFormat, folder: Path
) -> tuple[ModelReward, dict[str, Any]]:
    """A reward model of n labels, with mean 0 and deviation 1 on the clone's replies; and how right it is."""
    torch.manual_seed(seed)
    model = RewardModel(trunk_of(copy.deepcopy(policy.lm)), width_of(policy.lm))
    items = feedback_rows(comparisons(seed, n), chat, CONTEXT)
    reward.train(
        reward_config(n), items, [], model, training_run(folder / f"reward-{n}", f"reward {seed} {n}"), seed
    )
    score = scorer(model)
    fresh = comparisons(seed + 1_000_003, 2000)
    by_model = score([chat.reply(p.prompt, t) for p in fresh for t in p.replies])[0].reshape(-1, 2)
    by_gold = np.array([[TASK.gold(p.prompt, t) for t in p.replies] for p in fresh])
    right = float(((by_model[:, 0] > by_model[:, 1]) == (by_gold[:, 0] > by_gold[:, 1])).mean())
    own = sample_replies(policy, chat, PROMPTS, group=4, seed=seed + 7, max_new_tokens=REPLY)
    return ModelReward(score).standardised_on(own), {"agrees with gold": right}


def reward_config(n: int) -> Any:
    """The fewer the labels, the more passes over them."""
    return reward.Config(
        epochs=float(np.clip(15_000 / n, 2, 10)), optimizer=AdamW(lr=1e-3, warmup=0.05, weight_decay=0.01)
    )


def one(method: str, seed: int, labels: int, folder: Path) -> dict[str, Any]:
    """Train one method and measure it."""
    home = folder / f"seed-{seed}"
    home.mkdir(parents=True, exist_ok=True)
    policy, chat = clone(seed, home)
    judge, known = proxy(seed, labels, policy, chat, home)
    reference = Reference(policy.lm)
    name = f"{method.replace(' ', '_')}-{labels}"
    torch.manual_seed(seed)
    began, seconds = time.process_time(), 0.0
    if method not in UNTRAINED:
        train(
            method, seed, labels, policy, chat, judge, training_run(home / name, f"{method} {seed} {labels}")
        )
        seconds = time.process_time() - began
    measured = measure_replies(
        policy,
        chat,
        HELDOUT_PROMPTS[: at_most(4, len(HELDOUT_PROMPTS))],
        group=16,
        seed=seed + 11,
        max_new_tokens=REPLY,
        rewards={"reward": judge, "gold": Truth()},
        reference=reference,
        best_of=UNTRAINED.get(method, 1),
    )
    del measured["by_prompt"]
    measured |= {k: measured[k]["mean"] for k in ("kl", "length", "unfinished") if k in measured}
    what = {"method": method, "seed": seed, "labels": labels, "seconds": seconds}
    return {**what, **known, **measured, "curve": curve(home / name)}


def train(
    method: str,
    seed: int,
    labels: int,
    policy: LmPolicy,
    chat: ChatFormat,
    judge: ModelReward,
    run: TrainingRun,
) -> None:
    """Improve the clone in place."""
    algorithm, c = METHODS[method]
    learn: Callable[..., Any] = algorithm.train
    pairs = comparisons(seed, labels)
    if method in ("DPO", "IPO", "SimPO"):
        learn(c, comparison_rows(pairs, chat, CONTEXT), [], policy, run, seed)
    elif method == "KTO":
        likes = [Like(p.prompt, t, liked=i == 0) for p in pairs for i, t in enumerate(p.replies)]
        learn(c, reply_rows(likes, chat, CONTEXT), [], policy, run, seed)
    else:
        learn(c, OneTurn(chat, PROMPTS, judge, Truth(), max_new_tokens=REPLY), policy, run, seed)


def curve(folder: Path) -> list[list[float]]:
    """(step, KL, proxy, gold) as a run logged them."""
    file = folder / "metrics.jsonl"
    logged = [json.loads(x) for x in file.read_text().splitlines()] if file.exists() else []
    names = ("step", "kl", "reward", "gold")
    return [[round(m[x], 4) for x in names] for m in logged if all(x in m for x in names)]


def table(folder: Path) -> None:
    """Merge what is there into one_turn.json, .md and .svg."""
    rows = [read_part(f) for f in sorted(folder.glob("*.json"))]
    order = [*UNTRAINED, *METHODS]
    rows.sort(key=lambda r: (r["labels"], order.index(r["method"]), r["seed"]))
    if not rows:
        return
    kept = [{k: v for k, v in r.items() if k != "examples"} for r in rows]
    write_results(folder, "one_turn", {"rows": kept})
    lines = [
        "| method | seed | gold | 95% interval | proxy reward | KL, nats | tokens | distinct | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        if r["labels"] == LABELS:
            g, kl = r["gold"], f"{r['kl']:.1f}" if "kl" in r else ""
            lines.append(
                f"| {r['method']} | {r['seed']} | {g['mean']:.3f} | {g['low']:.3f} to {g['high']:.3f} "
                f"| {r['reward']['mean']:.2f} | {kl} | {r['length']:.1f} | {r['distinct']:.0%} "
                f"| {r['seconds']:.0f} |"
            )
    best = float(np.mean([TASK.best_value(p) for p in HELDOUT_PROMPTS]))
    lines += ["", f"The best replies have {best:.3f}.", "", *labels_table(rows), ""]
    head = f"# One turn: postcards, {LABELS:,} comparisons\n\n{story_of(__doc__)}\n\n"
    write_page(folder, "one_turn", head + "\n".join(lines))
    print("\n".join(lines))
    write_figure(folder, "one_turn", figure(rows, best))


def labels_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Gold of RLOO by the number of labels."""
    lines = [
        "| labels | seeds | reward model agrees with gold | gold of RLOO, mean | each seed |",
        "|---|---|---|---|---|",
    ]
    for n in sorted({r["labels"] for r in rows if r["method"] == "RLOO"}):
        mine = [r for r in rows if r["method"] == "RLOO" and r["labels"] == n]
        gold = [r["gold"]["mean"] for r in mine]
        right = np.mean([r["agrees with gold"] for r in mine])
        each = ", ".join(f"{g:.2f}" for g in gold)
        lines.append(f"| {n:,} | {len(mine)} | {right:.1%} | {np.mean(gold):.3f} | {each} |")
    return lines


def figure(rows: Sequence[dict[str, Any]], best: float) -> Any:
    """Gold of RLOO by the number of labels; gold and proxy by the distance from the clone."""
    plt = pyplot()
    plot, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    mine = [r for r in rows if r["method"] == "RLOO"]
    points = sorted({r["labels"] for r in mine})
    for r in mine:
        left.plot(r["labels"], r["gold"]["mean"], "o", color="#3366cc", markersize=4, alpha=0.7)
    means = [np.mean([r["gold"]["mean"] for r in mine if r["labels"] == n]) for n in points]
    left.plot(points, means, color="#3366cc")
    base = np.mean([r["gold"]["mean"] for r in rows if r["method"] == "SFT"])
    left.axhline(best, color="black", linestyle="-", linewidth=0.8)
    left.axhline(base, color="black", linestyle=":", linewidth=0.8)
    left.text(points[0], best, " best", va="bottom", fontsize=8)
    left.text(points[0], base, " SFT", va="bottom", fontsize=8)
    left.set_xscale("log")
    left.set_xlabel("comparisons", fontsize=8)
    left.set_ylabel("gold of RLOO after training", fontsize=8)
    for n, colour in zip((100, 1000, 10_000), ("#cc3311", "#009988", "#332288"), strict=True):
        found = [r["curve"] for r in mine if r["labels"] == n and r["curve"]]
        if found:  # the mean of the seeds, step by step
            _, kl, proxied, gold = np.mean(found, 0).T
            x = np.sqrt(np.maximum(kl, 0))
            right.plot(x, gold, color=colour, linewidth=1.4, label=f"{n:,} labels")
            right.plot(x, proxied, color=colour, linewidth=1.0, linestyle="--")
    right.set_xlabel("square root of the KL to the clone", fontsize=8)
    right.set_ylabel(
        f"gold (lines), proxy (dashes), mean of {len({r['seed'] for r in mine})} seeds", fontsize=8
    )
    right.legend(fontsize=7)
    for place in (left, right):
        place.tick_params(labelsize=7)
    return plot


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "one_turn")
    add_choice(parser, "--methods", [*UNTRAINED, *METHODS], "ways of learning")
    add_seeds(parser, 0, 1, 2)
    parser.add_argument("--labels", nargs="*", type=int, default=list(POINTS), help="points of the figure")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for method, labels in [(m, LABELS) for m in a.methods] + [("RLOO", n) for n in a.labels]:
            file = a.runs / f"{method.replace(' ', '_')}-{labels}-{seed}.json"
            found = make_part(file, lambda run=(method, seed, labels): one(*run, a.runs))
            if found is not None:
                print(f"  gold {found['gold']['mean']:.3f}", flush=True)
    table(a.runs)


if __name__ == "__main__":
    main()
