"""What takes less memory changes nothing that is learnt: rows in parts, layers formed again, rows packed.

The loss of a step and its gradient by every weight, each saving alone and all together, against one pass over
all rows at once. `tests/models/lm/test_chunks.py` says the same of logits in chunks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.algorithms.feedback import dpo, reward
from turnwise.algorithms.logs import bc, ilql, mc, turn_iql
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.data.comparisons import Comparison
from turnwise.data.feedback import Pair
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.critics import TokenCritic, TurnCritic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.learning.packing import pack_rows_
from turnwise.models.lm.learning.recompute import recompute_layers_
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import Scorer, Spread
from turnwise.models.lm.reward_model import RewardModel
from turnwise.models.target import slow_copy
from turnwise.run.distributed import World
from turnwise.run.passes import Passes

VOCAB = 13
SAVINGS = {
    "parts": {"rows": 2},
    "again": {"again": True},
    "packed": {"packed": True},
    "all": {"rows": 2, "again": True, "packed": True},
}
LOGS: dict[str, Any] = {"bc": bc, "bc adapted": bc, "mc": mc, "ilql": ilql, "turn_iql": turn_iql}


def rows_of(n: int) -> list[Tokens]:
    """Conversations of different lengths."""
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        writer = TokenWriter()
        for _ in range(1 + i % 3):
            writer.read(rng.integers(2, VOCAB, 2 + i).tolist())
            writer.act([*rng.integers(2, VOCAB, 1 + i % 2).tolist(), 1], float(rng.normal()), None)
        rows.append(writer.tokens(terminated=True, next_known=True, id=str(i)))
    return rows


def pairs_of(n: int) -> list[Comparison]:
    """Two replies of different lengths to each of `n` prompts."""
    rng, found = np.random.default_rng(1), []
    for i in range(n):
        prompt, rows = rng.integers(2, VOCAB, 2 + i).tolist(), []
        for length in (1 + i % 3, 2):
            writer = TokenWriter()
            writer.read(prompt)
            writer.act([*rng.integers(2, VOCAB, length).tolist(), 1], 0.0, None)
            rows.append(writer.tokens(terminated=True, next_known=True, id=f"{i}"))
        found.append(Comparison(Pair((), "", ""), (rows[0], rows[1])))
    return found


def moved_(module: torch.nn.Module) -> Any:
    """The module with all that learns away from where it began (a fresh head, or adapter, is a constant)."""
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_((0.1 * torch.randn(p.shape, generator=noise, dtype=torch.float64)).to(p.dtype))
    return module


def taken(name: str, dtype: torch.dtype, rows: int | None, again: bool, packed: bool) -> list[Tensor]:
    """The loss of a step, and the gradient by each weight that learns."""
    torch.manual_seed(0)
    lm: Any = llama(VOCAB, width=8, layers=3, heads=2, context=64, eos=1, pad=0)
    lm = (with_lora(lm, 2) if name == "bc adapted" else lm).to(dtype)
    trunk = trunk_of(lm)
    if packed:
        pack_rows_(trunk)
    if again:
        recompute_layers_(trunk)
    module, part_loss, items = (of_logs if name in LOGS else of_pairs)(name, lm, trunk, dtype)
    parts = Passes(rows=rows).parts(items, 64, World())
    assert len(parts) == (1 if rows is None else 3)
    total = torch.zeros((), dtype=dtype)
    for part in parts:
        share = part_loss(part)
        share.backward()
        total += share.detach()
    learning = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    return [total, *(p.grad for p in learning)]  # type: ignore[misc]


def of_logs(name: str, lm: Any, trunk: Any, dtype: torch.dtype) -> tuple[Any, Callable[..., Tensor], Any]:
    """What learns from conversations, the loss of some of them, and all of them."""
    module: Any = bc.Objective(LmPolicy(lm))
    if name == "turn_iql":
        module = TurnCritic(trunk, 8)
    elif LOGS[name] is not bc:
        module = TokenCritic(trunk, 8, VOCAB)
    module = moved_(module.to(dtype))
    target = slow_copy(module)
    pack = pack_turns if name == "turn_iql" else pack_tokens

    def loss(part: Sequence[Tokens]) -> Tensor:
        batch = pack(part, gamma=0.9, dtype=dtype)
        if LOGS[name] is bc:
            weight = 0.0 if name == "bc adapted" else 0.3
            return bc.loss(module, batch, 7.0, bc.Config(partner_weight=weight))[0]
        if name == "mc":
            return mc.loss(module, batch, 7.0, mc.Config())[0]
        return LOGS[name].loss(module, target, batch, 7.0, LOGS[name].Config(), 0.5)[0]

    return module, loss, rows_of(5)


def of_pairs(name: str, lm: Any, trunk: Any, dtype: torch.dtype) -> tuple[Any, Callable[..., Tensor], Any]:
    """The same from pairs; a loss is a mean, so a part counts by its share of them."""
    items = pairs_of(5)
    if name == "reward":
        module = moved_(RewardModel(trunk, 8).to(dtype))
        return module, lambda part: reward.loss(module, part, reward.Config())[0] * len(part) / 5, items
    before = Reference(copy.deepcopy(lm))
    policy = LmPolicy(moved_(lm))
    # Both replies read their prompt by themselves, as they do if layers are formed again. A prompt that is
    # read once differs in the last bit, of which the norms of transformers (in float32 always) make 1e-8.
    spread = Spread(policy, Scorer(policy, apart=True))
    return policy, lambda part: dpo.loss(spread, before, part, dpo.Config())[0] * len(part) / 5, items


@pytest.mark.parametrize("saving", SAVINGS)
@pytest.mark.parametrize("name", [*LOGS, "dpo", "reward"])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_loss_and_gradients_stay_as_they_were(
    name: str, saving: str, dtype: torch.dtype, close: float
) -> None:
    """To 1e-10 in float64; in float32 to 1e-6 of the largest number among them, or of 1."""
    nothing: dict[str, Any] = {"rows": None, "again": False, "packed": False}
    wanted = taken(name, dtype, **nothing)
    found = taken(name, dtype, **nothing | SAVINGS[saving])
    largest = max(float(x.abs().max()) for x in wanted)
    assert largest > 1e-3
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=0.0, atol=close * max(1.0, largest))
