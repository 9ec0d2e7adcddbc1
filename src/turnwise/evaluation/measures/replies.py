"""What a policy says: replies, their length, their distance from where it began, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.data.order import chunks
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.evaluation.measures.shares import proportion, weighted_mean
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.rollout.replies import Reply, sample_replies
from turnwise.rollout.rewards import Reward

EXAMPLES = 8
"""replies that are shown"""
ROWS = 256
"""replies that the models read at a time"""


@torch.inference_mode()
def log_ratios(lm: Any, reference: Reference, replies: Sequence[Reply]) -> tuple[np.ndarray, float]:
    """log policy - log reference of each reply [n], in nats; and the policy's entropy, in nats per token.

    The mean of the log-ratios over the policy's own replies is the KL(policy || reference) of a reply
    (Schulman's k1): unbiased, and for that reason below 0 now and then.
    """
    device = next(lm.parameters()).device
    ratios, entropy, tokens = list[float](), 0.0, 0
    for part in chunks(replies, ROWS):
        b = pack_tokens([r.tokens for r in part], gamma=1.0).to(device)
        out = score_replies(lm, b)
        ratios += (out.logp - reference.logp(b)).sum(1).tolist()
        entropy += float(out.entropy.sum())
        tokens += int(b.mask.sum())
    return np.array(ratios), entropy / tokens


def interval_over_prompts(values: np.ndarray, group: int, seed: int = 0) -> dict[str, float | None]:
    """Mean of values [P G], `group` a prompt, with a 95% bootstrap interval over the P prompts.

    Replies that are nan, of which a reward has no opinion, are left out. `low` and `high` are None for a
    single prompt, which says nothing about the spread; so is `mean` if there is no opinion of any reply.
    """
    # Replies to one prompt are alike: resampling replies one by one would count them as independent and make
    # the interval too narrow.
    means = _by_prompt(values, group)
    means = means[~np.isnan(means)]
    if not len(means):  # after training is no time to fail: there is no figure then
        return {"mean": None, "low": None, "high": None}
    if len(means) == 1:
        return {"mean": float(means[0]), "low": None, "high": None}
    low, high = bootstrap_interval(means, rng=np.random.default_rng(seed))
    return {"mean": float(means.mean()), "low": low, "high": high}


def _by_prompt(values: np.ndarray, group: int) -> np.ndarray:
    """[P], the mean of the replies to each prompt that were judged; nan if none was."""
    rows = values.reshape(-1, group)
    judged = ~np.isnan(rows)
    sums, counts = np.where(judged, rows, 0.0).sum(1), judged.sum(1)
    return np.divide(sums, counts, out=np.full(len(rows), np.nan), where=counts > 0)


def share_over_prompts(values: np.ndarray, group: int) -> dict[str, float | None]:
    """`interval_over_prompts` of zeros and ones: between 0 and 1, and never without width (`proportion`)."""
    return proportion(weighted_mean(values.reshape(-1, group).mean(1)), np.arange(len(values) // group))


def paired_gains(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Mean of after - before, prompt by prompt, with its 95% interval; for each number that both have.

    `before` and `after` come from `measure_replies` on the same prompts in the same order.
    """
    # Prompts differ more than policies do. The difference on one prompt cancels what is particular to the
    # prompt, so this interval can exclude 0 although those of the two means overlap.
    old, new = before["by_prompt"], after["by_prompt"]
    gains = {k: np.subtract(new[k], old[k]) for k in new if k in old}
    return {k: interval_over_prompts(x, 1) for k, x in gains.items() if not np.isnan(x).all()}


def measure_replies(
    policy: LmPolicy,
    chat: ChatFormat,
    prompts: Sequence[Prompt],
    *,
    group: int,
    seed: int,
    max_new_tokens: int,
    rewards: Mapping[str, Reward] | None = None,
    reference: Reference | None = None,
    best_of: int = 1,
    decoding: Decoding = POLICYS_OWN,
    columns: Sequence[Mapping[str, Any]] | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Sample `group` replies to each prompt and measure them, by `rewards` if there are any. An `engine`
    speaks for the policy, if there is one.

    length, unfinished  tokens of a reply; share of replies cut by the limit
    each of `rewards`   under its name ("reward", "gold"): what the replies are worth
    kl, entropy         if a `reference` is given: see `log_ratios`; left out for best of n, whose KL is not
                        the policy's
    unjudged            replies of which a reward has no opinion, which are left out of its mean
    distinct            share of different texts
    examples            the first reply to each of eight prompts, spread over all of them

    All but the last four are means over prompts with a 95% interval; `by_prompt` has the mean of each
    prompt, in order. With `best_of` n each reply is the best of n, by the first of the rewards. A reward
    without an opinion of any reply has no entry.
    """
    replies = sample_replies(
        policy,
        chat,
        prompts,
        group=group * best_of,
        seed=seed,
        max_new_tokens=max_new_tokens,
        decoding=decoding,
        columns=columns,
        engine=engine,
    )
    worth = {name: reward(replies) for name, reward in (rewards or {}).items()}
    if best_of > 1:
        tried = next(iter(worth.values())).reshape(
            -1, best_of
        )  # [P G, n]: n samples of a reply are neighbours
        kept = np.arange(len(tried)) * best_of + tried.argmax(1)
        replies, worth = [replies[i] for i in kept], {name: x[kept] for name, x in worth.items()}
    values = worth | {
        "length": np.array([r.length for r in replies], np.float64),
        "unfinished": np.array([not r.stopped for r in replies], np.float64),
    }
    found: dict[str, Any] = {"replies": len(replies), "prompts": len(prompts)}
    if reference is not None and best_of == 1:
        values["kl"], found["entropy"] = log_ratios(policy.lm, reference, replies)
    intervals = {name: interval_over_prompts(x, group) for name, x in values.items()}
    # A reward without an opinion of any reply has no figure; how many it did not judge is said below.
    found |= {name: x for name, x in intervals.items() if x["mean"] is not None}
    found["unfinished"] = share_over_prompts(values["unfinished"], group)
    found["by_prompt"] = {name: _by_prompt(x, group).tolist() for name, x in values.items()}
    found["unjudged"] = max((int(np.isnan(x).sum()) for x in worth.values()), default=0)
    found["distinct"] = len({r.text for r in replies}) / len(replies)
    found["examples"] = [
        {"prompt": replies[i].prompt[-1].content, "reply": replies[i].text, "cut": not replies[i].stopped}
        | {name: None if np.isnan(x[i]) else float(x[i]) for name, x in worth.items()}
        for i in spread_over(len(prompts), EXAMPLES) * group
    ]
    return found


def spread_over(n: int, most: int) -> np.ndarray:
    """At most `most` of n places in order, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, most).round().astype(int))
