"""Two layers from features to values, which begin as a constant; and values of tokens from few numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from turnwise.models.chunks import one_and_soft_max


class ValueHead(nn.Module):
    """Two layers, D -> 2D -> `outputs`; starts as the constant `initial` (in the units of the return).

    A zero last layer with a plausible bias spares the first updates the work of unlearning noise
    (LMRL-Gym, Abdulhai et al. 2023, arXiv:2311.18232, starts its heads this way).
    """

    def __init__(self, width: int, outputs: int, initial: float = 0.0):
        super().__init__()
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, initial)

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """All outputs."""
        return self.out(torch.relu(self.hidden(features)))

    def of(self, features: Float[Tensor, "*N D"], index: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """One output per feature: the V-wide product is never formed."""
        hidden = torch.relu(self.hidden(features))
        return (hidden * self.out.weight[index]).sum(-1) + self.out.bias[index]

    def of_and_soft_max(
        self, features: Float[Tensor, "n D"], index: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """One output per feature; and log sum exp over all of them. Outputs never exist all at once."""
        hidden = torch.relu(self.hidden(features))
        return one_and_soft_max(hidden, index, self.out.weight, self.out.bias)

    def scale_(self, factor: float) -> None:
        """Multiply what it says by `factor`: from one unit of the return to another."""
        with torch.no_grad():
            self.out.weight.mul_(factor)
            self.out.bias.mul_(factor)


class LowRankHead(nn.Module):
    """A value of each of V tokens from few numbers: which tokens are alike, their embeddings say.

        Q(s, a) = b(s) + u(s) . P (W_a - mean W) + c_a       (b, u): two layers, D -> 2D -> 1 + rank

    with W [V, D'] the embeddings of the tokens, which do not learn, and P [rank, D'] and c [V] that do. What
    is a function of the state alone, b, is not bounded in any way; how tokens differ at a state is, to `rank`
    directions beside a constant of each token. Nothing is left out or sampled: these are the values of all V
    tokens. A full head has 2D V weights (57 million at 576 features and 49,152 tokens), this one about 2 D^2,
    and a product with all tokens costs `rank` numbers each where that of a full head costs 2D.
    """

    tokens: Tensor
    middle: Tensor

    def __init__(self, width: int, tokens: Float[Tensor, "V D2"], rank: int, initial: float = 0.0):
        super().__init__()
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, 1 + rank)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.constant_(self.out.bias[:1], initial)
        # The policy's own table, which is neither learnt nor saved again.
        self.register_buffer("tokens", tokens.detach(), persistent=False)
        self.directions = nn.Linear(tokens.shape[1], rank, bias=False)
        self.bias = nn.Parameter(torch.zeros(len(tokens)))
        wide = torch.promote_types(tokens.dtype, torch.float32)
        few = self.tokens[: 2**13].to(wide)
        middle = few.mean(0)
        # Vectors P (W_a - mean W) of length 1 on average, in directions drawn at random, which keep all
        # distances alike; they learn from there.
        size = float((few - middle).norm(dim=-1).mean()) or 1.0
        nn.init.normal_(self.directions.weight, std=1 / (rank**0.5 * size))
        self.register_buffer("middle", self.tokens.to(wide).mean(0), persistent=False)
        self._kept: tuple[object, Tensor] | None = None

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """All tokens."""
        level, along = self._level_and_along(features)
        return level.unsqueeze(-1) + along @ self._vectors().T + self.bias

    def of(self, features: Float[Tensor, "*N D"], index: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """One token per feature: nothing as wide as the vocabulary is formed."""
        level, along = self._level_and_along(features)
        return level + (along * self._project(self.tokens[index])).sum(-1) + self.bias[index]

    def of_and_soft_max(
        self, features: Float[Tensor, "n D"], index: Int[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """One token per feature; and log sum exp over all of them, which never exist all at once."""
        level, along = self._level_and_along(features)
        one, soft_max = one_and_soft_max(along, index, self._vectors(), self.bias)
        return level + one, level + soft_max  # the level is that of all tokens

    def scale_(self, factor: float) -> None:
        """Multiply what it says by `factor`: from one unit of the return to another."""
        with torch.no_grad():
            for x in (self.out.weight, self.out.bias, self.bias):
                x.mul_(factor)

    def _level_and_along(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """b(s) [*N] and u(s) [*N, rank]."""
        out = self.out(torch.relu(self.hidden(features)))
        return out[..., 0], out[..., 1:]

    def _project(self, tokens: Tensor) -> Tensor:
        kind = self.directions.weight.dtype
        return self.directions(tokens.to(kind)) - self.directions(self.middle.to(kind))

    def _vectors(self) -> Float[Tensor, "V R"]:
        """P (W_a - mean W) of all tokens; kept while nothing learns, as agents ask for them at each token."""
        learning = torch.is_grad_enabled() and self.directions.weight.requires_grad
        if learning:
            return self._project(self.tokens)
        weight = self.directions.weight
        now = (weight._version, weight.device, weight.dtype, id(weight))
        if self._kept is None or self._kept[0] != now:
            self._kept = (now, self._project(self.tokens).detach())
        return self._kept[1]
