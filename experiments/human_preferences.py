"""What people preferred: a reward model and DPO from nothing, beside a logistic regression on words.

    python experiments/human_preferences.py                               all that is missing, run by run
    python experiments/human_preferences.py --data ethics --methods DPO   some of it
    python experiments/human_preferences.py --table                       merge what is there: .json, .md

Two sets of pairs that people labelled (`experiments/preference_data.py` reads them):

- ETHICS, utilitarianism: which of two scenarios is the more pleasant for its teller. Learnt from the pairs
  of util_train, tested on util_test and on util_test_hard. Hendrycks, Burns, Basart, Critch, Li, Song and
  Steinhardt, "Aligning AI with shared human values", ICLR 2021, arXiv:2008.02275. The published splits share
  texts: 1,142 of the 6,004 texts of the test, and 937 of the 6,401 of the hard test, also stand in pairs to
  learn from (35 and 14 whole pairs do).
- UKPConvArg1, strict: which of two arguments for one side of a debate is the more convincing. Of the 16
  debates in alphabetical order every fourth (the 4th, 8th, 12th, 16th) is for the test, with both its sides;
  learnt from the other 12. No text is in both. Habernal and Gurevych, "Which argument is more convincing?",
  ACL 2016, P16-1150; CC BY 4.0.

Methods, each from the same pairs:

- longer wins: more words are better. Nothing is learnt.
- bag of words: Bradley-Terry with a weight for each lower-cased word that stands in at least two of the texts
  to learn from, on counts or on presence. Which of the two, and the L2 penalty, are chosen on a tenth of what
  is to learn from, no text of which is in the rest (ConvArg: two whole debates); then fitted to all of it.
- reward model: `turnwise.algorithms.feedback.reward` on a Llama with fresh weights.
- clone: the same Llama, taught to say the chosen replies (behaviour cloning). It is right if it gives the
  chosen one the higher log-probability, of the whole reply or per token.
- DPO: from the clone, `turnwise.algorithms.feedback.dpo`. It is right if beta (log pi - log pi_ref) of the
  chosen reply is higher. pi_ref is the clone. The log-probabilities are those of the whole reply, as in
  training, or per token of the same policy.
- reward model on the clone: the reward model again, with the clone's trunk to begin with.

A Llama has 2 layers of width 64, and a tokenizer of 2,048 tokens that was learnt from the training texts. No
text was cut or left out: all rows fit the context of 512 tokens. The epochs are few for want of time (half an
epoch of DPO on ConvArg). The settings of the Llamas were fixed beforehand, while the regression chose among
18. Intervals are 95% bootstraps over test pairs, for one trained model: they do not show the spread over
seeds. Pairs that share a text, as those of ConvArg do, are not independent, and the intervals are too narrow
there. Equal values count half; a coin has 0.5. `learnt from` is the same share in the first 2,000
pairs of the training set. CPU seconds are of one thread of a busy machine; what begins at the clone does not
count the clone's.
"""

from __future__ import annotations

import copy
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from preference_data import convarg_pairs, ethics_pairs
from scipy.optimize import minimize
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from turnwise.algorithms.feedback import dpo, reward
from turnwise.algorithms.logs import bc
from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import comparison_rows, feedback_rows
from turnwise.data.feedback import Pair
from turnwise.data.order import chunks
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import score_replies
from turnwise.models.lm.reward_model import RewardModel
from turnwise.rollout.reward_scorer import scorer
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import AdamW, flattened
from turnwise.run.training import TrainingRun

VOCAB, CONTEXT, WIDTH, LAYERS, HEADS = 2048, 512, 64, 2, 4
REWARD = {
    "ethics": reward.Config(epochs=3.0, optimizer=AdamW(lr=1e-3, warmup=0.05, weight_decay=0.01)),
    "convarg": reward.Config(epochs=1.0, optimizer=AdamW(lr=1e-3, warmup=0.05, weight_decay=0.01)),
}
CLONE = {"ethics": bc.Config(epochs=1.0), "convarg": bc.Config(epochs=1.0)}
DPO = {
    "ethics": dpo.Config(epochs=1.0, optimizer=AdamW(lr=5e-4, warmup=0.05)),
    "convarg": dpo.Config(epochs=0.5, optimizer=AdamW(lr=5e-4, warmup=0.05)),
}
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
REGRESSION = "bag of words"
METHODS = (
    "longer wins",
    REGRESSION,
    "reward model",
    "clone",
    "clone, per token",
    "DPO",
    "DPO, per token",
    "reward model on the clone",
)
SEEDLESS = METHODS[:2]


