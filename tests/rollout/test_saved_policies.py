"""A saved policy speaks in `transformers` as it was measured here: it stops, and samples from the same words.

The model that training began with has another end (its tokenizer's eos token) than its chat template, and a
generation config of its own: a penalty, few tokens, a low temperature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import turnwise as tw
from turnwise.data.chat.format import ChatFormat
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.pretrained import load_lm, save_lm
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.decoding import Decoding, distribution

PROMPT = [{"role": "user", "content": "it works"}]
TALK = [*PROMPT, {"role": "assistant", "content": "hello there"}]


@pytest.fixture(scope="module")
def base(tokenizers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a model of somebody else: its stop token is <|eot|>, its eos token </s>."""
    tokenizer = tokenizers["headers"]
    torch.manual_seed(0)
    eos = tokenizer.eos_token_id
    lm = llama(len(tokenizer), width=16, layers=1, heads=2, context=96, eos=eos, pad=eos)
    lm.generation_config = GenerationConfig(
        eos_token_id=eos, do_sample=True, repetition_penalty=1.3, top_k=7, temperature=0.3, max_length=20
    )
    folder = tmp_path_factory.mktemp("base")
    save_lm(folder, lm, tokenizer)
    return str(folder)


def trained(verb: str, base: str, out: Path) -> Any:
    """The shortest run of a verb."""
    logs = [{"messages": TALK, "outcome": 1.0}] * 4
    pairs = tw.read_feedback([{"prompt": "it", "chosen": "works", "rejected": "now"}] * 4)
    few: dict[str, Any] = {"out": out, "quiet": True, "heldout": 0.0, "max_new_tokens": 48}
    if verb in ("bc", "bc with lora"):
        return tw.fit(tw.BC(epochs=1.0), logs, model=base, lora_rank=2 * (verb == "bc with lora"), **few)
    if verb == "bc from nothing":
        return tw.fit(tw.BC(epochs=1.0), logs, width=16, layers=1, heads=2, context=96, vocab=280, **few)
    if verb == "mc":
        clone = trained("bc", base, out / "clone")
        return tw.fit(tw.MC(epochs=1.0), logs, policy=clone, **few | {"out": out / "mc"})
    if verb == "dpo":
        return tw.fit(tw.DPO(epochs=1.0), pairs, policy=base, **few)
    prompts = tw.read_prompts([{"prompt": "it works"}] * 2)
    config = tw.RLOO(steps=1, prompts_per_step=1, group=2)
    return tw.fit(
        config, prompts, policy=base, reward=lambda completions, **_: [1.0] * len(completions), **few
    )


def said_by_transformers(folder: Path, n: int) -> tuple[Any, Any, torch.Tensor, Any]:
    """The model, its tokenizer, the prompt's ids, and n replies of `generate` as the folder alone says."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(0)
    options = {"num_return_sequences": n} if n > 1 else {}
    said = model.generate(**inputs, **options, output_scores=True, return_dict_in_generate=True)
    return model, tokenizer, inputs["input_ids"], said


@pytest.mark.parametrize("verb", ["bc", "bc with lora", "bc from nothing", "mc", "dpo", "rloo"])
def test_a_saved_policy_stops_in_transformers_where_it_stops_here(
    verb: str, base: str, tmp_path: Path
) -> None:
    """Replies end at the stop token of the chat template; what is longer is cut where it is cut here."""
    policy = trained(verb, base, tmp_path / "run")
    model, tokenizer, ids, said = said_by_transformers(policy.folder / "policy", 64)
    stop = ChatFormat(tokenizer).stop
    assert tokenizer.decode([stop]) == ("<|end|>" if verb == "bc from nothing" else "<|eot|>")
    assert model.generation_config.eos_token_id == [stop]  # no other end that the model came with
    replies = said.sequences[:, ids.shape[1] :]
    stopped = (replies == stop).any(1)
    assert stopped.any() and replies.shape[1] == 48
    for reply in replies[stopped].tolist():
        assert set(reply[reply.index(stop) + 1 :]) <= {model.generation_config.pad_token_id}
    assert_close(said.scores[0], model(ids).logits[:, -1].expand(64, -1))  # nothing changes its logits


@pytest.mark.parametrize("acting", [(1.0, None, None), (0.7, 5, None), (1.5, None, 0.6), (0.0, None, None)])
def test_transformers_samples_from_the_distribution_that_was_measured(
    acting: tuple[Any, ...], base: str, tmp_path: Path
) -> None:
    """Temperature, top-k and top-p: every token's probability, at every step. Temperature 0 is greedy."""
    temperature, top_k, top_p = acting
    how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": 6}
    agent = Agent(*load_lm(base)).with_acting(**how)
    agent.with_acting(temperature=0.5, top_k=3).save(tmp_path)
    agent.save_acting(tmp_path)  # the last word counts, as it does for `tw.load`
    model, _, ids, said = said_by_transformers(tmp_path, 1)
    assert model.generation_config.do_sample == (temperature > 0)
    logits = model(said.sequences).logits[0, ids.shape[1] - 1 : -1]
    expected = distribution(logits, Decoding(temperature, top_k, top_p))
    if temperature == 0:
        assert said.sequences[0, ids.shape[1] :].tolist() == expected.argmax(-1).tolist()
    else:
        assert_close(torch.cat(said.scores).double().softmax(-1), expected, rtol=1e-4, atol=1e-6)
