"""A shared prompt, logits in chunks, a reference without a copy: the same numbers and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from turnwise.data.batch import Batch, pack_tokens
from turnwise.losses.policy import action_logp, entropy
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of, window_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import features_at_decisions, score_replies

V = 17


@pytest.fixture
def lm() -> Any:
    torch.manual_seed(0)
    return llama(V, width=16, layers=2, heads=2, context=32, eos=1, pad=0).double()


@pytest.fixture
def batch(row: Any) -> Batch:
    """Two groups of two replies, prompts of 5 and of 3 ids, replies of 1 to 4."""
    rows = ["7 8 9 3 4|5 6 1", "7 8 9 3 4|2 2 9 1", "5 3 2|1", "5 3 2|8 1"]
    return pack_tokens([row(r) for r in rows], gamma=1.0, dtype=torch.float64)


def gradients(lm: Any, b: Batch, **how: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    lm.zero_grad()
    out = score_replies(lm, b, **how)
    weights = torch.arange(1.0, 1 + out.logp.numel(), dtype=torch.float64).view(out.logp.shape)
    ((out.logp * weights).sum() + (out.entropy * weights.flip(0)).sum()).backward()
    return torch.stack(out).detach(), [p.grad.clone() for p in lm.parameters()]


def test_it_is_what_the_whole_logits_give(lm: Any, batch: Batch) -> None:
    """Twin: all logits at once; entropy and log-probability at each decision, 0 at padding."""
    logits = LmPolicy(lm)(batch.inputs, batch.decisions)
    out = score_replies(lm, batch)
    expected = action_logp(logits, batch.actions).masked_fill(~batch.mask, 0.0)
    torch.testing.assert_close(out.logp, expected, rtol=0, atol=1e-12)
    spread = entropy(logits).masked_fill(~batch.mask, 0.0)
    torch.testing.assert_close(out.entropy, spread, rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [2**24, 3 * V, 1])
@pytest.mark.parametrize("group", [1, 2])
def test_numbers_and_gradients_do_not_depend_on_sharing_or_chunks(
    lm: Any, batch: Batch, group: int, most: int
) -> None:
    """Norms of the library run in float32, so gradients agree to that."""
    told, grads = gradients(lm, batch)
    shared, others = gradients(lm, batch, group=group, most_logits=most)
    torch.testing.assert_close(shared, told, rtol=0, atol=1e-12)
    for a, b in zip(grads, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_prompts_of_one_length_need_no_mask_and_agree(lm: Any, row: Any) -> None:
    rows = [row("7 8 9|5 1"), row("7 8 9|2 2 9 1"), row("4 4 4|1"), row("4 4 4|8 1")]
    b = pack_tokens(rows, gamma=1.0, dtype=torch.float64)
    told, grads = gradients(lm, b)
    shared, others = gradients(lm, b, group=2)
    torch.testing.assert_close(shared, told, rtol=0, atol=1e-12)
    for x, y in zip(grads, others, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


def test_a_prompt_of_one_token_is_read_with_its_reply(lm: Any, row: Any) -> None:
    b = pack_tokens([row("7|5 1"), row("7|2 1")], gamma=1.0, dtype=torch.float64)
    close = score_replies(lm, b, group=2).logp, score_replies(lm, b).logp
    torch.testing.assert_close(*close, rtol=0, atol=1e-12)


@pytest.mark.parametrize("other", ["7 8 8|5 1", "7 8|5 1"])
def test_groups_whose_prompts_differ_are_refused(lm: Any, row: Any, other: str) -> None:
    b = pack_tokens([row("7 8 9|5 1"), row(other)], gamma=1.0)
    with pytest.raises(ValueError, match="expected one prompt"):
        features_at_decisions(lm.base_model, b.inputs, b.decisions, 2)


def test_a_policy_never_drops_out() -> None:
    """GPT-2 with much dropout, switched to training: two readings of the same rows agree to the bit."""
    size = {"n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
    odds = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=10, **size, **odds)).train()
    ids, decisions = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[0, 1, 3]])
    policy = LmPolicy(lm)
    for p in (policy, policy.train(), nn.ModuleDict({"policy": policy}).train()["policy"]):
        assert torch.equal(p(ids, decisions), p(ids, decisions))
    lm.train()  # what it is kept from
    assert not torch.equal(policy(ids, decisions), policy(ids, decisions))


def test_masked_decisions_get_no_gradient(lm: Any, batch: Batch) -> None:
    """Whatever stands in the padding: the same numbers and the same gradients."""
    told, grads = gradients(lm, batch, group=2)
    ids = batch.inputs.clone()
    for b in range(len(ids)):
        ids[b, int(batch.decisions[b, -1]) + 1 :] = 11
    moved = Batch(**{**vars(batch), "inputs": ids})
    other, others = gradients(lm, moved, group=2)
    torch.testing.assert_close(told, other, rtol=0, atol=0)
    for x, y in zip(grads, others, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


def test_a_reference_stays_where_the_policy_was(lm: Any, batch: Batch) -> None:
    before = score_replies(lm, batch).logp.detach()
    reference = Reference(lm)
    with torch.no_grad():
        for p in lm.parameters():
            p.add_(0.1)
    torch.testing.assert_close(reference.logp(batch, group=2), before, rtol=0, atol=1e-12)


def test_adapters_are_their_own_reference(lm: Any, batch: Batch) -> None:
    """No second copy: the base is the policy's own module, and answers as before the adapters learnt."""
    before = score_replies(lm, batch).logp.detach()
    adapted = with_lora(lm, 2)
    reference = Reference(adapted)
    assert reference.lm is adapted
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora" in name:
                p.normal_()
    moved = score_replies(adapted, batch).logp
    assert (moved - before).abs().max() > 1e-3
    torch.testing.assert_close(reference.logp(batch), before, rtol=0, atol=1e-12)
    torch.testing.assert_close(score_replies(adapted, batch).logp, moved, rtol=0, atol=0)