@dataclass(frozen=True)
class Data:
    """Pairs to learn from and to be tested on, and which pairs to learn from belong together."""

    name: str
    train: list[Pair]
    tests: dict[str, list[Pair]]
    groups: np.ndarray
    """[pairs to learn from], int: pairs with a text in common, or of one debate, have the same number."""


def few(pairs: list[Pair]) -> list[Pair]:
    """All pairs, and in a rehearsal the first of them."""
    return pairs[: at_most(100, len(pairs))]


@cache
def ethics() -> Data:
    """ETHICS in its published splits."""
    pairs, test, hard = (few(ethics_pairs(split)) for split in ("train", "test", "test_hard"))
    tests = {"test": test, "hard test": hard}
    return Data("ethics", pairs, tests, sharing_a_text(pairs))


@cache
def convarg() -> Data:
    """ConvArg: the test set is whole debates."""
    sides = {topic: few(pairs) for topic, pairs in convarg_pairs().items()}
    debates = sorted({topic.rpartition("_")[0] for topic in sides})
    train, groups, test = [], [], []
    for topic, pairs in sides.items():
        number = debates.index(topic.rpartition("_")[0])
        if number % 4 == 3:
            test += pairs
        else:
            train += pairs
            groups += [number] * len(pairs)
    return Data("convarg", train, {"debates left out": test}, np.array(groups))


DATA: dict[str, Callable[[], Data]] = {"ethics": ethics, "convarg": convarg}


def sharing_a_text(pairs: Sequence[Pair]) -> np.ndarray:
    """[pairs], the number of the connected component that a pair's texts are in."""
    number = {text: i for i, text in enumerate(dict.fromkeys(t for p in pairs for t in p.replies))}
    first, second = (np.array([number[p.replies[i]] for p in pairs]) for i in (0, 1))
    shape = (len(number), len(number))
    _, part = connected_components(coo_array((np.ones(len(pairs)), (first, second)), shape=shape))
    return part[first]


