"""Language models, ours and others': causal, saved so that anyone loads them, refused where they are none."""

from __future__ import annotations

import copy
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.critics import TokenCritic
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.lora import merged, with_lora
from turnwise.models.lm.parts import context_of, lm_head_of, parameter_count, trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import expect_known_head, load_lm, load_trunk, save_lm, share_files
from turnwise.models.lm.replies import score_replies
from turnwise.run.errors import InputError

VOCAB, CONTEXT = 300, 32
FAMILIES = ("llama", "gpt2", "qwen2")


def build(family: str) -> Any:
    """A tiny model of two layers with weights of the usual scale times ten, so that everything matters."""
    torch.manual_seed(0)
    if family == "llama":
        model = llama(VOCAB, width=16, layers=2, heads=2, context=CONTEXT, eos=0, pad=1)
    elif family == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCAB,
                n_embd=16,
                n_layer=2,
                n_head=2,
                n_positions=CONTEXT,
                eos_token_id=0,
                bos_token_id=0,
            )
        )
    else:
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=VOCAB,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=CONTEXT,
                eos_token_id=0,
            )
        )
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["hello there, my friend", "does it work now?"] * 3, VOCAB, CONTEXT)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_see_the_past_and_not_the_future(family: str) -> None:
    """d h[t] / d x[s] is exactly zero for s > t and not for s <= t, in float64."""
    trunk = trunk_of(build(family).double())
    x = torch.randn(1, 6, 16, dtype=torch.float64, requires_grad=True)
    h = trunk(inputs_embeds=x, use_cache=False).last_hidden_state
    for t in range(6):
        (gradient,) = torch.autograd.grad(h[0, t].square().sum(), x, retain_graph=True)
        reached = gradient[0].abs().amax(-1)
        assert (reached[: t + 1] > 1e-8).all()
        assert (reached[t + 1 :] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_trunk_and_head_are_the_model(family: str) -> None:
    """Head after trunk gives the logits that the whole model gives; the policy gives them at decisions."""
    model = build(family)
    ids, decisions = torch.randint(VOCAB, (2, 7)), torch.tensor([[0, 3, 6], [2, 5, 6]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        assert_close(lm_head_of(model)(trunk_of(model)(input_ids=ids).last_hidden_state), whole)
        expected = torch.stack([whole[0, [0, 3]], whole[1, [2, 5]]])
        assert_close(LmPolicy(model)(ids, decisions), expected)
        assert_close(LmPolicy(model).logits([trunk_of(model)(input_ids=ids).last_hidden_state[0]]), whole[0])
    assert (width_of(model), context_of(model)) == (16, CONTEXT)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_models_load_without_us(family: str, tokenizer: Any, tmp_path: Path) -> None:
    """Through `AutoModelForCausalLM`, through our own door, and the trunk alone: equal to the last bit."""
    model, ids = build(family), torch.randint(VOCAB, (2, 9))
    save_lm(tmp_path / "deep" / "model", model, tokenizer)
    folder = tmp_path / "deep" / "model"
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        for loaded in (AutoModelForCausalLM.from_pretrained(folder), load_lm(str(folder))[0]):
            assert torch.equal(loaded.eval()(input_ids=ids).logits, expected)
        hidden = load_trunk(folder).eval()(input_ids=ids).last_hidden_state
        assert torch.equal(hidden, trunk_of(model)(input_ids=ids).last_hidden_state)


def test_saved_files_are_readable_as_the_umask_says(tokenizer: Any, tmp_path: Path) -> None:
    """safetensors writes for the owner alone; under umask 022 everybody may read, under 027 the group."""
    for umask, expected in ((0o022, 0o644), (0o027, 0o640)):
        before = os.umask(umask)
        try:
            folder = tmp_path / f"{umask:o}"
            save_lm(folder, build("llama"), tokenizer)
        finally:
            os.umask(before)
        modes = {f.name: stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()}
        assert set(modes.values()) == {expected}, modes
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(modes)


def test_files_that_somebody_closed_stay_closed(tmp_path: Path) -> None:
    """Only what is readable by its owner alone, and writable by him, is taken for safetensors' doing."""
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o400)
    share_files(tmp_path)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o400


@given(st.text(max_size=40))
def test_any_text_survives_our_tokenizer(tokenizer: Any, text: str) -> None:
    """Byte-level: whatever Unicode holds, also what was never seen; one leading space is its own."""
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert tokenizer.decode(ids).removeprefix(" ") == text.removeprefix(" ")
    assert all(0 <= i < len(tokenizer) for i in ids)


def test_our_tokenizer_is_the_same_after_saving(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|> hello there, é 🙂 \u2028 unseen<|end|>"
    assert loaded.encode(text, add_special_tokens=False) == tokenizer.encode(text, add_special_tokens=False)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    for name in ("chat_template", "eos_token", "pad_token", "all_special_tokens", "model_max_length"):
        assert getattr(loaded, name) == getattr(tokenizer, name), name
    talk = [{"role": "user", "content": "hello"}]
    text = loaded.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>hello<|end|><|assistant|>"


def test_words_are_the_same_token_wherever_they_stand(tokenizer: Any) -> None:
    """ "friend" opens a message with the token that it has inside one."""
    inside = tokenizer.encode("my friend", add_special_tokens=False)
    assert tokenizer.encode("friend", add_special_tokens=False) == inside[-1:]


def test_a_vocabulary_must_hold_the_bytes_and_the_roles() -> None:
    """256 bytes and 6 special tokens are 262; that many do, with no merges at all."""
    assert len(train_tokenizer(["hello hello"], 262, CONTEXT)) == 262
    with pytest.raises(InputError, match="vocab is 261; expected at least 262"):
        train_tokenizer(["hello"], 261, CONTEXT)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    """Rotary positions turn pairs of numbers: each head needs an even width."""
    with pytest.raises(InputError, match="width is 18; expected a multiple of 8, twice the number of heads"):
        llama(VOCAB, width=18, layers=1, heads=4, context=8, eos=0, pad=1)


def test_our_model_has_the_size_that_arithmetic_gives() -> None:
    """Width 16, 2 layers: embeddings 300 * 16 (shared with the output); per layer 4 * 16 * 16 of attention,
    3 * 16 * 48 of the gated layer (8/3 * 16 = 43 rounded up to 48), 2 * 16 of norms; a last norm of 16."""
    assert parameter_count(build("llama")) == 300 * 16 + 2 * (4 * 256 + 3 * 16 * 48 + 32) + 16


def broken(folder: Path, kind: str, tokenizer: Any) -> Path:
    if kind == "a file":
        folder.write_text("x")
        return folder
    save_lm(folder, build("llama"), tokenizer)
    weights = folder / "model.safetensors"
    if kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "no weights":
        weights.unlink()
    elif kind == "half the weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif kind == "a layer missing":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    elif kind == "no model in the config":
        (folder / "config.json").write_text("{}")
    elif kind == "half a config":
        (folder / "config.json").write_text('{"model_type": "lla')
    elif kind == "another kind of model":
        (folder / "config.json").write_text('{"model_type": "t5"}')
    elif kind == "no tokenizer":
        for file in folder.glob("token*"):
            file.unlink()
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("a file", "expected a folder with a saved model"),
        ("no config", "config.json is missing"),
        ("no weights", "no weights"),
        ("half the weights", "not a causal language model that can be loaded"),
        ("a layer missing", "9 weights are missing, model.layers.2"),
        ("no model in the config", "not a causal language model that can be loaded"),
        ("half a config", "not a causal language model that can be loaded"),
        ("another kind of model", "not a causal language model that can be loaded"),
        ("no tokenizer", "not a causal language model that can be loaded"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(
    kind: str, message: str, tokenizer: Any, tmp_path: Path
) -> None:
    folder = broken(tmp_path / "m", kind, tokenizer)
    with pytest.raises(InputError, match=message) as caught:
        load_lm(str(folder))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["half the weights", "a layer missing"])
def test_a_trunk_that_is_none_is_refused(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a trunk that can be loaded"):
        load_trunk(broken(tmp_path / "m", kind, tokenizer))


def test_half_precision_on_disk_is_single_precision_in_training(tokenizer: Any, tmp_path: Path) -> None:
    """Most published models are stored in bfloat16; value heads are float32, and so are all the updates."""
    stored = build("llama").to(torch.bfloat16)
    save_lm(tmp_path, stored, tokenizer)
    model = load_lm(str(tmp_path))[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert_close(list(model.parameters()), [nn.Parameter(p.float()) for p in stored.parameters()])
    critic = TokenCritic(load_trunk(tmp_path), 16, VOCAB, initial=0.5)
    one = torch.tensor([[1]])
    found = critic(torch.tensor([[1, 2, 3]]), torch.tensor([[0, 2]]), one, one.bool())
    assert_close(found.v, torch.full((1, 2), 0.5))


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_alone_learn_and_fold_back(family: str, tokenizer: Any, tmp_path: Path) -> None:
    """Fresh adapters change nothing; one step moves them and no weight of the model; folded in, the plain
    model says what the adapted one said, and anybody can load it."""
    plain, ids = build(family), torch.randint(VOCAB, (2, 5))
    frozen = {name: p.clone() for name, p in plain.named_parameters()}
    with torch.no_grad():
        expected = trunk_of(plain)(input_ids=ids).last_hidden_state
    adapted = with_lora(plain, rank=2)
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    trunk = trunk_of(adapted)
    out = trunk(input_ids=ids, use_cache=False).last_hidden_state
    assert_close(out, expected)
    out[..., 0].square().sum().backward()
    with torch.no_grad():
        for p in adapted.parameters():
            if p.requires_grad:
                p -= 0.1 * p.grad + 0.05
    now = {
        n.replace("base_model.model.", "").replace(".base_layer", ""): p
        for n, p in adapted.named_parameters()
    }
    assert all(torch.equal(now[name], p) for name, p in frozen.items())
    with torch.no_grad():
        moved = trunk(input_ids=ids, use_cache=False).last_hidden_state
        assert (moved - expected).abs().max() > 1e-3
        folded = merged(adapted)
        assert_close(trunk_of(folded)(input_ids=ids).last_hidden_state, moved, rtol=1e-4, atol=1e-5)
    save_lm(tmp_path, folded, tokenizer)
    loaded = load_lm(str(tmp_path))[0].eval()
    with torch.no_grad():
        assert_close(loaded(input_ids=ids).logits, folded(input_ids=ids).logits)
    assert merged(loaded) is loaded


CHANGED = {
    "gemma2": {"final_logit_softcapping": 0.5},
    "gemma3_text": {"final_logit_softcapping": 0.5},
    "gemma4_text": {"final_logit_softcapping": 0.5, "hidden_size_per_layer_input": 0},
    "vaultgemma": {"final_logit_softcapping": 0.5},
    "nanochat": {"final_logit_softcapping": 0.5},
    "recurrent_gemma": {"logits_soft_cap": 0.5},
    "xlstm": {"output_logit_soft_cap": 0.5, "num_heads": 2},
    "cohere": {"logit_scale": 0.0625},
    "cohere2": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 8.0},
    "granitemoe": {"logits_scaling": 8.0},
    "hyperclovax": {"logits_scaling": 0.25},
    "falcon_h1": {
        "lm_head_multiplier": 0.3, "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
}  # fmt: skip
"""families whose logits are not what the output layer gives, and how"""
UNCHANGED = ("phi3", "qwen3", "olmo2", "mistral", "glm4", "opt", "bloom", "gpt_neox", "stablelm", "smollm3")


def tiny(kind: str, **settings: Any) -> Any:
    """A model of a family that is known by name, with weights that make its logits large."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": 48,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "max_position_embeddings": 32,
            "pad_token_id": 0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            **({"ffn_dim": 32, "word_embed_proj_dim": 8} if kind == "opt" else {}),
            **settings,
        },
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_(0, 0.3)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*CHANGED, *UNCHANGED])
def test_logits_have_the_scale_and_the_cap_of_their_family(kind: str) -> None:
    """Trunk and head give what the whole model gives; the output layer alone only where none is changed."""
    model, ids = tiny(kind, **CHANGED.get(kind, {})), torch.arange(6).unsqueeze(0)
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        features = trunk_of(model)(input_ids=ids, use_cache=False).last_hidden_state
        assert_close(lm_head_of(model)(features), whole)
        plain = model.get_output_embeddings()(features)
        assert ((plain - whole).abs().max() > 1) == (kind in CHANGED)
        batch = pack_tokens([row_of([0, 1, 2], [3, 4, 5])], gamma=1.0)
        scored = score_replies(model, batch).logp[0]
        assert_close(scored, whole.log_softmax(-1)[0, [2, 3, 4], [3, 4, 5]])
    expect_known_head(model, "here")


def row_of(read: list[int], said: list[int]) -> Tokens:
    writer = TokenWriter()
    writer.read(read)
    writer.act(said, 0.0, None)
    return writer.tokens(terminated=True, next_known=True, id="")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["modernbert-decoder", "llama4_text"])
def test_a_model_whose_logits_come_about_otherwise_is_refused(kind: str) -> None:
    """One has a layer more behind its trunk, the other no trunk where others have it."""
    with pytest.raises(InputError, match=f"here: {kind} (changes its output layer's logits|is not a trunk)"):
        expect_known_head(tiny(kind), "here")


def test_a_tokenizer_larger_than_the_embedding_makes_it_grow(tokenizer: Any, tmp_path: Path) -> None:
    """Three tokens were added to the tokenizer and not to the model: their rows are the mean of the others,
    the same at each loading, and a batch that holds them is scored."""
    larger, model = copy.deepcopy(tokenizer), build("llama")
    larger.add_tokens(["<a>", "<b>", "<c>"])
    n = len(tokenizer)
    model.resize_token_embeddings(n)
    save_lm(tmp_path, model, larger)
    with pytest.warns(UserWarning, match=f"its tokenizer has {n + 3} tokens and its embedding {n}"):
        loaded = load_lm(str(tmp_path))[0]
    assert loaded.config.vocab_size == n + 3
    weights = loaded.get_input_embeddings().weight
    assert torch.equal(weights[:n], model.get_input_embeddings().weight)
    assert_close(weights[n:], weights[:n].mean(0).expand(3, -1))
    batch = pack_tokens([row_of([1, 2], [n + 2, 0])], gamma=1.0)
    assert torch.isfinite(score_replies(loaded, batch).logp).all()


def test_a_tokenizer_of_nothing_is_refused(tmp_path: Path) -> None:
    """Of a GPT-2 without its tokenizer's files `transformers` makes one that knows no word."""
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=16, n_embd=8, n_layer=1, n_head=1)).save_pretrained(
        tmp_path
    )
    with pytest.raises(InputError, match="its tokenizer turns every text into nothing"):
        load_lm(str(tmp_path))
