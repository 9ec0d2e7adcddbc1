"""Rows read one after another without padding: features, losses and gradients are those of padded rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig, Qwen3Config

import turnwise as tw
from turnwise.algorithms.logs import bc
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.learning.packing import ROWS, pack_rows_
from turnwise.models.lm.learning.recompute import recompute_layers_
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.pretrained import save_lm
from turnwise.run.errors import SettingError

ROW = ("7 3|1 2 9", "7|4", "5 3|4 9 8 1|2 2|3 1 6 6", "7 3|1 2 8")


def model(kind: str, dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return llama(23, width=8, layers=3, heads=2, context=64, eos=1, pad=0).to(dtype)
    sizes: dict[str, Any] = {"vocab_size": 23, "hidden_size": 8, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 16, "head_dim": 4}
    config = {
        "grouped": lambda: Qwen3Config(**sizes),
        "positions": lambda: GPT2Config(vocab_size=23, n_embd=8, n_layer=2, n_head=2, n_positions=64),
        "window": lambda: MistralConfig(**sizes, sliding_window=3),
    }[kind]()
    return AutoModelForCausalLM.from_config(config).to(dtype).eval()


def taken(lm: Any, row: Any, what: str, dtype: torch.dtype) -> tuple[Any, ...]:
    """A loss and its gradients: of cloning, of predicting partners too, of critics."""
    rows = [row(x) for x in ROW]
    learning = [p for p in lm.parameters() if p.requires_grad]
    if what in ("cloning", "partners"):
        batch = pack_tokens(rows, gamma=1.0, dtype=dtype)
        objective = bc.Objective(LmPolicy(lm))
        loss, _ = bc.loss(objective, batch, 9.0, bc.Config(partner_weight=0.5 * (what == "partners")))
    elif what == "tokens":
        batch = pack_tokens(rows, gamma=1.0, dtype=dtype)
        assert batch.actions is not None
        critic = TokenCritic(trunk_of(lm), 8, 23).to(dtype)
        torch.nn.init.ones_(critic.v.out.weight)
        found = critic(batch.inputs, batch.decisions, batch.actions, batch.mask)
        loss = found.q.sum() + (found.v[:, :-1] * batch.mask).pow(2).sum()
    else:
        batch = pack_turns(rows, gamma=1.0, dtype=dtype)
        critic = TurnCritic(trunk_of(lm), 8).to(dtype)
        for head in (*critic.q, critic.v):
            torch.nn.init.ones_(head.out.weight)  # type: ignore[union-attr]
        values = critic(batch.inputs, batch.decisions, batch.ends)
        loss = (values.q[0] * batch.mask).sum() + values.v.pow(2).sum()
    return loss.detach(), *torch.autograd.grad(loss, learning, allow_unused=True)


def expect_alike(found: tuple[Any, ...], wanted: tuple[Any, ...], close: float) -> None:
    largest = max(float(x.abs().max()) for x in wanted if x is not None)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, rtol=0.0, atol=close * largest)


@pytest.mark.parametrize("kind", ["llama", "grouped", "positions"])
@pytest.mark.parametrize("what", ["cloning", "partners", "tokens", "turns"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_packed_rows_learn_what_padded_ones_do(
    row: Any, kind: str, what: str, dtype: torch.dtype, close: float
) -> None:
    lm = model(kind, dtype)
    torch.manual_seed(1)
    wanted = taken(lm, row, what, dtype)
    pack_rows_(trunk_of(lm))
    torch.manual_seed(1)
    expect_alike(taken(lm, row, what, dtype), wanted, close)


def test_no_padding_is_read_and_no_mask_made(row: Any) -> None:
    """5 + 2 + 12 + 5 ids in one row, less the last of the longest, from which nothing is decided."""
    lm = model("llama")
    pack_rows_(trunk_of(lm))
    seen: list[Any] = []
    hook = trunk_of(lm).register_forward_pre_hook(
        lambda m, a, k: seen.append((k["input_ids"].shape, m.config._attn_implementation)), with_kwargs=True
    )
    taken(lm, row, "cloning", torch.float64)
    hook.remove()
    assert seen == [((1, 5 + 2 + 11 + 5), ROWS)]
    assert trunk_of(lm).config._attn_implementation == "sdpa"


def test_layers_of_packed_rows_are_formed_again_as_they_were(row: Any) -> None:
    """With adapters, as is usual; gradients come back when the attention is another one again."""
    lm = with_lora(model("grouped"), 2).double()
    for name, p in lm.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p)
    wanted = taken(lm, row, "cloning", torch.float64)
    pack_rows_(trunk_of(lm))
    recompute_layers_(trunk_of(lm))
    expect_alike(taken(lm, row, "cloning", torch.float64), wanted, 1e-10)


def test_models_that_look_back_otherwise_are_refused() -> None:
    with pytest.raises(SettingError, match="pack_rows is True; expected False: a mistral model reads rows"):
        pack_rows_(trunk_of(model("window")))


def test_a_run_with_packed_rows_is_the_run_without(tmp_path: Path, tokenizers: dict[str, Any]) -> None:
    """By the door, from logs of lengths that differ."""
    torch.manual_seed(0)
    tokenizer = tokenizers["own"]
    lm = llama(len(tokenizer), width=8, layers=1, heads=2, context=64, eos=tokenizer.eos_token_id, pad=1)
    save_lm(tmp_path / "base", lm, tokenizer)
    logs = [
        {"messages": [{"role": "user", "content": "so " * n}, {"role": "assistant", "content": "yes " * n}]}
        for n in (1, 9, 2, 7, 3, 8, 1, 5)
    ]
    given: dict[str, Any] = {"model": str(tmp_path / "base"), "heldout": 0.25, "quiet": True}
    c = tw.BC(epochs=2.0, batch_size=3)
    runs = [tw.fit(c, logs, pack_rows=x, estimate=False, **given) for x in (False, True)]
    ours, theirs = (x.agent.lm.state_dict() for x in runs)
    for name in ours:
        assert_close(ours[name], theirs[name], rtol=0.0, atol=1e-4)
