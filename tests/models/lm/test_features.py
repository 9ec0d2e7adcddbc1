"""Mean features of texts: equal to one text at a time, whatever stands beside it; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from turnwise.models.lm import features as module
from turnwise.models.lm.features import Features, load_features
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.pretrained import save_lm
from turnwise.recipes.features import features_of
from turnwise.run.errors import InputError, SettingError

TEXTS = ["hi", "", "a longer text with more words in it", "hi", "two words", "\ud7ff ünï"]
TOKENIZER = train_tokenizer(TEXTS, 300, 64)
LAYERS = 4


def build(family: str) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "pad_token_id": 1}
    if family == "llama":
        return llama(300, width=16, layers=LAYERS, heads=2, context=64, eos=0, pad=1)
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=LAYERS, n_head=2, n_positions=64, **sizes))
    return BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32,
                   max_position_embeddings=64, **sizes)
    )  # fmt: skip


FAMILIES = ("llama", "gpt2", "bert")


def trunk(family: str) -> Any:
    model = build(family).eval()
    return model if family == "bert" else trunk_of(model)


@torch.no_grad()
def slowly(model: Any, text: str, depth: float, echo: bool) -> np.ndarray:
    """One text, unpadded: all hidden states, the mean over its own tokens."""
    own = TOKENIZER.encode(text, add_special_tokens=False)
    ids = torch.tensor([[TOKENIZER.eos_token_id, *own, *(own if echo else [])]])
    states = model(input_ids=ids, output_hidden_states=True).hidden_states
    return states[round(depth * LAYERS)][0, -len(own) :].mean(0).numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("echo", [False, True])
def test_many_texts_are_each_what_it_is_alone(
    family: str, depth: float, echo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded beside others, in several batches, in any order; a text without a token is zeros."""
    monkeypatch.setattr(module, "MOST_TOKENS", 40)
    model = trunk(family)
    found = Features(model, TOKENIZER, depth=depth, echo=echo)(TEXTS)
    assert found.shape == (len(TEXTS), 16) and found.dtype == np.float32
    for text, row in zip(TEXTS, found, strict=True):
        expected = slowly(model, text, depth, echo) if text else np.zeros(16)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_layers_behind_the_wanted_one_are_not_computed() -> None:
    model = trunk("llama")
    calls = []
    for i, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    Features(model, TOKENIZER, depth=0.5)(["hi there"])
    assert calls == [0, 1]
    assert not model.layers[2]._forward_pre_hooks  # and nothing is left behind


def test_what_is_before_the_text_does_not_count_and_echo_sees_what_comes_later() -> None:
    """Of one token: the two first tokens cannot differ by what follows, unless they were read before."""
    model = trunk("llama")
    once, twice = (Features(model, TOKENIZER, depth=1.0, echo=echo) for echo in (False, True))
    first = TOKENIZER.encode("hi", add_special_tokens=False)
    assert len(first) == 1
    ids = torch.tensor([[TOKENIZER.eos_token_id, *first]])
    with torch.no_grad():
        states = model(input_ids=ids).last_hidden_state[0]
    np.testing.assert_allclose(once(["hi"])[0], states[1].numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(once(["hi"]) - twice(["hi"])).max() > 1e-3


def test_the_last_token_is_the_mean_of_itself() -> None:
    """Of two texts that end alike, means differ by all of their words and last tokens by what led to them."""
    model = trunk("llama")
    mean, last = (Features(model, TOKENIZER, depth=0.5, last=last) for last in (False, True))
    ids = [TOKENIZER.eos_token_id, *TOKENIZER.encode("a b a", add_special_tokens=False)]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]
    np.testing.assert_allclose(last(["a b a"])[0], states[-1].numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean(["a b a"])[0], states[1:].mean(0).numpy(), rtol=1e-4, atol=1e-5)


def test_long_texts_are_cut_to_what_the_model_reads() -> None:
    """A context of 64 holds a token and 63 of the text, or twice 31; `longest` goes before that."""
    model, text = trunk("llama"), "a b " * 200
    for echo, n in ((False, 63), (True, 31)):
        cut = TOKENIZER.decode(TOKENIZER.encode(text, add_special_tokens=False)[:n])
        made = Features(model, TOKENIZER, echo=echo, longest=1000)
        np.testing.assert_allclose(made([text]), made([cut.strip()]), rtol=1e-4, atol=1e-5)
    short = Features(model, TOKENIZER, longest=2)
    np.testing.assert_array_equal(short(["a b a a"]), short(["a b"]))


@pytest.mark.parametrize("family", FAMILIES)
def test_from_a_folder(family: str, tmp_path: Path) -> None:
    model = build(family).eval()
    save_lm(tmp_path / "m", model, TOKENIZER)
    here = model if family == "bert" else trunk_of(model)
    expected = Features(here, TOKENIZER, last=family != "bert")(
        TEXTS
    )  # an encoder's last token is like others
    np.testing.assert_allclose(load_features(tmp_path / "m")(TEXTS), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features_of(str(tmp_path / "m"), quiet=True)(TEXTS), expected, atol=1e-6)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder here"):
        features_of("nobody/nothing-at-all-here")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: config.json is missing"):
        features_of(tmp_path / "empty")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "abacus"}')
    with pytest.raises(InputError, match="not a language model or an encoder"):
        features_of(tmp_path / "odd")
    with pytest.raises(SettingError, match=r"depth is 2"):
        Features(trunk("llama"), TOKENIZER, depth=2)
