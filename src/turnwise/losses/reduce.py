"""The reduction from [B, A] to one number. The algorithm divides, so that its denominator can be seen."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sum_over_decisions(x: Float[Tensor, "*E B A"], mask: Bool[Tensor, "B A"]) -> Float[Tensor, ""]:
    """Sum of x over the decisions where `mask` is True; the gradient elsewhere is exactly zero.

    Divide by a constant: the number of decisions in an average batch of the data. Do not divide by the
    decisions of the batch at hand. Batches hold conversations of similar length, so a per-batch mean gives
    decisions in short conversations more weight: a bias, not noise. (Replies that were sampled in a step may
    be divided by their own number of tokens: the same bias shrinks as more of them are sampled.)
    """
    # Not x * mask: 0 times infinity is no number, and padding may hold either.
    return x.masked_fill(~mask, 0.0).sum()


def sums_over_decisions(
    terms: Mapping[str, Float[Tensor, "B A"]], mask: Bool[Tensor, "B A"]
) -> dict[str, Tensor]:
    """What is logged of a step: the sum of each term without its gradient, and `decisions`, their number.

    Sums of several batches or processes can be added; the mean of each is then its sum by the decisions.
    """
    sums = {name: sum_over_decisions(x.detach(), mask) for name, x in terms.items()}
    return {**sums, "decisions": mask.sum()}


def sums_over_items(
    terms: Mapping[str, Float[Tensor, "P"]], weights: Float[Tensor, "P"] | None = None
) -> dict[str, Tensor]:
    """The same where one number belongs to each pair, ranking or reply: `decisions` is their number P.

    With `weights` both count each by its own.
    """
    first = next(iter(terms.values()))
    each = torch.ones_like(first) if weights is None else weights
    sums = {name: (x.detach() * each).sum() for name, x in terms.items()}
    return {**sums, "decisions": each.sum()}
