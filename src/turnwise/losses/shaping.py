"""Rewards that guide learning without changing which policy is best."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def potential_shaped(
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    potentials: Float[Tensor, "B A1"],
    mask: Bool[Tensor, "B A"],
) -> Float[Tensor, "B A"]:
    """Rewards plus the gain in a potential Phi, 0 where masked.

        r'_k = r_k + d_k Phi_{k+1} - Phi_k                  so that      G'_k = G_k - Phi_k

    Phi is in units of return; it may be of the state or of the history. Ng, Harada & Russell 1999, eq. 2:
    every policy's return moves by the same Phi_0, so policies keep their order.

    The potential after a true end has to be 0, which d = 0 makes it (Grzes 2017). A row that was cut keeps
    d Phi of its final state, and a critic's value there must be of the shaped rewards. Special case: a critic
    that learns V - Phi sees the same advantages as one that learns V from unshaped rewards, so shaping only
    says where the critic begins (Wiewiora 2003).
    """
    shaped = rewards + discounts * potentials[:, 1:] - potentials[:, :-1]
    return torch.where(mask, shaped, 0.0)
