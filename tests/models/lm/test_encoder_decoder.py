"""An encoder-decoder on the batches of a causal LM: each reply by itself, whatever stands around it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from turnwise.algorithms.logs import bc
from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import Tokens
from turnwise.losses.policy import action_logp
from turnwise.models.lm.encoder_decoder.turns import Turns
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import context_of, features_at, trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import load_lm, save_lm
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.models.lm.reward_model import RewardModel

f64 = torch.float64
KINDS = ("t5", "t5 v1.1", "t5gemma", "t5gemma2")


def one_by_one(lm: Any, t: Tokens) -> torch.Tensor:
    """Slow twin: log-probability of each action, every reply by a pass of the whole model on its own."""
    said = np.flatnonzero(t.action[1:]) + 1
    found = []
    for reply in np.split(said, np.flatnonzero(np.diff(said) > 1) + 1):
        before, words = torch.as_tensor(t.ids[: reply[0]]), torch.as_tensor(t.ids[reply])
        read = torch.cat([torch.tensor([lm.config.decoder_start_token_id]), words[:-1]])
        logits = lm(input_ids=before[None], decoder_input_ids=read[None]).logits
        found.append(action_logp(logits, words[None])[0])
    return torch.cat(found)


def test_replies_of_a_batch_by_hand() -> None:
    """The row of the docstring; a prompt with one reply; a row of which nothing was chosen."""
    decisions = np.array([[1, 2, 5, 6, 7, 9], [2, 3, 4, 4, 4, 4], [3, 3, 3, 3, 3, 3]])
    t = Turns.of(decisions)
    assert (
        t.row.tolist() == [0, 0, 1, 2]
        and t.begin.tolist() == [2, 6, 3, 4]
        and t.end.tolist() == [3, 10, 5, 4]
    )
    assert t.turn.tolist() == [[0, 0, 1, 1, 1, 1], [2] * 6, [3] * 6]
    assert t.place.tolist() == [[0, 1, 0, 1, 2, 4], [0, 1, 2, 2, 2, 2], [0] * 6]
    ids = torch.tensor(
        [[7, 8, 9, 3, 4, 5, 6, 2, 11, 1], [5, 3, 2, 8, 1, 0, 0, 0, 0, 0], [4, 4, 4, 4, 0, 0, 0, 0, 0, 0]]
    )
    history, real = t.histories(ids)
    assert [h[r].tolist() for h, r in zip(history, real, strict=True)] == [
        [7, 8],
        [7, 8, 9, 3, 4, 5],
        [5, 3, 2],
        [4] * 4,
    ]
    read = t.replies(ids, 0)
    assert [read[i, :n].tolist() for i, n in enumerate([2, 5, 3, 1])] == [
        [0, 9],
        [0, 6, 2, 11, 1],
        [0, 8, 1],
        [0],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_each_reply_alone_gives(kind: str, row: Any, encoder_decoder: Any) -> None:
    """Rows of several replies, of one, cut in a turn, and one whose first token is the agent's own."""
    lm = encoder_decoder(kind)
    rows = [row("7 8 9|5 6 1|3 4 4 4 4 2|8 1"), row("5|1"), row("3 3|9 9 9 9 9 9 9"), row("2|5 5 1|6")]
    b = pack_tokens(rows, gamma=1.0, dtype=f64)
    logp = action_logp(LmPolicy(lm)(b.inputs, b.decisions), b.actions)
    for got, mask, t in zip(logp, b.mask, rows, strict=True):
        assert_close(got[mask], one_by_one(lm, t), rtol=0, atol=1e-6 if "gemma" in kind else 1e-12)


def test_padding_and_later_words_change_nothing(row: Any, encoder_decoder: Any) -> None:
    """To 1e-12: more rows, longer rows beside it, what a partner says behind the last reply."""
    lm = encoder_decoder()
    alone = pack_tokens([row("7 8|5 6 1|3 4|8 1")], gamma=1.0, dtype=f64)
    beside = pack_tokens(
        [row("7 8|5 6 1|3 4|8 1|9 9 9 9"), row("4 " * 30 + "|" + "6 " * 11)], gamma=1.0, dtype=f64
    )
    told, other = score_replies(lm, alone), score_replies(lm, beside)
    assert_close(other.logp[0, :5], told.logp[0], rtol=0, atol=1e-12)
    assert_close(other.entropy[0, :5], told.entropy[0], rtol=0, atol=1e-12)
    assert not other.logp[0, 5:].any()


