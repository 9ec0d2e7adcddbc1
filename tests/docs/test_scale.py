"""Sizes and costs by arithmetic: known models, what autograd keeps, and the tables that the page shows."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from turnwise.models.lm.learning.saved import saved_by
from turnwise.models.lm.lora import with_lora

ROOT = Path(__file__).parents[2]
scale = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "scale.py")))
M = {m.name: m for m in scale.MODELS}


@pytest.mark.parametrize(
    ("name", "weights"),
    [("135M", 134_515_008), ("1B", 1_235_814_400), ("8B", 8_030_261_248), ("70B", 70_553_706_496)],
)
def test_weights_are_those_that_the_models_have(name: str, weights: int) -> None:
    """As their makers count them."""
    assert M[name].weights == weights


@pytest.mark.parametrize(("layers", "width", "heads", "kv", "mlp"), [(2, 64, 4, 2, 128), (3, 96, 4, 4, 384)])
def test_counts_of_a_small_model(layers: int, width: int, heads: int, kv: int, mlp: int) -> None:
    """Weights and adapters exactly; what a backward needs of a position to a tenth."""
    shape = scale.Shape("small", layers, width, heads, kv, mlp, 300, True)
    size = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": mlp, "vocab_size": 300}
    size |= {"num_attention_heads": heads, "num_key_value_heads": kv}
    lm = LlamaForCausalLM(LlamaConfig(**size, tie_word_embeddings=True))
    assert sum(p.numel() for p in lm.parameters()) == shape.weights
    assert saved_by(lm.model).per_position == pytest.approx(layers * scale.kept(shape, 4), rel=0.1)
    adapted = with_lora(lm, 8)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == shape.adapters(8)


def test_operations_are_those_that_pytorch_counts() -> None:
    """Of a forward over 64 positions, whose attention here is of all pairs, where half of them count."""
    shape = scale.Shape("small", 2, 64, 4, 2, 128, 300, True)
    config = LlamaConfig(
        vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=128, tie_word_embeddings=True, attn_implementation="eager",
    )  # fmt: skip
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        LlamaForCausalLM(config)(input_ids=torch.zeros(1, 64, dtype=torch.long), use_cache=False)
    norms = 64 * (2 * 2 * 64 + 64)  # weights of norms are multiplied one by one, which PyTorch does not count
    ours = 64 * (scale.forward(shape, 64) + 4 * 2 * 64 * 64 / 2)
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert norms < 0.01 * ours


def test_by_hand() -> None:
    """A model of 8.03 G weights on one machine of eight."""
    m = M["8B"]
    assert scale.state(m, scale.FULL) == pytest.approx(128.5e9, rel=1e-3)  # 16 bytes each
    assert scale.cache(m) == 2 * 32 * 1024 * 2  # keys and values, layers, features, bytes
    assert scale.ddp_seconds(m, scale.FULL, 8) == pytest.approx(2 * 7 / 8 * 32.12e9 / 450e9, rel=1e-3)
    assert scale.fsdp_seconds(m, scale.HALF, 64) == pytest.approx(3 * 63 / 64 * 16.06e9 / 50e9, rel=1e-3)
    assert scale.ddp_seconds(m, scale.FULL, 1) == scale.fsdp_seconds(m, scale.FULL, 1) == 0
    # One lane: reading 16.06 GB of weights and 512 positions of cache at 60% of 3.35 TB/s.
    assert scale.decoding(m, 1, 1) == pytest.approx(0.6 * 3.35e12 / (16.06e9 + 512 * 131_072), rel=1e-3)
    assert scale.fits(m, scale.LORA, 1) and not scale.fits(m, scale.FULL, 1) and scale.fits(m, scale.FULL, 2)


def test_the_page_shows_what_the_arithmetic_says() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for table in (scale.sizes(), scale.places(), scale.dpo(), scale.rloo()):
        assert scale.markdown(table) in page
