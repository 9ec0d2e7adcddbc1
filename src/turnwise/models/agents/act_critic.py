"""A policy of acts, and values of acts beside it: each reads the talk with a memory of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.envs.protocol import Discrete
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import Spaces, memory_of
from turnwise.models.decisions import at_decisions
from turnwise.models.memory.base import Memory
from turnwise.models.room import expect_room
from turnwise.models.value_head import ValueHead


class ActClone(nn.Module):
    """Logits of the acts from what was said so far."""

    def __init__(self, memory: Memory, acts: int):
        super().__init__()
        self.memory, self.head = memory, nn.Linear(memory.width, acts)
        nn.init.zeros_(self.head.weight)  # all acts alike at first
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Float[Tensor, "B A1 V"]:
        """Logits at the decisions of rows, the final state included."""
        return self.head(at_decisions(self.memory.unroll(batch.inputs, batch.state0), batch.decisions))


class ActValues(NamedTuple):
    """At the decisions of rows, the final state included: `logits` [B, A+1, V] of the policy, `q`
    [E, B, A+1, V] of every act and `v` [B, A+1] of the state."""

    logits: Tensor
    q: Tensor
    v: Tensor


class ActCritic(nn.Module):
    """A policy, E heads Q(h, .) on another memory, and perhaps V(h) on a third one.

    The policy learns what the logged agent did and the values what it was worth. In one memory the one would
    take features from the other, and the policy would have to be as good with a critic as without. Q learns
    from V, and V from the better part of Q: in one memory, what is common to all states rises with each round
    of the two, and long talks whose turns cost little had values above all that can be earned.
    """

    def __init__(
        self,
        policy: ActClone,
        memory: Memory,
        acts: int,
        *,
        ensemble: int,
        v: Memory | None,
        initial: float = 0.0,
    ):
        super().__init__()
        self.policy, self.memory, self.v_memory = policy, memory, v
        self.q = nn.ModuleList(ValueHead(memory.width, acts, initial) for _ in range(ensemble))
        self.v = None if v is None else ValueHead(v.width, 1, initial)

    def forward(self, batch: Batch) -> ActValues:
        """Policy, Q and V. Without a head, V is the worth of the best act, by the least of its E values."""
        q = self.q_of(batch)
        if self.v is None or self.v_memory is None:
            return ActValues(self.policy(batch), q, q.amin(0).amax(-1))
        h = at_decisions(self.v_memory.unroll(batch.inputs, batch.state0), batch.decisions)
        return ActValues(self.policy(batch), q, self.v(h).squeeze(-1))

    def q_of(self, batch: Batch) -> Float[Tensor, "E B A1 V"]:
        """Q alone."""
        h = at_decisions(self.memory.unroll(batch.inputs, batch.state0), batch.decisions)
        return torch.stack([head(h) for head in self.q])

    def scale_(self, factor: float) -> None:
        """Multiply all values by `factor`: from one unit of the return to another."""
        heads: list[Any] = [*self.q, *([] if self.v is None else [self.v])]
        for head in heads:
            head.scale_(factor)


class ActQ(nn.Module):
    """Q(h, .) alone: what each act is worth after what was said so far.

    A clock beside the memory tells it how many decisions were taken before. Where talks are ended after so
    many turns, what an act is worth changes from turn to turn, and a memory is slow to learn to count.
    """

    def __init__(self, memory: Memory, acts: int, *, turns: int, initial: float = 0.0):
        super().__init__()
        self.memory, self.head = memory, ValueHead(memory.width, acts, initial)
        self.clock = nn.Embedding(turns, memory.width)
        nn.init.zeros_(self.clock.weight)  # all turns alike at first

    def forward(self, batch: Batch) -> Float[Tensor, "B A1 V"]:
        """Q at the decisions of rows that are whole talks, the final state included."""
        h = at_decisions(self.memory.unroll(batch.inputs, batch.state0), batch.decisions)
        turn = torch.arange(h.shape[1], device=h.device).clamp(max=self.clock.num_embeddings - 1)
        # Behind the end the final state stands again, and nothing reads it.
        return self.head(h + self.clock(turn))


def act_q_of(memory: MemorySpec, seen: int, acts: int, *, turns: int, initial: float = 0.0) -> ActQ:
    """Fresh weights; values begin at `initial`, and decisions from the one numbered `turns` - 1 on are alike.

    InputError if the machine has no room for them.
    """
    spaces = Spaces(Discrete(seen), Discrete(acts), None)

    def build() -> ActQ:
        return ActQ(memory_of(memory, spaces), acts, turns=turns, initial=initial)

    expect_room("a network of these sizes", build)
    return build()


class ActNetwork(NamedTuple):
    """What it takes to build a network of acts again."""

    memory: MemorySpec
    seen: int
    """symbols that may be seen: answers and openings"""
    acts: int
    ensemble: int
    """heads of Q; 0 is a policy alone"""
    v: bool
    """whether V has a head"""

    def build(self, initial: float = 0.0) -> ActClone | ActCritic:
        """Fresh weights; values begin at `initial`. InputError if the machine has no room for them."""
        expect_room("networks of these sizes", lambda: self._build(initial))
        return self._build(initial)

    def _build(self, initial: float) -> ActClone | ActCritic:
        spaces = Spaces(Discrete(self.seen), Discrete(self.acts), None)
        policy = ActClone(memory_of(self.memory, spaces), self.acts)
        if not self.ensemble:
            return policy
        memory = memory_of(self.memory, spaces)
        v = memory_of(self.memory, spaces) if self.v else None
        return ActCritic(policy, memory, self.acts, ensemble=self.ensemble, v=v, initial=initial)
