"""The peer's own trainers (TRL 1.16) on the same batch: losses and gradients by every parameter.

A policy of one layer and a reference that is not it, rows of unlike lengths written by hand. TRL's trainers
are built as anybody would build them and asked for the loss of a batch that TRL's collators padded; replies
and rewards of GRPO and RLOO are given in place of sampled ones, so that TRL scores them and makes the
advantages. Ours are those of the algorithms' files. Single precision, since TRL takes logarithms in it.

Where the two differ by intention, a test says by how much: RLOO here truncates the reply's ratio above, TRL
clips it on both sides; the gradients are one as long as neither bites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.algorithms.feedback import dpo, kto
from turnwise.algorithms.replies import grpo, rloo
from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.comparisons import Comparison, JudgedReply, mismatched
from turnwise.data.feedback import Like, Pair
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.losses.groups import group_centred, leave_one_out
from turnwise.losses.kl import truncated_ratio, weighted_k3
from turnwise.losses.policy import action_logp, clipped_surrogate_loss
from turnwise.losses.preference import (
    bradley_terry_loss,
    centring_loss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    robust_dpo_loss,
)
from turnwise.losses.reduce import sum_over_decisions
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.reward_model import RewardModel
from turnwise.rollout.one_turn import Judged
from turnwise.rollout.replies import Reply

trl: Any = pytest.importorskip("trl")
pytestmark = [
    # TRL asks transformers for names that transformers is about to rename.
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),
]

CPU = torch.device("cpu")
PROMPTS = [[20, 21, 22], [23], [24, 25, 26, 27, 28]]
REPLIES = [[[30, 31, 0], [32, 0]], [[33, 34, 35, 36, 0], [37, 38, 0]], [[39, 0], [40, 41, 42, 0]]]
"""two to each prompt, with the stop token 0"""
G = 4
GROUPS = [
    [[50, 51, 0], [52, 0], [53, 54, 55, 0], [0]],
    [[56, 57, 58, 59, 0], [60, 61, 0], [62, 0], [63, 64, 65, 66]],
]
"""four to each of the first two prompts; the last one was cut before its stop token"""
REWARDS = np.array([1.0, 2.0, 6.0, -1.0, 0.5, 0.5, 3.0, -2.0])


def written(prompt: Sequence[int], reply: Sequence[int], logp: Sequence[float] | None = None) -> Tokens:
    writer = TokenWriter()
    writer.read(prompt)
    writer.act(reply, 0.0, None, logp)
    return writer.tokens(terminated=True, next_known=True, id="")


def moved(model: Any, seed: int, by: float) -> Any:
    """Every parameter, at random."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += by * torch.randn_like(p)
    return model


