"""A GGUF file becomes a folder that is the same model; one that is none is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.gguf import model_folder
from turnwise.recipes.opened import load
from turnwise.run.errors import InputError, SettingError

gguf = pytest.importorskip("gguf", reason="the package gguf (extra data) is not installed")

WIDTH, LAYERS, HEADS, CONTEXT = 32, 2, 2, 64
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""of a layer's weights, in transformers and in GGUF"""
OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def rotated_pairs(weight: Tensor) -> Tensor:
    """The rows of queries and keys as GGUF wants them: the two of a rotary pair are neighbours there."""
    half = weight.shape[0] // HEADS // 2
    return weight.reshape(HEADS, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write(path: Path) -> tuple[Any, Any]:
    """A tiny Llama with its tokenizer in a file; returns both."""
    tokenizer = train_tokenizer(["hello there, who is that?", "it is me, hello"] * 3, 300, CONTEXT)
    torch.manual_seed(0)
    model = llama(
        len(tokenizer), width=WIDTH, layers=LAYERS, heads=HEADS, context=CONTEXT, eos=0, pad=1
    ).eval()
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(model.config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(tokenizer))
    parts = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = sorted(parts["vocab"], key=parts["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    kinds = [gguf.TokenType.CONTROL if w.startswith("<|") else gguf.TokenType.NORMAL for w in words]
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in parts["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        if name.startswith("model.layers."):
            _, _, i, inner = name.removesuffix(".weight").split(".", 3)
            there = f"blk.{i}.{NAMES[inner]}.weight"
            if inner.endswith(("q_proj", "k_proj")):
                weight = rotated_pairs(weight)
        else:
            there = OUTSIDE[name]
        writer.add_tensor(there, weight.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Path]:
    folder = tmp_path_factory.mktemp("gguf")
    model, tokenizer = write(folder / "tiny.gguf")
    return folder / "tiny.gguf", model, tokenizer, model_folder(folder / "tiny.gguf", folder / "made")


@torch.no_grad()
def test_the_folder_is_the_same_model(made: tuple[Path, Any, Any, Path]) -> None:
    """The same logits, from plain transformers and from our own loading; nothing in it says quantised."""
    _, model, tokenizer, folder = made
    ids = torch.tensor([tokenizer.encode("hello, who is me?")])
    expected = model(input_ids=ids).logits
    found = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(found(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    assert found.dtype == torch.float32
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    policy = load(str(folder))
    torch.testing.assert_close(policy.agent.lm(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_tokenizer_and_the_template_are_its_own(made: tuple[Path, Any, Any, Path]) -> None:
    _, _, tokenizer, folder = made
    found = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "hello there"}]
    text = found.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>hello there<|end|><|assistant|>"
    words = found.convert_ids_to_tokens(found.encode(" who is that?", add_special_tokens=False))
    assert words == tokenizer.convert_ids_to_tokens(tokenizer.encode("who is that?"))
    assert isinstance(load(str(folder)).reply(messages, seed=0), str)


def test_what_is_there_stays_unless_told(made: tuple[Path, Any, Any, Path], tmp_path: Path) -> None:
    file, _, _, folder = made
    with pytest.raises(SettingError, match=r"out is .*expected a new folder, or overwrite beside it"):
        model_folder(file, folder)
    before = (folder / "model.safetensors").read_bytes()
    assert model_folder(file, folder, overwrite=True) == folder
    assert (folder / "model.safetensors").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("three years")
    with pytest.raises(InputError, match="expected a new folder, or one that holds a saved model"):
        model_folder(file, tmp_path / "mine", overwrite=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_what_is_no_such_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file"):
        model_folder(tmp_path / "gone.gguf", tmp_path / "out")
    (tmp_path / "logs.gguf").write_text('{"messages": []}')
    with pytest.raises(InputError, match="which begins with GGUF"):
        model_folder(tmp_path / "logs.gguf", tmp_path / "out")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(InputError, match=r"cut.gguf: not a causal language model that can be loaded"):
        model_folder(tmp_path / "cut.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


REAL = os.environ.get("TURNWISE_GGUF")


@pytest.mark.skipif(not REAL, reason="TURNWISE_GGUF names no GGUF file of an instructed model (SmolLM2-135M)")
def test_a_real_one_speaks(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct knows the capital of France."""
    folder = model_folder(str(REAL), tmp_path / "real")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    ids = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])
