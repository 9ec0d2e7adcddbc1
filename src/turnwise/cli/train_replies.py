"""turnwise train rloo | grpo | token-ppo | reply-reinforce | online-dpo | best-of-n: a policy from its own
replies, judged by a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from turnwise.algorithms.replies import best_of_n, grpo, online_dpo, reply_reinforce, rloo, token_ppo
from turnwise.cli.plan import told_plan
from turnwise.cli.policies import AskedOfPolicy, Opened, closed, opened, session, told_left_out
from turnwise.cli.replies import Asked, named_reward, prompts_of
from turnwise.cli.say import console, parse
from turnwise.models.lm.parts import parameter_count
from turnwise.recipes.tasks import gold_of
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import has_room, sample_replies
from turnwise.rollout.reward_scorer import RewardScorer, load_reward
from turnwise.rollout.rewards import Clipped, FromModel, Length, Reward, Unfinished, Weighted, opinions
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class AskedOfReward:
    """What is asked, and who judges the replies."""

    prompts: str
    """JSONL or Parquet file with a column prompt, a datasets name or folder, or postcards"""
    reward: str
    """run folder of a reward model (turnwise train reward), module:function as TRL calls it, or postcards"""
    gold: str | None = None
    """built-in task whose truth is recorded and never learnt from: postcards"""
    doubt: float = 0.0
    """deviations of an ensemble's members that are taken off their mean"""
    clip_reward: float | None = None
    """rewards are held between minus this and this"""
    per_token: float = 0.0
    """added to the reward for each token of the reply; negative makes replies shorter"""
    unfinished_penalty: float = 0.0
    """taken off where the limit on tokens cut a reply before its end"""


@dataclass(frozen=True)
class Rloo:
    """REINFORCE with leave-one-out baselines over several replies to a prompt."""

    asked: AskedOfPolicy
    reward: AskedOfReward
    config: rloo.Config = field(default_factory=rloo.Config)


@dataclass(frozen=True)
class Grpo:
    """Group relative policy optimisation."""

    asked: AskedOfPolicy
    reward: AskedOfReward
    config: grpo.Config = field(default_factory=grpo.Config)


@dataclass(frozen=True)
class TokenPpo:
    """Token-level PPO with a learned critic and GAE."""

    asked: AskedOfPolicy
    reward: AskedOfReward
    config: token_ppo.Config = field(default_factory=token_ppo.Config)


@dataclass(frozen=True)
class ReplyReinforce:
    """REINFORCE on whole replies with a baseline."""

    asked: AskedOfPolicy
    reward: AskedOfReward
    config: reply_reinforce.Config = field(default_factory=reply_reinforce.Config)


@dataclass(frozen=True)
class OnlineDpo:
    """DPO on the best and the worst of the policy's own replies."""

    asked: AskedOfPolicy
    reward: AskedOfReward
    config: online_dpo.Config = field(default_factory=online_dpo.Config)


@dataclass(frozen=True)
class BestOfN:
    """Rejection sampling: the best of n replies is cloned."""

    asked: AskedOfPolicy
    reward: AskedOfReward
    config: best_of_n.Config = field(default_factory=best_of_n.Config)


KINDS: dict[str, tuple[Any, Any]] = {
    "rloo": (Rloo, rloo),
    "grpo": (Grpo, grpo),
    "token-ppo": (TokenPpo, token_ppo),
    "reply-reinforce": (ReplyReinforce, reply_reinforce),
    "online-dpo": (OnlineDpo, online_dpo),
    "best-of-n": (BestOfN, best_of_n),
}


