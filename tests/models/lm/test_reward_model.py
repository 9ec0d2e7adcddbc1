"""Reward models: where they read, what members share, and what `transformers` makes of them on disk."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.data.chat.format import ChatFormat
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.models.lm.classifier import adapted_trunks, set_padding_
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.reward_model import AnyRewardModel, RewardEnsemble, RewardModel
from turnwise.rollout.load import load_reward
from turnwise.rollout.reward_scorer import RewardScorer, scorer
from turnwise.run.errors import InputError

IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 1, 1]])
FINAL = torch.tensor([[4], [2]])
PROMPT = (Message("user", "hello there"),)
TEXTS = ("my friend", "it works now", "", "hello hello my friend it works", "there")


def small(vocab: int = 20, eos: int = 0, pad: int = 1) -> Any:
    return llama(vocab, width=16, layers=2, heads=2, context=64, eos=eos, pad=pad)


def gpt2(vocab: int, eos: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    size: dict[str, Any] = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab, eos_token_id=eos, bos_token_id=eos, **size))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def model_of(lm: Any, ensemble: int = 1) -> RewardModel:
    return RewardModel(trunk_of(lm), width_of(lm), ensemble=ensemble)


def moved_(model: torch.nn.Module, by: float = 0.1) -> None:
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += by * torch.randn_like(p)


def moved_by(model: torch.nn.Module, of: Tensor) -> set[str]:
    """Names of the parameters whose gradient is not exactly zero."""
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(of, list(learning.values()), materialize_grads=True, allow_unused=True)
    return {n for n, g in zip(learning, found, strict=True) if bool(g.abs().max() > 0)}


def test_the_reward_is_the_head_times_the_feature_of_the_last_token() -> None:
    """Each row read alone, without padding, and the product taken by hand; what follows the end is unseen."""
    model = model_of(small(), ensemble=3)
    found = model(IDS, FINAL)
    for b, last in enumerate(FINAL[:, 0].tolist()):
        feature = model.trunk(input_ids=IDS[b : b + 1, : last + 1]).last_hidden_state[0, -1]
        by_hand = torch.stack([feature @ model.heads.weight[e] for e in range(3)])
        assert_close(found[:, b], by_hand, rtol=0, atol=1e-6)
    padded = torch.cat([IDS, torch.full((2, 3), 17)], 1)
    padded[1, 3:] = 13
    assert_close(model(padded, FINAL), found, rtol=0, atol=1e-6)


def test_heads_begin_apart_and_small() -> None:
    """Deviation 1 / (D + 1): rewards of normalised features are small, and no two members agree."""
    model = RewardModel(torch.nn.Identity(), 400, ensemble=6)
    assert float(model.heads.weight.detach().std()) == pytest.approx(1 / 401, rel=0.05)
    assert model.heads.weight.detach().unique(dim=0).shape[0] == 6


def test_members_of_an_ensemble_read_and_learn_by_themselves() -> None:
    models = [model_of(small(), ensemble=2), model_of(small())]
    both = RewardEnsemble(models)
    found = both(IDS, FINAL)
    assert_close(found, torch.cat([m(IDS, FINAL) for m in models]))
    moved_by_third = moved_by(both, found[2].sum())
    own = {n for n, _ in both.named_parameters() if n.startswith("models.1.")}
    assert len(own) > 10 and moved_by_third == own


def test_adapters_of_members_lie_on_weights_that_are_held_once() -> None:
    """They change nothing at first; a member's reward moves its own adapters and head alone."""
    lm = small()
    before = {k: v.clone() for k, v in lm.state_dict().items()}
    features = trunk_of(lm)(input_ids=IDS).last_hidden_state.detach()
    both = RewardEnsemble([RewardModel(t, 16) for t in adapted_trunks(lm, lambda x: with_lora(x, 2), 2)])
    frozen = {p.data_ptr() for p in both.parameters() if not p.requires_grad}
    assert frozen == {p.data_ptr() for p in trunk_of(lm).parameters()}
    models: list[Any] = list(both.models)
    for m in models:
        assert_close(m.trunk(input_ids=IDS).last_hidden_state, features)
    apart = [[p for n, p in m.named_parameters() if "lora_A" in n] for m in models]
    assert all(not torch.equal(a, b) for a, b in zip(*apart, strict=True)) and apart[0]
    moved_(both)
    own = {n for n, p in both.named_parameters() if n.startswith("models.0.") and p.requires_grad}
    assert len(own) > 10 and moved_by(both, both(IDS, FINAL)[0].sum()) == own
    for k, v in lm.state_dict().items():
        assert torch.equal(v, before[k])


def rows_of(chat: ChatFormat) -> list[Tokens]:
    return [chat.reply(PROMPT, text) for text in TEXTS]


def logits_of(folder: Path, rows: list[Tokens]) -> np.ndarray:
    """What a stranger gets: all rows in one batch, padded with the id that the folder names."""
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    assert classifier.config.num_labels == 1
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), classifier.config.pad_token_id)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.as_tensor(row.ids)
    with torch.inference_mode():
        return classifier(input_ids=ids).logits[:, 0].double().numpy()


