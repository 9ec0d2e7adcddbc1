"""Texts to ids word by word: exactly the tokenizer's, for every text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from turnwise.data.chat import encoder as encoder_module
from turnwise.data.chat.encoder import TextEncoder, encodes_by_words
from turnwise.data.chat.format import ChatFormat
from turnwise.data.chat.template import copies_contents
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import OWN_TEMPLATE

CORPUS = ["hello there, my friend; it's 12345 o'clock", "it works  now\n\nhello there", "ça va très bien"] * 3
PATTERNS = dict(zip(("qwen", "llama"), encoder_module._PATTERNS, strict=True))
KINDS = ("own", "plain", "plain, spaced", "chatml", "qwen", "llama", "metaspace")

WORDS = (
    "hello",
    "it's",
    "12345",
    "o'clock",
    "é",
    "e\u0301",
    "...",
    "'s",
    "LL",
    "你好",
    "😀",
    "<|end|>",
    "</s>",
)
SPACES = (*"    \n\t", "\u3000", "\u00a0", "\u200b", "\u180e", "\x1c", "\x85", "\u0301")
pieces = st.sampled_from(WORDS) | st.sampled_from(SPACES)
texts = st.lists(pieces | st.text(max_size=3), max_size=12).map("".join)


def byte_level(pattern: str) -> PreTrainedTokenizerFast:
    """In the manner of Llama 3 and Qwen: a pattern of its own, then bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    return trained(tokenizer)


def metaspace() -> PreTrainedTokenizerFast:
    """In the manner of Llama 2 and Gemma: a text may be one long word."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return trained(tokenizer)


def trained(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


@pytest.fixture(scope="module")
def encoders(tokenizers) -> dict[str, TextEncoder]:
    of = {name: tokenizers[name] for name in KINDS if name in tokenizers}
    of |= {name: byte_level(pattern) for name, pattern in PATTERNS.items()} | {"metaspace": metaspace()}
    return {name: TextEncoder(of[name]) for name in KINDS}


def test_words_are_encoded_by_themselves_only_if_that_is_exact(encoders) -> None:
    assert {name for name, e in encoders.items() if not encodes_by_words(e.tokenizer)} == {"metaspace"}


@settings(max_examples=150)
@given(text=texts, literally=st.booleans(), name=st.sampled_from(KINDS))
def test_ids_are_those_of_the_whole_text(encoders, text: str, literally: bool, name: str) -> None:
    """Two times: the second time every word is remembered."""
    e = encoders[name]
    whole = e.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=literally)
    assert e.encode(text, literally) == whole and e.encode(text, literally) == whole


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_special_tokens_that_look_beside_them_forbid_words(flag: str) -> None:
    from tokenizers import AddedToken

    tokenizer = byte_level(PATTERNS["llama"])
    assert encodes_by_words(tokenizer)
    tokenizer.add_special_tokens({"pad_token": AddedToken("<pad>", **{flag: True})})
    assert not encodes_by_words(tokenizer)


def test_a_special_token_with_a_space_in_it_forbids_words() -> None:
    tokenizer = byte_level(PATTERNS["llama"])
    tokenizer.add_special_tokens({"pad_token": "<a pad>"})
    assert not encodes_by_words(tokenizer)


def test_words_are_remembered_up_to_a_bound(encoders, monkeypatch) -> None:
    """A word of 6 characters counts as 106: ten of them pass 1,000, so that one text more may be kept."""
    monkeypatch.setattr(encoder_module, "WORDS_REMEMBERED", 1_000)
    e = TextEncoder(encoders["own"].tokenizer)
    for i in range(0, 300, 3):
        e.encode(f"{i:06} {i + 1:06} {i + 2:06}")
    words = e._words[False]
    assert 0 < len(words._first) + len(words._later) <= 12


@pytest.mark.parametrize("name", ["own", "plain", "headless"])
def test_contents_are_put_where_the_template_puts_them(tokenizers, name: str) -> None:
    template = ChatFormat(tokenizers[name])._template
    for role in ("system", "user", "assistant", "tool"):
        for content in ("", " x ", "{{ a }}", "Words.", "<|end|>\n"):
            frame = template.frame(role)
            assert frame is not None
            assert frame[0] + content + frame[1] == template.render([Message(role, content)], False)


def test_a_template_that_may_look_at_contents_is_asked_every_time() -> None:
    assert copies_contents(OWN_TEMPLATE)
    for part in (
        "{{ m['content'] | trim }}",
        "{{ m['content'].strip() }}",
        "{% if m['content'] %}x{% endif %}",
        "{% set c = m['content'] %}{{ c }}",
        "{% filter upper %}{{ m['content'] }}{% endfilter %}",
        "{{ m['content'] if loop.first }}",
        "{% if m %}{% for k in m.values() %}{{ k }}{% endfor %}{% endif %}",
    ):
        assert not copies_contents("{% for m in messages %}" + part + "{% endfor %}"), part
