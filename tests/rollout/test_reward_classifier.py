"""Reward models that others trained: rewards are the logits that `transformers` gives for the same text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.feedback import one_turn
from turnwise.envs.dialogue import Message
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.reward_model import RewardEnsemble, RewardModel
from turnwise.recipes.opened import load as load_run
from turnwise.recipes.trained import Judge
from turnwise.rollout.load import load, load_reward
from turnwise.rollout.reward_classifier import ClassifierScorer
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.rollout.rewards import ModelReward
from turnwise.run.errors import InputError

WORDS = ["sun", "rain", "wind", "snow", "fog", "please", "no", "tell", "me", "more"]
WORDS += ["user", "assistant", "system", ":", "?", "."]
NEWLINE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|end|>\n{% endfor %}"
"""A template that writes something after the stop token, as Qwen's does."""
TALK = (
    Message("system", "no fog ."),
    *(Message(("user", "assistant")[i % 2], "tell me more wind " + "rain " * i) for i in range(6)),
    Message("user", "sun ?"),
)
REPLIES = ["sun please", "no", "fog fog fog rain please"]


def decoder(folder: Path, labels: int = 1, pad: bool = True) -> Path:
    """A Llama classifier with a tokenizer of its own, which pads with what ends a message."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from turnwise.models.lm.fresh import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(WORDS)], 300, 96)
    tokenizer.chat_template, tokenizer.pad_token = NEWLINE, tokenizer.eos_token
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        initializer_range=0.5,
        **size,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder(folder: Path) -> Path:
    """A BERT classifier of two texts, without a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(1)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    plain = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    plain.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, model_max_length=48, model_input_names=names, **special
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(words), max_position_embeddings=64, num_labels=1, initializer_range=0.5, **size
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def one_by_one(folder: Path, inputs: Callable[[Any, str], Any]) -> list[float]:
    """The logit of each reply as its authors would compute it, without padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [float(model(**inputs(tokenizer, text)).logits[0, 0]) for text in REPLIES]


@pytest.mark.parametrize("pad", [True, False])
def test_a_classifier_with_a_chat_template_gives_what_its_authors_get(tmp_path: Path, pad: bool) -> None:
    """The template's whole text, whatever it writes after the stop token and whatever it pads with."""
    folder = decoder(tmp_path, pad=pad)
    judge = load_run(folder)
    assert isinstance(judge, Judge) and isinstance(judge.scorer, ClassifierScorer)

    def inputs(tokenizer: Any, text: str) -> Any:
        chat = [{"role": "user", "content": "tell me"}, {"role": "assistant", "content": text}]
        whole = tokenizer.apply_chat_template(chat, tokenize=False)
        return {"input_ids": tokenizer(whole, add_special_tokens=False, return_tensors="pt")["input_ids"]}

    found = judge.score("tell me", REPLIES)
    np.testing.assert_allclose(found, one_by_one(folder, inputs), atol=1e-5)
    assert len(set(found.round(4))) == 3


def test_a_classifier_of_two_texts_is_given_two(tmp_path: Path) -> None:
    """Token types of the second text too; several messages are one text, each behind its role."""
    folder = encoder(tmp_path)
    judge = load_run(folder)
    assert isinstance(judge, Judge)
    expected = one_by_one(folder, lambda tok, text: tok("tell me", text, return_tensors="pt"))
    np.testing.assert_allclose(judge.score("tell me", REPLIES), expected, atol=1e-5)
    said = "user: tell\nassistant: no\nuser: more ?"
    expected = one_by_one(folder, lambda tok, text: tok(said, text, return_tensors="pt"))
    talk = [("user", "tell"), ("assistant", "no"), ("user", "more ?")]
    chat = [{"role": role, "content": text} for role, text in talk]
    np.testing.assert_allclose(judge.score(chat, REPLIES), expected, atol=1e-5)