def short_sighted(kind: str) -> Any:
    """Causal LMs with layers that see the last few positions only."""
    from transformers import (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        GPTNeoConfig,
        GPTNeoForCausalLM,
        MistralConfig,
        MistralForCausalLM,
    )

    torch.manual_seed(0)
    if kind == "gpt-neo":
        alternating: Any = [[["global", "local"], 1]]
        neo = GPTNeoConfig(
            vocab_size=V,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            window_size=4,
            max_position_embeddings=32,
            attention_types=alternating,
        )
        return GPTNeoForCausalLM(neo).double().eval()
    shape: dict[str, Any] = {
        "vocab_size": V,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "sliding_window": 4,
    }
    if kind == "mistral":
        return MistralForCausalLM(MistralConfig(**shape)).double().eval()
    types = ["sliding_attention", "full_attention"]
    gemma = Gemma3TextConfig(**shape, head_dim=8, layer_types=types)
    return Gemma3ForCausalLM(gemma).double().eval()


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "gpt-neo"])
def test_a_shared_prompt_is_read_alone_where_layers_forget(kind: str, batch: Batch) -> None:
    """Windows of 4 in rows of up to 9: groups give what each row gives by itself.

    GPT-Neo computes its attention in float32 whatever its weights are; on some processors the sums of the two
    ways round apart by 3.5e-8. The others keep float64 throughout.
    """
    lm = short_sighted(kind)
    atol = 1e-6 if kind == "gpt-neo" else 1e-10
    with torch.no_grad():
        for p in lm.parameters():
            p.mul_(3.0)  # so that what is seen decides
        whole = lm(input_ids=batch.inputs).logits.log_softmax(-1)
    at = whole[torch.arange(len(batch.inputs))[:, None], batch.decisions[:, :-1]]
    assert batch.actions is not None
    logp = at.gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1).masked_fill(~batch.mask, 0.0)
    for group in (1, 2):
        found = score_replies(lm, batch, group=group).logp
        torch.testing.assert_close(found, logp, atol=atol, rtol=0)


def test_windows_of_every_name_are_known(lm: Any) -> None:
    assert [window_of(trunk_of(short_sighted(k))) for k in ("mistral", "gemma3", "gpt-neo")] == [4, 4, 4]
    assert window_of(trunk_of(lm)) is None
