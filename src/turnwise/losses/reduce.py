"""Reductions with their denominators in sight."""

from jaxtyping import Bool, Float
from torch import Tensor


def sum_over_decisions(x: Float[Tensor, "*E B A"], mask: Bool[Tensor, "B A"]) -> Float[Tensor, ""]:
    """Sum of the counted entries; what is masked gets a gradient of exactly zero.

    The algorithm divides: by the decisions of an average batch of its data, a constant, or by those of the
    step's own sample. A mean per batch of data (or per process) would weigh a decision by how few neighbours
    it happens to have: where lengths go together with what was done, as in batches of like lengths, that is
    a bias and not noise. Of a sample it is a bias that falls with its size.
    """
    return x.masked_fill(~mask, 0.0).sum()