def test_the_loss_is_that_of_a_causal_model_where_both_say_the_same(row: Any, encoder_decoder: Any) -> None:
    """Both read their last token alone: attention and perceptrons are 0. Where each header ends with the
    token that a decoder starts with, all logits are the same, and so are masks, losses and their gradients;
    and partner tokens before a header change none of them.
    """
    t5, other = (
        encoder_decoder(),
        llama(20, width=16, layers=1, heads=2, context=64, eos=1, pad=0).double(),
    )
    with torch.no_grad():
        for name, p in [*t5.named_parameters(), *other.named_parameters()]:
            if name.endswith(("o.weight", "wo.weight", "o_proj.weight", "down_proj.weight")):
                p.zero_()
        other.model.embed_tokens.weight.copy_(t5.shared.weight)
        other.model.norm = t5.decoder.final_layer_norm
    head = torch.nn.Linear(16, 20, bias=False, dtype=f64)
    head.weight = torch.nn.Parameter((t5.shared.weight * 16**-0.5).detach())
    other.lm_head = head
    rows = [row("7 8 0|5 6 1|3 0|8 1", [0.0, 1.0]), row("4 0|9 1", [-1.0])]
    more = [row("7 8 0|5 6 1|3 3 3 2 2 0|8 1", [0.0, 1.0]), rows[1]]
    found = []
    for lm, these in ((t5, rows), (other, rows), (t5, more)):
        b, c = pack_tokens(these, gamma=0.9, dtype=f64), bc.Config()
        value, sums = bc.loss(bc.Objective(LmPolicy(lm)), b, 3.0, c)
        scored = score_replies(lm, b)
        by_feature = torch.autograd.grad(value, lm.get_input_embeddings().weight)[0]
        found.append((value, sums["decisions"], b.mask, b.rewards, b.discounts, scored.logp, scored.entropy))
        assert bool(by_feature.abs().sum() > 0)
    for mine in found[1:]:
        for a, b in zip(found[0], mine, strict=True):
            assert_close(b, a, rtol=0, atol=1e-12)


def test_a_prompt_is_encoded_once_for_its_replies(row: Any, encoder_decoder: Any) -> None:
    lm = encoder_decoder()
    b = pack_tokens([row("7 8 9|5 1"), row("7 8 9|2 2 1"), row("4|1"), row("4|8 1")], gamma=1.0, dtype=f64)
    seen: list[int] = []
    lm.encoder.register_forward_pre_hook(
        lambda _, args, kw: seen.append(len(kw["input_ids"])), with_kwargs=True
    )
    found, grads = [], []
    for group in (1, 2):
        lm.zero_grad()
        out = score_replies(lm, b, group=group, most_logits=60)
        (out.logp * torch.arange(12.0).view(4, 3)).sum().backward()
        found.append(out.logp.detach())
        grads.append(torch.cat([p.grad.flatten() for p in lm.parameters() if p.grad is not None]))
    assert seen == [4, 2]
    assert_close(found[1], found[0], rtol=0, atol=1e-12)
    assert_close(grads[1], grads[0], rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="differ before their first decision"):
        score_replies(lm, pack_tokens([row("7 8|1"), row("7 9|1")], gamma=1.0), group=2)


def test_no_gradient_comes_from_what_follows_a_reply_and_some_from_what_was_heard(
    row: Any, encoder_decoder: Any
) -> None:
    """By the gradient of a log-probability with respect to the embeddings that the encoder reads."""
    lm, read = encoder_decoder(), list[torch.Tensor]()

    def keep(_: Any, __: Any, out: torch.Tensor) -> torch.Tensor:
        out.retain_grad()
        read.append(out)
        return out

    lm.encoder.embed_tokens = torch.nn.Embedding.from_pretrained(
        lm.shared.weight.detach().clone(), freeze=False
    )
    lm.encoder.embed_tokens.register_forward_hook(keep)
    b = pack_tokens([row("7 8|5 1|3 4 4|8 1")], gamma=1.0, dtype=f64)
    score_replies(lm, b).logp[0, 1].backward()  # the last token of the first reply
    grad = read[0].grad
    assert grad is not None and bool((grad[0, :2].abs().sum(-1) > 0).all())
    assert not grad[0, 2:].any() and not grad[1].any()


