"""Human preferences with a pretrained model: SmolLM2 as a reward model and by DPO, beside words alone.

    python experiments/pretrained_preferences.py --model models/smollm2                     all, run by run
    python experiments/pretrained_preferences.py --model models/smollm2 --data convarg      some of it
    python experiments/pretrained_preferences.py --table              merge what is there: .json, .md

The pairs, their splits and the regression on bags of words are those of `human_preferences.py`, which has
small models from nothing beside the same regression. `docs/how-to/models.md` says where SmolLM2-135M-Instruct
comes from. Of each test set the same pairs are asked of all methods: 1,500 drawn at random, or all.

- longer wins, bag of words: as there. The regression is fitted to all pairs, and again to as many as the
  adapters learn from.
- frozen: what SmolLM2 makes of each reply is read once, and Bradley-Terry with a weight for each of its 576
  features, standardised, is fitted. *As a reward model reads*: at the stop token behind the last layer.
  *Chosen layer*: behind a third, half, two thirds, five sixths or all of the layers, at the stop token or
  the mean over the reply, whichever is best on the tenth of the pairs that also chooses the penalty, as it
  does for the regression.
- LoRA reward model: `turnwise.algorithms.feedback.reward`, adapters of rank 8 on all linear layers.
- LoRA DPO: `turnwise.algorithms.feedback.dpo` on such adapters. pi_ref is SmolLM2 as it came. It is right if
  beta (log pi - log pi_ref) of the chosen reply is higher.

Products are computed in bfloat16 (autocast), which halves the time. Rows have no chat template: words of the
debate and its side, a stop token, the reply, a stop token. ETHICS has one prompt for all, which is left out.
Each run is one pass over the pairs that are named, by default settings, tried once. Intervals are 95%
bootstraps over test pairs, for one trained model: they do not show the spread over seeds, and are too narrow
where pairs share a text, as those of ConvArg do. CPU seconds are of one thread of a busy machine, reading the
test included; they count what learns or reads, not the loading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
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
    read_part,
    story_of,
    write_page,
    write_results,
)
from human_preferences import DATA, Data, fitted, interval, longer, regression, right
from preference_data import PLEASANT

from turnwise.algorithms.feedback import dpo, reward
from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import Comparison
from turnwise.data.feedback import Pair
from turnwise.data.order import chunks
from turnwise.data.tokens import Tokens
from turnwise.models.lm.lora import merge_adapters_, merged
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm
from turnwise.models.lm.replies import actions_logp
from turnwise.models.lm.reward_model import RewardModel
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.training.learning import ready
from turnwise.rollout.reward_scorer import scorer
from turnwise.run.passes import Passes
from turnwise.run.rehearsal import at_most
from turnwise.run.training import TrainingRun

TESTED = 1500
READ = {"ethics": 6000, "convarg": 20_000}
"""pairs that are read by a frozen trunk, drawn at random, or all"""
ADAPTED = {"ethics": 2000, "convarg": 500}
"""pairs that adapters learn from, drawn at random"""
COMPARED = {"ethics": 1000, "convarg": 300}
"""of them, those that DPO learns from"""
DEPTHS = (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1.0)
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
POSITIONS = 4096
"""read at a time"""
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
REGRESSION, FEWER = "bag of words", "bag of words, fewer pairs"
FROZEN, CHOSEN = "frozen, as a reward model reads", "frozen, chosen layer"
METHODS = ("longer wins", REGRESSION, FEWER, FROZEN, CHOSEN, "LoRA reward model", "LoRA DPO")
Margins = Callable[[Sequence[Pair]], np.ndarray]


def some(pairs: Sequence[Pair], n: int, seed: int) -> list[Pair]:
    """So many pairs at random, or all."""
    return [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))[:n]]


def part_of(data: Data, n: int, seed: int) -> Data:
    """The data with so many pairs to learn from."""
    chosen = np.random.default_rng(seed).permutation(len(data.train))[:n]
    return replace(data, train=[data.train[i] for i in chosen], groups=data.groups[chosen])


class Reader:
    """SmolLM2 and its rows."""

    def __init__(self, model: str):
        self.lm, tokenizer = load_lm(model)
        tokenizer.chat_template = TEMPLATE
        self.chat = ChatFormat(tokenizer)
        self.seen: dict[Any, np.ndarray] = {}
        """Features of each prompt and reply that was read."""
        self.seconds = 0.0
        """What that took."""

    def row(self, pair: Pair, text: str) -> Tokens:
        """A reply, behind its prompt where prompts differ."""
        return self.chat.reply(() if pair.prompt == PLEASANT else pair.prompt, text)

    def rows(self, pairs: Sequence[Pair]) -> dict[tuple[Any, str], Tokens]:
        """One row for each prompt and reply."""
        each = {(p.prompt, t): p for p in pairs for t in p.replies}
        return {key: self.row(p, key[1]) for key, p in each.items()}


@cache
def read_once(model: str) -> Reader:
    """The reader of both ways on a frozen trunk: no text is read twice."""
    return Reader(model)


def by_text(pairs: Sequence[Pair], reader: Reader, values: Callable[[Sequence[Tokens]], np.ndarray]) -> Any:
    """[pairs, 2, ...], what `values` gives the replies of each; a text is read once."""
    rows = reader.rows(pairs)
    found = dict(zip(rows, values(list(rows.values())), strict=True))
    return np.array([[found[p.prompt, t] for t in p.replies] for p in pairs])


@torch.inference_mode()
def features(trunk: Any, rows: Sequence[Tokens]) -> np.ndarray:
    """[n, 2 depths, D], float16: at the stop token behind each depth; and the means over the reply."""
    order = np.argsort([len(t) for t in rows], kind="stable")
    found = np.zeros((len(rows), 2 * len(DEPTHS), trunk.config.hidden_size), np.float16)
    at = [round(d * trunk.config.num_hidden_layers) for d in DEPTHS]
    for part in chunks(order.tolist(), 64):
        b = pack_tokens([rows[i] for i in part], gamma=1.0)
        with torch.autocast("cpu", torch.bfloat16):
            states = trunk(input_ids=b.inputs, use_cache=False, output_hidden_states=True).hidden_states
        h = torch.stack([states[i].float() for i in at], 1)  # [n, depths, T, D]
        place = torch.arange(h.shape[2])
        reply = (place > b.decisions[:, :1]) & (place <= b.decisions[:, -1:])  # [n, T]
        last = h[torch.arange(len(part)), :, b.decisions[:, -1]]
        mean = (h * reply[:, None, :, None]).sum(2) / reply.sum(1)[:, None, None]
        found[part] = torch.cat([last, mean], 1).clamp(-6e4, 6e4).half().numpy()
    return found


def differences(pairs: Sequence[Pair], reader: Reader) -> np.ndarray:
    """[pairs, 2 depths, D], features of the chosen reply less those of the rejected one."""
    rows = {key: row for key, row in reader.rows(pairs).items() if key not in reader.seen}
    if rows:
        began = time.process_time()
        reader.seen.update(zip(rows, features(trunk_of(reader.lm), list(rows.values())), strict=True))
        reader.seconds += time.process_time() - began
    seen = reader.seen
    return np.stack([seen[p.prompt, p.chosen] - seen[p.prompt, p.rejected] for p in pairs]).astype(np.float32)


def frozen(data: Data, reader: Reader, choose: bool) -> tuple[Margins, dict[str, Any]]:
    """Bradley-Terry on features; the penalty, and the reading if `choose`, by a tenth of the pairs."""
    x = differences(data.train, reader)  # [pairs, readings, D]
    scale = np.sqrt((x**2).mean(0)) + 1e-6
    x = x / scale
    parts = np.random.default_rng(0).permutation(np.unique(data.groups))
    held = np.isin(data.groups, parts[: max(2, len(parts) // 10)])
    tried = []
    for r in range(x.shape[1]) if choose else (len(DEPTHS) - 1,):
        for penalty in PENALTIES:
            w = fitted(x[~held, r], penalty)
            tried.append((right(x[held, r] @ w).mean(), penalty, r))
    best, penalty, r = max(tried)
    w = fitted(x[:, r], penalty) / scale[r]
    settings = {
        "held-out accuracy": float(best),
        "penalty": penalty,
        "depth": DEPTHS[r % len(DEPTHS)],
        "read": "stop token" if r < len(DEPTHS) else "mean of the reply",
    }
    return lambda pairs: differences(pairs, reader)[:, r] @ w, settings


def learning_run(folder: Path) -> TrainingRun:
    """A run with products in bfloat16."""
    through = Passes(torch.bfloat16, positions=POSITIONS)
    return TrainingRun(folder, what=folder.name, checkpoint_every=20, log_every=5, through=through)


def comparisons(data: Data, reader: Reader) -> list[Comparison]:
    """Pairs as rows, the chosen one first."""
    return [Comparison(p, (reader.row(p, p.chosen), reader.row(p, p.rejected))) for p in data.train]


def reward_model(data: Data, reader: Reader, seed: int, run: TrainingRun) -> Margins:
    """Adapters and a head that learn what was preferred."""
    torch.manual_seed(seed)
    lm = ready(reader.lm, Learning(lora_rank=8, autocast="bfloat16"))
    model = RewardModel(trunk_of(lm), width_of(lm))
    reward.train(reward.Config(epochs=1.0), comparisons(data, reader), [], model, run, seed)
    merge_adapters_(model.trunk)

    def margins(pairs: Sequence[Pair]) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16):
            each = by_text(pairs, reader, lambda rows: scorer(model)(rows)[0])
        return each[:, 0] - each[:, 1]

    return margins


@torch.inference_mode()
def logp(lm: Any, rows: Sequence[Tokens]) -> np.ndarray:
    """[n], log-probabilities of whole replies."""
    order = np.argsort([len(t) for t in rows], kind="stable")
    found = np.empty(len(rows))
    for part in chunks(order.tolist(), 64):
        with torch.autocast("cpu", torch.bfloat16):
            b = pack_tokens([rows[i] for i in part], gamma=1.0)
            found[part] = actions_logp(lm, b).double().sum(1)
    return found


def preferring(data: Data, reader: Reader, tested: Sequence[Pair], seed: int, run: TrainingRun) -> Margins:
    """A policy by DPO; what the reference gives the test is read before it learns."""
    rows = reader.rows(tested)
    before = dict(zip(rows, logp(reader.lm, list(rows.values())), strict=True))
    torch.manual_seed(seed)
    lm = ready(reader.lm, Learning(lora_rank=8, autocast="bfloat16"))
    dpo.train(dpo.Config(), comparisons(data, reader), [], LmPolicy(lm), run, seed)
    plain = merged(lm)

    def margins(pairs: Sequence[Pair]) -> np.ndarray:
        each = by_text(pairs, reader, lambda rows: logp(plain, rows))
        each -= np.array([[before[p.prompt, t] for t in p.replies] for p in pairs])
        return each[:, 0] - each[:, 1]

    return margins


def one(method: str, name: str, seed: int, model: str, folder: Path) -> dict[str, Any]:
    """Learn, and judge the test pairs; `right` has the answers, pair by pair."""
    data = DATA[name]()
    tests = {test: some(pairs, at_most(40, TESTED), 0) for test, pairs in data.tests.items()}
    if name == "convarg":
        tests = data.tests  # few texts, in many pairs
    fewer = {
        FROZEN: READ,
        CHOSEN: READ,
        FEWER: ADAPTED,
        "LoRA reward model": ADAPTED,
        "LoRA DPO": COMPARED,
    }.get(method)
    if fewer is not None:
        data = part_of(data, fewer[name], 0)
    reader = (
        None if method in METHODS[:3] else read_once(model) if method in (FROZEN, CHOSEN) else Reader(model)
    )
    run = learning_run(folder / f"{name}-{method.replace(' ', '_')}-{seed}")
    settings: dict[str, Any] = {}
    began = time.process_time() - (0.0 if reader is None else reader.seconds)
    if reader is None:
        margins, settings = (longer, {}) if method == "longer wins" else regression(data)
    elif method in (FROZEN, CHOSEN):
        margins, settings = frozen(data, reader, method == CHOSEN)
    elif method == "LoRA DPO":
        margins = preferring(data, reader, [p for pairs in tests.values() for p in pairs], seed, run)
    else:
        margins = reward_model(data, reader, seed, run)
    answers = {test: right(margins(pairs)).tolist() for test, pairs in tests.items()}
    return {
        "data": name,
        "method": method,
        "seed": seed,
        "pairs": len(data.train),
        "settings": settings,
        "seconds": time.process_time() - began,
        "right": answers,
    }


def table(folder: Path) -> None:
    """Merge what is there."""
    rows = [read_part(f) for f in folder.glob("*.json")]
    rows.sort(key=lambda r: (list(DATA).index(r["data"]), METHODS.index(r["method"]), r["seed"]))
    base = {(r["data"], r["method"]): r["right"] for r in rows if r["method"] in (REGRESSION, FEWER)}
    lines = [
        "| pairs | tested on | method | learnt from | seed | right | 95% interval "
        "| less bag of words on all pairs, points | less it on fewer | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kept = []
    for r in rows:
        found = {}
        for test, answers in r.pop("right").items():
            x = np.array(answers)
            mean, low, high = interval(x)
            found[test] = {"right": mean, "low": low, "high": high, "pairs": len(x)}
            beside = []
            for other in (REGRESSION, FEWER):
                there = base.get((r["data"], other))
                if there is None or other == r["method"] or r["method"] == "longer wins":
                    beside.append("")
                    continue
                d, dl, dh = interval(x - np.array(there[test]))
                found[test][f"less {other}"] = [d, dl, dh]
                beside.append(f"{100 * d:+.1f} ({100 * dl:+.1f} to {100 * dh:+.1f})")
            lines.append(
                f"| {r['data']} | {test}, {len(x):,} | {r['method']} | {r['pairs']:,} | {r['seed']} "
                f"| {mean:.3f} | {low:.3f} to {high:.3f} | {' | '.join(beside)} | {r['seconds']:,.0f} |"
            )
        kept.append(r | {"tests": found})
    there = {(r["data"], r["method"]) for r in rows}
    missing = [f"{m} on {d}" for d in DATA for m in METHODS if (d, m) not in there]
    write_results(folder, "pretrained_preferences", {"rows": kept})
    title = "# Human preferences: SmolLM2 beside a regression on words"
    missed = "Not run yet: " + (", ".join(missing) or "nothing") + "."
    write_page(
        folder, "pretrained_preferences", "\n\n".join([title, missed, "\n".join(lines), story_of(__doc__)])
    )
    print("\n".join(lines))


def main() -> None:
    """Make what is missing, and merge."""
    parser = options(__doc__, "pretrained_preferences")
    parser.add_argument("--model", default="models/smollm2", help="folder of SmolLM2")
    add_choice(parser, "--data", DATA, "sets of pairs")
    add_choice(parser, "--methods", METHODS, "ways of judging")
    add_seeds(parser, 0)
    a = parse(parser)
    for name in () if a.table else a.data:
        for method in a.methods:
            for seed in a.seeds if method.startswith("LoRA") else (0,):
                file = a.runs / f"{name}-{method.replace(' ', '_')}-{seed}.json"
                make_part(file, lambda m=method, n=name, s=seed: one(m, n, s, a.model, a.runs))
    table(a.runs)


if __name__ == "__main__":
    main()