def test_a_prompt_beyond_a_judges_context_is_read_without_its_earliest_messages(tmp_path: Path) -> None:
    """48 tokens: [CLS], "system : no fog . user : sun ?" (9), [SEP], the reply (2), [SEP] are 14, and the
    messages before the last one are 6 + i words and two for the role: 4, 5 and so on from the end are 11, 10,
    ... A reply of 40 words fits with none of them, and there is no opinion of it."""
    scorer = load_reward(encoder(tmp_path))
    row = scorer.text.reply(TALK, "sun please")
    assert row is not None
    told = scorer.tokenizer.decode(row.ids.tolist())
    assert len(row) <= 48 and "[CLS] system : no fog ." in told and "user : sun ? [SEP] sun please" in told
    assert "assistant" in told and told.count("tell me") == 2, "as many as fit, the first of them a user's"
    assert scorer.text.reply(TALK, "sun " * 40) is None
    reward = ModelReward(scorer.score, scorer.text)
    found = reward([_reply("sun please"), _reply("sun " * 40)])
    assert np.isfinite(found[0]) and np.isnan(found[1])


def _reply(text: str) -> Any:
    from turnwise.rollout.replies import Reply

    tokens: Any = None
    return Reply(TALK, text, tokens, True)


def test_what_is_no_reward_model_is_refused_in_words(
    tmp_path: Path, tiny: Callable[..., Any], chat: Any
) -> None:
    several = decoder(tmp_path / "several", labels=3)
    with pytest.raises(
        InputError, match=r"a classifier of 3 labels \(LABEL_0, LABEL_1, LABEL_2\); expected a"
    ):
        load_reward(several)
    tiny().save_pretrained(tmp_path / "lm")
    chat.tokenizer.save_pretrained(tmp_path / "lm")
    with pytest.raises(InputError, match="a LlamaForCausalLM; expected a reward model, which is a sequence"):
        load_reward(tmp_path / "lm")
    with pytest.raises(InputError, match=r"config.json is missing"):
        load_reward(tmp_path)


@pytest.mark.parametrize("members", ["heads", "trunks"])
def test_ours_is_ours_without_its_file_of_settings(
    members: str, tmp_path: Path, tiny: Callable[..., Any], chat: Any
) -> None:
    """All its heads, or all its trunks, read at the stop token; saved again by `transformers`, their mean."""
    from transformers import AutoModelForSequenceClassification

    model: Any = RewardModel(trunk_of(tiny().float()), 32, ensemble=3)
    if members == "trunks":
        model = RewardEnsemble([RewardModel(trunk_of(tiny(seed=s).float()), 32) for s in range(3)])
    tokenizer = chat.tokenizer
    RewardScorer(model, tokenizer).save(tmp_path / "ours")
    rows = [
        chat.reply(one_turn((Message("user", "it is dark"),), "").messages[:1], t)
        for t in ("now", "the fuse")
    ]
    before = load_reward(tmp_path / "ours").score(rows)
    (tmp_path / "ours" / "turnwise.json").unlink()
    found = load(tmp_path / "ours")
    assert isinstance(found, RewardScorer)
    np.testing.assert_allclose(found.score(rows), before, atol=1e-6)
    if members == "heads":
        again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
        again.save_pretrained(tmp_path / "again")
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(tmp_path / "ours" / name, tmp_path / "again")
        assert json.loads((tmp_path / "again" / "config.json").read_text())["turnwise_read_at_stop"]
        found = load_reward(tmp_path / "again")
        np.testing.assert_allclose(found.score(rows), before.mean(0, keepdims=True), atol=1e-6)


def test_a_judge_whose_tokenizer_has_more_tokens_than_its_embedding_says_so_and_judges(
    tmp_path: Path,
) -> None:
    """A template's new marker has no embedding of its own: without one, an index would fail at some reply."""
    from transformers import AutoTokenizer

    folder = decoder(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|reply|>"]})
    tokenizer.chat_template = NEWLINE.replace("<|end|>", "<|end|><|reply|>")
    tokenizer.save_pretrained(folder)
    with pytest.warns(UserWarning, match="its tokenizer has"):
        judge = load_run(folder)
    assert isinstance(judge, Judge)
    assert np.isfinite(judge.score("tell me", REPLIES)).all()


def test_a_text_in_place_of_replies_is_refused_and_no_replies_have_no_rewards(tmp_path: Path) -> None:
    """Each letter of a text would pass for a reply."""
    judge = load_run(decoder(tmp_path))
    assert isinstance(judge, Judge)
    with pytest.raises(InputError, match="replies is 'no'; expected a list of texts"):
        judge.score("tell me", "no")
    assert judge.score("tell me", []).shape == (0,)
