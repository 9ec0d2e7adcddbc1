"""What a policy's replies are worth: mean reward and gold over prompts, and the KL that was paid for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from turnwise.data.batch import pack_tokens
from turnwise.data.chat import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.data.order import chunks
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding
from turnwise.rollout.replies import Reply, sample_replies
from turnwise.rollout.rewards import Reward
from turnwise.run.errors import InputError

ROWS = 256
"""replies that the models read at a time"""


@torch.inference_mode()
def divergence(lm: Any, reference: Reference, replies: Sequence[Reply]) -> dict[str, float]:
    """KL(policy || reference) in nats per reply, and the policy's entropy in nats per token.

    The KL is the mean log-ratio over the policy's own replies (Schulman's k1): unbiased, and for that reason
    below 0 now and then.
    """
    device = next(lm.parameters()).device
    kl = entropy = tokens = 0.0
    for part in chunks(replies, ROWS):
        b = pack_tokens([r.tokens for r in part], gamma=1.0).to(device)
        out = score_replies(lm, b)
        kl += float((out.logp - reference.logp(b)).sum())
        entropy += float(out.entropy.sum())
        tokens += int(b.mask.sum())
    return {"kl": kl / len(replies), "entropy": entropy / tokens}


def interval_over_prompts(values: np.ndarray, group: int, seed: int = 0) -> dict[str, float | None]:
    """Mean of values [P G], `group` a prompt, with a 95% bootstrap interval over the P prompts.

    Prompts with a nan, of which a reward has no opinion, are left out. `low` and `high` are None for a single
    prompt, which says nothing about the spread; InputError for none.
    """
    # Replies to one prompt are alike: resampling replies one by one would count them as independent and make
    # the interval too narrow.
    means = values.reshape(-1, group).mean(1)
    means = means[~np.isnan(means)]
    if not len(means):
        raise InputError(f"the reward has no opinion of any of {len(values):,} replies; expected numbers")
    if len(means) == 1:
        return {"mean": float(means[0]), "low": None, "high": None}
    low, high = bootstrap_interval(means, rng=np.random.default_rng(seed))
    return {"mean": float(means.mean()), "low": low, "high": high}


def paired_gains(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Mean of after - before, prompt by prompt, with its 95% interval; for each score that both have.

    `before` and `after` come from `measure_replies` on the same prompts in the same order.
    """
    # Prompts differ more than policies do. The difference on one prompt cancels what is particular to the
    # prompt, so this interval can exclude 0 although those of the two means overlap.
    old, new = before["by_prompt"], after["by_prompt"]
    return {k: interval_over_prompts(np.subtract(new[k], old[k]), 1) for k in new if k in old}


def measure_replies(
    policy: LmPolicy,
    chat: ChatFormat,
    prompts: Sequence[Prompt],
    *,
    group: int,
    seed: int,
    max_new_tokens: int,
    reward: Reward,
    gold: Reward | None = None,
    reference: Reference | None = None,
    best_of: int = 1,
    decoding: Decoding = POLICYS_OWN,
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Sample `group` replies to each prompt and score them; with `best_of` n, each is the best of n.

    reward, gold  mean over prompts with a 95% interval; `by_prompt` has the mean of each prompt, in order
    kl, entropy   if a `reference` is given: see `divergence`; left out for best of n, whose KL is not the
                  policy's
    length        mean tokens of a reply; `unfinished`, `distinct`: shares of replies cut by the limit, and of
                  different texts
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
    )
    rewards = reward(replies)
    if best_of > 1:
        tried = rewards.reshape(-1, best_of)  # [P G, n]: the n samples of a reply are neighbours
        kept = np.arange(len(tried)) * best_of + tried.argmax(1)
        replies, rewards = [replies[i] for i in kept], rewards[kept]
    found: dict[str, Any] = {
        "replies": len(replies),
        "prompts": len(prompts),
        "reward": interval_over_prompts(rewards, group),
        "length": float(np.mean([r.length for r in replies])),
        "unfinished": float(np.mean([not r.stopped for r in replies])),
        "distinct": len({r.text for r in replies}) / len(replies),
    }
    values = {"reward": rewards}
    if gold is not None:
        values["gold"] = gold(replies)
        found["gold"] = interval_over_prompts(values["gold"], group)
    found["by_prompt"] = {k: x.reshape(-1, group).mean(1).tolist() for k, x in values.items()}
    if reference is not None and best_of == 1:
        found |= divergence(policy.lm, reference, replies)
    # The first replies to eight prompts, spread over all of them.
    shown = np.unique(np.linspace(0, len(prompts) - 1, 8).round().astype(int)) * group
    found["examples"] = [
        {"prompt": replies[i].prompt[-1].content, "reply": replies[i].text}
        | {k: None if np.isnan(x[i]) else float(x[i]) for k, x in values.items()}
        for i in shown
    ]
    return found