@pytest.mark.parametrize("cut", [False, True])
def test_a_reward_is_read_where_the_reply_ends(cut: bool, row: Any, encoder_decoder: Any) -> None:
    """The decoder reads the whole reply and its stop token, also one that was not the model's to say."""
    lm = encoder_decoder()
    model = RewardModel(trunk_of(lm), width_of(lm), ensemble=2).double()
    b = pack_tokens([row("7 8 9|5 6|1") if cut else row("7 8 9|5 6 1"), row("4 " * 9 + "|2 1")], gamma=1.0)
    found = model(b.inputs, b.decisions)
    for i, (before, words) in enumerate((([7, 8, 9], [0, 5, 6, 1]), ([4] * 9, [0, 2, 1]))):
        ids = {"input_ids": torch.tensor([before]), "decoder_input_ids": torch.tensor([words])}
        last = lm(**ids, output_hidden_states=True).decoder_hidden_states[-1][0, -1]
        assert_close(found[:, i], model.heads(last), rtol=0, atol=1e-12)


def test_adapters_are_their_own_reference_and_fold_in(row: Any, encoder_decoder: Any) -> None:
    lm = with_lora(encoder_decoder(), 2)
    b = pack_tokens([row("7 8 9|5 6 1")], gamma=1.0, dtype=f64)
    before = score_replies(encoder_decoder(), b).logp.detach()
    reference = Reference(lm)
    with torch.no_grad():
        for n, p in lm.named_parameters():
            if "lora_B" in n:
                p.add_(0.3)
    assert_close(reference.logp(b), before, rtol=0, atol=1e-12)
    assert bool((score_replies(lm, b).logp - before).abs().max() > 1e-3)
    names = {n for n, p in lm.named_parameters() if p.requires_grad}
    assert any(".encoder." in n for n in names) and any("EncDecAttention" in n for n in names)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_transformers_loads(
    kind: str, tmp_path: Path, row: Any, encoder_decoder: Any
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    tokenizer = train_tokenizer(["hello there, my friend"], 300, 64)
    lm = encoder_decoder(kind, len(tokenizer), pad=tokenizer.pad_token_id, eos=tokenizer.eos_token_id)
    lm = lm.float()
    save_lm(tmp_path / "m", lm, tokenizer)
    ours, _ = load_lm(str(tmp_path / "m"))
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "m").eval()
    t = row("7 8 9|5 6 1")
    b = pack_tokens([t], gamma=1.0)
    logp = action_logp(LmPolicy(ours)(b.inputs, b.decisions), b.actions)[0]
    assert_close(logp, one_by_one(theirs, t), rtol=0, atol=1e-5)
    assert_close(logp, one_by_one(lm, t), rtol=0, atol=1e-5)
    assert context_of(ours) == 512  # that of T5 where its relative positions name none


def test_values_of_padding_are_those_of_the_final_state(row: Any, encoder_decoder: Any) -> None:
    lm = encoder_decoder()
    b = pack_tokens([row("7 8|5 6 1"), row("7 8|1")], gamma=1.0)
    features = features_at(trunk_of(lm), b.inputs, b.decisions)
    assert_close(features[1, 1], features[1, -1]) and features.shape == (2, 4, 16)
    with pytest.raises(AssertionError):
        assert_close(features[1, 0], features[1, 1])


def test_predicting_partners_is_refused(row: Any, encoder_decoder: Any) -> None:
    from turnwise.run.errors import SettingError

    with pytest.raises(SettingError, match="its encoder reads what partners say"):
        policy = LmPolicy(encoder_decoder())
        bc.train(replace(bc.Config(), partner_weight=0.1), [row("7|1")], [], policy, None, 0)  # type: ignore