def words(text: str) -> list[str]:
    """Lower-cased words; an apostrophe inside a word belongs to it."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)*", text.lower())


def vocabulary(pairs: Sequence[Pair], least: int = 2) -> dict[str, int]:
    """Words that stand in at least `least` of the texts."""
    seen = Counter(w for t in sorted({t for p in pairs for t in p.replies}) for w in set(words(t)))
    return {w: i for i, w in enumerate(sorted(w for w, n in seen.items() if n >= least))}


def differences(pairs: Sequence[Pair], known: dict[str, int], presence: bool) -> csr_array:
    """[pairs, words], features of the chosen reply less those of the rejected one."""
    values, rows, columns = [], [], []
    for i, p in enumerate(pairs):
        for sign, text in zip((1.0, -1.0), p.replies, strict=True):
            for word, n in Counter(words(text)).items():
                if word in known:
                    values.append(sign if presence else sign * n)
                    rows.append(i)
                    columns.append(known[word])
    return coo_array((values, (rows, columns)), shape=(len(pairs), len(known))).tocsr()


def fitted(x: csr_array | np.ndarray, penalty: float) -> np.ndarray:
    """Weights w that minimise sum log(1 + exp(-x w)) + penalty/2 |w|^2."""

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = x @ w
        value = np.logaddexp(0.0, -margin).sum() + penalty / 2 * w @ w
        return float(value), penalty * w - x.T @ expit(-margin)

    return minimize(objective, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x


def regression(data: Data) -> tuple[Callable[[Sequence[Pair]], np.ndarray], dict[str, Any]]:
    """The margin of pairs by a regression on words, and the settings that were chosen for it."""
    rng = np.random.default_rng(0)
    parts = rng.permutation(np.unique(data.groups))
    held = np.isin(data.groups, parts[: max(2, len(parts) // 10)])
    keep = [p for p, h in zip(data.train, held, strict=True) if not h]
    validation = [p for p, h in zip(data.train, held, strict=True) if h]
    known, tried = vocabulary(keep), []
    for presence in (False, True):
        x, y = differences(keep, known, presence), differences(validation, known, presence)
        for penalty in PENALTIES:
            tried.append((right(y @ fitted(x, penalty)).mean(), penalty, presence))
    best, penalty, presence = max(tried)
    known = vocabulary(data.train)
    w = fitted(differences(data.train, known, presence), penalty)
    chosen = {
        "held out": len(validation),
        "held-out accuracy": float(best),
        "penalty": penalty,
        "features": "presence" if presence else "counts",
        "words": len(known),
    }
    return lambda pairs: differences(pairs, known, presence) @ w, chosen


def right(margins: np.ndarray) -> np.ndarray:
    """1 where the chosen reply is higher, 1/2 where both are equal."""
    return (margins > 0) + 0.5 * (margins == 0)


def longer(pairs: Sequence[Pair]) -> np.ndarray:
    """By how many words the chosen reply is longer."""
    return np.array([len(words(p.chosen)) - len(words(p.rejected)) for p in pairs], float)


@cache
def chat_of(name: str) -> ChatFormat:
    """The chat format of a tokenizer that was learnt from the training texts."""
    pairs = DATA[name]().train
    texts = sorted({m.content for p in pairs for m in p.prompt} | {t for p in pairs for t in p.replies})
    return ChatFormat(train_tokenizer(texts, VOCAB, CONTEXT))


def fresh(name: str, seed: int) -> Any:
    """A Llama with fresh weights."""
    tokenizer = chat_of(name).tokenizer
    torch.manual_seed(seed)
    return llama(
        len(tokenizer),
        width=WIDTH,
        layers=LAYERS,
        heads=HEADS,
        context=CONTEXT,
        eos=chat_of(name).stop,
        pad=tokenizer.pad_token_id,
    )


def training_run(folder: Path) -> TrainingRun:
    """A run that saves more often than usual."""
    return TrainingRun(folder, what=folder.name, checkpoint_every=100, log_every=20)


def reply_rows(pairs: Sequence[Pair], name: str) -> list[Tokens]:
    """Two rows a pair, the chosen one first."""
    return [chat_of(name).reply(p.prompt, t, id=p.id) for p in pairs for t in p.replies]


def reward_model(data: Data, lm: Any, seed: int, run: TrainingRun) -> Callable[[Sequence[Pair]], np.ndarray]:
    """Train a reward model on the trunk of `lm`; the margin of pairs by it."""
    torch.manual_seed(seed)
    model = RewardModel(trunk_of(lm), width_of(lm))
    items = feedback_rows(data.train, chat_of(data.name), CONTEXT)
    reward.train(REWARD[data.name], items, [], model, run, seed)
    score = scorer(model)

    def margins(pairs: Sequence[Pair]) -> np.ndarray:
        each = score(reply_rows(pairs, data.name))[0].reshape(-1, 2)
        return each[:, 0] - each[:, 1]

    return margins


def clone(data: Data, seed: int, folder: Path) -> LmPolicy:
    """A policy that was taught to say the chosen replies."""
    policy = LmPolicy(fresh(data.name, seed))
    rows = [chat_of(data.name).reply(p.prompt, p.chosen, id=p.id) for p in data.train]
    bc.train(CLONE[data.name], rows, [], policy, training_run(folder / f"{data.name}-clone-{seed}"), seed)
    return policy


@torch.inference_mode()
def logp(policy: LmPolicy, pairs: Sequence[Pair], name: str) -> tuple[np.ndarray, np.ndarray]:
    """[pairs, 2], log-probabilities of whole replies; and how many tokens they have."""
    rows = reply_rows(pairs, name)
    order = np.argsort([len(t) for t in rows], kind="stable")
    sums, tokens = np.empty(len(rows)), np.empty(len(rows))
    for part in chunks(order.tolist(), 64):
        b = pack_tokens([rows[i] for i in part], gamma=1.0)
        sums[part] = score_replies(policy.lm, b).logp.sum(1)
        tokens[part] = b.mask.sum(1)
    return sums.reshape(-1, 2), tokens.reshape(-1, 2)


def train(
    method: str, data: Data, seed: int, folder: Path
) -> tuple[Callable[[Sequence[Pair]], np.ndarray], Any]:
    """The margin of pairs by a trained model, and its settings."""
    name = data.name
    kind = method.removesuffix(", per token")
    run = folder / f"{name}-{kind.replace(' ', '_')}-{seed}"
    if method == "reward model":
        return reward_model(data, fresh(name, seed), seed, training_run(run)), flattened(asdict(REWARD[name]))
    policy = clone(data, seed, folder)
    if method == "reward model on the clone":
        return reward_model(data, policy.lm, seed, training_run(run)), flattened(asdict(REWARD[name]))
    before = copy.deepcopy(policy)
    if kind == "DPO":
        items = comparison_rows(data.train, chat_of(name), CONTEXT)
        dpo.train(DPO[name], items, [], policy, training_run(run), seed)

    def margins(pairs: Sequence[Pair]) -> np.ndarray:
        each, tokens = logp(policy, pairs, name)
        if kind == "DPO":
            each = each - logp(before, pairs, name)[0]
        if kind != method:
            each = each / tokens
        return each[:, 0] - each[:, 1]

    return margins, flattened(asdict(DPO[name] if kind == "DPO" else CLONE[name]))


def one(method: str, data: Data, seed: int, folder: Path) -> dict[str, Any]:
    """Learn, and judge the test pairs; `right` has the answers, pair by pair."""
    if method in METHODS[METHODS.index("clone") + 1 :]:
        clone(data, seed, folder)  # now, so that its time is not counted as the method's
    began = time.process_time()
    if method == "longer wins":
        margins, settings = longer, {}
    elif method == REGRESSION:
        margins, settings = regression(data)
    else:
        margins, settings = train(method, data, seed, folder)
    seconds = time.process_time() - began
    answers = {name: right(margins(pairs)).tolist() for name, pairs in data.tests.items()}
    familiar = data.train[:2000]
    return {
        "data": data.name,
        "method": method,
        "seed": seed,
        "pairs": len(data.train),
        "settings": settings,
        "seconds": seconds,
        "of those learnt from": float(right(margins(familiar)).mean()),
        "right": answers,
    }


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% bootstrap interval."""
    return float(values.mean()), *bootstrap_interval(values, rng=np.random.default_rng(0))