@pytest.mark.parametrize("kind", ["own", "plain", "chatml", "headers"])
@pytest.mark.parametrize("architecture", [small, gpt2])
def test_transformers_reads_the_same_rewards(
    kind: str, architecture: Any, tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    """To 1e-5, padded, also where the tokenizer pads with the token that ends replies (plain, chatml)."""
    tokenizer = copy.deepcopy(tokenizers[kind])
    if kind in ("plain", "chatml"):
        tokenizer.pad_token = tokenizer.eos_token
    chat = ChatFormat(tokenizer)
    lm = architecture(len(tokenizer), chat.stop)
    model = model_of(lm)
    moved_(model, 0.3)
    s = RewardScorer(model, tokenizer)
    rows = rows_of(chat)
    ours = s.score(rows)[0]
    assert ours.std() > 0.05
    s.save(tmp_path)
    np.testing.assert_allclose(logits_of(tmp_path, rows), ours, atol=1e-5)
    again = load_reward(tmp_path)
    np.testing.assert_allclose(again.score(rows_of(again.chat))[0], ours, atol=1e-5)


def test_padding_is_never_what_ends_a_reply(tokenizers: dict[str, Any]) -> None:
    """Kept where it differs; else another special token; else none, so that padding fails aloud."""
    own = copy.deepcopy(tokenizers["own"])
    assert set_padding_(own, ChatFormat(own).stop) == own.convert_tokens_to_ids("<|pad|>")
    headers = copy.deepcopy(tokenizers["headers"])
    assert set_padding_(headers, ChatFormat(headers).stop) == headers.bos_token_id == headers.pad_token_id
    plain = copy.deepcopy(tokenizers["plain"])
    plain.pad_token = plain.eos_token
    assert set_padding_(plain, plain.eos_token_id) != plain.eos_token_id
    assert plain.pad_token is None


def scorer_of(kind: str, tokenizer: Any) -> RewardScorer:
    def lm() -> Any:
        return small(len(tokenizer), ChatFormat(tokenizer).stop, tokenizer.pad_token_id)

    models: dict[str, AnyRewardModel] = {
        "heads": model_of(lm(), 3),
        "trunks": RewardEnsemble([model_of(lm()), model_of(lm())]),
        "adapters": RewardEnsemble(
            [RewardModel(t, 16) for t in adapted_trunks(lm(), lambda x: with_lora(x, 2), 2)]
        ),
        "adapted": RewardModel(adapted_trunks(lm(), lambda x: with_lora(x, 2), 1)[0], 16, ensemble=2),
    }
    moved_(models[kind], 0.3)
    return RewardScorer(models[kind], tokenizer)


@pytest.mark.parametrize("kind", ["heads", "trunks", "adapters", "adapted"])
def test_an_ensemble_comes_back_whole(kind: str, tokenizers: dict[str, Any], tmp_path: Path) -> None:
    """All members; heads on one trunk are their mean to a stranger, others a folder each.

    Saving folds adapters into copies: the model in memory reads as before.
    """
    s = scorer_of(kind, tokenizers["own"])
    rows = rows_of(s.chat)
    before = s.score(rows)
    assert np.ptp(before, axis=0).min() > 1e-3
    s.save(tmp_path)
    np.testing.assert_array_equal(s.score(rows), before)
    np.testing.assert_allclose(load_reward(tmp_path).score(rows), before, atol=1e-5)
    if kind in ("heads", "adapted"):
        np.testing.assert_allclose(logits_of(tmp_path, rows), before.mean(0), atol=1e-5)
    else:
        for i in range(2):
            np.testing.assert_allclose(logits_of(tmp_path / f"member-{i}", rows), before[i], atol=1e-5)


def test_rows_are_read_together_and_come_back_in_order(tokenizers: dict[str, Any]) -> None:
    """300 rows of 1 to 30 tokens, more than one batch, against one at a time."""
    s = scorer_of("heads", tokenizers["own"])
    rng = np.random.default_rng(0)
    words = ["hello", "my", "friend", "works"]
    rows = [s.chat.reply(PROMPT, " ".join(rng.choice(words, rng.integers(0, 20)))) for _ in range(300)]
    alone = np.concatenate([scorer(s.model)([row]) for row in rows[::13]], 1)
    np.testing.assert_allclose(s.score(rows)[:, ::13], alone, atol=1e-5)


def test_what_is_no_reward_model_is_refused(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "turnwise.json").write_text(json.dumps({"kind": "policy"}))
    with pytest.raises(InputError, match="expected the run of a reward model"):
        load_reward(tmp_path)
    s = scorer_of("heads", tokenizers["own"])
    s.save(tmp_path / "run" / "reward")
    (tmp_path / "run" / "reward" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing; expected all files"):
        load_reward(tmp_path / "run")


def test_an_architecture_without_such_a_classifier_is_refused(
    tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    tokenizer = tokenizers["own"]
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, state_size=4)
    s = RewardScorer(model_of(MambaForCausalLM(config)), tokenizer)
    with pytest.raises(InputError, match="mamba model has no sequence classifier"):
        s.save(tmp_path / "reward")
    assert not (tmp_path / "reward").exists()
