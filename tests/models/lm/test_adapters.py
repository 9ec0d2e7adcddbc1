"""Adapters that `peft` saved, taken as policies and as reward models: their base is found, or named."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import turnwise as tw
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.pretrained import load_lm, save_lm
from turnwise.recipes.opened import load
from turnwise.recipes.trained import Judge, Policy
from turnwise.rollout.load import load_reward
from turnwise.run.errors import InputError

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


@pytest.fixture
def home(tmp_path: Path, tokenizers: dict[str, Any]) -> Path:
    """A base model, as `base`."""
    torch.manual_seed(0)
    tokenizer = tokenizers["own"]
    lm = llama(len(tokenizer), width=16, layers=2, heads=2, context=64, eos=tokenizer.eos_token_id, pad=1)
    save_lm(tmp_path / "base", lm, tokenizer)
    return tmp_path


def moved_(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += torch.randn_like(p)


def adapted(base: Path, folder: Path, recorded: str | None, **settings: Any) -> Any:
    """An adapter of `base` in `folder`, whose settings record `recorded`; and what it was when saved."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an output layer that is tied to the embedding
        model: Any = get_peft_model(lm, config)
    moved_(model)
    model.save_pretrained(folder)
    record(folder, base_model_name_or_path=recorded)
    return model.eval()


def record(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("recorded", ["absolute", "beside", "run"])
def test_an_adapter_is_a_policy_and_its_base_is_found(home: Path, recorded: str) -> None:
    """By its path, beside the adapter, and in a run's folder; with a trained output layer, and as one model:
    the reference of a policy that learns is a copy, not a base without its adapter."""
    (home / "run").mkdir()
    shutil.copytree(home / "base", home / "run" / "policy")
    name = {"absolute": str(home / "base"), "beside": "base", "run": "run"}[recorded]
    whole = adapted(
        home / "base", home / "adapter", name, modules_to_save=["lm_head"] if recorded == "run" else None
    )
    policy = load(home / "adapter")
    assert isinstance(policy, Policy)
    lm = policy.agent.lm
    with torch.inference_mode():
        expected = whole(input_ids=IDS).logits
        assert_close(lm(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)
        plain, _ = load_lm(str(home / "base"))
        assert not torch.allclose(plain(input_ids=IDS).logits, expected, atol=1e-2)
    assert not hasattr(lm, "peft_config")
    policy.save(home / "saved")
    again, _ = load_lm(str(home / "saved"))
    with torch.inference_mode():
        assert_close(again(input_ids=IDS).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_policy_learns_from_an_adapter_on(home: Path) -> None:
    """Before training it is the adapted model: the KL to the reference is 0, with adapters on top as well."""
    adapted(home / "base", home / "adapter", str(home / "base"))
    pairs = [{"prompt": f"hello {i}", "chosen": "it works", "rejected": "my friend"} for i in range(8)]
    for rank in (0, 2):
        found = tw.fit(
            tw.DPO(),
            pairs,
            policy=home / "adapter",
            heldout=0.5,
            lora_rank=rank,
            max_new_tokens=4,
            quiet=True,
        )
        assert found.result["measured"]["before"]["kl"]["mean"] == pytest.approx(0, abs=1e-5)
        assert found.result["measured"]["after"]["kl"]["mean"] != 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_model_name_or_path": None}, "base_model_name_or_path: expected the model that was adapted"),
        (
            {"base_model_name_or_path": "/gone/llama"},
            "adapter: an adapter of /gone/llama, and no such folder is here; expected the base model at that",
        ),
        ({"base_model_name_or_path": "narrow"}, "adapter: this adapter does not fit its base narrow"),
        ({"base_model_name_or_path": "shallow"}, "adapter: this adapter does not fit its base shallow"),
        (
            {"base_model_name_or_path": "deep", "target_modules": ["q_proj"]},
            "does not fit its base deep .*of its weights are in the adapter alone",
        ),
        (
            {"base_model_name_or_path": "empty"},
            "an adapter of .*empty, which cannot be loaded: .*config.json",
        ),
        ({"task_type": "SEQ_CLS"}, "an adapter of a classifier; expected one of a language model"),
        ({"r": 10**9}, "does not fit .*its rank is 1,000,000,000, and no weight of its file is longer than"),
        ({"base_model_name_or_path": "adapter"}, "leads back to it; expected a whole model at its end"),
    ],
)
def test_an_adapter_without_its_base_is_refused_by_name(
    home: Path, tokenizers: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    """Never the base alone in its place: one that fits in part leaves layers as they were."""
    tokenizer = tokenizers["own"]
    for name, width, layers in (("narrow", 8, 2), ("shallow", 16, 1), ("deep", 16, 3)):
        lm = llama(len(tokenizer), width=width, layers=layers, heads=2, context=64, eos=0, pad=1)
        save_lm(home / name, lm, tokenizer)
    (home / "empty").mkdir()
    adapted(home / "base", home / "adapter", str(home / "base"))
    record(home / "adapter", **settings)
    with pytest.raises(InputError, match=said):
        load_lm(str(home / "adapter"))


def test_learnt_prompts_are_no_adapters_of_weights(home: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(home / "base")
    model: Any = get_peft_model(lm, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    model.save_pretrained(home / "adapter")
    record(home / "adapter", base_model_name_or_path=str(home / "base"))
    with pytest.raises(InputError, match="an adapter of kind PROMPT_TUNING; expected one that can be folded"):
        load_lm(str(home / "adapter"))


@pytest.mark.parametrize("labels", [1, 2])
def test_an_adapter_of_a_classifier_is_a_reward_model(home: Path, labels: int) -> None:
    """With the head that it brings; two labels are no reward, and a language model's adapter has no head."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(home / "base")
    base = AutoModelForSequenceClassification.from_pretrained(home / "base", num_labels=labels)
    base.config.pad_token_id = tokenizer.pad_token_id
    model: Any = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS"))
    moved_(model)
    model.save_pretrained(home / "adapter")
    record(home / "adapter", base_model_name_or_path=str(home / "base"))
    if labels > 1:
        with pytest.raises(InputError, match="adapter: a classifier of 2 labels; expected a single label"):
            load_reward(home / "adapter")
        return
    judge = load(home / "adapter")
    assert isinstance(judge, Judge)
    replies = ["it works", "my friend, hello"]
    chats = [[{"role": "user", "content": "hello"}, {"role": "assistant", "content": x}] for x in replies]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    with torch.inference_mode():
        each = [tokenizer(x, add_special_tokens=False, return_tensors="pt")["input_ids"] for x in texts]
        expected = [float(model.eval()(input_ids=ids).logits[0, 0]) for ids in each]
    np.testing.assert_allclose(judge.score("hello", replies), expected, atol=1e-4)
    adapted(home / "base", home / "speaks", str(home / "base"))
    with pytest.raises(InputError, match="an adapter of a language model; expected one of a classifier"):
        load_reward(home / "speaks")