def table(folder: Path) -> None:
    """Merge what is there."""
    rows = [read_part(f) for f in folder.glob("*.json")]
    rows.sort(key=lambda r: (list(DATA).index(r["data"]), METHODS.index(r["method"]), r["seed"]))
    base = {r["data"]: r["right"] for r in rows if r["method"] == REGRESSION}
    lines = [
        "| pairs | tested on | method | seed | right | 95% interval | less bag of words, points "
        "| learnt from | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    kept = []
    behind, ahead = dict[str, list[str]](), dict[str, list[str]]()
    for r in rows:
        found = {}
        for test, answers in r.pop("right").items():
            x = np.array(answers)
            mean, low, high = interval(x)
            found[test] = {"right": mean, "low": low, "high": high, "pairs": len(x)}
            less = ""
            if r["method"] not in ("longer wins", REGRESSION) and r["data"] in base:
                d, dl, dh = interval(x - np.array(base[r["data"]][test]))
                found[test]["less bag of words"] = [d, dl, dh]
                less = f"{100 * d:+.1f} ({100 * dl:+.1f} to {100 * dh:+.1f})"
                for side, so in ((behind, dh < 0), (ahead, dl > 0)):
                    if so:
                        side.setdefault(f"{r['method']} on {r['data']}, {test}", []).append(f"{mean:.3f}")
            lines.append(
                f"| {r['data']} | {test}, {len(x):,} | {r['method']} | {r['seed']} | {mean:.3f} "
                f"| {low:.3f} to {high:.3f} | {less} | {r['of those learnt from']:.3f} | {r['seconds']:.0f} |"
            )
        kept.append(r | {"tests": found})
    there = {(r["data"], r["method"]) for r in rows}
    missing = [f"{m} on {d}" for d in DATA for m in METHODS if (d, m) not in there]
    verdict = [
        "The regression on words is right more often (95% interval of the difference above 0) than: "
        + listed(behind),
        "Right more often than the regression: " + listed(ahead) + " A coin has 0.5.",
        "Not run yet: " + (", ".join(missing) or "nothing") + ".",
    ]
    write_results(folder, "human_preferences", {"rows": kept})
    title = "# Human preferences: small models from nothing beside a regression on words"
    body = "\n\n".join([title, *verdict, "\n".join(lines), story_of(__doc__)])
    write_page(folder, "human_preferences", body)
    print("\n".join([*verdict, *lines]))


def listed(found: Mapping[str, Sequence[str]]) -> str:
    """Names and, for each seed, how often it is right; "nothing" without a name."""
    return ("; ".join(f"{what} ({', '.join(shares)})" for what, shares in found.items()) or "nothing") + "."


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "human_preferences")
    add_choice(parser, "--data", DATA, "sets of pairs")
    add_choice(parser, "--methods", METHODS, "ways of learning")
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for method in a.methods:
            if seed != 0 and method in SEEDLESS:
                continue
            for name in a.data:
                file = a.runs / f"{name}-{method.replace(' ', '_')}-{seed}.json"
                found = make_part(
                    file, lambda run=(method, name, seed): one(run[0], DATA[run[1]](), run[2], a.runs)
                )
                if found is not None:
                    print(
                        "  ",
                        {test: round(float(np.mean(x)), 4) for test, x in found["right"].items()},
                        flush=True,
                    )
    table(a.runs)


if __name__ == "__main__":
    main()
