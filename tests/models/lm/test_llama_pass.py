"""A Llama's pass in few calls: the modules' numbers, the weights of the moment, lanes that share memory."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.models.lm.lanes.attention import can_compile
from turnwise.models.lm.lanes.llama_pass import is_plain_llama
from turnwise.models.lm.lanes.memory import LaneMemory
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of

LANES, CONTEXT, VOCAB = 6, 160, 50
KINDS: dict[str, dict[str, Any]] = {
    "as many key heads": {"num_key_value_heads": 4},
    "two heads share keys": {"num_key_value_heads": 2},
    "wide heads": {"num_key_value_heads": 1, "head_dim": 24},
    "stretched positions": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    "positions by length": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        "max_position_embeddings": 64,
    },
}


def model(seed: int = 0, **options: Any) -> Any:
    """Weights so large that attention is far from even."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    places: dict[str, Any] = {
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
        "rms_norm_eps": 0.01,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, **(sizes | places | options))).eval()


class Reader:
    """Lets lanes of a memory read so many random ids, each from where it stands, or `afresh`."""

    def __init__(self, memory: LaneMemory):
        self.memory, self.rng, self.lengths = memory, np.random.default_rng(0), np.zeros(LANES, np.int64)

    @torch.inference_mode()
    def read(self, counts: list[int], afresh: Sequence[int] = ()) -> torch.Tensor:
        self.lengths[list(afresh)] = 0
        rows = np.flatnonzero(counts)
        ids = [self.rng.integers(VOCAB, size=counts[row]).tolist() for row in rows]
        features = self.memory.read(ids, rows, self.lengths[rows])
        self.lengths[rows] += np.array(counts)[rows]
        return features.double()

    @torch.inference_mode()
    def copy(self, source: int, lanes: list[int]) -> None:
        self.memory.copy_lane(source, lanes, int(self.lengths[source]))
        self.lengths[lanes] = self.lengths[source]


SCRIPT = ([3, 0, 90, 1, 2, 1], [1, 2, 1, 1, 0, 1], [1, 0, 1, 1, 1, 1], [0, 5, 0, 0, 7, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_the_modules(kind: str) -> None:
    """Within float32's rounding, features being of order 1 and the term inside the norms' roots .01."""
    trunk = trunk_of(model(**KINDS[kind]))
    memory = LaneMemory(trunk, LANES, CONTEXT)
    assert memory.llama is not None
    mine, modules = Reader(memory), Reader(LaneMemory(trunk, LANES, CONTEXT, may_compile=False))
    for counts in SCRIPT:
        np.testing.assert_allclose(mine.read(counts), modules.read(counts), rtol=0, atol=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_memory_goes_with_the_last_who_holds_it(compiled: bool) -> None:
    """It is in no ring, which Python would have to look for: what it holds is large."""
    gc.disable()
    try:
        memory = LaneMemory(trunk_of(model()), LANES, CONTEXT, may_compile=compiled)
        Reader(memory).read([3, 1, 0, 0, 2, 5])
        held = weakref.ref(memory)
        assert held() is memory
        del memory
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["in few calls", "by the modules"])
def test_copies_of_a_lane_read_on_as_if_they_had_read_it_all(kind: str) -> None:
    """They read the copied lane's memory where it stands, until that lane, or they, begin anew.

    Lane 0 is copied to 1 to 3, then 2 to 0 and 3 (as in reranking); then lane 2 is refilled, lane 4 copies 3,
    and what they came from is gone. Features stay those of memories that share nothing.
    """
    lm = model() if kind == "in few calls" else model().double()
    memory = LaneMemory(trunk_of(lm), LANES, CONTEXT)
    assert (memory.llama is not None) == (kind == "in few calls") and memory.kernel is not None
    readers = [Reader(m) for m in (memory, LaneMemory(trunk_of(lm), LANES, CONTEXT, may_compile=False))]

    def same(counts: list[int], afresh: Sequence[int] = ()) -> None:
        one, other = (r.read(counts, afresh) for r in readers)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 if kind == "in few calls" else 1e-10)

    def copied(source: int, lanes: list[int]) -> None:
        for r in readers:
            r.copy(source, lanes)

    same([70, 0, 0, 0, 5, 0])
    copied(0, [1, 2, 3])
    assert memory.shared.tolist() == [0, 70, 70, 70, 0, 0]
    same([1, 2, 3, 1, 1, 0])
    copied(2, [0, 3])
    assert memory.shared.tolist() == [73, 0, 0, 73, 0, 0]  # lane 1 had shared with lane 0
    same([1, 1, 1, 1, 1, 0])
    same([0, 0, 4, 0, 0, 0], [2])
    assert not memory.shared.any()
    copied(3, [4])
    same([1, 1, 1, 0, 1, 1])
    same([0, 0, 0, 0, 2, 0], [4])
    same([1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("fused", [False, True])
def test_weights_that_have_changed_are_read(fused: bool) -> None:
    """After a step of the optimizer, and after weights were loaded, features are those of a new memory."""
    lm = model()
    memory = LaneMemory(trunk_of(lm), LANES, CONTEXT)

    def features(m: LaneMemory) -> torch.Tensor:
        return Reader(m).read([4, 2, 0, 0, 3, 1])

    before = features(memory)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=0.1, fused=fused)
    lm(input_ids=torch.arange(9).unsqueeze(0)).logits.logsumexp(-1).sum().backward()
    optimizer.step()
    stepped = features(memory)
    assert (stepped - before).abs().max() > 0.1
    assert torch.equal(stepped, features(LaneMemory(trunk_of(lm), LANES, CONTEXT)))
    lm.load_state_dict(model().state_dict())
    assert torch.equal(features(memory), before)


def test_only_plain_llamas_are_read_so() -> None:
    """Adapters, biases, hooks, other activations and other precisions are left to their modules."""
    lm = model()
    assert is_plain_llama(trunk_of(lm))
    others = [
        trunk_of(with_lora(model(), 2)),
        trunk_of(model(attention_bias=True)),
        trunk_of(model(mlp_bias=True)),
        trunk_of(model(hidden_act="gelu")),
        trunk_of(model().double()),
        torch.nn.Linear(3, 3),
    ]
    assert not any(is_plain_llama(trunk) for trunk in others)
    hooked, replaced, shorter, normed = (trunk_of(model()) for _ in range(4))
    hooked.layers[0].mlp.register_forward_hook(lambda *_: None)
    replaced.layers[0].mlp.forward = lambda x: x
    shorter.config.num_hidden_layers = 1
    normed.norm = torch.nn.LayerNorm(32)
    assert not any(is_plain_llama(trunk) for trunk in (hooked, replaced, shorter, normed))


def test_without_numba_pytorch_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is installed and cannot be imported, as beside a NumPy that it does not know."""
    lm = model()
    expected = Reader(LaneMemory(trunk_of(lm), LANES, CONTEXT)).read(SCRIPT[0])
    monkeypatch.setitem(sys.modules, "numba", None)
    can_compile.cache_clear()
    memory = LaneMemory(trunk_of(lm), LANES, CONTEXT)
    can_compile.cache_clear()
    assert memory.kernel is None and memory.llama is None
    np.testing.assert_allclose(Reader(memory).read(SCRIPT[0]), expected, rtol=0, atol=1e-5)
