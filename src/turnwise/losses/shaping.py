"""Rewards that guide without changing what is best."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def potential_shaped(
    rewards: Float[Tensor, "B A"],
    discounts: Float[Tensor, "B A"],
    potentials: Float[Tensor, "B A1"],
    mask: Bool[Tensor, "B A"],
) -> Float[Tensor, "B A"]:
    """r_k + d_k Phi_{k+1} - Phi_k, 0 where masked; Phi in units of return, of the history or of the state.

    Ng, Harada & Russell 1999, eq. 2: returns become G - Phi_0 whatever is done, so policies keep their order.
    That needs a potential of 0 after a true end, which d = 0 says (Grzes 2017). A critic that is to see the
    same advantages learns V - Phi: shaping is where the critic begins (Wiewiora 2003). A row that is cut
    keeps d Phi of its final state, and a critic's value there must be of the shaped rewards.
    """
    shaped = rewards + discounts * potentials[:, 1:] - potentials[:, :-1]
    return torch.where(mask, shaped, 0.0)