def run(name: str, args: Sequence[str]) -> dict[str, Any]:
    """Parse and train."""
    kind, algorithm = KINDS[name]
    a: Any = parse(kind, args, f"train {name}", kind.__doc__ or "")
    if name in ("rloo", "grpo", "online-dpo") and a.config.group < 2:
        raise InputError(f"--group {a.config.group}: expected 2 replies to a prompt or more")
    if name == "reply-reinforce" and a.config.baseline == "batch" and a.config.prompts_per_step < 2:
        raise InputError(
            "--prompts-per-step 1: expected 2 or more for --baseline batch, which compares replies of a step"
        )
    numbers = vars(a.config)
    parts, whole = numbers.get("minibatches", 1), a.config.prompts_per_step
    if parts > whole:
        raise InputError(f"--minibatches {parts}: expected at most the {whole} prompts of a step")
    if numbers.get("kl_target") is not None and not a.config.beta:
        raise InputError("--kl-target moves --beta, which is 0 and stays so; expected --beta above 0")
    learnt, held, text = prompts_of(a.reward.prompts)
    named, gold = named_reward(a.reward.reward, text), gold_of(a.reward.gold, [p for p, _ in learnt + held])
    o = opened(a.asked)
    o.policy.to(o.world.device)
    scorer = load_reward(named) if isinstance(named, Path) else None
    everything = learnt + held
    kept = with_room(everything, o, scorer, a.asked.max_new_tokens)
    fits = {p for p, _ in kept}
    learnt, held = ([x for x in part if x[0] in fits] for part in (learnt, held))
    if not learnt:
        raise InputError(f"--prompts {a.reward.prompts}: only held-out prompts leave room for a reply")
    prompts, columns = [p for p, _ in learnt], [c for _, c in learnt]
    judge = composed(named if scorer is None else of_model(scorer, a, o, prompts), a)
    probe = sample_replies(
        o.policy, o.chat, prompts[:2], seed=0, max_new_tokens=a.asked.max_new_tokens, columns=columns[:2]
    )
    opinions(judge, probe)  # what is wrong with a reward is said before anything is written
    talk = OneTurn(
        o.chat,
        prompts,
        judge,
        gold,
        columns=columns,
        max_new_tokens=a.asked.max_new_tokens,
        decoding=Decoding(),
    )
    if a.asked.dry_run:
        sizes = {"algorithm": name, "prompts": len(prompts), "held_out": len(held)}
        sizes["parameters"] = parameter_count(o.policy.lm)
        few = replace(a.config, steps=min(2, a.config.steps))
        return told_plan(
            console(a.asked.json),
            sizes,
            a.config.steps,
            few.steps,
            lambda run: algorithm.train(few, talk, o.policy, run, a.asked.seed),
        )
    algorithm.train(
        a.config, talk, o.policy, session(name, "replies", a.asked, o, a, everything), a.asked.seed
    )
    extra = {"prompts": len(prompts), "held_out": len(held)}
    apart = held or learnt
    return closed(
        name,
        a.asked,
        o,
        [p for p, _ in apart],
        held_out=bool(held),
        reward=judge,
        gold=gold,
        extra=extra,
        columns=[c for _, c in apart],
    )


def with_room(asked: Asked, o: Opened, scorer: RewardScorer | None, max_new_tokens: int) -> Asked:
    """Prompts after which there is room for a reply, for the policy and for the model that judges it."""
    kept = [x for x in asked if has_room(o.policy, o.chat, x[0], max_new_tokens)]
    context = o.context
    if scorer is not None:
        context = min(context, scorer.context)
        own = scorer.chat
        kept = [x for x in kept if len(own.opening(x[0])) + max_new_tokens + 1 <= scorer.context]
    why = f"prompts leave no room for {max_new_tokens} tokens in the context of {context}"
    if not kept and asked:
        raise InputError(
            f"all {len(asked):,} {why}; expected --max-new-tokens that fit, shorter prompts, or a longer "
            "context"
        )
    told_left_out(len(asked) - len(kept), len(asked), why)
    return kept


def composed(reward: Any, a: Any) -> Reward:
    """The reward with its clip and its terms of length."""
    r: AskedOfReward = a.reward
    if r.clip_reward is not None:
        reward = Clipped(reward, -r.clip_reward, r.clip_reward)
    terms: list[Reward] = []
    if r.per_token:
        terms.append(Length(r.per_token))
    if r.unfinished_penalty:
        terms.append(Unfinished(r.unfinished_penalty))
    return Weighted((reward,), (1.0,), tuple(terms)) if terms else reward


def of_model(scorer: RewardScorer, a: Any, o: Opened, prompts: Sequence[Any]) -> Reward:
    """A reward model's opinion, standardised on replies of the policy."""
    scorer.model.to(o.world.device)
    if a.reward.doubt and scorer.members == 1:
        raise InputError(
            f"--doubt {a.reward.doubt}: {a.reward.reward} is one model, which has no doubt; expected an "
            "ensemble (turnwise train reward --ensemble)"
        )
    chat = scorer.chat
    same = scorer.tokenizer.get_vocab() == o.tokenizer.get_vocab() and chat.stop == o.chat.stop
    same = same and chat.opening(prompts[0]) == o.chat.opening(prompts[0])
    model = FromModel(scorer.score, None if same else chat, doubt=a.reward.doubt)
    few = list(prompts)[:256]
    own = sample_replies(
        o.policy, o.chat, few, group=2, seed=a.asked.seed + 7, max_new_tokens=a.asked.max_new_tokens
    )
    try:
        return model.standardised_on(own)
    except ValueError as e:
        raise InputError(f"--reward {a.reward.reward}: {e}") from e