class Peer:
    """Models, and trainers of TRL around them."""

    def __init__(self, tokenizer: Any, folder: Path, by: float = 0.05):
        from transformers import LlamaConfig, LlamaForCausalLM

        self.tokenizer, self.folder = deepcopy(tokenizer), folder
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.25,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        LlamaForCausalLM(config).save_pretrained(folder / "reference")
        self.reference, self.lm = (LlamaForCausalLM.from_pretrained(folder / "reference") for _ in range(2))
        moved(self.lm, 1, by)
        self.near = Reference(self.reference)
        self.policy = LmPolicy(self.lm)

    def built(self, trainer: Any, config: Any, items: list[dict[str, Any]], **options: Any) -> Any:
        from datasets import Dataset
        from datasets.utils.logging import disable_progress_bar

        disable_progress_bar()
        settings = {k: options.pop(k) for k in list(options) if k in config.__dataclass_fields__}
        args = config(
            output_dir=str(self.folder / "out"),
            use_cpu=True,
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            per_device_train_batch_size=8,
            **settings,
        )
        options.setdefault("model", self.lm)
        return trainer(
            args=args, train_dataset=Dataset.from_list(items), processing_class=self.tokenizer, **options
        )

    def ratios(self, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """log pi - log pi_ref of each reply [B], and its tokens [B], by way of logits."""
        b = pack_tokens(rows, gamma=1.0)
        logp, ref = (
            action_logp(policy(b.inputs, b.decisions), b.actions)
            for policy in (self.policy, LmPolicy(self.reference))
        )
        return (logp - ref.detach()).masked_fill(~b.mask, 0.0).sum(1), b.mask.sum(1)

    def trl_groups(self, name: str, **settings: Any) -> tuple[Any, dict[str, Any]]:
        """A trainer and its batch: the replies as if it had sampled them, with advantages of its making."""
        rewards = iter(REWARDS.tolist())
        trainer = self.built(
            getattr(trl, f"{name}Trainer"),
            getattr(trl, f"{name}Config"),
            [{"prompt": "a"}] * 8,
            reward_funcs=lambda prompts, **_: [next(rewards) for _ in prompts],
            num_generations=G,
            max_completion_length=6,
            num_iterations=2,
            **settings,
        )
        asked = [PROMPTS[p] for p in range(2) for _ in range(G)]
        said = [reply for group in GROUPS for reply in group]
        if name == "GRPO":
            trainer._generate = lambda prompts: (asked, said, None, [""] * 8, None, {}, None, None)
        else:
            trainer._generate = lambda prompts: (asked, said, [""] * 8)
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        return trainer, trainer._generate_and_score_completions([{"prompt": "a"}] * 8)

    def judged(self) -> Judged:
        """The same replies as they are recorded here: ids and the log-probabilities that they had."""
        rows = [written(PROMPTS[p], reply) for p, group in enumerate(GROUPS) for reply in group]
        b = pack_tokens(rows, gamma=1.0)
        with torch.no_grad():
            logp = action_logp(self.policy(b.inputs, b.decisions), b.actions).numpy()
        replies = []
        for row, of_row in zip(rows, logp, strict=True):
            prompt, said = row.ids[~row.action].tolist(), row.ids[row.action].tolist()
            tokens = written(prompt, said, of_row[: len(said)].tolist())
            replies.append(Reply((), "", tokens, said[-1] == 0))
        return Judged(replies, REWARDS, None)


@pytest.fixture(scope="module")
def make(tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Peer]:
    return lambda **options: Peer(tokenizers["own"], tmp_path_factory.mktemp("trl"), **options)


def gradient(loss: Tensor, model: Any) -> Tensor:
    """By all parameters, in one row."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )


def assert_same_gradient(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.norm() > 1e-4
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def assert_same(ours: Tensor, theirs: Tensor, model: Any) -> None:
    """Value and gradient, to five digits."""
    assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert_same_gradient(gradient(ours, model), gradient(theirs, model))


@pytest.mark.parametrize("formula", ["dpo", "ipo", "robust"])
def test_dpo_and_its_kin(formula: Any, make: Callable[..., Peer]) -> None:
    """TRL's IPO averages h over tokens, where the paper's equation 17 has the sum: ours is given averages."""
    peer = make()
    theirs_of = {"dpo": "sigmoid", "ipo": "ipo", "robust": "robust"}[formula]
    trainer = peer.built(
        trl.DPOTrainer,
        trl.DPOConfig,
        [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 8,
        ref_model=peer.reference,
        beta=0.3,
        loss_type=[theirs_of],
        label_smoothing=0.2 if formula == "robust" else 0.0,
    )
    examples = [
        {"prompt_ids": p, "chosen_ids": w, "rejected_ids": l}
        for p, (w, l) in zip(PROMPTS, REPLIES, strict=True)
    ]
    theirs = trainer.compute_loss(peer.lm, trainer.data_collator(examples))
    rows = [tuple(written(p, r) for r in replies) for p, replies in zip(PROMPTS, REPLIES, strict=True)]
    c = dpo.Config(beta=0.3, formula=formula, noise=0.2 if formula in ("conservative", "robust") else 0.1)
    whole, _ = dpo.loss(peer.policy, peer.near, [Comparison(Pair((), "", ""), pair) for pair in rows], c)
    assert_same(whole, theirs, peer.lm)

    (w, n_w), (l, n_l) = (peer.ratios([pair[i] for pair in rows]) for i in range(2))
    ours = {
        "dpo": dpo_loss(w, l, 0.3),
        "ipo": ipo_loss(w / n_w, l / n_l, 0.3),
        "robust": robust_dpo_loss(w, l, 0.3, 0.2),
    }[formula]
    assert_same(ours.mean(), theirs, peer.lm)
    if formula == "ipo":
        assert (ipo_loss(w, l, 0.3).mean() - theirs).abs() > 0.1


@pytest.mark.parametrize("far", [True, False])
def test_kto(far: bool, make: Callable[..., Peer]) -> None:
    """Where the divergence of mismatched replies is above 0, and where it comes out below and counts as 0."""
    peer = make(by=0.05)
    said = [reply for replies in REPLIES for reply in replies]
    rows = [written(PROMPTS[i // 2], reply) for i, reply in enumerate(said)]
    z = peer.ratios(mismatched(rows, 64))[0].mean().item()
    if (z > 0) != far:  # the other way round, it is of the other sign
        peer.lm, peer.reference = peer.reference, peer.lm
        peer.policy, peer.near, z = LmPolicy(peer.lm), Reference(peer.reference), -z
    trainer = peer.built(
        trl.KTOTrainer,
        trl.KTOConfig,
        [{"prompt": "a", "completion": "b", "label": i % 2 == 0} for i in range(8)],
        ref_model=peer.reference,
        beta=0.4,
        desirable_weight=1.5,
        undesirable_weight=0.7,
    )
    liked = [True, False, False, True, True, False]
    examples = [
        {
            "prompt_ids": row.ids[~row.action].tolist(),
            "completion_ids": row.ids[row.action].tolist(),
            "KL_completion_ids": other.ids[other.action].tolist(),
            "label": good,
        }
        for row, other, good in zip(rows, mismatched(rows, 64), liked, strict=True)
    ]
    theirs = trainer.compute_loss(peer.lm, trainer.data_collator(examples))
    c = kto.Config(beta=0.4, liked_weight=1.5, disliked_weight=0.7)
    items = [JudgedReply(Like((), "", good), row) for row, good in zip(rows, liked, strict=True)]
    whole, sums = kto.loss(peer.policy, peer.near, items, c)
    assert (float(sums["kl"]) > 0) == far
    assert_same(whole, theirs, peer.lm)
    kl = torch.tensor(max(z, 0.0))
    ours = kto_loss(peer.ratios(rows)[0], torch.tensor(liked), kl, 0.4, 1.5, 0.7)
    assert_same(ours.mean(), theirs, peer.lm)


@pytest.mark.parametrize("centring", [None, 0.01])
@pytest.mark.parametrize("margins", [None, [0.5, 0.0, 2.0]])
def test_bradley_terry(
    margins: list[float] | None, centring: float | None, make: Callable[..., Peer]
) -> None:
    """TRL's classifier with one label and our trunk with one head share their weights."""
    from transformers import LlamaForSequenceClassification

    peer = make()
    theirs_model = LlamaForSequenceClassification.from_pretrained(peer.folder / "reference", num_labels=1)
    moved(theirs_model, 2, 0.2)
    trainer = peer.built(
        trl.RewardTrainer,
        trl.RewardConfig,
        [{"chosen": "b", "rejected": "c"}] * 8,
        model=theirs_model,
        center_rewards_coefficient=centring,
    )
    examples: list[dict[str, Any]] = [
        {"chosen_ids": p + w, "rejected_ids": p + l} for p, (w, l) in zip(PROMPTS, REPLIES, strict=True)
    ]
    for example, margin in zip(examples, margins or [], strict=False):
        example["margin"] = margin
    theirs = trainer.compute_loss(theirs_model, trainer.data_collator(examples))

    model = RewardModel(theirs_model.model, 16)
    model.heads.weight = theirs_model.score.weight
    b = pack_tokens(
        [written(p, replies[i]) for i in range(2) for p, replies in zip(PROMPTS, REPLIES, strict=True)],
        gamma=1.0,
    )
    chosen, rejected = model(b.inputs, b.decisions).chunk(2, 1)
    ours = bradley_terry_loss(chosen, rejected, None if margins is None else torch.tensor(margins)).mean()
    if centring is not None:
        ours = ours + centring * centring_loss(chosen, rejected).mean()
    assert_same(ours, theirs, theirs_model)


def of_judged(peer: Peer, judged: Judged) -> tuple[Batch, Tensor]:
    """The batch, and what the reference gives its actions."""
    b = pack_tokens(judged.rows(), gamma=1.0)
    return b, peer.near.logp(b)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_grpo(scale: Any, loss_type: str, make: Callable[..., Peer]) -> None:
    """Advantages, and the loss after the policy has moved, so that ratios are not 1 and some are clipped.

    TRL's reductions are one number here: a mean within replies, or a denominator.
    """
    peer = make()
    settings = {"beta": 0.1, "loss_type": loss_type, "scale_rewards": scale}
    trainer, inputs = peer.trl_groups("GRPO", use_bias_correction_kl=False, **settings)
    judged = peer.judged()
    c = grpo.Config(
        group=G,
        prompts_per_step=2,
        beta=0.1,
        scale="deviation" if scale == "group" else "none",
        length="reply" if loss_type == "grpo" else "none",
    )
    advantages = grpo.advantages(torch.tensor(judged.rewards, dtype=torch.float32), c)
    assert_close(inputs["advantages"], advantages, rtol=1e-5, atol=1e-6)
    b, ref_logp = of_judged(peer, judged)
    moved(peer.lm, 3, 0.02)
    theirs = trainer.compute_loss(peer.lm, inputs)
    tokens = float(b.mask.sum())
    denominator = {"dr_grpo": 8 * 6.0}.get(loss_type, tokens)
    m = grpo.Minibatch(b, advantages, ref_logp, tokens / len(b.mask))
    ours, sums = grpo.loss(peer.policy, m, denominator, c, 0.1)
    assert 0 < float(sums["clip_ratio"]) < tokens
    assert_same(ours, theirs, peer.lm)


def test_the_divergence_that_trl_weighs_with_the_ratio(make: Callable[..., Peer]) -> None:
    """Its default: rho k3, rho with its gradient, where Shao et al. 2024 and GRPO here have k3 alone."""
    peer = make()
    settings = {"beta": 0.5, "loss_type": "bnpo", "scale_rewards": "none"}
    trainer, inputs = peer.trl_groups("GRPO", use_bias_correction_kl=True, **settings)
    judged, c = peer.judged(), grpo.Config(group=G, prompts_per_step=2)
    b, ref_logp = of_judged(peer, judged)
    assert b.behavior_logp is not None
    moved(peer.lm, 3, 0.02)
    theirs = trainer.compute_loss(peer.lm, inputs)
    tokens = float(b.mask.sum())
    advantages = grpo.advantages(torch.tensor(judged.rewards, dtype=torch.float32), c)
    ours, _ = grpo.loss(
        peer.policy, grpo.Minibatch(b, advantages, None, tokens / len(b.mask)), tokens, c, 0.0
    )
    logp = action_logp(peer.policy(b.inputs, b.decisions), b.actions)
    kl = sum_over_decisions(weighted_k3(logp, ref_logp, b.behavior_logp), b.mask) / tokens
    assert_same(ours + 0.5 * kl, theirs, peer.lm)


@pytest.mark.parametrize("by", [0.0, 0.005])
def test_rloo(by: float, make: Callable[..., Peer]) -> None:
    """The KL in the reward, siblings as baseline; on the policy, and a little off it: nothing is cut."""
    peer = make()
    trainer, inputs = peer.trl_groups("RLOO", beta=0.2)
    judged, c = peer.judged(), rloo.Config(group=G, prompts_per_step=2, beta=0.2)
    part = rloo.experience(peer.near, judged, c, 0.2, CPU)[0]
    assert_close(inputs["advantages"], part.advantages, rtol=1e-5, atol=1e-5)
    plain = leave_one_out(torch.tensor(REWARDS.reshape(2, G), dtype=torch.float32)).flatten()
    assert not torch.allclose(part.advantages, plain, atol=0.01)  # the KL is in it

    moved(peer.lm, 3, by)
    theirs = trainer.compute_loss(peer.lm, inputs)
    ours, _ = rloo.loss(peer.policy, part, 8.0, c)
    now = action_logp(peer.policy(part.batch.inputs, part.batch.decisions), part.batch.actions)
    now = now.masked_fill(~part.batch.mask, 0.0).sum(1, keepdim=True)
    assert part.batch.behavior_logp is not None
    then = part.batch.behavior_logp.sum(1, keepdim=True)
    shift = (now - then).detach().exp() - 1
    assert shift.abs().max() < 0.2 and (shift.abs().max() > 0.01) == (by > 0)
    assert_same_gradient(gradient(ours, peer.lm), gradient(theirs, peer.lm))
    clipped = clipped_surrogate_loss(now, then, part.advantages.unsqueeze(1), 0.2).mean()
    # on the policy TRL's value is minus the mean advantage: 0, of which no digit counts
    assert_close(clipped, theirs, rtol=1e-5, atol=1e-6)
    assert_same_gradient(gradient(clipped, peer.lm), gradient(theirs, peer.lm))


def test_rloo_is_cut_elsewhere(make: Callable[..., Peer]) -> None:
    """Far off the policy TRL stops replies that are clipped; here a ratio up to 2 weighs in, and 2 beyond it.

    TRL's own formula is `clipped_surrogate_loss` of sums over tokens.
    """
    peer = make()
    trainer, inputs = peer.trl_groups("RLOO", beta=0.0)
    judged, c = peer.judged(), rloo.Config(group=G, prompts_per_step=2, beta=0.0)
    part = rloo.experience(peer.near, judged, c, 0.0, CPU)[0]
    moved(peer.lm, 3, 0.05)
    theirs = trainer.compute_loss(peer.lm, inputs)
    now = action_logp(peer.policy(part.batch.inputs, part.batch.decisions), part.batch.actions)
    now = now.masked_fill(~part.batch.mask, 0.0).sum(1, keepdim=True)
    assert part.batch.behavior_logp is not None
    then = part.batch.behavior_logp.sum(1, keepdim=True)
    clipped = clipped_surrogate_loss(now, then, part.advantages.unsqueeze(1), 0.2).mean()
    assert_same(clipped, theirs, peer.lm)
    ours = gradient(rloo.loss(peer.policy, part, 8.0, c)[0], peer.lm)
    weight = truncated_ratio(now.detach(), then, 2.0)[:, 0] * part.advantages
    assert_same_gradient(ours, gradient((-weight * now[:, 0]).mean(), peer.lm))
    assert (ours - gradient(theirs, peer.lm)).norm() > 0.05 * ours.norm()


def test_grpo_without_deviation_is_a_fraction_of_rloo(make: Callable[..., Peer]) -> None:
    """(G - 1) / G, in TRL and here: gradients of its two trainers on the policy, per reply."""
    peer = make()
    trainer, inputs = peer.trl_groups("GRPO", beta=0.0, loss_type="dr_grpo", scale_rewards="none")
    of_grpo = gradient(trainer.compute_loss(peer.lm, inputs), peer.lm) * 6
    other, inputs = peer.trl_groups("RLOO", beta=0.0)
    of_rloo = gradient(other.compute_loss(peer.lm, inputs), peer.lm)
    assert_same_gradient(of_grpo, (G - 1) / G * of_rloo)
    rewards = torch.tensor(REWARDS.reshape(2, G))
    assert_close(group_centred(rewards), (G - 1) / G * leave_one_out(rewards))
