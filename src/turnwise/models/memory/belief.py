"""Bayes' filter as a memory: all that a history can tell, for a problem that is known."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from turnwise.data.steps import StepInputs
from turnwise.envs.pomdp import POMDP
from turnwise.models.memory.base import Memory


class BeliefMemory(Memory):
    """Features and state are the exact belief, D = K = S; nothing is learnt.

        b'(s') = O(o|a,s') sum_s T(s'|s,a) b(s) / P(o|b,a)

    Kaelbling, Littman & Cassandra 1998, section 3.3, with T the transitions after which the episode goes on,
    as in `exact.beliefs`. What cannot be seen (the last observation of an episode that ended, padding)
    teaches nothing: the belief is the predicted one there, or the one before where no episode can go on. From
    zeros and without a start flag, beliefs stay zeros.
    """

    def __init__(
        self,
        transitions: Float[Tensor, "A S S"],
        emissions: Float[Tensor, "A S O"],
        start: Float[Tensor, " S"],
        initial: Float[Tensor, "S O"] | None = None,
    ):
        """`transitions`: P(s', it goes on | s, a). Without `initial` a start's observation is ignored."""
        super().__init__()
        A, S, O = emissions.shape
        self.width = self.state_size = S
        self.symbols, self.actions = O, A
        shown = torch.ones(S, O).to(start) if initial is None else initial
        self.transitions: Tensor
        self.seen: Tensor
        self.first: Tensor
        constant = {"persistent": False}
        self.register_buffer("transitions", transitions.transpose(0, 1).reshape(S, A * S), **constant)
        self.register_buffer("seen", emissions.transpose(1, 2).contiguous(), **constant)
        self.register_buffer("first", start * shown.T, **constant)

    @staticmethod
    def of(problem: POMDP, dtype: torch.dtype = torch.float32) -> BeliefMemory:
        """The memory of a problem that is written out; it is made dense, A S^2 numbers."""
        S, A, O = problem.shape
        tables = (
            problem.continuing().dense().reshape(A, S, S),
            problem.emissions.dense().reshape(A, S, O),
            problem.start.copy(),
            None if problem.initial is None else problem.initial.dense(),
        )
        t, e, start, initial = (None if x is None else torch.as_tensor(x, dtype=dtype) for x in tables)
        assert t is not None and e is not None and start is not None
        return BeliefMemory(t, e, start, initial)

    def initial_state(self, lanes: int) -> Float[Tensor, "N K"]:
        """Zeros, like the tables."""
        return self.first.new_zeros(lanes, self.state_size)

    def unroll(
        self, inputs: StepInputs, state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Beliefs at every position, one after the other."""
        rows, length = inputs.start.shape
        belief = self.initial_state(rows) if state0 is None else state0
        found = []
        for t in range(length):
            belief, _ = self.step(StepInputs(*(x[:, t] for x in inputs)), belief)
            found.append(belief)
        return torch.stack(found, 1)

    def step(
        self, inputs: StepInputs, state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """Predicted with the previous action, corrected with the observation."""
        lanes = torch.arange(len(state), device=state.device)
        symbol = inputs.observation.clamp(
            max=self.symbols - 1
        )  # at a start `symbols` stands for nothing seen
        action = inputs.previous_action
        predicted = (state @ self.transitions).unflatten(1, (self.actions, -1))[lanes, action]
        corrected = predicted * self.seen[action, symbol]
        belief = _distribution(corrected, _distribution(predicted, state))
        first = _distribution(self.first[symbol], self.first.sum(0).expand_as(state))
        belief = torch.where(inputs.start.unsqueeze(-1), first, belief)
        return belief, belief


def _distribution(mass: Tensor, otherwise: Tensor) -> Tensor:
    """Rows that sum to 1; where there is nothing to sum, the row of `otherwise`."""
    total = mass.sum(-1, keepdim=True)
    return torch.where(total > 0, mass / total.where(total > 0, 1.0), otherwise)
